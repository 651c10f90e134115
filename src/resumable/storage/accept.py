"""What outlived a power cut: which records count, and what the log knows of their run from then on.

Journal segments and sync files of another boot hold records of all lives of a run. They count as far as they go on from the
log without a gap. With them comes what the run was called with when they were made: its description as of the newest life.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from resumable._fastlog import decode_plain
from resumable.storage.handoff import Batch, build
from resumable.storage.journal import JournalRecord
from resumable.storage.records import (
    CHECKPOINT,
    FAILED,
    FAILURE,
    FINISHED,
    META,
    RETURN,
    RNG,
    RUNNING,
    RunRecord,
    run_key,
)


def accept(
    name: bytes,
    number: int,
    logged: RunRecord | None,
    records: Iterable[JournalRecord],
    intact: Callable[[int, bytes], bool] = lambda flags, payload: True,
) -> Batch | None:
    """Log entries for the records, in order, that go on from what the log has; None when there is nothing new.

    `intact` tells of a checkpoint's or return value's flags and payload whether its side files are whole.
    """
    record = logged
    seq = logged.seq if logged else 0
    taken: list[JournalRecord] = []
    changed = False
    life = 0
    for entry in records:
        _, of, kind, flags, payload = entry
        if kind == META:
            life = life_of(payload)
            if of != seq:
                continue        # the log's is newer, or there is a gap before it
            if record is None:
                record, changed = RunRecord(number, RUNNING, 0, 0, (0, 0), b"", 0, payload), True
            elif life > life_of(record.meta):
                record, changed = replace(record, status=RUNNING, meta=payload), True
            taken.append(entry)
        elif record is None:
            continue
        elif kind == CHECKPOINT and of == seq + 1 and intact(flags, payload):
            seq = of
            record, changed = replace(record, status=RUNNING), True
            taken.append(entry)
        elif kind == RNG and of == seq + 1:
            taken.append(entry)
        elif kind == RETURN and of == seq and intact(flags, payload):
            record, changed = replace(record, status=FINISHED), True
            taken.append(entry)
        elif kind == FAILURE and of == seq and life >= life_of(record.meta):
            record, changed = replace(record, status=FAILED), True
            taken.append(entry)
    if record is None or not changed:
        return None
    batch = build(name, record, taken, (0, 0))
    batch.puts.append((run_key(name, number), batch.record.encode()))
    return batch


def life_of(meta: bytes) -> int:
    """How many lives of the run came before the one that wrote this description."""
    return int(decode_plain(meta)["resumed"])
