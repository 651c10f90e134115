"""Effects outside of what the library manages: how to tell that one was had already, and how to let a server tell."""

from __future__ import annotations

import os
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import wraps
from hashlib import blake2b
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from resumable._fastlog import encode_plain

if TYPE_CHECKING:
    from resumable.runs.live import LiveRun

P = ParamSpec("P")
R = TypeVar("R")

_BYTES = 24     # 32 characters


ORIGIN: Final = "origin"
"""In a run's description: number and beginning of the run whose items it does again, which keep their keys."""


def origin_of(number: int, meta: Mapping[str, Any]) -> tuple[int, int]:
    """Which run's keys a run with this description has."""
    number, begun = meta.get(ORIGIN) or (number, meta["started"])
    return number, begun


def key_of(run: LiveRun, place: object) -> str:
    """The idempotency key of an item: of its index, or of whatever plain value tells it from the run's other items.

    The same in each life of the run and at each attempt; no other item, run or state directory has it. 32 characters of A-Z,
    a-z, 0-9, - and _. The first one of a life waits for the disk, so that a power cut does not
    make it another run. Raises StorageError.
    """
    run.secure_beginning()
    number, begun = run.described(ORIGIN) or (run.number, run.begun)
    told = (run.identity.name, number, begun, place)
    return urlsafe_b64encode(blake2b(bytes(encode_plain(told)), digest_size=_BYTES).digest()).decode()


def skip_if_exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is something at this path, so that an item whose effect is that file can be left out.

    `if skip_if_exists(target): continue`. It must come into being whole: a download that was killed half way would be taken for
    done (write beside it and `os.replace`, or by `resumable.open`). A link that leads nowhere is nothing. Raises OSError where it
    cannot be told, as in a directory that may not be read.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def idempotent(
    check: Callable[P, Any], on_skip: Callable[P, object] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function that need not be called if `check`, with the same arguments, says that its effect was had.

    check: what is false lets the function be called; what is true is given back in place of its value.
    on_skip: called with the arguments when the function is not.

    For a coroutine function both may be coroutine functions, too.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if iscoroutinefunction(function):
            return cast("Callable[P, R]", _idempotent_async(function, check, on_skip))

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            found = check(*args, **kwargs)
            if not found:
                return function(*args, **kwargs)
            if on_skip is not None:
                on_skip(*args, **kwargs)
            return cast(R, found)

        return call

    return decorate


def _idempotent_async(function: Callable[P, Any], check: Callable[P, Any], on_skip: Callable[P, Any] | None) -> Callable[P, Any]:
    @wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        found = await _settled(check(*args, **kwargs))
        if not found:
            return await function(*args, **kwargs)
        if on_skip is not None:
            await _settled(on_skip(*args, **kwargs))
        return found

    return call


async def _settled(answer: Any) -> Any:
    return await answer if isawaitable(answer) else answer
