"""A bounded, secret-free look at any value: for messages, and for the locals of a job that failed.

`excerpt` copies plain data up to a budget and stands a `Text` wherever it cannot or need not go on, so a list of a
gigabyte costs no more than its first items. What holds no Text is the value itself, exactly. `show` makes it a text.

Values are the user's: their `__repr__` may raise anything, and then that is what is shown. What stops the process
(KeyboardInterrupt, SystemExit) is let through.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from . import secrets

_DEEPEST = 40
_MOST_BITS = 14_000  # Python refuses to write larger ints in decimal
_SIZES = {type(None): 1, bool: 1, float: 9, complex: 17}  # as the plain codec writes them


@dataclasses.dataclass(frozen=True, slots=True)
class NotKept:
    """Stands for a value that was not kept, as it is not plain data, or too large: its type and what it looked like."""

    type_name: str
    shown: str


class Text:
    """Stands in an excerpt for a value that is shown, not kept."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Excerpt(NamedTuple):
    """`copy` with secrets masked; whether it holds no Text; how many bytes it takes, as the plain codec writes it."""

    copy: object
    exact: bool
    size: int


def excerpt(value: object, budget: int, *, name: str = "") -> Excerpt:
    """A copy that goes on until about `budget` bytes are used.

    `name`: what the value is called, for a name can tell a secret. May raise what the value's own code raises.
    """
    copier = _Copier(budget)
    copy = copier.copy(value)
    (masked,) = _masked({name: copy}).values()
    return Excerpt(masked, copier.exact, budget - copier.left)


def show(value: object, limit: int = 120, *, name: str = "") -> str:
    """What `repr` would say, in at most `limit` characters and without secrets. Raises nothing."""
    try:
        text = repr(excerpt(value, limit, name=name).copy)
    except Exception as error:  # noqa: BLE001 - the value's own code, inside a message about something else
        text = _no_repr(value, error)
    return cut(text, limit)


def cut(text: str, limit: int) -> str:
    """The beginning of a text, in at most `limit` characters."""
    return text if len(text) <= limit else text[: max(limit - 3, 0)] + "..."


def _masked(fields: dict[Any, object]) -> dict[Any, object]:
    masked = secrets.mask_value(fields)
    assert isinstance(masked, dict)
    return masked


def _no_repr(value: object, error: Exception) -> str:
    return f"<{type(value).__qualname__}, whose repr raises {type(error).__qualname__}>"


class _Copier:
    """Copies until the budget is used up."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.exact = True

    def copy(self, value: Any, depth: int = 0) -> Any:
        cls = type(value)
        if cls in _SIZES:
            self.left -= _SIZES[cls]
            return value
        if cls is int or cls is str or cls is bytes or cls is bytearray:
            return self.leaf(value)
        if depth > _DEEPEST or self.left <= 0:
            return self.text("...")
        self.left -= 9
        if cls is list or cls is tuple or cls is set or cls is frozenset:
            return cls(self.items(value, depth))
        if cls is dict:
            return self.pairs(value.items(), depth)
        if cls is slice or cls is range:
            parts = self.items((value.start, value.stop, value.step), depth)
            whole = len(parts) == 3 and (cls is slice or all(type(part) is int for part in parts))
            return cls(*parts) if whole else self.text(f"{cls.__name__}(...)")
        return self.text(self.instance(value, depth))

    def leaf(self, value: Any) -> Any:
        """An int, text or bytes: whole if it fits, else its beginning."""
        if isinstance(value, int):
            size, fits = 10 + value.bit_length() // 8, value.bit_length() <= _MOST_BITS
        else:
            size = 10 + len(value) * (1 if not isinstance(value, str) or value.isascii() else 4)
            fits = size <= max(self.left, 30)
        if fits:
            self.left -= size
            return bytearray(secrets.mask_value(bytes(value))) if isinstance(value, bytearray) else value
        if isinstance(value, int):
            return self.text(f"<int of {value.bit_length():,} bits>")
        room = max(self.left, 20)
        return self.text(f"{secrets.mask_beginning(value, room, repr)}... ({len(value):,} in all)")

    def items(self, values: Iterable[object], depth: int) -> list[Any]:
        copies: list[object] = []
        for value in values:
            if self.left <= 0:
                copies.append(self.text("..."))
                break
            copies.append(self.copy(value, depth + 1))
        return copies

    def pairs(self, pairs: Iterable[tuple[object, object]], depth: int) -> dict[Any, object]:
        copies: dict[object, object] = {}
        for key, value in pairs:
            if self.left <= 0:
                copies[self.text("...")] = Text("...")
                break
            copies[self.copy(key, depth + 1)] = self.copy(value, depth + 1)
        return copies

    def text(self, text: str) -> Text:
        self.exact = False
        self.left -= len(text)
        return Text(text)

    def instance(self, value: Any, depth: int) -> str:
        """What is not plain, in words. Containers and records are walked, lest their repr be endless."""
        cls = type(value)
        writer = cls.__repr__
        if dataclasses.is_dataclass(cls) and hasattr(writer, "__wrapped__"):  # the repr that dataclasses writes
            names = [field.name for field in dataclasses.fields(cls) if field.repr]
            return self.record(cls, {name: getattr(value, name, Text("<not set>")) for name in names}, depth)
        if isinstance(value, tuple) and hasattr(cls, "_fields"):
            return self.record(cls, dict(zip(cls._fields, value, strict=False)), depth)
        if getattr(writer, "__module__", "collections") == "collections":  # not written by the user
            if isinstance(value, dict):
                return f"{cls.__qualname__}({_masked(self.pairs(value.items(), depth))!r})"
            if isinstance(value, list | tuple | set | frozenset | deque):
                return f"{cls.__qualname__}({secrets.mask_value(self.items(value, depth))!r})"
        try:
            text = repr(value)
        except Exception as error:  # noqa: BLE001 - the rest of the excerpt is worth having
            text = _no_repr(value, error)
        room = max(self.left, 40)
        return cut(secrets.mask_beginning(text, room + 1), room)

    def record(self, cls: type, fields: dict[str, object], depth: int) -> str:
        copies = _masked(self.pairs(fields.items(), depth))
        return f"{cls.__qualname__}({', '.join(f'{name}={copy!r}' for name, copy in copies.items())})"
