"""The bitset against a set of ints, and its bytes against the twin."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import twin
from resumable._fastlog import Bitset

PAGES = 3
ITEMS = PAGES * 32768
# Where words, pages and the bitset itself begin and end.
EDGES = st.sampled_from([edge + by for edge in (0, 64, 32768, 65536, ITEMS) for by in (-2, -1, 0, 1)])
ITEM = st.integers(0, ITEMS - 1) | EDGES.filter(lambda item: 0 <= item < ITEMS)


@given(st.sets(ITEM, max_size=50), st.sets(st.integers(0, 40), max_size=3), st.lists(st.integers(0, ITEMS + 2) | EDGES))
def test_behaves_as_a_set(done: set[int], full_words: set[int], asked: list[int]) -> None:
    """What is set is done, nothing else is, and the counts and the next free item agree with a plain set."""
    done |= {word * 64 + bit for word in full_words for bit in range(64)}
    bits = Bitset(-1, PAGES)
    for item in done:
        bits.set(item)
        bits.set(item)
    assert bits.count() == len(done)
    assert bits.damaged() == 0
    for item in asked:
        if 0 <= item < ITEMS:
            assert bits.test(item) is (item in done)
        if item >= 0:
            assert bits.next_clear(item) == next((i for i in range(item, ITEMS) if i not in done), max(item, ITEMS))


def test_full() -> None:
    """A bitset that is full says so, and the last item is an item like others."""
    bits = Bitset(-1, 1)
    for item in range(32768):
        assert bits.next_clear() == item
        bits.set(item)
    assert (bits.count(), bits.next_clear()) == (32768, 32768)


def test_bytes_are_the_documented_ones(tmp_path: Path, seed: int) -> None:
    """The twin reads the same from the file, the owner's header stays, and a longer map of it keeps all."""
    rng = random.Random(seed)
    path = tmp_path / "bits"
    path.write_bytes(b"owner" * 800 + bytes(Bitset.file_size(PAGES) - 4000))
    fd = os.open(path, os.O_RDWR)
    bits = Bitset(fd, PAGES)
    done = set(rng.sample(range(ITEMS), 2000))
    for item in done:
        bits.set(item)
    data = path.read_bytes()
    assert {item for item in range(ITEMS) if twin.bitset_test(data, item)} == done
    assert data.startswith(b"owner" * 800 + bytes(96))
    bits.close()
    os.truncate(fd, Bitset.file_size(PAGES + 1))
    longer = Bitset(fd, PAGES + 1)
    assert longer.count() == len(done)
    assert all(map(longer.test, done))
    os.close(fd)


def test_disagreement_of_the_maps_is_not_done(tmp_path: Path) -> None:
    """A mark in one map only, as a flip or a kill leaves it, is not done, counts as damage, and can be set."""
    path = tmp_path / "bits"
    path.write_bytes(bytes(Bitset.file_size(1)))
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"\x01", 4096)
    os.pwrite(fd, b"\x02", 8192)
    bits = Bitset(fd, 1)
    assert (bits.count(), bits.damaged(), bits.next_clear()) == (0, 2, 0)
    bits.set(0)
    assert (bits.count(), bits.damaged(), bits.next_clear()) == (1, 1, 1)
    os.close(fd)


def test_wrong_use() -> None:
    """No pages, an item beyond the end or below zero, and use after close each raise; closing twice does not."""
    for pages in (0, 1 << 40):
        with pytest.raises(ValueError):
            Bitset(-1, pages)
    bits = Bitset(-1, 1)
    for use in (bits.set, bits.test):
        with pytest.raises(IndexError):
            use(32768)
        with pytest.raises(OverflowError):
            use(-1)
    bits.close()
    bits.close()
    uses: list[Callable[[], object]] = [
        lambda: bits.set(0),
        lambda: bits.test(0),
        bits.next_clear,
        bits.count,
        bits.damaged,
    ]
    for closed_use in uses:
        with pytest.raises(ValueError):
            closed_use()
