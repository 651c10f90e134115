"""What is left of one run outside the log: what its journal and the sync files hold that verifies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from resumable.errors import DamagedLogError
from resumable.storage.folder import DiskFolder
from resumable.storage.journal import JournalRecord
from resumable.storage.records import (
    CHECKPOINT,
    FAILURE,
    HAS_RESULT,
    META,
    RETURN,
    RNG,
    SIDE,
    RunRecord,
    StateEntry,
    result_of,
    state_of,
)
from resumable.tools.segments import SegmentView, description


@dataclass(slots=True)
class Remains:
    """`generators`: the random generators' state by checkpoint, where it is known for certain."""

    name: bytes
    number: int
    folder: DiskFolder | None = None
    segments: list[SegmentView] = field(default_factory=list)
    same_boot: bool = False
    meta: bytes | None = None
    states: dict[int, StateEntry] = field(default_factory=dict)
    results: dict[int, tuple[int, int, bytes]] = field(default_factory=dict)     # by checkpoint
    generators: dict[int, bytes | None] = field(default_factory=dict)
    failure: bytes | None = None
    ended: tuple[int, int, bytes] | None = None
    sides: dict[bytes, bool] = field(default_factory=dict)      # references met so far

    def take(self, chain: Iterable[JournalRecord]) -> None:
        """Take in records without a gap between them. Only behind a META or RNG record the generators are known."""
        known, generators = False, None
        for _, seq, kind, flags, payload in chain:
            if kind == META:
                self.meta, self.failure = payload, None
                known, generators = True, description(payload)["rng"]
            elif kind == RNG:
                known, generators = True, payload
            elif kind == CHECKPOINT:
                self.states[seq] = state_of(seq, flags, payload)
                if flags & HAS_RESULT:
                    self.results[seq] = result_of(flags, payload)
                if known:
                    self.generators[seq] = generators
            elif kind == FAILURE:
                self.failure = payload
            elif kind == RETURN:
                self.ended = seq, flags, payload

    def keep_from(self, reached: int) -> None:
        """After another boot: forget what does not go on without a gap from checkpoint `reached`, which the log has."""
        for seq in sorted(self.states):
            if seq == reached + 1:
                reached = seq
            elif seq > reached:
                del self.states[seq]
        if self.ended is not None and self.ended[0] > reached:
            self.ended = None

    def is_whole(self, flags: int, payload: bytes) -> bool:
        """Whether a state, result or value is all there, its side file included."""
        if not flags & SIDE:
            return True
        if payload not in self.sides:
            self.sides[payload] = self._verifies(payload)
        return self.sides[payload]

    def _verifies(self, reference: bytes) -> bool:
        if self.folder is None:
            return False
        try:
            self.folder.read_side(reference)
        except DamagedLogError:
            return False
        return True

    def results_at(self, before: RunRecord, point: int) -> int | None:
        """How many results the run had at checkpoint `point`; None when nothing tells any more."""
        earlier = [seq for seq in self.results if seq <= point]
        counts = [self.results[seq][0] + 1 for seq in earlier]
        counts += [before.results] if before.seq <= point else []
        # A segment's own count is that of its last checkpoint: it tells of results that were lost before this one.
        counts += [view.results for view in self.segments if view.results is not None and view.last_seq <= point]
        if counts:
            return max(counts)
        if before.results in (0, before.seq):
            return min(before.results, point)
        return None
