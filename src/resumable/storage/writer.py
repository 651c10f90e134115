"""Who commits to a store, and when: each run by the clock, at once when somebody asks, several runs in one commit.

A thread keeps the clock. Whoever asks commits himself, for everybody who asked meanwhile: that saves two thread switches, and
whoever is interrupted in it leaves nothing behind that others wait for.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from resumable import clock
from resumable._fastlog import decode_plain, fork_count
from resumable.errors import DamagedLogError, DriverClosedError, ResumableError, StorageError
from resumable.storage.handoff import Batch, Handoff
from resumable.storage.journal import Position
from resumable.storage.records import ENDED, RunRecord, is_gone, run_key
from resumable.storage.store import Store

Entries = Sequence[tuple[bytes, bytes]]
Failures = dict[Handoff, ResumableError]

_PAUSE_WITHOUT_MEMORY = 0.1


class _Left(NamedTuple):
    """How far a run was that ended before the log had all of it, and why: `flush_all` may not pass over it."""

    name: str
    position: Position
    why: BaseException | None


class Writer:
    """Commits to one store on behalf of all runs of this process in one state directory. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # The lock itself for `with`: a Condition's end of the block is Python code, and without memory leaves it locked. Told to
        # all: a wait that ended for want of memory may still stand in its list.
        self._lock = threading.RLock()
        self._turn = threading.Condition(self._lock)
        self._committing = threading.Lock()
        # Weak: a run that Ctrl-C kept from whoever asked for it must not stay, with its lock, for ever.
        self._runs: weakref.WeakSet[Handoff] = weakref.WeakSet()
        self._wanted: set[Handoff] = set()
        self._left: dict[tuple[bytes, int], _Left] = {}
        self._closing = False
        self._stopped = False       # the thread has handed over the last of it
        self._thread: threading.Thread | None = None
        self._wakes = 0.0
        self._forks = fork_count()

    def add(self, run: Handoff) -> None:
        """Hand this run over to the log from now on, at the latest every `run.sync_every` seconds."""
        with self._lock:
            self._check_open()
            self._forget_others(run)
            self._runs.add(run)
            self._start()
            if run.due < self._wakes:
                self._turn.notify_all()

    def remove(self, run: Handoff) -> None:
        """Forget a run, but not that the log lacks some of it."""
        with self._lock:
            if run.record.handed < run.journal.position:
                name = decode_plain(run.describe()[1])["name"]
                left = _Left(name, run.journal.position, run.journal.error)
                self._left[run.journal.name, run.journal.number] = left
            self._runs.discard(run)
            self._wanted.discard(run)

    def _forget_others(self, run: Handoff) -> None:
        # Ctrl-C can come between a life's beginning and whoever would end it. Its lock was free again: that life is over.
        for other in [other for other in self._runs if other.journal.name == run.journal.name and other is not run]:
            self._runs.discard(other)
            self._wanted.discard(other)

    def kick(self, run: Handoff) -> None:
        """Hand this run over as soon as can be, without waiting for it."""
        with self._lock:
            self._forget_others(run)
            self._wanted.add(run)
            self._start()
            self._turn.notify_all()

    def flush(self, run: Handoff) -> None:
        """Return when the log has all that the run has published. Raises StorageError."""
        target = run.journal.position
        with self._lock:
            self._check_open()
            self._wanted.add(run)
        with self._committing:
            failures: Failures = {}
            while run.lacks(target):
                self._commit(self._take_wanted() | {run}, failures)
                if run in failures:
                    raise failures[run]

    def flush_all(self) -> None:
        """`flush` for every live run. Raises StorageError, also if the log still lacks something of one that ended."""
        for run in list(self._runs):
            self.flush(run)
        for key, left in list(self._left.items()):
            if self._lacks(*key, left.position):
                why = left.why or "it was interrupted"
                raise StorageError(
                    f"run {left.name!r} ended before the log had its last checkpoints ({why}): no kill takes them, but a power "
                    f"cut may, until it is called again", run=left.name,
                ) from left.why
            self._left.pop(key, None)

    def _lacks(self, name: bytes, number: int, position: Position) -> bool:
        """Whether the log is behind this position of a run that ended here; a later life may have handed it over."""
        value = self._store.get(run_key(name, number))
        if value is None:
            return not is_gone(self._store, name, number)
        record = RunRecord.decode(value)
        return record.status not in ENDED and record.handed < position

    def commit(self, puts: Entries, deletes: Sequence[bytes] = ()) -> None:
        """Commit entries of no live run. Raises StorageError."""
        with self._committing:
            self._store.commit(puts, deletes)

    def close(self) -> None:
        """Hand over what is live, stop it, and end the thread."""
        with self._lock:
            self._closing = True
            thread = self._thread
            self._turn.notify_all()
        if thread is not None and thread.ident is not None and self._forks == fork_count():     # None: it could not be started
            thread.join()
        for run in list(self._runs):
            # Nobody would take over from its journal any more: it stops at its next checkpoint.
            run.journal.failed(closed())

    def _check_open(self) -> None:
        if self._closing:
            raise closed()

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._keep_time, name="resumable-writer", daemon=True)
            self._thread = thread       # before it starts: Ctrl-C may come in between, and whoever closes waits for it
            thread.start()

    def _take_wanted(self) -> set[Handoff]:
        with self._lock:
            wanted, self._wanted = self._wanted, set()
            return wanted

    # ---- in the thread

    def _keep_time(self) -> None:
        """Hand over what is due, until the writer closes. Without this thread nothing would be synced in time."""
        while not self._stopped:
            try:
                self._keep_time_while_memory_lasts()
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "allocate lock" not in str(error):   # how Python says that of memory
                    raise
                time.sleep(_PAUSE_WITHOUT_MEMORY)

    def _keep_time_while_memory_lasts(self) -> None:
        interval = 1.0
        idle = False
        while True:
            with self._lock:
                now = clock.monotonic()
                interval = min((run.sync_every for run in self._runs), default=interval)
                # Without runs it looks in once more before it sleeps: short runs in a row need not wake it.
                self._wakes = min((run.due for run in self._runs), default=math.inf if idle else now + interval)
                idle = not self._runs
                if not self._wanted and not self._closing and self._wakes > now:
                    self._turn.wait(None if self._wakes == math.inf else self._wakes - now)
                if self._closing:
                    runs = {*self._runs, *self._wanted}
                else:
                    # Whoever is not due rides along: a commit costs the same for one run and for many.
                    due = self._wanted or any(run.due <= clock.monotonic() for run in self._runs)
                    runs = {*self._runs, *self._wanted} if due else set()
                self._wanted -= runs
            if runs:
                with self._committing:
                    self._commit(runs, {})
            if self._closing:
                self._stopped = True
                return

    # ---- holding `_committing`

    def _commit(self, runs: Iterable[Handoff], failures: Failures) -> None:
        """Hand over what these runs have. What cannot be handed over is told to the run, and noted in `failures`."""
        batches: dict[Handoff, Batch] = {}
        for run in runs:
            run.due = clock.monotonic() + run.sync_every
            try:
                batch = run.collect()
            except Exception as error:  # noqa: BLE001 - one run's damaged file, or a bug, is no fault of the others
                failures[run] = _named(error)
            else:
                if batch is not None:
                    batches[run] = batch
        try:
            self._store_all(batches)
        except Exception as error:  # noqa: BLE001 - a thread that dies would let every run wait for ever
            failures.update(dict.fromkeys(batches, _named(error)))
        for run, failure in failures.items():
            run.journal.failed(failure)

    def _store_all(self, batches: dict[Handoff, Batch]) -> None:
        puts = [entry for batch in batches.values() for entry in batch.puts]
        deletes = [key for batch in batches.values() for key in batch.deletes]
        if puts or deletes:
            self._store.commit(puts, deletes)
        for run, batch in batches.items():
            # A journal segment is given up for these entries, so they are read back first.
            for key, value in batch.puts:
                if self._store.get(key) != value:
                    raise DamagedLogError("the log did not give back what was just committed to it (check the disk)")
            run.committed(batch)
            if not self._closing:       # else it is about to stop, or has been told to
                run.journal.recovered()


def closed() -> DriverClosedError:
    """What stops a run whose driver is closed."""
    return DriverClosedError("the driver was closed while a run went on (close it when its runs have ended, then run again)")


def _named(error: Exception) -> ResumableError:
    if isinstance(error, ResumableError):
        return error
    if isinstance(error, MemoryError):
        why = "memory ran out (run again when there is some"
    else:
        why = f"{type(error).__name__}: {error} (this is a bug"
    named = StorageError(f"the log cannot take entries: {why}; nothing acknowledged is lost)")
    named.__cause__ = error
    return named
