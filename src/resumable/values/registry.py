"""The reconnect registry: which types are described instead of pickled, and how they come back.

A live resource (a connection, a session, an open file) is never pickled. Its *handler* extracts a description, which
is scanned for secrets and stored in its place, and reconnects from that description on resume. The registry is asked
for the type of every object that pickle would otherwise take apart, however deep in a state, before anything of it is
pickled. Subclasses are found through the MRO, the exact type first.

Built-in handlers live in `handlers/` and are loaded by the name of the type's top-level module, so no library is
imported before a state holds one of its objects. Types in `handlers.refused` stand for something that ends with the
process; they are refused by name, where dill would bring back a ghost.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, Final

from resumable.errors import LiveResourceError, ReconnectError, ResumableError, UnsavableStateError
from resumable.values import secrets
from resumable.values.handlers import KINDS
from resumable.values.handlers.refused import REFUSED

_MOST_TYPES: Final = 4096  # kept in a cache before it starts anew: classes made in a loop must not pile up
_PICKLES_ITSELF: Final = ("__reduce__", "__reduce_ex__", "__getstate__")


@dataclass(frozen=True, slots=True)
class Handler:
    """How resources of one type are described and rebuilt.

    extract: resource -> description: plain data and importable names, no secrets but in fields the scan knows.
    reconnect: description -> resource.
    identify: resource -> what of it counts when arguments are compared between runs; `extract` when not given.
    """

    type: type[Any]
    extract: Callable[[Any], Any]
    reconnect: Callable[[Any], Any]
    identify: Callable[[Any], Any] | None = None
    key: str = field(init=False)
    """The type's name as stored in a state."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.type.__module__}:{self.type.__qualname__}")

    def identity(self, resource: Any) -> Any:
        return (self.identify or self.extract)(resource)


class Registry:
    """Handlers by type. What it does not know, it asks its parent; the last in the chain asks the built-in ones."""

    _lock = threading.RLock()  # one for all: parents and children change together

    def __init__(self, parent: Registry | None = None) -> None:
        self.unhandled: Final[set[type[Any]]] = set()  # types known to have no handler: the codec's fast path
        self._handlers: dict[type[Any], Handler] = {}
        self._found: dict[type[Any], Handler | None] = {}
        self._parent = parent
        self._children: weakref.WeakSet[Registry] = weakref.WeakSet()
        if parent is not None:
            parent._children.add(self)

    def register(
        self,
        type: type[Any],
        extract: Callable[[Any], Any],
        reconnect: Callable[[Any], Any],
        identify: Callable[[Any], Any] | None = None,
    ) -> None:
        """Describe objects of `type` and of its subclasses by `extract` and rebuild them by `reconnect`.

        A later registration of the same type takes the place of the earlier one. Raises TypeError when `type` is no
        class or a function is not callable.
        """
        if not isinstance(type, _CLASS):
            raise TypeError(f"register_reconnector needs a class, not {type!r}")
        if not (callable(extract) and callable(reconnect)):
            raise TypeError(f"extract and reconnect of {type.__qualname__} must be callable")
        with self._lock:
            self._handlers[type] = Handler(type, extract, reconnect, identify)
            self._forget()

    def lookup(self, cls: type[Any]) -> Handler | None:
        """The handler for objects of exactly this class, or None when they are ordinary values."""
        try:
            return self._found[cls]
        except KeyError:
            pass
        with self._lock:
            handler = self._search(cls)
            if len(self._found) >= _MOST_TYPES:
                self._forget()
            self._found[cls] = handler
            if handler is None:
                self.unhandled.add(cls)
            return handler

    def handler_named(self, key: str) -> Handler | None:
        """The handler whose `key` was stored in a state."""
        module, _, qualname = key.partition(":")
        for cls, handler in (self._handlers | _built_in(module.partition(".")[0])).items():
            if (cls.__module__, cls.__qualname__) == (module, qualname):
                return handler
        return self._parent.handler_named(key) if self._parent is not None else None

    def describe(self, handler: Handler, resource: Any) -> Any:
        """The description to store, secrets replaced. Raises UnsavableStateError; fields path and key come later."""
        try:
            description = handler.extract(resource)
        except ResumableError:
            raise
        except Exception as error:
            reason = f"extracting it raised {type(error).__name__}: {secrets.mask_text(str(error))}"
            raise UnsavableStateError(reason, type_name=type_name(resource), reason=reason) from error
        return secrets.seal(description, handler.key)

    def rebuild(self, key: str, description: Any) -> Any:
        """The resource back from what was stored. Raises ReconnectError naming the type and what it was to be."""
        name = key.replace(":", ".")
        try:
            handler = self.handler_named(key)
            if handler is None:
                raise LookupError("no reconnector is registered for it (register it before the run is resumed)")
            return handler.reconnect(secrets.unseal(description))
        except Exception as error:
            known = secrets.mask_value(description)
            why = secrets.mask_text(str(error) or type(error).__name__)
            raise ReconnectError(
                f"a {name} could not be rebuilt from {known!r}: {why} (the checkpoint is as it was; make the resource "
                "available and run again)",
                type_name=name,
                metadata=known,
            ) from error

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
        handler = _built_in(str(cls.__module__).partition(".")[0]).get(cls)
        return handler or (_refusal(cls) if refuse else None)

    def _forget(self) -> None:
        self.unhandled.clear()
        self._found.clear()
        for child in self._children:
            child._forget()


_CLASS: Final = type  # `type` is a parameter's name above


def type_name(value: Any) -> str:
    """The full name of a value's class, builtins without their module."""
    cls = type(value)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


@cache
def _built_in(top_level: str) -> dict[type[Any], Handler]:
    kind = KINDS.get(top_level)
    if kind is None:
        return {}
    # By name, as a plugin: the handlers import this file.
    module = import_module(f"{__package__}.handlers.{kind}")
    handlers: dict[type[Any], Handler] = module.handlers(top_level)
    return handlers


def alive(resource: Any, reason: str) -> LiveResourceError:
    """The error of a resource that cannot be rebuilt. The reason says why, and in brackets what to do."""
    return LiveResourceError(reason, type_name=type_name(resource), reason=reason)


def _refusal(cls: type[Any]) -> Handler | None:
    reason = REFUSED.get(f"{cls.__module__}.{cls.__qualname__}")
    if reason is None:
        return None

    def refuse(resource: Any) -> Any:
        raise alive(resource, reason)

    return Handler(cls, refuse, refuse)


GLOBAL: Final = Registry()


reading: Final[ContextVar[Registry]] = ContextVar("registry of the codec that is decoding", default=GLOBAL)


def reconnect(key: str, description: Any) -> Any:
    """What stands in a pickled state for a live resource: its name and module are part of the format."""
    return reading.get().rebuild(key, description)


def register_reconnector(type: type[Any], extract: Callable[[Any], Any], reconnect: Callable[[Any], Any]) -> None:
    """Let states hold objects of `type`: described by `extract`, rebuilt by `reconnect`, never pickled.

    extract(resource) returns plain data from which reconnect(data) makes a resource that stands where the old one
    stood. Secrets in it (`password`, `token`, ... and credentials in URLs) are kept as references to environment
    variables that hold the same value, or refused. Subclasses are covered too; a later registration wins, also over a
    built-in handler. Raises TypeError when `type` is no class or a function is not callable.
    """
    GLOBAL.register(type, extract, reconnect)
