"""Where in a state the value stands that cannot be saved: `state["conn"].pool[0]`.

Used after a failure only, so it may be slow: the state is pickled once more by a pickler in Python that remembers which
objects it is inside of. That chain is what the pickler truly met; the names for its hops are then looked up.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import MethodType, ModuleType
from typing import Any, Final

from resumable.values.stand_in import is_stand_in

_PLAIN: Final = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, range, slice})
_PLAIN_CONTAINERS: Final = frozenset({tuple, list, dict, set, frozenset})
_PLAIN_DEPTH: Final = 100
_MEMBERS: Final = {MethodType: ("__self__",), partial: ("func", "args", "keywords")}


def locate(pickler: Any, value: Any, root: str) -> tuple[str, Any]:
    """The path to the innermost object that a `python_pickler` cannot get through with, and the object."""
    with suppress(Exception):  # that it fails is known; only where is not
        pickler.dump(value)
    stack = pickler.stack or [value]
    return _path(stack, root), stack[-1]


def find(part: object, value: object, root: str) -> str | None:
    """The path to the very object `part` inside of a value; None if it cannot be reached by names."""
    waiting, seen = deque([(root, value)]), {id(value)}
    while waiting:
        path, inner = waiting.popleft()
        if inner is part:
            return path
        if type(inner) in _PLAIN or isinstance(inner, type | ModuleType) or is_stand_in(inner):
            continue  # to look into a stand-in is to use it
        for step, item in _parts(inner):
            if id(item) not in seen:
                seen.add(id(item))
                waiting.append((path + step, item))
    return None


def _path(stack: list[Any], root: str) -> str:
    """Hops without a name (the arguments and state dict of a reduced object) lead to the next one that has one."""
    path, anchor = root, stack[0]
    for obj in stack[1:]:
        step = next((step for step, part in _parts(anchor) if part is obj), None)
        if step is not None:
            path, anchor = path + step, obj
    return path


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a value consists of, each with the text that leads there."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield f"[{_shown(key)}]", item
            yield f".keys() -> {_shown(key)}", key
    elif isinstance(value, (list, tuple, deque)):
        names: tuple[str, ...] = getattr(value, "_fields", ())
        for index, item in enumerate(value):
            yield f".{names[index]}" if index < len(names) else f"[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in value:
            yield " -> an element", item
    for name, item in _attributes(value):
        yield f".{name}", item


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    slots = (vars(base).get("__slots__", ()) for base in type(value).__mro__)
    names = [name for some in slots for name in ([some] if isinstance(some, str) else some)]
    for name in [*names, *_MEMBERS.get(type(value), ())]:
        with suppress(AttributeError):  # a slot that is not set
            yield name, getattr(value, name)
    code, cells = getattr(value, "__code__", None), getattr(value, "__closure__", None)
    if code is not None and cells:
        for name, cell in zip(code.co_freevars, cells, strict=True):
            with suppress(ValueError):  # not bound yet
                yield f"__closure__[{name}]", cell.cell_contents


def _shown(key: Any) -> str:
    text = json.dumps(key, ensure_ascii=False) if type(key) is str else repr(key)
    return text if len(text) <= 60 else f"{text[:57]}..."


def unplain(value: Any, root: str) -> tuple[str, Any, str]:
    """The first part of a value that tier 0 cannot hold: its path, itself, and why."""
    seen: set[int] = set()
    waiting = [(root, value, 0)]
    while waiting:
        path, part, depth = waiting.pop()
        kind = type(part)
        if kind not in _PLAIN and kind not in _PLAIN_CONTAINERS:
            return path, part, "it is no plain value of an exact builtin type"
        if kind in (list, dict, set, bytearray):
            if id(part) in seen:
                return path, part, "it stands in the state twice, and one object is to come back as one"
            seen.add(id(part))
        if depth > _PLAIN_DEPTH:
            return path, part, f"it is more than {_PLAIN_DEPTH} levels deep"
        if kind in _PLAIN_CONTAINERS:
            waiting += [(path + step, inner, depth + 1) for step, inner in reversed(list(_parts(part)))]
    return root, value, "it is no plain value"
