"""The reconnect registry: which types are described instead of pickled, and how they come back.

A live resource (a connection, a session, an open file) is never pickled. Its *handler* extracts a description, which
is scanned for secrets and stored in its place, and reconnects from that description on resume. The registry is asked
for the type of every object that pickle would otherwise take apart, however deep in a state, before anything of it is
pickled. Subclasses are found through the MRO, the exact type first.

A type's handler is, in this order: one registered with the Driver, one registered for all, a plugin's, a built-in one.
The last two are found by the type's name, so no library is imported before a state holds one of its objects. Types in
`handlers.refused` stand for something that ends with the process; they are refused by name, where dill would bring back
a ghost.
"""

from __future__ import annotations

import inspect
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import Any, Final

from resumable.errors import LiveResourceError, ReconnectError, ResumableError, UnsavableStateError
from resumable.values import plugins, secrets
from resumable.values.handlers import BUILT_IN, OPT_IN
from resumable.values.handlers.refused import REFUSED

_MOST_TYPES: Final = 4096  # kept in a cache before it starts anew: classes made in a loop must not pile up
INJECTED: Final = "resumable:resource"  # the key of a resource that the Driver gave the job
_PICKLES_ITSELF: Final = ("__reduce__", "__reduce_ex__", "__getstate__")


@dataclass(frozen=True, slots=True)
class Handler:
    """How resources of one type are described and rebuilt.

    key: the type's name as stored in a state, "module:qualname".
    extract: resource -> description: plain data, importable names, other resources; no secrets but in fields the scan knows.
    reconnect: description -> resource, or a coroutine that gives it, for jobs under `arun`.
    identify: resource -> what of it counts when arguments are compared between runs; `extract` when not given.
    opt_in: why it is refused until the user asks for it, and in brackets how to do without.
    eager: rebuilt when the state is handed to the job, not at the first use.
    max_attempts: how often a rebuild that may work later is tried.
    may_hold_secrets: False where nothing in a description can be one; then it is not scanned.
    is_value: no live resource but a value that pickle does not take apart rightly: `extract` gives what `__reduce__` would.
    """

    key: str
    extract: Callable[[Any], Any]
    reconnect: Callable[[Any], Any]
    identify: Callable[[Any], Any] | None = None
    opt_in: str | None = None
    eager: bool = True
    max_attempts: int = 5
    may_hold_secrets: bool = True
    is_value: bool = False

    def identity(self, resource: Any) -> Any:
        return (self.identify or self.extract)(resource)


class Registry:
    """Handlers by type. What it does not know, it asks its parent; the last in the chain asks plugins and built-ins."""

    _lock = threading.RLock()  # one for all: parents and children change together

    def __init__(self, parent: Registry | None = None) -> None:
        self.unhandled: Final[set[type[Any]]] = set()  # types known to have no handler: the codec's fast path
        self._handlers: dict[type[Any], Handler] = {}
        self._found: dict[type[Any], Handler | None] = {}
        self._parent = parent
        self._children: weakref.WeakSet[Registry] = weakref.WeakSet()
        if parent is not None:
            with self._lock:
                parent._children.add(self)

    def register(
        self,
        type: type[Any],
        extract: Callable[[Any], Any] | None = None,
        reconnect: Callable[[Any], Any] | None = None,
        *,
        identify: Callable[[Any], Any] | None = None,
        eager: bool = True,
        max_attempts: int = 5,
    ) -> None:
        """See `register_reconnector`."""
        if not isinstance(type, _CLASS):
            raise TypeError(f"register_reconnector needs a class, not {type!r}")
        key = key_of(type)
        if extract is None and reconnect is None:
            handler = built_in(key)
            if handler is None or handler.opt_in is None:
                raise TypeError(f"there is nothing to opt in to for {type.__qualname__}: give extract= and reconnect=")
            handler = replace(handler, opt_in=None)
        elif callable(extract) and callable(reconnect) and (identify is None or callable(identify)):
            handler = Handler(key, extract, reconnect, identify, None, eager, max_attempts)
        else:
            raise TypeError(f"extract, reconnect and identify of {type.__qualname__} must be callable")
        if max_attempts < 1:
            raise ValueError(f"max_attempts is 1 or more, not {max_attempts!r}")
        if not eager and inspect.iscoroutinefunction(reconnect):
            raise TypeError(f"reconnect of {type.__qualname__} is a coroutine function, and no use of a stand-in can await it: "
                            f"with eager=False give a function")
        with self._lock:
            self._handlers[type] = handler
            self._forget()

    def lookup(self, cls: type[Any]) -> Handler | None:
        """The handler for objects of exactly this class, or None when they are ordinary values. Raises PluginError."""
        try:
            return self._found[cls]
        except KeyError:
            pass
        with self._lock:
            handler = self._search(cls)
            if handler is not None and handler.opt_in is not None:
                handler = _refusing(handler.key, handler.opt_in)
            if len(self._found) >= _MOST_TYPES:
                self._forget()
            self._found[cls] = handler
            if handler is None:
                self.unhandled.add(cls)
            return handler

    def handler_of(self, value: Any) -> Handler | None:
        """The handler for this object, or None when it is an ordinary value. Raises PluginError."""
        return self.lookup(type(value))

    def handler_named(self, key: str) -> Handler | None:
        """The handler whose `key` was stored in a state. Raises PluginError."""
        brought = self.brought(key)
        return brought[1] if brought is not None else built_in(key)

    def brought(self, key: str) -> tuple[type[Any], Handler] | None:
        """The class and handler that the program or a plugin registered under this name. Raises PluginError."""
        above = plugged(key.partition(":")[0].partition(".")[0]) if self._parent is None else {}
        for cls, handler in (above | self._handlers).items():
            if handler.key == key:
                return cls, handler
        return self._parent.brought(key) if self._parent is not None else None

    def covered(self) -> list[Handler]:
        """What was registered, here and in parents, the nearest first."""
        above = self._parent.covered() if self._parent is not None else []
        return [*self._handlers.values(), *above]

    def describe(self, handler: Handler, resource: Any) -> Any:
        """The description to store, secrets replaced. Raises UnsavableStateError; its path comes later."""
        description = self.extracted(handler, resource)
        if not handler.may_hold_secrets:
            return description
        return secrets.seal(description, handler.key, lambda value: self.lookup(type(value)) is not None)

    def extracted(self, handler: Handler, resource: Any) -> Any:
        """What the handler says of it, as it is. Raises UnsavableStateError; its path comes later."""
        try:
            return handler.extract(resource)
        except ResumableError:
            raise
        except Exception as error:
            reason = f"extracting it raised {type(error).__name__}: {secrets.mask_text(str(error))}"
            raise UnsavableStateError(reason, type_name=type_name(resource), reason=reason) from error

    def _search(self, cls: type[Any]) -> Handler | None:
        for base in cls.__mro__:
            handler = self._exact(base)
            if handler is not None:
                return handler
            # A subclass that says itself how it is pickled is believed, whatever its bases are.
            if any(name in vars(base) for name in _PICKLES_ITSELF) and base is not object:
                return self._first_registered(cls)
        return None

    def _first_registered(self, cls: type[Any]) -> Handler | None:
        return next((handler for base in cls.__mro__ if (handler := self._exact(base, refuse=False))), None)

    def _exact(self, cls: type[Any], refuse: bool = True) -> Handler | None:
        handler = self._handlers.get(cls)
        if handler is not None:
            return handler
        if self._parent is not None:
            return self._parent._exact(cls, refuse)
        handler = plugged(str(cls.__module__).partition(".")[0]).get(cls) or built_in(key_of(cls))
        return handler or (_refusal(cls) if refuse else None)

    def _forget(self) -> None:
        self.unhandled.clear()
        self._found.clear()
        for child in self._children:
            child._forget()


_CLASS: Final = type  # `type` is a parameter's name above


def key_of(cls: type[Any]) -> str:
    """A class's name as stored in a state."""
    return f"{cls.__module__}:{cls.__qualname__}"


def type_name(value: Any) -> str:
    """The full name of a value's class, builtins without their module."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def built_in(key: str) -> Handler | None:
    """The built-in handler of a type, by its stored name."""
    file = BUILT_IN.get(key)
    if file is None:
        return None
    # By name, as a plugin: the handlers import this file.
    module = import_module(f"{__package__}.handlers.{file}")
    handler: Handler = module.HANDLERS[key]
    return handler


@cache
def plugged(top_level: str) -> dict[type[Any], Handler]:
    """What the plugins for types of this top-level module bring. Raises PluginError."""
    found = Registry()
    plugins.bring(top_level, found.register)
    return found._handlers


def alive(resource: Any, reason: str) -> LiveResourceError:
    """The error of a resource that cannot be rebuilt. The reason says why, and in brackets what to do."""
    return LiveResourceError(reason, type_name=type_name(resource), reason=reason)


def _refusal(cls: type[Any]) -> Handler | None:
    reason = REFUSED.get(f"{cls.__module__}.{cls.__qualname__}")
    return _refusing(key_of(cls), reason) if reason is not None else None


def _refusing(key: str, reason: str) -> Handler:
    def refuse(resource: Any) -> Any:
        raise alive(resource, reason)

    return Handler(key, refuse, refuse)


GLOBAL: Final = Registry()


def _after_fork_in_child() -> None:
    Registry._lock = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_after_fork_in_child)


class _Rebuilding(threading.local):
    # No ContextVar: when memory gives out for its token and for its value, CPython 3.11 crashes.
    now: Callable[[str, Any], Any] | None = None


# What rebuilds the resources of the state that this thread decodes: called with key and description.
rebuilding: Final = _Rebuilding()


def reconnect(key: str, description: Any) -> Any:
    """What stands in a pickled state for a live resource: its name and module are part of the format."""
    if rebuilding.now is None:
        raise ReconnectError(f"a {key} comes back through a Driver alone, not from its pickled bytes")
    return rebuilding.now(key, description)


def register_reconnector(
    type: type[Any],
    extract: Callable[[Any], Any] | None = None,
    reconnect: Callable[[Any], Any] | None = None,
    *,
    identify: Callable[[Any], Any] | None = None,
    eager: bool = True,
    max_attempts: int = 5,
) -> None:
    """Let states hold objects of `type`: described by `extract`, rebuilt by `reconnect`, never pickled.

    extract(resource) returns plain data (also importable classes and functions, or other live resources) from which
    reconnect(data) makes a resource that stands where the old one stood; for jobs under `arun` it may be a coroutine
    function. Secrets in the data (`password`, `token`, ... and credentials in URLs) are kept as references to environment
    variables that hold the same value or by a resolver (`register_secret_resolver`), or refused. identify(resource)
    returns what of it counts when a job's arguments are compared between runs; without it, all that `extract` returns.

    A rebuild that fails for a reason that may pass (a connection refused, a timeout, an error of the library's own) is
    tried `max_attempts` times in all, with growing pauses, 1.5 s together for 5. With `eager=False` the job gets a
    stand-in, for which `isinstance` holds, and the resource is rebuilt when that is first used; then `reconnect` is a function.

    Without `extract` and `reconnect` this opts in to a built-in handler that is not used unasked, such as the one for
    `socket.socket`. Subclasses are covered too; a later registration wins, also over a built-in handler. It holds for all
    Drivers; `Driver.register_reconnector` is for one. Raises TypeError, ValueError.
    """
    GLOBAL.register(type, extract, reconnect, identify=identify, eager=eager, max_attempts=max_attempts)


@dataclass(frozen=True, slots=True)
class Reconnector:
    """A type whose objects states may hold: its full name, and who described it.

    type_name: "sqlite3.Connection"; "package.*" for a plugin, which is not loaded for the list.
    source: "registered", "plugin" or "built-in". opt_in: only after `register_reconnector(type)`.
    """

    type_name: str
    source: str
    opt_in: bool = False


def reconnectors(registry: Registry = GLOBAL) -> list[Reconnector]:
    """Which types of live resources are covered, by name; no library is imported to tell."""
    found = {handler.key: Reconnector(handler.key.replace(":", "."), "registered") for handler in registry.covered()}
    names = plugins.top_levels()
    plugged_in = [Reconnector(f"{name}.*", "plugin") for name in names]
    rest = [
        Reconnector(key.replace(":", "."), "built-in", key in OPT_IN) for key in BUILT_IN if key not in found
    ]
    return sorted([*found.values(), *plugged_in, *rest], key=lambda it: it.type_name)
