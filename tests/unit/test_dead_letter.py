"""Dead letters as bytes: what they keep of an item that cannot be saved, is secret, or cannot be read back."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from resumable import DeadLetter, UndecodableStateError
from resumable._fastlog import decode_plain, encode_plain
from resumable.values.codec import DILL, LETTER, PICKLE, Codec
from resumable.values.dead_letter import thaw_letter
from resumable.values.excerpt import NotKept
from resumable.values.known_secrets import remember

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def letter(item: Any) -> DeadLetter:
    return DeadLetter(7, item, "ValueError", "no", "Traceback", 3, WHEN)


def there_and_back(item: Any, *, mode: Any = "auto", read: Any = "auto") -> Any:
    encoded = Codec(mode).encode(letter(item), root="result")
    assert (encoded.tier, encoded.buffers) == (LETTER, ())
    found = Codec(read).decode(encoded.tier, encoded.data)
    assert isinstance(found, DeadLetter)
    assert (found.index, found.type, found.message, found.traceback, found.attempts, found.time) == (
        7, "ValueError", "no", "Traceback", 3, WHEN,
    )
    return found.item


ITEMS = [None, 5, "text", {"a": [1, (2,)]}, {1, 2}, WHEN, [WHEN, "x"], b"\xff"]


@pytest.mark.parametrize("item", ITEMS, ids=repr)
def test_items_come_back(item: Any) -> None:
    """Whatever can be saved comes back as it was, of its own type."""
    found = there_and_back(item)
    assert found == item
    assert type(found) is type(item)


def test_large_arrays_come_back() -> None:
    """An array comes back writable, with its buffer."""
    found = there_and_back([np.arange(100_000)])
    found[0][5] = -1
    assert (found[0][4], found[0][5]) == (4, -1)


def test_a_local_function_comes_back() -> None:
    """What only dill can save is an item like any other."""
    assert there_and_back(lambda: 5)() == 5


def test_what_cannot_be_saved_is_described() -> None:
    """An item that cannot be saved never keeps its letter from being: it is described."""
    found = there_and_back(threading.Thread())
    assert isinstance(found, NotKept)
    assert "Thread" in found.type_name
    assert "Thread" in found.shown


@pytest.mark.parametrize("item", [
    "https://me:hunter2hunter2@host/", {"password": "hunter2hunter2"}, ["Bearer abc123DEF456"], ("known-and-met-secret", WHEN),
    {"a": {"known-and-met-secret"}},
], ids=str)
def test_secrets_are_not_kept(item: Any) -> None:
    """An item with a secret in it is described without it."""
    remember("known-and-met-secret")
    data = Codec().encode(letter(item), root="result").data
    for secret in (b"hunter2hunter2", b"abc123DEF456", b"known-and-met-secret"):
        assert secret not in data
    found = there_and_back(item)
    assert isinstance(found, NotKept)
    assert "***" in found.shown


def test_a_codec_that_never_unpickles() -> None:
    """With codec="plain" letters are written and read; an item that is not plain is described there, never unpickled."""
    assert there_and_back([1], mode="plain", read="plain") == [1]
    assert isinstance(there_and_back(WHEN, mode="plain"), NotKept)
    assert isinstance(there_and_back(WHEN, read="plain"), NotKept)


def test_an_item_that_cannot_be_read_back() -> None:
    """A letter whose item cannot be read back, its class being gone for instance, is read all the same."""
    parts = list(decode_plain(Codec().encode(letter(WHEN), root="result").data))
    assert parts[-3] == PICKLE
    for tier, data in ((PICKLE, b"\x80\x05cnot_there\nAtAll\n."), (DILL, b"nonsense")):
        found = thaw_letter(encode_plain((*parts[:-3], tier, data, [])), Codec().decode)
        assert isinstance(found.item, NotKept)


@pytest.mark.parametrize("bad", [(), 5, None, "12345678901", (1,) * 11])
def test_bytes_that_are_no_letter(bad: Any) -> None:
    """Bytes that no letter was ever made of are an UndecodableStateError."""
    with pytest.raises(UndecodableStateError):
        Codec().decode(LETTER, encode_plain(bad))


def test_no_letter_inside_a_letter() -> None:
    """Crafted bytes with a letter as a letter's item are refused, so that they cannot be nested for ever."""
    data = Codec().encode(letter(1), root="result").data
    parts = decode_plain(data)
    with pytest.raises(UndecodableStateError):
        Codec().decode(LETTER, encode_plain((*parts[:-3], LETTER, data, [])))


def test_a_state_is_no_letter() -> None:
    """Only as a result is a letter one: a state that is a DeadLetter is saved like any other object."""
    encoded = Codec().encode(letter(1))
    assert encoded.tier == PICKLE
    assert Codec().decode(encoded.tier, encoded.data) == letter(1)
