"""How live resources come back while a state is decoded: at once, in an event loop, or not at all.

Each of the three is called with key and description for every resource, in an order that the state's bytes fix; so a
resource is known by its number, and a state can be decoded again with those that are there already.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from resumable.errors import ReconnectError
from resumable.values import secrets
from resumable.values.explain import find
from resumable.values.registry import INJECTED, Registry, type_name
from resumable.values.stand_in import is_stand_in, stand_in

_FIRST_PAUSE: Final = 0.1  # seconds; each next one is twice as long
_LONGEST_PAUSE: Final = 5.0
# A later try would end like the first one.
_FINAL: Final = (
    FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError, TypeError,
    LookupError, AttributeError, ImportError, ArithmeticError, AssertionError, NotImplementedError, RecursionError, MemoryError,
)


@dataclass(frozen=True, slots=True)
class StoredResource:
    """What a report shows in the place of a live resource: it is not rebuilt, as its run may still be using it.

    type_name: its class. description: what it would be rebuilt from, secrets masked.
    """

    type_name: str
    description: Any


def shown(value: Any) -> Any:
    """A masked description of plain data alone: of anything else its type, as a resource's repr may hold a password."""
    kind = type(value)
    if kind is dict:
        return {key: shown(item) for key, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        return [shown(item) for item in value]
    if kind in (str, bytes, bool, int, float, type(None)):
        return value
    return f"<{value.__qualname__}>" if isinstance(value, type) else f"<{type_name(value)}>"


def stored(key: str, description: Any) -> StoredResource:
    """For reports."""
    return StoredResource(key.replace(":", "."), secrets.mask_value(description))


class AtOnce:
    """Rebuilds each resource when it is met, in the calling thread. Raises ReconnectError."""

    def __init__(self, registry: Registry) -> None:
        self.met = 0
        self.root: Any = None  # the decoded state, once it is there
        self._registry = registry
        self._made: list[tuple[str, Any]] = []

    def __call__(self, key: str, description: Any) -> Any:
        self.met += 1
        if self.met > len(self._made):
            made = self._lazily(key, description)
            self._made.append((key, made if made is not None else self._now(key, description)))
        return self._made[self.met - 1][1]

    def _now(self, key: str, description: Any) -> Any:
        return _at_once(self._registry, key, description)

    def drop(self) -> list[Coroutine[Any, Any, Any]]:
        """Close what was rebuilt for a state that will not come; gives back what has to be awaited for it."""
        # Here, as the handlers import what this file imports.
        from resumable.values.handlers.files import standard_name

        waiting: list[Coroutine[Any, Any, Any]] = []
        for key, made in reversed(self._made):
            if key == INJECTED or is_stand_in(made) or standard_name(made):
                continue  # others have it too: they close it
            with suppress(Exception):  # the error under way is the one that counts
                close = method_of(made, "aclose") or method_of(made, "close")
                ended = close() if close is not None else None
                if inspect.iscoroutine(ended):
                    waiting.append(ended)
        self._made.clear()
        return waiting

    def _lazily(self, key: str, description: Any) -> Any:
        """A stand-in, if the type was registered with eager=False. Not to be asked whether it is true: that uses it."""
        cls, handler = self._registry.brought(key) or (None, None)
        if cls is None or handler is None or handler.eager:
            return None

        def rebuild() -> Any:
            try:
                return _at_once(self._registry, key, description)
            except ReconnectError as error:
                raise placed(error, find(made, self.root, "state")) from error.__cause__

        made = stand_in(cls, (key, description), rebuild, partial(self._registry.describe, handler))
        return made


class InLoop(AtOnce):
    """For `arun`: what takes waiting, a coroutine or another try, is awaited between two goes at decoding."""

    def _now(self, key: str, description: Any) -> Any:
        try:
            made = _tried(self._registry, key, description)
        except Exception as error:
            if isinstance(error, _FINAL):
                raise failed(key, description, error) from error
            raise NotReady(key, description, tried=1) from error
        if inspect.iscoroutine(made):
            made.close()
            raise NotReady(key, description, tried=0)
        return made

    async def fetch(self, missing: NotReady) -> None:
        """Wait for what the last go at decoding lacked; the next one begins at the start. Raises ReconnectError."""
        key, description, tried = missing.key, missing.description, missing.tried
        while True:
            if tried:
                import asyncio  # the job has it; others are not to pay for it, nor for what it brings

                await asyncio.sleep(_pause(tried))
            try:
                made = _tried(self._registry, key, description)
                self._made.append((key, await made if inspect.iscoroutine(made) else made))
                break
            except Exception as error:
                tried += 1
                if _is_last(self._registry, key, tried, error):
                    raise failed(key, description, error) from error
        self.met = 0

    async def drop_in_loop(self) -> None:
        """See `drop`."""
        endings = self.drop()
        try:
            while endings:
                with suppress(Exception):
                    await endings.pop(0)
        finally:
            for ending in endings:  # cancelled once more
                ending.close()


class NotReady(BaseException):
    """Decoding cannot go on without waiting. No Exception, as a `__setstate__` of the user's is not to catch it."""

    def __init__(self, key: str, description: Any, tried: int) -> None:
        super().__init__(key)
        self.key, self.description, self.tried = key, description, tried


def method_of(value: object, name: str) -> Callable[[], Any] | None:
    """The method of that name. Some objects answer to every name: a database with a collection, a proxy with a remote call."""
    found = getattr(value, name, None)
    own = inspect.isroutine(found) or inspect.getattr_static(value, name, None) is not None
    return found if own and callable(found) else None


def _at_once(registry: Registry, key: str, description: Any) -> Any:
    tried = 0
    while True:
        try:
            made = _tried(registry, key, description)
            break
        except Exception as error:
            tried += 1
            if _is_last(registry, key, tried, error):
                raise failed(key, description, error) from error
        time.sleep(_pause(tried))
    if inspect.iscoroutine(made):
        made.close()
        raise failed(key, description, TypeError("its reconnect is a coroutine, which only a job under `arun` can wait for"))
    return made


def _tried(registry: Registry, key: str, description: Any) -> Any:
    handler = registry.handler_named(key)
    if key == INJECTED and handler is None:
        raise not_marked(description["name"])
    if handler is None:
        raise LookupError("no reconnector is registered for it (register it before the run is resumed)")
    if handler.opt_in is not None:
        raise LookupError("it comes back only where register_reconnector opted in to it (do so before the run is resumed)")
    return handler.reconnect(secrets.unseal(description))


def not_marked(name: str) -> LookupError:
    """The error of a resource that the Driver gave an earlier job, and that it does not give the one that runs now."""
    return LookupError(f"the job has no parameter that the Driver fills with it (mark one: `= resource({name!r})`)")


def _is_last(registry: Registry, key: str, tried: int, error: Exception) -> bool:
    handler = registry.handler_named(key)
    return handler is None or tried >= handler.max_attempts or isinstance(error, _FINAL)


def _pause(tried: int) -> float:
    return min(_FIRST_PAUSE * 2.0 ** (tried - 1), _LONGEST_PAUSE)


def failed(key: str, description: Any, error: Exception) -> ReconnectError:
    """The error of a resource that could not be rebuilt; its place in the state is put in later, by `placed`."""
    name = key.replace(":", ".")
    known = shown(secrets.mask_value(description))
    reason = secrets.mask_text(str(error) or type(error).__name__)
    return _reconnect_error(None, type_name=name, metadata=known, reason=reason)


def placed(error: ReconnectError, path: str | None) -> ReconnectError:
    """The same error with the resource's place in the state."""
    return _reconnect_error(path, **{name: vars(error)[name] for name in ("type_name", "metadata", "reason")})


def _reconnect_error(path: str | None, **fields: Any) -> ReconnectError:
    what = f"{path} ({fields['type_name']})" if path is not None else f"a {fields['type_name']}"
    return ReconnectError(
        f"{what} could not be rebuilt from {fields['metadata']!r}: {fields['reason']} (the checkpoint is as it was; make "
        f"the resource available and run again)", path=path, **fields,
    )
