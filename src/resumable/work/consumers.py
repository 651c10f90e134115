"""Who asks for a loop's items: only a `for` in the user's own frame comes back when an item is done.

At the first item the caller's instruction says whether it is a `for`. That is the same for `enumerate(items)` and the like, so
whoever holds the iterator is looked for, too: nobody, if the `for` stands directly over it.
"""

from __future__ import annotations

import dis
import gc
import types
from typing import Any, NoReturn

from resumable.errors import ItemsConsumerError

_FOR = frozenset(dis.opmap[name] for name in ("FOR_ITER",))
_ASYNC_FOR = frozenset(dis.opmap[name] for name in ("GET_ANEXT",))
_COMPREHENSIONS = ("<listcomp>", "<setcomp>", "<dictcomp>")
_ONE_TO_ONE = (map, filter)


def is_a_for(iterator: object, frame: types.FrameType, code: types.CodeType) -> bool:
    """Whether a `for` in this code goes over the iterator, one by one. `frame` asks for the first item.

    Raises ItemsConsumerError for what would be wrong after a resume.
    """
    holder = iterator
    while (found := _holder(holder)) is not None:
        if isinstance(found, enumerate | zip):
            _refuse(found)
        if not isinstance(found, _ONE_TO_ONE):
            return False
        holder = found
    if _is_progress_bar(frame):
        if frame.f_back is None:
            return False
        frame = frame.f_back
    return frame.f_code.co_code[frame.f_lasti] in _FOR and _belongs(frame.f_code, code)


def is_an_async_for(iterator: object, frame: types.FrameType, code: types.CodeType) -> bool:
    """Whether an `async for` in this code goes over the iterator. `frame` asks for the first item."""
    return _holder(iterator) is None and frame.f_code.co_code[frame.f_lasti] in _ASYNC_FOR and _belongs(frame.f_code, code)


def _belongs(code: types.CodeType, home: types.CodeType) -> bool:
    """Whether it is the code, or, before CPython 3.12, one of its comprehensions."""
    return code is home or (code.co_name in _COMPREHENSIONS and code in home.co_consts)


def _is_progress_bar(frame: types.FrameType) -> bool:
    """tqdm goes over its items in a generator of its own, which gives out each before it asks for the next."""
    return str(frame.f_globals.get("__name__", "")).startswith("tqdm.")


def _holder(iterator: object) -> Any:
    """The one object that holds the iterator; a frame's stack and locals are none. Of several, any that is no map or filter."""
    found: Any = None
    holders = _holders(iterator)
    for one in holders:
        # What takes several iterators keeps them in a tuple.
        for holder in _holders(one, holders) if type(one) is tuple else (one,):
            if found is None or not isinstance(holder, _ONE_TO_ONE):
                found = holder
    return found


def _holders(held: object, ours: object = None) -> tuple[Any, ...]:
    """What refers to an object, but for frames and `ours`."""
    # Whoever came to hold it since is as young as it is or younger: mostly there is no need to look through all objects.
    # No comprehension here: its cells would hold what they look for, and be among it.
    young = gc.get_objects(generation=0)
    found, is_young = [], False
    for one in young:
        is_young |= one is held
        for part in gc.get_referents(one):
            if part is held:
                found.append(one)
    if not is_young:
        found = gc.get_referrers(held)
    holders = []
    for one in found:
        if one is not young and one is not found and one is not ours and not isinstance(one, types.FrameType):
            holders.append(one)
    return tuple(holders)


def _refuse(found: object) -> NoReturn:
    what = type(found).__name__
    instead = "items(enumerate(xs), ...)" if what == "enumerate" else "items(zip(xs, ys), ...)"
    raise ItemsConsumerError(
        f"{what}() around a loop's items would begin at 0 again after a resume, while the items go on: put it inside, "
        f"`for i, x in driver.{instead}`", consumer=what,
    )
