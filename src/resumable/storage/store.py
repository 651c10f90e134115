"""The store protocol: an ordered map of bytes to bytes with atomic, durable commits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

MAX_KEY = 511
FORMAT_KEY = b"format"

# A batch of a scan ends at whichever of the two comes first, so that neither many nor large entries fill the memory.
BATCH_ENTRIES = 256
BATCH_BYTES = 1 << 20


class Store(Protocol):
    """An ordered map of bytes to bytes. This docstring is the contract; `resumable.testing.StoreContract` tests it.

    **An entry** is a key of 1 to 511 bytes and a value of 0 bytes up to some gigabytes. Keys are ordered as unsigned
    bytes. The key `b"format"` is the store's own: it is never shown and never written through `commit`.

    **A commit** is all or nothing, for other threads and processes as well as after a crash. When it returns, its
    entries are as durable as the store can make them; for the LMDB store that is on disk. When it raises, they are not
    there, or the disk failed so late that they are: the same commit may be made again, which changes nothing more.
    Every earlier commit is untouched either way, and the store can be used on once the cause is gone.

    **A read** sees the last commit that was finished when it began. Bytes that are not what was stored raise
    `DamagedLogError`; they are never returned.

    **Threads** may call any method at any time. **Processes**: a store belongs to the process that made it; in a
    forked child every method but `close` raises `ForkedError`, and the child makes a store of its own.

    **Errors**: a key that is no valid key raises ValueError before anything is written. Everything else is a
    `StorageError`: `DiskFullError`, `ReadOnlyError`, `DamagedLogError`, and plain `StorageError` for the rest, which
    includes any use after `close`.
    """

    def get(self, key: bytes) -> bytes | None:
        """The value of this key, or None."""

    def last(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        """The entry with the highest key that starts with `prefix`, or None."""

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The entries whose keys start with `prefix` and are not below `start`, ascending.

        They are read in batches, so that a slow consumer holds nothing up. Each batch is a consistent snapshot; commits
        made meanwhile show in later batches. An entry that is there all the while comes exactly once.
        """

    def commit(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """Delete, then put, as one step. Deleting a missing key is no error; of two puts to a key the later counts."""

    def size(self) -> int:
        """The bytes this store takes up where it lives."""

    def close(self) -> None:
        """Give everything back. Closing twice is no error."""


def is_key(key: bytes) -> bool:
    """Whether an entry can have this key."""
    return 1 <= len(key) <= MAX_KEY and key != FORMAT_KEY


def check_keys(puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
    """Raise ValueError unless every key of this commit is one."""
    for key in (*(key for key, _ in puts), *deletes):
        if not is_key(key):
            raise ValueError(f"no key: {key[:32]!r} of {len(key)} bytes (1 to {MAX_KEY} bytes, and not {FORMAT_KEY!r})")
