"""`@resumable.loop`: a function whose loop goes on where it was when the function is called again after a crash."""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from resumable.runs.driver import Driver, given
from resumable.work.driver import default

if TYPE_CHECKING:
    from resumable.backoff import Backoff
    from resumable.runs.progress import Progress
    from resumable.runs.settings import OnChange
    from resumable.work.decorated import LoopRecord
    from resumable.work.policy import OnError

P = ParamSpec("P")
R = TypeVar("R")

_SELF = ("self", "cls")
_OF_ITEMS = ("key", "progress", "max_attempts", "on_error", "backoff")


class LoopFunction(Generic[P, R]):
    """A function that `@resumable.loop` has made resumable. Called as before; what its loop has done is told by the rest."""

    __qualname__: str

    def __init__(self, function: Callable[P, R], options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._signature = inspect.signature(function)
        self._parameter = _parameter(function, self._signature, options["iterable_arg"])
        self._driver = _driver(options["driver"])
        if inspect.iscoroutinefunction(function):
            _mark_coroutine_function(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        # Here, so that importing the package stays light.
        from resumable.work import decorated

        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        kind = decorated.kind_of(self._function)
        call = functools.partial(decorated.Call, self._driver, self._function, bound, self._parameter, self._options)
        made: R = kind(call)
        return made

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R]:
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        return self.__qualname__        # as functions are: by name

    def __repr__(self) -> str:
        return f"<resumable.loop {self.job_name!r}>"

    @property
    def job_name(self) -> str:
        """The name of its runs; a call with arguments beside the items adds a digest of them."""
        # Here, so that importing the package stays light.
        from resumable.runs.identity import name_of

        return name_of(self._options["name"] or self._function)[0]

    @property
    def checkpoint_path(self) -> Path | None:
        """The folder in the state directory that belongs to its run while it is unfinished; None if it has none in memory."""
        # Here, so that importing the package stays light.
        from resumable.work.decorated import folder_of

        return folder_of(self._driver, self._options["name"] or self._function)

    def peek_checkpoint(self) -> LoopRecord | None:
        """How far the latest run is and how it last failed; None if nothing is kept. While it runs, too."""
        # Here, so that importing the package stays light.
        from resumable.work.decorated import peek

        return peek(self._driver, self._options["name"] or self._function)

    def clear_checkpoint(self) -> int:
        """Forget all of its runs; gives back how many there were. Raises RunLockedError while one is running."""
        return self._driver.clear(self._options["name"] or self._function)


@overload
def loop(function: Callable[P, R], /) -> LoopFunction[P, R]: ...
@overload
def loop(
    *, name: str | None = None, driver: Driver | str | os.PathLike[str] | None = None, iterable_arg: int | str = 0,
    save_every: int = 1, store_results: bool = False, keep_on_success: bool = False, verbose: bool = False,
    auto_iterate: bool = True, key: Callable[[Any], object] | None = None, progress: Progress = None,
    max_attempts: int | None = None, on_error: OnError | None = None, backoff: Backoff | None = None, fresh: bool = False,
    on_change: OnChange = "error",
) -> Callable[[Callable[P, R]], LoopFunction[P, R]]: ...
def loop(
    function: Callable[..., Any] | None = None, /, *, name: str | None = None,
    driver: Driver | str | os.PathLike[str] | None = None, iterable_arg: int | str = 0, save_every: int = 1,
    store_results: bool = False, keep_on_success: bool = False, verbose: bool = False, auto_iterate: bool = True,
    key: Callable[[Any], object] | None = None, progress: Progress = None, max_attempts: int | None = None,
    on_error: OnError | None = None, backoff: Backoff | None = None, fresh: bool = False, on_change: OnChange = "error",
) -> Any:
    """Make the `for` loop in a function resumable: called again after a crash, it leaves out the items that are done.

    The function's first argument must be what the loop goes over; inside, it is an `Items`, so the loop stays as it is:

        @resumable.loop
        def send_all(addresses):
            for address in addresses:
                send(address)

    name: the run's name; by default the function's module and name, plus a digest of its arguments beside the items.
    driver: a Driver or a state directory; by default the default Driver.
    iterable_arg: which parameter the items come in, by position (not counting self) or name.
    save_every: save each N-th mark only; a kill repeats up to N items.
    store_results: keep what `items.record(value)` gives as each item's result. Of a generator function: what it yields for each
        item is kept, and comes first when it is called again after a crash.
    keep_on_success: what it returned is kept, and a further call does nothing and returns that. Without it, all is forgotten
        when the function returns, and a further call begins anew.
    key: a function of an item that says which one it is, for items that come, go and change places: see `Driver.items`.
    max_attempts, on_error, backoff: what becomes of items that fail: see `Driver.items`. An exception leaves the function, which
        is never called again by itself; inside `with items.attempt():` it does not. Dead letters keep the finished run.
    verbose, progress: tell on stderr how it fares, and show how far it is: see `Driver.items`.
    auto_iterate: False for what is no loop: nothing is done with the items, `resumable.save(page=3)` saves a state of your own,
        and `resumable.saved(default)` gives it back.
    fresh: each call begins anew. on_change: what other items mean: "error", "continue" at the same place, or "restart".

    For plain functions, methods, generator functions, coroutine functions and async generator functions. An item is done when
    the `for` comes back for the next one (see `Driver.items`); the run is finished when the function returns, also from inside
    the loop. An exception leaves it where it was, with the item at hand to be done again.
    """
    if function is not None and not callable(function):
        raise TypeError(f"@resumable.loop stands above a function, not {function!r} (options are keywords: @loop(name=...))")
    options = {
        "name": name, "driver": driver, "iterable_arg": iterable_arg, "save_every": save_every,
        "store_results": store_results, "keep_on_success": keep_on_success, "verbose": verbose, "auto_iterate": auto_iterate,
        "key": key, "progress": progress, "max_attempts": max_attempts, "on_error": on_error, "backoff": backoff,
        "call": given(fresh=fresh, on_change=on_change),
    }
    _check_options(options)
    if function is None:
        return functools.partial(_decorated, options=options)
    return _decorated(function, options)


def _decorated(function: Callable[P, R], options: dict[str, Any]) -> LoopFunction[P, R]:
    """Raises TypeError, ValueError."""
    if not hasattr(inspect.unwrap(function), "__code__"):
        raise TypeError(f"@resumable.loop stands above a function with a `for`, and {function!r} has no code of its own")
    return LoopFunction(function, options)


def save(**state: Any) -> None:
    """Save a state in a function that is decorated with `@resumable.loop(auto_iterate=False)`: `resumable.save(page=3)`.

    It survives kill -9 when this returns, and takes the place of the one before. Raises UnsavableStateError, StorageError.
    """
    # Here, so that importing the package stays light.
    from resumable.work.decorated import current_manual

    current_manual("save").save(state)


def saved(default: Any = None) -> Any:
    """What `resumable.save` was last given, as a dict, by this life of the function or an earlier one; else `default`."""
    # Here, so that importing the package stays light.
    from resumable.work.decorated import current_manual

    state = current_manual("saved").state
    return default if state is None else dict(state)


def _check_options(options: dict[str, Any]) -> None:
    """Raises TypeError, ValueError."""
    count = options["save_every"]
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"save_every is an int, not {count!r}")
    if count < 1:
        raise ValueError("save_every is at least 1")
    for what in ("store_results", "keep_on_success", "verbose", "auto_iterate"):
        if not isinstance(options[what], bool):
            raise TypeError(f"{what} is True or False, not {options[what]!r}")
    if options["key"] is not None and not callable(options["key"]):
        raise TypeError(f"key is a function of an item, not {options['key']!r}")
    for what in _OF_ITEMS:
        if not options["auto_iterate"] and options[what] is not None:
            raise ValueError(f"{what} is about items, and with auto_iterate=False there are none")


def _driver(given: object) -> Driver:
    if given is None:
        return default
    if isinstance(given, Driver):
        return given
    if isinstance(given, str | os.PathLike):
        return type(default)(given)
    raise TypeError(f"driver is a Driver or a state directory, not {given!r}")


def _parameter(function: Callable[..., Any], signature: inspect.Signature, place: object) -> str:
    """The name of the parameter that the items come in. Raises TypeError, ValueError."""
    named = [
        name for name, parameter in signature.parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    what = getattr(function, "__qualname__", repr(function))
    if isinstance(place, str):
        if place not in named:
            raise ValueError(f"iterable_arg={place!r}: {what} has no such parameter, but {named}")
        return place
    if not isinstance(place, int) or isinstance(place, bool):
        raise TypeError(f"iterable_arg is the position or the name of a parameter, not {place!r}")
    counted = named[1:] if named and named[0] in _SELF else named
    if not 0 <= place < len(counted):
        raise ValueError(f"iterable_arg={place}: {what} has {len(counted)} parameters (items come in as an argument)")
    return counted[place]


def _mark_coroutine_function(wrapper: Any) -> None:
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(wrapper)
    else:
        import asyncio

        wrapper._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined] # the way before 3.12
