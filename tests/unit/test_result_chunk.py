"""Results on their way into the log, as the compiled module copies them out of a journal."""

from __future__ import annotations

import mmap
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable._fastlog import Journal, ResultChunk, Segment
from resumable.storage.records import encode_results, join_result, result_of, state_of

CHECKPOINT, HAS_RESULT = 2, 8


@given(st.lists(st.tuples(st.integers(0, 7), st.binary(max_size=700)), max_size=600))
def test_a_chunk_is_what_the_codec_makes(results: list[tuple[int, bytes]]) -> None:
    """The bytes of a chunk are those that Python makes of its results, of whatever length."""
    chunk = ResultChunk(5)
    for index, (flags, result) in enumerate(results, 5):
        chunk.add(index, flags, result)
    assert chunk.count == len(results)
    assert chunk.data() == chunk.data() == encode_results(results)
    assert chunk.references == [result for flags, result in results if flags & 4]


def test_a_chunk_has_no_gap() -> None:
    """What the log has already is left out, and nothing is taken behind a result that is missing."""
    chunk = ResultChunk(3)
    for index in (1, 2, 3, 6, 7):
        chunk.add(index, 0, b"%d" % index)
    assert (chunk.count, chunk.behind_gap, chunk.data()) == (1, 6, encode_results([(0, b"3")]))


def segment_of(records: list[tuple[int, bytes]]) -> tuple[Segment, Journal]:
    with tempfile.TemporaryFile() as file:
        os.ftruncate(file.fileno(), 1 << 16)
        segment = Segment(os.dup(file.fileno()), 1 << 16)
    segment.format(generation=1, index=0, first_seq=0, name=b"n" * 16, number=1, boot=b"b" * 16, created=1)
    journal = Journal()
    journal.attach(segment, mmap.PAGESIZE, 0)
    for flags, payload in records:
        assert journal.append(CHECKPOINT, flags, payload)
    return segment, journal


@pytest.mark.parametrize("window", [1, 4, 9, 11])
def test_results_are_taken_out_of_the_journal(window: int) -> None:
    """Of a checkpoint the chunk has the result and the list the state: those in the window, else the last, never one too few."""
    records = [(HAS_RESULT | 1 << 4, join_result(index, b"state%d" % index, b"result%d" % index)) for index in range(10)]
    segment, journal = segment_of(records)
    chunk = ResultChunk(0)
    found, end = segment.records(mmap.PAGESIZE, journal.tail, window, 1 << 20, chunk)
    assert end == journal.tail
    assert chunk.data() == encode_results([result_of(flags, payload)[1:] for flags, payload in records])
    first = min(window, 10)
    assert [(seq, flags, state) for _, seq, _, flags, state in found] == [
        (entry.seq, entry.flags, entry.payload)
        for seq in range(first, 11)
        for entry in [state_of(seq, *records[seq - 1])]
    ]


def test_a_result_that_is_none() -> None:
    """A record whose checksum is right and whose lengths are not is an error, not a read behind its end."""
    for payload in (b"short", join_result(0, b"x", b"")[:-1], join_result(0, b"state", b"")[:12]):
        segment, journal = segment_of([(HAS_RESULT, payload)])
        with pytest.raises(ValueError, match="too short for its result"):
            segment.records(mmap.PAGESIZE, journal.tail, 1, 1 << 20, ResultChunk(0))
