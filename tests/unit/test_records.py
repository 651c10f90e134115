"""What the log has of a run, when somebody forged it: checksums may well be right."""

from __future__ import annotations

from dataclasses import astuple, replace

import pytest

from resumable._fastlog import encode_plain
from resumable.errors import DamagedLogError
from resumable.storage.records import RUNNING, RunRecord, decode_states, encode_states

RECORD = RunRecord(1, RUNNING, 3, 0, (0, 64), bytes(16), 1, b"")


def test_a_record_comes_back() -> None:
    """What was encoded is decoded."""
    for record in (RECORD, replace(RECORD, value=(0, b"x"), failure=b"f", rng=b"r")):
        assert RunRecord.decode(record.encode()) == record
    assert [tuple(astuple(entry)) for entry in decode_states(encode_states([(1, 0, b"a"), (2, 0, b"b")]))] == [
        (1, 0, b"a"), (2, 0, b"b"),
    ]  # fmt: skip


@pytest.mark.parametrize("forged", [b"", b"junk", *map(encode_plain, (None, 3, (), (1, 2), [*astuple(RECORD)], {}, "text"))])
def test_no_record_is_told(forged: bytes) -> None:
    """Bytes that no record is encoded as raise DamagedLogError."""
    with pytest.raises(DamagedLogError, match="record of a run"):
        RunRecord.decode(bytes(forged))


@pytest.mark.parametrize("at", range(len(astuple(RECORD))))
def test_each_field_has_its_type(at: int) -> None:
    """A field of another type is noticed, whichever it is."""
    fields = list(astuple(RECORD))
    fields[at] = 0.5
    with pytest.raises(DamagedLogError, match="record of a run"):
        RunRecord.decode(bytes(encode_plain(tuple(fields))))


@pytest.mark.parametrize("forged", [b"", b"junk", *map(encode_plain, (None, 3, [1], [(1, 2)], [(1, 2, 3, 4)]))])
def test_no_chunk_is_told(forged: bytes) -> None:
    """Bytes that no chunk of states is encoded as raise DamagedLogError."""
    with pytest.raises(DamagedLogError, match="chunk of states"):
        list(decode_states(bytes(forged)))
