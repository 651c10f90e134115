"""From journal records to log entries: what one run adds to a commit, and what falls out of its window with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from resumable import clock
from resumable._fastlog import ResultChunk, decode_plain
from resumable.errors import DamagedLogError
from resumable.storage.journal import JournalRecord, Position, RunJournal
from resumable.storage.platform import boot_id
from resumable.storage.records import (
    CHECKPOINT,
    ENDED,
    FAILURE,
    HAS_RESULT,
    META,
    RETURN,
    RNG,
    SIDE,
    RunRecord,
    encode_states,
    entry_of,
    result_key,
    result_of,
    run_key,
    state_key,
    state_of,
)
from resumable.storage.side import reference_names
from resumable.storage.side_window import SideWindow
from resumable.storage.store import Store

BUDGET = 8 << 20


@dataclass(slots=True)
class Batch:
    """What one run puts into a commit. `sides` are files that must be on disk before it; `early` are records that
    belong to a checkpoint of the next batch."""

    record: RunRecord
    position: Position
    puts: list[tuple[bytes, bytes]] = field(default_factory=list)
    deletes: list[bytes] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    early: list[JournalRecord] = field(default_factory=list)


def build(
    name: bytes, record: RunRecord, records: Iterable[JournalRecord], position: Position, results: ResultChunk | None = None
) -> Batch:
    """The log entries of some journal records, and the run record that goes with them; `results` are those taken out already."""
    states: list[tuple[int, int, bytes]] = []
    results = results or ResultChunk(record.results)
    sides: list[str] = []
    generators: list[tuple[int, bytes]] = []
    for _, seq, kind, flags, payload in records:
        if kind == CHECKPOINT:
            if seq > record.seq:
                if states and seq != states[-1][0] + 1:
                    # Those before were here for their results alone: they are out of the window, and a chunk has no gaps.
                    states.clear()
                entry = state_of(seq, flags, payload)
                states.append((entry.seq, entry.flags, entry.payload))
            if flags & HAS_RESULT:
                results.add(*result_of(flags, payload))
        elif kind == RNG:
            generators.append((seq, payload))
        elif kind == META and (known := decode_plain(payload)["rng"]) is not None:
            generators.append((seq, known))     # as of the segment's beginning; the run's first says how they were at its start
        elif kind == FAILURE:
            record = replace(record, failure=payload)
        elif kind == RETURN:
            record = replace(record, value=(flags, payload))
            if flags & SIDE:
                sides += reference_names(payload)
    if results.behind_gap:
        raise DamagedLogError(
            f"results {results.first + results.count} to {results.behind_gap - 1} of run {record.number} are neither in the log "
            f"nor in its journal (`python -m resumable check` shows what is intact, `repair` writes a copy that can go on)",
            run=record.number, intact=record.seq, reason="results missing",
        )
    sides += [name for result in results.references for name in reference_names(result)]
    if states:
        record = replace(record, seq=states[-1][0])
        sides += [name for _, flags, payload in states if flags & SIDE for name in reference_names(payload)]
    # An RNG record stands before its checkpoint: one whose checkpoint is still to come is left for the next batch.
    reached = [payload for seq, payload in generators if seq <= record.seq]
    if reached:
        record = replace(record, rng=reached[-1])
    record = replace(record, results=results.first + results.count, handed=position, updated=clock.time_ns())
    batch = Batch(record, position, sides=list(dict.fromkeys(sides)))
    batch.early = [(0, seq, RNG, 0, payload) for seq, payload in generators if seq > record.seq]
    if states:
        batch.puts.append((state_key(name, record.number, states[0][0]), encode_states(states)))
    if results.count:
        batch.puts.append((result_key(name, record.number, results.first), results.data()))
    return batch


class Handoff:
    """One live run as the writer thread sees it.

    `describe` gives (status, meta) of the run as it is now; `sync_outputs` returns when the disk has what states say is
    written elsewhere; `sides` are the side files of its states; `doomed` are keys that go with the commit that says it is over.
    """

    def __init__(
        self,
        journal: RunJournal,
        record: RunRecord,
        store: Store,
        *,
        keep_states: int | None,
        sync_every: float,
        describe: Callable[[], tuple[str, bytes]],
        sync_outputs: Callable[[], None],
        sides: SideWindow,
    ) -> None:
        self.journal = journal
        self.sync_every = sync_every
        self.due = clock.monotonic() + sync_every
        self.record = record
        self._store = store
        self._keep = keep_states
        self.describe = describe
        self._sync_outputs = sync_outputs
        self._chunks: list[int] | None = None
        self.doomed: list[bytes] = []
        self._early: list[JournalRecord] = []
        self.sides = sides

    def collect(self) -> Batch | None:
        """What the log lacks now; None when it lacks nothing. Raises StorageError."""
        status, meta = self.describe()
        if not self.lacks(self.journal.position):
            return None
        results = ResultChunk(self.record.results)
        records, position = self.journal.collect(BUDGET, results)
        base = replace(self.record, status=status, meta=meta, boot=boot_id())
        batch = build(self.journal.name, base, self._early + records, position, results)
        batch.puts.append((run_key(self.journal.name, batch.record.number), batch.record.encode()))
        batch.deletes = self._outside(batch.record.seq) + (self.doomed if status in ENDED else [])
        self.journal.folder.sync_sides(batch.sides)
        self._sync_outputs()
        return batch

    def lacks(self, position: Position) -> bool:
        """Whether the log is behind this position of the journal, or behind what is known of the run."""
        return self.record.handed < position or self.describe() != (self.record.status, self.record.meta)

    def _outside(self, seq: int) -> list[bytes]:
        """Keys of chunks that lie wholly before the window."""
        if self._keep is None:
            return []
        name, number = self.journal.name, self.journal.number
        if self._chunks is None:
            self._chunks = [entry_of(key) for key, _ in self._store.scan(state_key(name, number))]
        gone = 0
        while gone + 1 < len(self._chunks) and self._chunks[gone + 1] <= seq - self._keep + 1:
            gone += 1
        return [state_key(name, number, first) for first in self._chunks[:gone]]

    def committed(self, batch: Batch) -> None:
        """The batch is in the log and was read back."""
        self.record = batch.record
        self._early = batch.early
        if batch.record.status in ENDED:
            self.doomed = []
        if self._chunks is not None:
            gone = {entry_of(key) for key in batch.deletes}
            prefix = state_key(self.journal.name, self.journal.number)
            self._chunks = [first for first in self._chunks if first not in gone]
            self._chunks += [entry_of(key) for key, _ in batch.puts if key.startswith(prefix)]
        self.journal.committed(batch.position, batch.record.seq)
        self.journal.folder.remove_sides(self.spent_sides())

    def spent_sides(self) -> list[str]:
        """Side files of states that can go."""
        return self.sides.spent(self.record.seq)
