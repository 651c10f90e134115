"""One run's journal while the run is alive: which segments it has, when the next one comes, what the log still lacks.

A segment belongs to one life of one process: resuming begins a new one and never writes into what a crash left. A segment
is used again only when no state inside the retention window loses its last copy by it: its records are in the log, or newer
segments hold a full window and nothing else in it is due.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from resumable import clock
from resumable._fastlog import Journal, ResultChunk, Segment
from resumable.errors import DamagedLogError, StorageError
from resumable.storage.folder import BY_PWRITE, SLOTS, Folder
from resumable.storage.platform import boot_id, wrap_os_error
from resumable.storage.records import FAILURE, HAS_RESULT, META, RETURN

HEADER = 4096
SMALLEST = 64 << 10
LARGEST = 4 << 20
GROWTH = 4
# What a record needs beside its payload: its header, padding, and the zero commit word of the next.
OVERHEAD = 64

Position = tuple[int, int]
JournalRecord = tuple[int, int, int, int, bytes]


@dataclass(slots=True)
class LiveSegment:
    """A segment in use. `end`: offset behind its last record; `last_seq`: its last checkpoint; `due`: it holds a result,
    failure or return value that only the log may take over."""

    segment: Segment
    slot: int
    end: int
    last_seq: int
    due: bool = False

    @property
    def index(self) -> int:
        return int(self.segment.index)


class RunJournal:
    """The journal of the run that this process holds.

    `head` makes the META payload that every segment begins with. `keep_states` is the retention window, None for all.
    `wait` is called, without any lock, when the journal is full and must wait for the log: it gets things moving.
    """

    def __init__(
        self,
        folder: Folder,
        name: bytes,
        number: int,
        *,
        keep_states: int | None,
        head: Callable[[], bytes],
        wait: Callable[[], None],
    ) -> None:
        self.folder = folder
        self.name = name
        self.number = number
        self.write = Journal()
        self.handed: Position = (0, 0)
        self.handed_seq = 0
        self.mapped = True
        self.error: BaseException | None = None
        self._keep = keep_states
        self._head = head
        self._wait = wait
        self._live: list[LiveSegment] = []
        self._index = 0
        # The lock itself for `with`: a Condition's end of the block is Python code, and without memory leaves it locked.
        self._lock = threading.RLock()
        self._progress = threading.Condition(self._lock)

    # ---- beginning

    def begin(
        self, old: list[LiveSegment], *, index: int, seq: int, results: int, handed: Position, handed_seq: int
    ) -> None:
        """Start writing a new segment behind what earlier lives left. Raises StorageError."""
        self._live = sorted(old, key=lambda live: live.index)
        self._index = index
        self.write.results = results
        self.handed = handed
        self.handed_seq = handed_seq
        self._roll(0, seq)

    # ---- appending

    def append(self, kind: int, flags: int, payload: bytes) -> None:
        """Publish a record, in a new segment if need be. Raises StorageError; then nothing is published."""
        try:
            if not self.write.append(kind, flags, payload):
                self.roll(len(payload))
                if not self.write.append(kind, flags, payload):
                    raise StorageError(
                        f"{self.folder.where}: a record of {len(payload)} bytes does not fit a new segment"
                    )
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise self.write_error(error) from error
        if kind in (FAILURE, RETURN) or flags & HAS_RESULT:
            self._live[-1].due = self.write.takes_results = True

    def write_error(self, error: OSError) -> StorageError:
        """What to raise when the file that stands for the journal refuses a write."""
        return wrap_os_error(error, self.folder.where, "the journal cannot be written")

    def roll(self, need: int) -> None:
        """Go on in another segment with room for a payload of `need` bytes. Raises StorageError."""
        self._roll(need, int(self.write.seq))

    def _roll(self, need: int, seq: int) -> None:
        try:
            self._take_another(need, seq)
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise self.write_error(error) from error

    def _take_another(self, need: int, seq: int) -> None:
        head = self._head()
        capacity = SMALLEST
        if self._live and self.write.tail > HEADER:
            capacity = min(GROWTH * self._live[-1].segment.capacity, LARGEST)
        # As much again behind a long description, so that it is not written for every few records.
        capacity = max(capacity, -(-(HEADER + 2 * len(head) + need + 2 * OVERHEAD) // HEADER) * HEADER)
        with self._lock:
            if self._live and self._index == self._live[-1].index + 1 and self.write.tail > HEADER:
                self._live[-1].end = int(self.write.tail)
                self._live[-1].last_seq = seq
            victim = self._make_room()
            slot = victim.slot if victim else min(set(range(SLOTS)) - {live.slot for live in self._live})

            def fill(segment: Segment) -> None:
                segment.format(
                    generation=int.from_bytes(os.urandom(8), "little"),
                    index=self._index,
                    first_seq=seq,
                    name=self.name,
                    number=self.number,
                    boot=boot_id(),
                    created=clock.time_ns(),
                    results=self.write.results,
                )

            if victim and victim.segment.capacity >= capacity:
                segment, victim.end = victim.segment, HEADER
                fill(segment)
            else:
                segment = self.folder.new_segment(self.number, slot, capacity, fill)
                if victim:
                    # In the books before anything else: whatever ends the roll, it is used first by the next one.
                    given_up, victim.segment, victim.end = victim.segment, segment, HEADER
                    self.folder.let_go(given_up)
            live = [*(live for live in self._live if live is not victim), LiveSegment(segment, slot, HEADER, seq)]
            mapped, following = segment.mode != BY_PWRITE, self._index + 1
            # Before the segment is in use: whatever ends the roll, no other record comes to stand first.
            begun = Journal()
            begun.attach(segment, HEADER, seq)
            if not begun.append(META, 0, head):
                raise StorageError(f"{self.folder.where}: the run's description does not fit a segment")
            tail = int(begun.tail)
            # No call but the last, and nothing that takes memory: neither Ctrl-C nor MemoryError comes in between.
            self._live, self._index, self.mapped = live, following, mapped
            self.write.attach(segment, tail, seq)

    def _make_room(self) -> LiveSegment | None:
        """A segment to be used again, or None when there is room for one more. Waits for the log when there is neither."""
        while True:
            empty = next((live for live in self._live if live.end == HEADER), None)
            if empty is not None:
                return empty
            if len(self._live) > 1 and self._spare(self._live[0]):
                return self._live[0]
            if len(self._live) < SLOTS:
                return None
            if self.error is not None:
                raise self.error
            self._wait()
            self._progress.wait(1.0)

    def _spare(self, live: LiveSegment) -> bool:
        if (live.index, live.end) <= self.handed:
            return True
        return not live.due and self._keep is not None and int(self.write.seq) - live.last_seq >= self._keep

    # ---- handing over to the log

    @property
    def position(self) -> Position:
        """Where the journal ends now."""
        if self.write.tail <= HEADER:     # nothing in the newest segment yet: it ends in an earlier one
            return max(((live.index, live.end) for live in self._live if live.end > HEADER), default=(0, 0))
        return self._index - 1, int(self.write.tail)

    def collect(self, budget: int, results: ResultChunk) -> tuple[list[JournalRecord], Position]:
        """Records that the log lacks and the window needs, about `budget` bytes of them, and the position behind them.

        `results` takes those that belong to checkpoints.
        """
        with self._lock:
            if self.write.tail > HEADER:
                self._live[-1].end = int(self.write.tail)
            first = self.handed_seq + 1
            if self._keep is not None:
                first = max(first, int(self.write.seq) - self._keep + 1)
            found: list[JournalRecord] = []
            position = self.handed
            for live in self._live:
                start = max(self.handed[1], HEADER) if live.index == self.handed[0] else HEADER
                if live.index < self.handed[0] or start >= live.end:
                    continue
                try:
                    records, stop = live.segment.records(start, live.end, first, budget, results)
                except ValueError as error:
                    raise self._damaged(live, str(error)) from error
                found += records
                budget -= sum(len(record[4]) for record in records)
                position = (live.index, stop)
                if stop < live.end or budget <= 0:
                    break
            return found, position

    def committed(self, position: Position, seq: int) -> None:
        """The log has everything up to `position`, whose last checkpoint is `seq`."""
        with self._lock:
            self.handed = position
            self.handed_seq = max(self.handed_seq, seq)
            self._progress.notify_all()

    def failed(self, error: BaseException) -> None:
        """The log cannot take anything; the job stops at its next checkpoint."""
        with self._lock:
            self.error = error
            self.write.attention = 1
            self._progress.notify_all()

    def recovered(self) -> None:
        """The log takes entries again."""
        self.error = None

    def _damaged(self, live: LiveSegment, reason: str) -> DamagedLogError:
        return DamagedLogError(
            f"{self.folder.where}: segment {self.number}.{live.slot} was damaged while its job was running: {reason} "
            f"(`python -m resumable check` shows what is intact, `repair` writes a copy that can go on)",
            path=self.folder.where,
            run=self.number,
            intact=self.handed_seq,
            reason=reason,
        )

    def close(self) -> None:
        """Let go of the segments; the files stay."""
        with self._lock:
            self.write.detach()
            for live in self._live:
                self.folder.let_go(live.segment)
            self._live = []
