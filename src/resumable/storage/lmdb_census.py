"""What the log should hold, as one number that changes with every commit.

LMDB checksums none of its pages. A disk that lost a write, and gives back what a page was before, can hide entries or bring
back older ones, each of which verifies by itself. So the log's own entry, the one that names its format, also counts all
others and adds up a fingerprint of each, in the very transaction that changes them.

    u32 format, u64 transaction that wrote it, u64 entries, u64 sum of their fingerprints (modulo 2^64)
    a fingerprint: u32 CRC-32C of key and value, u32 CRC-32C of the key
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import lmdb

from resumable._fastlog import crc32c
from resumable.storage.store import FORMAT_KEY

_LAYOUT = struct.Struct("<IQQQ")
_FINGERPRINT = struct.Struct("<II")
_CHECKSUM = 4       # bytes at the head of each stored value, over key and value
_MODULUS = 1 << 64


class Census(NamedTuple):
    """Who wrote it, how many entries there are, and the sum of their fingerprints."""

    format: int
    transaction: int
    entries: int = 0
    sum: int = 0

    def pack(self) -> bytes:
        """The value of the log's own entry."""
        return _LAYOUT.pack(*self)

    @classmethod
    def unpack(cls, value: bytes) -> Census | None:
        """None for what is no such value."""
        return cls(*_LAYOUT.unpack(value)) if len(value) == _LAYOUT.size else None

    def plus(self, key: bytes, stored: bytes | memoryview) -> Census:
        """With an entry more."""
        return self._replace(entries=self.entries + 1, sum=(self.sum + _fingerprint(key, stored)) % _MODULUS)

    def minus(self, key: bytes, stored: bytes | memoryview) -> Census:
        """With an entry less."""
        return self._replace(entries=self.entries - 1, sum=(self.sum - _fingerprint(key, stored)) % _MODULUS)


def _fingerprint(key: bytes, stored: bytes | memoryview) -> int:
    return int.from_bytes(_FINGERPRINT.pack(int.from_bytes(stored[:_CHECKSUM], "little"), crc32c(key)), "little")


def difference(census: Census, transaction: lmdb.Transaction, go_through: int | None = None) -> str | None:
    """How the log is not what its census says, by a transaction with `buffers`; None if it is.

    Every entry is gone through, unless there are more than `go_through`.
    """
    entries = transaction.stat()["entries"] - 1
    # Lower it is in a copy that LMDB compacted.
    if transaction.id() > census.transaction:
        return f"its newest commit is number {transaction.id()}, and it says {census.transaction}"
    if entries == census.entries and go_through is not None and entries > go_through:
        return None
    found = _taken(census, transaction)
    if found == census and entries == census.entries:
        return None
    return f"its {found.entries} entries are not the {census.entries} that were committed"


def _taken(census: Census, transaction: lmdb.Transaction) -> Census:
    """What is there in fact: entries in order, of which each is found by its key."""
    found = census._replace(entries=0, sum=0)
    previous = b""
    with transaction.cursor() as cursor:
        for view, stored in cursor.iternext():
            key = bytes(view)
            # A page from before may lead in a circle, or elsewhere than to the keys below it.
            if key <= previous or transaction.get(key) is None:
                break
            previous = key
            if key != FORMAT_KEY:
                found = found.plus(key, stored)
    return found
