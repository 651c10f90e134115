"""Damaged files: every bit, every length, every block. What is read is the same as before, or the damage is named."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from figures import Figures

import twin
from resumable._fastlog import Bitset, Journal, Segment, scan

pytestmark = pytest.mark.crash

CAPACITY = 12288
Damage = tuple[str, bytes | bytearray]
Reader = Callable[[bytes | bytearray], Any]
RESULT = (3).to_bytes(8, "little") + (2).to_bytes(4, "little") + b"\x02\x02"


class Mapped:
    """Reads damaged bytes as a start on the same boot does: through a mapped segment."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "damaged"
        self.path.write_bytes(bytes(CAPACITY))
        fd = os.open(self.path, os.O_RDWR)
        self.bytes = mmap.mmap(fd, CAPACITY)
        self.segment = Segment(fd, CAPACITY)
        os.close(fd)

    def __call__(self, data: bytes | bytearray) -> Any:
        """Header and ends, or None for damage that was detected."""
        self.bytes[:] = data
        try:
            header = self.segment.load()
            return header and (header, *self.segment.ends())
        except ValueError:
            return None


@pytest.fixture
def read(tmp_path: Path) -> Mapped:
    return Mapped(tmp_path)


def new_life(segment: Segment, generation: int, results: int) -> Journal:
    """Put the segment to use (again)."""
    segment.format(
        generation=generation, index=generation, first_seq=9, name=b"n" * 16, number=1, boot=b"b" * 16,
        created=generation, results=results,
    )  # fmt: skip
    journal = Journal()
    journal.attach(segment, twin.HEADER_SIZE, 9)
    return journal


def write_some(journal: Journal, first: int, count: int, *, results: bool) -> None:
    """Checkpoints, some with a random generator's state before them and, if wanted, with a result."""
    for number in range(first, first + count):
        if number % 7 == 3:
            journal.append(twin.RNG, 0, b"generator" * (number % 5))
        if results and number % 5 == 2:
            journal.append(twin.CHECKPOINT, twin.HAS_RESULT, RESULT)
        else:
            assert journal.append_plain((number, "state" * (number % 30))) == 0


def lives(*, results: bool, old_count: int) -> tuple[list[bytes], bytes]:
    """A segment in its second life, and what its blocks held earlier, in this life and in the one before."""
    segment = Segment(-1, CAPACITY)
    earlier = [segment.image()]
    for generation, count in ((1, old_count), (2, 60)):
        journal = new_life(segment, generation, results=4)
        earlier.append(segment.image())
        journal.append(twin.META, 0, b"about the run")
        for first in range(0, count, 4):
            earlier.append(segment.image())
            write_some(journal, first, 4, results=results)
    return earlier, segment.image()


def flips(data: bytes) -> Iterator[Damage]:
    changed = bytearray(data)
    for at, bit in itertools.product(range(len(data)), range(8)):
        changed[at] ^= 1 << bit
        yield f"bit {bit} of byte {at}", changed
        changed[at] ^= 1 << bit


def blocks(data: bytes, size: int) -> Iterator[Damage]:
    """Each block zeroed, each copied over each other one, each two swapped."""
    places = range(0, len(data), size)
    for at in places:
        yield f"{size} zeros at {at}", data[:at] + bytes(size) + data[at + size :]
    for here, there in itertools.permutations(places, 2):
        changed = bytearray(data)
        changed[there : there + size] = data[here : here + size]
        yield f"{size} bytes of {here} also at {there}", changed
        changed = changed[:]
        changed[here : here + size] = data[there : there + size]
        yield f"{size} bytes of {here} and {there} swapped", changed


def stale(data: bytes, earlier: list[bytes], size: int) -> Iterator[Damage]:
    """Each block as it was at some earlier time."""
    for moment, old in enumerate(earlier):
        for at in range(0, len(data), size):
            yield f"{size} bytes at {at} as of moment {moment}", data[:at] + old[at : at + size] + data[at + size :]


def wrong_ones(read: Reader, truth: Any, damages: Iterator[Damage]) -> tuple[int, list[str]]:
    """How many were tried, and those that read as something else without an error."""
    count, wrong = 0, []
    for what, data in damages:
        count += 1
        if (found := read(data)) is not None and found != truth:
            wrong.append(what)
    return count, wrong


KINDS_OF_LIFE = [(True, 72), (False, 72), (False, 0)]
IDS = ["results", "no results", "empty before"]


@pytest.mark.parametrize(("results", "old_count"), KINDS_OF_LIFE, ids=IDS)
def test_every_bit_and_block(results: bool, old_count: int, read: Mapped, figures: Figures) -> None:
    """No flipped bit, and no block zeroed, doubled, swapped or stale, makes a start read another state."""
    earlier, data = lives(results=results, old_count=old_count)
    truth = read(data)
    assert truth is not None
    every = [
        flips(data),
        *(blocks(data, size) for size in (512, 4096)),
        *(stale(data, earlier, size) for size in (512, 4096)),
    ]
    count, wrong = wrong_ones(read, truth, itertools.chain(*every))
    bits = len(data) * 8
    figures("B1", "journal and header", wrong=len(wrong), flips=bits)
    figures("B2", "blocks of journal and header", damages=count - bits)
    assert not wrong, f"{len(wrong)} of {count}, first: {wrong[:20]}"
    assert read(data) == truth, "the reader itself changed nothing"


def test_every_bit_in_a_scan() -> None:
    """A scan of damaged bytes gives a clean beginning of the records, never one that was not written."""
    _, data = lives(results=True, old_count=72)
    records, _ = scan(data)
    for what, damaged in itertools.chain(flips(data), blocks(data, 512), blocks(data, 4096)):
        found, _ = scan(damaged)
        assert found == records[: len(found)], what


def test_every_length(tmp_path: Path) -> None:
    """A file cut at any length is refused, or reads the same; a scan of it gives a clean beginning."""
    _, data = lives(results=True, old_count=72)
    records, end = scan(data)
    assert end > 8192, "records are cut, too, where a segment can still be mapped"
    path = tmp_path / "cut"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    whole = Segment(fd, CAPACITY)
    whole.load()
    truth = whole.ends()
    whole.close()
    refused = 0
    for length in range(CAPACITY, -1, -1):
        os.truncate(fd, length)
        found, _ = scan(data[:length])
        assert found == records[: len(found)]
        try:
            cut = Segment(fd, length)
            assert cut.load() is not None
            assert cut.ends() == truth, length
            assert length >= end - 8
        except ValueError:
            refused += 1
    assert refused > 8192
    os.close(fd)


def test_pwrite_mode_reads_a_beginning(tmp_path: Path) -> None:
    """Where records are written with pwrite, a flipped bit leaves an earlier checkpoint, never a changed one."""
    path = tmp_path / "written"
    path.write_bytes(bytes(8192))
    fd = os.open(path, os.O_RDWR)
    journal = new_life(Segment(os.dup(fd), 8192, twin.BY_PWRITE), 1, results=0)
    write_some(journal, 0, 20, results=False)
    data = path.read_bytes()
    records, _ = scan(data)
    reopened = Segment(os.dup(fd), 8192, twin.BY_PWRITE)
    for what, damaged in flips(data):
        os.pwrite(fd, damaged, 0)
        try:
            state = reopened.ends()[0] if reopened.load() else None
        except ValueError:
            continue
        assert state is None or state in records, what
    os.close(fd)


def test_a_reader_without_checksums_is_caught() -> None:
    """The same check finds hundreds of wrong states when the reader skips the checksums."""
    _, data = lives(results=True, old_count=72)

    def careless(damaged: bytes | bytearray) -> Any:
        try:
            return twin.ends(bytes(damaged), verify=False)
        except ValueError:
            return None

    last = twin.ends(data)[0]
    assert last is not None
    bits = range(last.offset * 8, (last.offset + 16 + len(last.payload)) * 8)
    _, wrong = wrong_ones(careless, careless(data), itertools.islice(flips(data), bits.start, bits.stop))
    assert len(wrong) > 100


# ---- the bitset

PAGES = 2


def done_items(data: bytes, *, mirrored: bool = True) -> int:
    """The items of a bitset's bytes that both maps say are done, as bits of an int. One map only is the planted bug."""
    both = 0
    for page in range(PAGES):
        first = int.from_bytes(data[4096 + page * 8192 :][:4096], "little")
        mirror = int.from_bytes(data[8192 + page * 8192 :][:4096], "little")
        both |= (first & mirror if mirrored else first) << page * 32768
    return both


def test_damage_never_marks_an_item_done(tmp_path: Path, seed: int, figures: Figures) -> None:
    """No flipped bit, and no block zeroed, doubled, swapped or stale, makes an item done that is not."""
    path = tmp_path / "bits"
    path.write_bytes(bytes(Bitset.file_size(PAGES)))
    fd = os.open(path, os.O_RDWR)
    view = mmap.mmap(fd, 0)
    bits = Bitset(fd, PAGES)
    earlier = []
    for number in range(9000):
        if number % 3000 == 0:
            earlier.append(path.read_bytes())
        bits.set((number * 40503 + seed) % (PAGES * 32768))
    data = path.read_bytes()
    before = done_items(data)
    count = 0
    for size in (512, 4096):
        for what, damaged in itertools.chain(
            blocks(data[4096:], size), stale(data[4096:], [old[4096:] for old in earlier], size)
        ):
            view[4096:] = damaged
            after = done_items(bytes(view))
            assert after & ~before == 0, what
            assert bits.count() == after.bit_count()
            count += 1
    view[:] = data
    for at in range(4096, len(data)):
        page, byte = divmod(at - 4096, 8192)
        item = page * 32768 + byte % 4096 * 8
        for bit in range(8):
            view[at] ^= 1 << bit
            done = before >> item & 0xFF & ~(1 << bit)
            assert [bits.test(item + i) for i in range(8)] == [bool(done >> i & 1) for i in range(8)]
            assert bits.damaged() == 1
            view[at] ^= 1 << bit
            count += 1
    assert path.read_bytes() == data
    os.close(fd)
    bits = (len(data) - 4096) * 8
    figures("B1", "bitset", flips=bits)
    figures("B2", "blocks of a bitset", damages=count - bits)


def test_a_single_map_is_caught() -> None:
    """The same check finds that one map alone would let a flipped bit mark an item done."""
    data = bytes(Bitset.file_size(PAGES))
    in_first_map = itertools.islice(flips(data), 4096 * 8, 8192 * 8)
    assert all(done_items(bytes(damaged), mirrored=False) for _, damaged in itertools.islice(in_first_map, 100))
