"""Locks and the like, of threading and asyncio: new ones, held by nobody.

Whoever held or waited for one ended with its process, and a lock that came back locked would never be free again. So a
lock comes back unlocked, an event unset, a barrier with nobody at it.

Kept: a Condition's lock (one that stands elsewhere in the state too is the same one again), the full count of a
BoundedSemaphore, parties, action and timeout of a Barrier.

Not kept: who holds or waits, and whether an Event was set (keep that beside it). A plain Semaphore does not know what it
began with: it comes back with the highest count that it had at a checkpoint, and is refused while that is 0, as nobody
might ever release it. Use a BoundedSemaphore. Subclasses are refused, and what is shared between processes.

Cost: 1 to 3 µs.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, Final

from resumable.values.registry import Handler, alive, key_of

# Two classes have no name that they can be imported by.
_UNNAMED: Final[dict[str, Callable[[], Any]]] = {"_thread:lock": threading.Lock, "_thread:RLock": threading.RLock}
_BARE: Final = frozenset({*_UNNAMED, "threading:_RLock", "threading:Event", "asyncio.locks:Lock", "asyncio.locks:Event"})
_CONDITIONS: Final = frozenset({"threading:Condition", "asyncio.locks:Condition"})
_SEMAPHORES: Final = frozenset({"threading:Semaphore", "asyncio.locks:Semaphore"})
_BOUNDED: Final = {"threading:BoundedSemaphore": "_initial_value", "asyncio.locks:BoundedSemaphore": "_bound_value"}
_BARRIERS: Final = frozenset({"threading:Barrier", "asyncio.locks:Barrier"})

_highest: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()  # counts of semaphores


def extract(lock: Any) -> dict[str, Any]:
    """The arguments that make another one. Raises LiveResourceError."""
    key = key_of(type(lock))
    if key in _BARE:
        return {}
    if key in _CONDITIONS:
        return {"lock": _hidden(lock, "_lock")}
    if key in _SEMAPHORES:
        return {"value": _count(lock)}
    if key in _BOUNDED:
        return {"value": _hidden(lock, _BOUNDED[key])}
    if key == "asyncio.locks:Barrier":
        return {"parties": lock.parties}
    if key in _BARRIERS:
        return {"parties": lock.parties, "action": _hidden(lock, "_action"), "timeout": _hidden(lock, "_timeout")}
    raise alive(lock, "it is of a class of its own (keep what it guards, or use register_reconnector for that class)")


def identify(lock: Any) -> dict[str, Any]:
    """What it is; not how many hold it."""
    key = key_of(type(lock))
    return {"kind": key, **(extract(lock) if key in _BOUNDED or key in _BARRIERS else {})}


def reconnect(key: str, arguments: dict[str, Any]) -> Any:
    """A new one."""
    module, _, name = key.partition(":")
    make = _UNNAMED.get(key) or getattr(import_module(module), name)
    made = make(**arguments)
    if key in _SEMAPHORES:
        _highest[made] = arguments["value"]
    return made


def _count(semaphore: Any) -> int:
    """What a semaphore began with, as far as anyone can tell."""
    now: int = _hidden(semaphore, "_value")
    highest = _highest[semaphore] = max(now, _highest.get(semaphore, 0))
    if highest == 0:
        raise alive(semaphore, "its count is 0, and was never more at a checkpoint (use a BoundedSemaphore, or keep the count)")
    return highest


def _hidden(lock: Any, name: str) -> Any:
    """What no public attribute tells."""
    try:
        return vars(lock)[name]
    except KeyError:
        raise alive(lock, f"its {name} cannot be read on this Python (keep what it was made from)") from None


_KEYS: Final = (*_BARE, *_CONDITIONS, *_SEMAPHORES, *_BOUNDED, *_BARRIERS)
HANDLERS: Final = {key: Handler(key, extract, partial(reconnect, key), identify) for key in _KEYS}
