"""The journal's bytes against the twin: what is appended is what is read, on every path that writes."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import resumable._fastlog
import twin
from resumable._fastlog import Journal, Segment, checkpoint, crc32c, drive, hints, read_header, scan, unpublished

CAPACITY = 8192
HEADER = twin.Header(0xFEDCBA9876543210, 3, 17, CAPACITY, b"name" * 4, 42, b"boot" * 4, 1_700_000_000_000_000_000)
KINDS = st.sampled_from([twin.META, twin.CHECKPOINT, twin.CHECKPOINT, twin.RNG, twin.FAILURE, twin.RETURN])
RECORDS = st.tuples(KINDS, st.integers(0, 255), st.binary(max_size=40) | st.integers(0, 3000).map(bytes))


def format_segment(segment: Segment, header: twin.Header = HEADER, results: int = 0) -> Segment:
    """Put a segment to use under `header`."""
    fields = asdict(header)
    del fields["capacity"], fields["mode"]
    segment.format(**fields, results=results)
    return segment


def new_journal(header: twin.Header = HEADER) -> tuple[Journal, Segment]:
    """A journal on an anonymous segment."""
    segment = format_segment(Segment(-1, header.capacity), header)
    journal = Journal()
    journal.attach(segment, twin.HEADER_SIZE, 0)
    return journal, segment


def assert_same(segment: Segment, expected: twin.Journal) -> None:
    """The image, and all that is read from it, is the twin's."""
    image = segment.image()
    assert image == expected.data
    assert scan(image) == twin.scan(image)
    assert hints(image) == twin.hints(image)
    assert segment.ends() == twin.ends(image)
    assert read_header(image) == asdict(expected.header) | {"version": 1, "header_size": 4096}


@given(st.integers(0, 700).flatmap(lambda size: st.binary(min_size=size, max_size=size)), st.integers(0, 700))
def test_crc32c(data: bytes, cut: int) -> None:
    """The checksum is the twin's, at once and in two steps."""
    assert crc32c(data) == twin.crc32c(data) == crc32c(data[cut:], crc32c(data[:cut]))


def test_crc32c_of_every_length() -> None:
    """The checksum is the twin's however many words there are: lanes of every length, and what is left behind them."""
    data, expected = random.Random(1).randbytes(4000), 0
    for size in range(1, len(data) + 1):
        expected = twin.crc32c(data[size - 1:size], expected)
        assert crc32c(data[:size]) == expected, f"{size} bytes"


def test_crc32c_check_value() -> None:
    """The checksum is the Castagnoli one that other software computes."""
    assert crc32c(b"123456789") == twin.crc32c(b"123456789") == 0xE3069283


@given(st.lists(RECORDS, max_size=60))
@example([(2, 8, bytes(8)), (2, 8, bytes(7) + b"\1"), (2, 0, b"")])
def test_appended_is_what_is_read(records: list[tuple[int, int, bytes]]) -> None:
    """Any sequence of records gives the twin's bytes; what does not fit is answered, and changes nothing."""
    journal, segment = new_journal()
    expected = twin.Journal(HEADER)
    for record in records:
        assert journal.append(*record) is expected.append(*record)
        assert (journal.tail, journal.seq) == (expected.tail, expected.seq)
    assert_same(segment, expected)
    assert unpublished(segment.image(), journal.tail)


@given(st.lists(st.integers() | st.binary(max_size=900) | st.text(max_size=20) | st.lists(st.integers()), max_size=30))
def test_states_on_every_path(states: list[Any]) -> None:
    """append_plain, drive and append of an encoded state write the same bytes; a full segment is 1."""
    by_drive, driven = new_journal()
    by_plain, plain = new_journal()
    expected = twin.Journal(HEADER)

    def job() -> Generator[object, None, None]:
        for state in states:
            yield checkpoint(state)

    class Run:
        def save(self, made: Any) -> None:
            """The slow way is taken exactly by what does not fit."""
            assert by_drive.append_plain(made.state) == 1

    drive(job(), by_drive, Run())
    for state in states:
        encoded = twin.encode(state)
        assert encoded is not None
        assert by_plain.append_plain(state) == (0 if expected.append(twin.CHECKPOINT, 0, encoded) else 1)
    assert_same(driven, expected)
    assert_same(plain, expected)


def test_what_is_not_plain_publishes_nothing() -> None:
    """A state that tier 0 refuses is answered with 2 and leaves no trace that a reader sees."""
    journal, segment = new_journal()
    assert journal.append_plain([1, 2]) == 0
    before = twin.ends(segment.image()), journal.tail, journal.seq
    assert journal.append_plain([b"x" * 300, object()]) == 2
    assert (twin.ends(segment.image()), journal.tail, journal.seq) == before


@pytest.mark.parametrize("payload", range(3900, 4097))
def test_the_last_bytes_of_a_segment(payload: int) -> None:
    """A record fits exactly while 16 bytes stay free behind it: appending never writes beyond the segment."""
    journal, segment = new_journal()
    expected = twin.Journal(HEADER)
    assert journal.append(twin.CHECKPOINT, 0, bytes(payload)) is expected.append(twin.CHECKPOINT, 0, bytes(payload))
    for state in (None, 1, b"", b"12345", ()):
        encoded = twin.encode(state)
        assert encoded is not None
        # The encoder asks for up to 9 bytes more than a value takes, so it may find the segment full a little earlier.
        if journal.append_plain(state) == 0:
            assert expected.append(twin.CHECKPOINT, 0, encoded)
    assert_same(segment, expected)


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[], int]:
    """Makes descriptors of files of a segment's size."""
    numbers = itertools.count()

    def make() -> int:
        fd = os.open(tmp_path / f"segment{next(numbers)}", os.O_RDWR | os.O_CREAT)
        os.truncate(fd, CAPACITY)
        return fd

    return make


def test_pwrite_mode_writes_what_the_map_would(seed: int, make_file: Callable[[], int]) -> None:
    """A segment written with pwrite is, record by record, the mapped segment's file but for the mode and the hints."""
    rng = random.Random(seed)
    fds = make_file(), make_file()
    segments = [
        format_segment(Segment(fd if mode == 1 else os.dup(fd), CAPACITY, mode))
        for mode, fd in zip((1, 2), fds, strict=True)
    ]
    journals = Journal(), Journal()
    for journal, segment in zip(journals, segments, strict=True):
        journal.attach(segment, twin.HEADER_SIZE, 0)
    expected = twin.Journal(replace(HEADER, mode=twin.BY_PWRITE))
    while True:
        payload = rng.randbytes(rng.randrange(200))
        kind, flags = rng.choice([twin.CHECKPOINT, twin.META, twin.RNG]), rng.randrange(256)
        if not expected.append(kind, flags, payload):
            break
        for journal in journals:
            assert journal.append(kind, flags, payload)
        mapped, written = (os.pread(fd, CAPACITY, 0) for fd in fds)
        assert mapped[twin.HEADER_SIZE :] == written[twin.HEADER_SIZE :]
        assert written == expected.data
    assert journals[1].append_plain(7) == journals[0].append_plain(7)
    reopened = Segment(os.dup(fds[1]), CAPACITY, twin.BY_PWRITE)
    reopened.load()
    assert reopened.ends() == twin.ends(os.pread(fds[1], CAPACITY, 0))
    for fd in fds:
        os.close(fd)


def test_a_failed_pwrite_leaves_the_journal_as_it_was(make_file: Callable[[], int]) -> None:
    """When the file refuses a record, the error is raised, seq and tail stay, and the record is not in the file."""
    writable = make_file()
    segment = format_segment(Segment(writable, CAPACITY, twin.BY_PWRITE))
    journal = Journal()
    journal.attach(segment, twin.HEADER_SIZE, 0)
    assert journal.append_plain("kept") == 0
    before, held = os.pread(writable, CAPACITY, 0), os.dup(writable)
    readable = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
    os.dup2(readable, writable)
    refused: list[Callable[[], object]] = [
        lambda: journal.append_plain("lost"),
        lambda: journal.append(twin.RETURN, 0, b"lost"),
    ]
    for append in refused:
        place = journal.tail, journal.seq
        with pytest.raises(OSError):
            append()
        assert (journal.tail, journal.seq) == place
    assert os.pread(held, CAPACITY, 0) == before
    os.dup2(held, writable)
    assert journal.append_plain("next") == 0
    records, _ = scan(os.pread(held, CAPACITY, 0))
    assert [(seq, payload) for _, seq, _, _, payload in records] == [(1, twin.encode("kept")), (2, twin.encode("next"))]
    for fd in (readable, held):
        os.close(fd)


def test_a_recycled_segment_shows_nothing_of_its_old_life() -> None:
    """After format, nothing of the old life is read, also where old records stand where the new ones end."""
    journal, segment = new_journal()
    while journal.append(twin.CHECKPOINT, 0, bytes(24)):
        pass
    renewed = replace(HEADER, generation=7, index=HEADER.index + 3)
    format_segment(segment, renewed, results=9)
    assert scan(segment.image()) == ([], twin.HEADER_SIZE)
    assert segment.ends() == (None, None, twin.HEADER_SIZE, 9)
    journal.attach(segment, twin.HEADER_SIZE, 100)
    for count in range(1, 50):
        assert journal.append_plain((count, "x" * 10)) == 0
        records, end = scan(segment.image())
        assert [seq for _, seq, *_ in records] == list(range(101, 101 + count))
        assert end == journal.tail
        assert unpublished(segment.image(), end)


def test_records_leave_out_superseded_states() -> None:
    """For the log, states before `from_seq` are left out unless they carry a result, and a budget cuts the batch."""
    journal, segment = new_journal()
    journal.append(twin.META, 0, b"meta")
    for number in range(10):
        journal.append(twin.CHECKPOINT, 8 if number % 3 == 0 else 0, bytes([number]))
    found, end = segment.records(twin.HEADER_SIZE, journal.tail, 8, 1 << 20)
    assert end == journal.tail
    assert [payload for *_, payload in found] == [b"meta", b"\0", b"\3", b"\6", b"\7", b"\x08", b"\x09"]
    batches, at = [], twin.HEADER_SIZE
    while at < journal.tail:
        batch, at = segment.records(at, journal.tail, 8, 40)
        batches += batch
    assert batches == found


def test_a_record_counts_at_its_place_alone() -> None:
    """A block of whole records that stands where another one of the same segment was written is told from that."""
    journal, segment = new_journal()
    for number in range(100):
        journal.append(twin.CHECKPOINT, 0, number.to_bytes(16, "little"))     # 32 bytes each: 16 of them in a block
    image = segment.image()
    last = (journal.tail - 1) // 512 * 512
    moved = image[:last] + image[last - 512 : last] + image[last + 512 :]
    records, end = scan(moved)
    assert records == scan(image)[0][: len(records)]
    assert end == last


def test_short_bytes_are_refused() -> None:
    """Bytes of any length can be read: too short is answered or a ValueError, never a read beyond the end."""
    for size in (0, 1, 7, 127, 1031, 1039, 4095):
        data = b"\xff" * size
        assert read_header(data) is None
        assert scan(data) == ([], 0)
        with pytest.raises(ValueError):
            hints(data)
    for offset in (0, 4096, 1 << 40):
        assert unpublished(b"", offset)


DRIVE = """
import sys
import resumable._fastlog
from resumable._fastlog import Journal, Segment, checkpoint, drive
def job():
    yield checkpoint("state")
class Run:
    def save(self, made): print("slow")
journal, segment = Journal(), Segment(-1, 8192)
segment.format(generation=1, index=0, first_seq=0, name=bytes(16), number=1, boot=bytes(16), created=0)
if sys.argv[1] != "new":
    journal.attach(segment, 4096, 0)
    journal.detach() if sys.argv[1] == "detached" else segment.close()
drive(job(), journal, Run())
"""


@pytest.mark.parametrize("make", ["new", "detached", "closed"])
def test_drive_without_a_segment_goes_the_slow_way(make: str) -> None:
    """A checkpoint driven into a journal without memory behind it is left to the run's `save`, not to chance."""
    environment = os.environ | {"PYTHONPATH": str(Path(resumable._fastlog.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", DRIVE, make], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "slow\n")


@pytest.mark.parametrize("make", ["new", "detached", "closed"])
def test_a_journal_without_a_segment_refuses(make: str) -> None:
    """Appending to a journal that is new, detached or whose segment is closed raises ValueError and never crashes."""
    journal = Journal()
    if make != "new":
        journal, segment = new_journal()
        journal.detach() if make == "detached" else segment.close()
    with pytest.raises(ValueError):
        journal.append_plain("state")
    with pytest.raises(ValueError):
        journal.append(twin.META, 0, b"")
