"""The stores of the package against the one contract."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resumable.errors import StorageError
from resumable.storage.lmdb_log import LmdbStore
from resumable.storage.memory import MemoryStore
from resumable.storage.store import Store
from resumable.testing import StoreContract


class TestMemoryStore(StoreContract):
    def make_store(self, tmp_path: Path) -> Store:
        return MemoryStore()


class TestLmdbStore(StoreContract):
    def make_store(self, tmp_path: Path) -> Store:
        return LmdbStore(tmp_path / "log")

    def reopen(self, store: Store, tmp_path: Path) -> Store:
        store.close()
        return LmdbStore(tmp_path / "log")


class PutsBeforeDeletes(MemoryStore):
    def commit(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        super().commit(puts, [])
        super().commit([], deletes)


class CommitsInPieces(MemoryStore):
    def commit(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        super().commit([], deletes)
        for put in puts:
            super().commit([put], [])
            time.sleep(0)


class LastOfAll(MemoryStore):
    def last(self, prefix: bytes) -> tuple[bytes, bytes] | None:
        return super().last(b"")


class ScansOneBatch(MemoryStore):
    def _scan(self, prefix: bytes, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from self._batch(prefix, start)


class WorksInTheChild(MemoryStore):
    def _check_usable(self) -> None:
        if self._closed:
            raise StorageError("closed")


@pytest.mark.parametrize("make", [PutsBeforeDeletes, CommitsInPieces, LastOfAll, ScansOneBatch, WorksInTheChild])
def test_the_suite_finds_a_wrong_store(make: type[MemoryStore], tmp_path: Path) -> None:
    """A store that breaks one property of the contract fails the suite."""

    class Suite(StoreContract):
        def make_store(self, tmp_path: Path) -> Store:
            return make()

    failed = []
    for name in [name for name in dir(Suite) if name.startswith("test_") and "reopening" not in name]:
        try:
            getattr(Suite(), name)(tmp_path)
        except AssertionError:
            failed.append(name)
    assert failed


# A small alphabet makes keys collide and share prefixes; 0xff is the byte that has no successor.
parts = st.lists(st.sampled_from([0, 97, 255]), max_size=4).map(bytes)
keys = parts.filter(bool)
commits = st.tuples(st.lists(st.tuples(keys, st.binary(max_size=5)), max_size=6), st.lists(keys, max_size=4))


@pytest.mark.parametrize(
    "make", [lambda _: MemoryStore(), lambda path: LmdbStore(path / "log")], ids=["memory", "lmdb"]
)
@settings(max_examples=60, deadline=None)
@given(history=st.lists(commits, max_size=6), prefix=parts, start=parts)
def test_a_store_behaves_like_a_sorted_dict(
    make: Callable[[Path], Store],
    history: list[tuple[list[tuple[bytes, bytes]], list[bytes]]],
    prefix: bytes,
    start: bytes,
) -> None:
    """After any commits, a store answers as a dict would that had its keys sorted."""
    model: dict[bytes, bytes] = {}
    with tempfile.TemporaryDirectory() as directory, closing(make(Path(directory))) as store:
        for puts, deletes in history:
            store.commit(puts, deletes)
            for key in deletes:
                model.pop(key, None)
            model.update(puts)
        entries = [(key, model[key]) for key in sorted(model) if key.startswith(prefix)]
        assert list(store.scan(prefix)) == entries
        assert list(store.scan(prefix, start)) == [entry for entry in entries if entry[0] >= start]
        assert store.last(prefix) == (entries[-1] if entries else None)
        assert all(store.get(key) == value for key, value in model.items())
