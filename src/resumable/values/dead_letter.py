"""Items that were given up, kept in place of their result.

A letter is stored plain, whatever its item is, so that it can be read where the item cannot: `codec="plain"`, a class that
is gone. The item is encoded by itself inside; what cannot be saved, or holds a secret, is described instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from resumable._fastlog import decode_plain, encode_plain
from resumable.errors import ReconnectError, UndecodableStateError, UnsavableStateError
from resumable.values.containers import CONTAINERS
from resumable.values.excerpt import NotKept, show
from resumable.values.registry import type_name
from resumable.values.secrets import mask_value

_TIERS: Final = range(3)    # no letter inside a letter
_PARTS: Final = (int, str, str, str, int, float, int, bytes, str, str, int, bytes | None, list)     # the types of what is stored
_Encode = Callable[[Any], tuple[int, bytes, Sequence[memoryview]]]
_SHOWN: Final = 4096        # characters of an item that is described


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item that was given up after `attempts` attempts, and the exception of the last one, without secrets.

    index: the item's place, for a batch that of its first item. item: the item, for a batch a list; a NotKept if it cannot
    be saved or read back, or holds a secret. type, message, traceback: of the exception, as in a Failure. time: of the last
    attempt. count: how many items it stands for, more than 1 for a batch. keys: what a loop with `key=` knows these by.
    """

    index: int
    item: Any
    type: str
    message: str
    traceback: str
    attempts: int
    time: datetime
    count: int = 1
    keys: bytes = field(default=b"", repr=False)


def freeze_letter(letter: DeadLetter, encode: _Encode) -> bytes:
    """The letter in plain form; `encode` makes (tier, data, buffers) of its item, or raises UnsavableStateError."""
    tier, data, buffers = _encoded(letter.item, encode)
    return bytes(encode_plain((
        letter.index, letter.type, letter.message, letter.traceback, letter.attempts, letter.time.timestamp(), letter.count,
        letter.keys, type_name(letter.item), show(letter.item, _SHOWN), tier, data, buffers,
    )))


def thaw_letter(frozen: Any, decode: Callable[[int, bytes, Sequence[Any]], Any]) -> DeadLetter:
    """Read back what `freeze_letter` made. Raises ValueError, TypeError, OverflowError for bytes that it never makes."""
    parts = decode_plain(frozen)
    if not (isinstance(parts, tuple) and len(parts) == len(_PARTS) and all(map(isinstance, parts, _PARTS))):
        raise ValueError("it is no dead letter")
    index, kind, message, trace, attempts, time, count, keys, item_type, shown, tier, data, buffers = parts
    if tier not in _TIERS:
        raise ValueError("the item of a dead letter has an unknown tier")
    item: Any = NotKept(item_type, shown)
    if data is not None:
        with suppress(UndecodableStateError, ReconnectError):   # what failed and why is worth having without it
            item = decode(tier, data, buffers)
    return DeadLetter(index, item, kind, message, trace, attempts, datetime.fromtimestamp(time, UTC), count, keys)


def _encoded(item: Any, encode: _Encode) -> tuple[int, bytes | None, list[bytearray]]:
    """Its tier, bytes and buffers; no bytes for an item that is described."""
    if not _same(item, mask_value(item)):
        return 0, None, []
    try:
        tier, data, buffers = encode(item)
    except UnsavableStateError:
        return 0, None, []
    return tier, data, [bytearray(buffer) for buffer in buffers]


def _same(item: Any, masked: Any) -> bool:
    """Whether masking has changed nothing: what is no plain container or text comes back from it as it is."""
    kind = type(item)
    if kind is not type(masked):
        return False
    if kind is dict:
        return len(item) == len(masked) and all(map(_same, item.items(), masked.items()))
    if kind in (list, tuple):
        return len(item) == len(masked) and all(map(_same, item, masked))
    return item is masked or (kind in CONTAINERS | {str, bytes} and bool(item == masked))
