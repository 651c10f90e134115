"""A store in memory, for tests and `Driver(":memory:")`: the whole contract, and nothing survives the process."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence

from resumable._fastlog import fork_count
from resumable.errors import ForkedError, StorageError
from resumable.storage.store import BATCH_BYTES, BATCH_ENTRIES, check_keys


class MemoryStore:
    """A `Store` that keeps its keys sorted in a list and its values in a dict."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._values: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._forks = fork_count()
        self._closed = False

    def get(self, key: bytes) -> bytes | None:
        self._check_usable()
        with self._lock:
            return self._values.get(key)

    def last(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        self._check_usable()
        with self._lock:
            # Keys that start with the prefix stand together, behind those below it.
            end = bisect_right(self._keys, prefix, key=lambda key: key[: len(prefix)])
            if end == 0 or not self._keys[end - 1].startswith(prefix):
                return None
            return self._keys[end - 1], self._values[self._keys[end - 1]]

    def scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        self._check_usable()
        return self._scan(prefix, max(prefix, start))

    def _scan(self, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        while batch := self._batch(prefix, start):
            yield from batch
            start = batch[-1][0] + b"\0"

    def _batch(self, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        self._check_usable()
        batch: list[tuple[bytes, bytes]] = []
        taken = 0
        with self._lock:
            first = bisect_left(self._keys, start)
            for key in self._keys[first : first + BATCH_ENTRIES]:
                if taken >= BATCH_BYTES or not key.startswith(prefix):
                    break
                batch.append((key, self._values[key]))
                taken += len(self._values[key])
        return batch

    def commit(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        self._check_usable()
        check_keys(puts, deletes)
        with self._lock:
            for key in deletes:
                if self._values.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            for key, value in puts:
                if key not in self._values:
                    insort(self._keys, bytes(key))
                self._values[bytes(key)] = bytes(value)

    def size(self) -> int:
        self._check_usable()
        with self._lock:
            return sum(len(key) + len(value) for key, value in self._values.items())

    def close(self) -> None:
        self._closed = True

    def _check_usable(self) -> None:
        if self._forks != fork_count():
            raise ForkedError("the store in memory belongs to the parent process (make one in the child)")
        if self._closed:
            raise StorageError("the store in memory is closed (make a new one)")
