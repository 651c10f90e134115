"""The writer thread: the only one that commits to a store. What several runs have due goes into one commit."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future

from resumable import clock
from resumable._fastlog import fork_count
from resumable.errors import DamagedLogError, ResumableError, StorageError
from resumable.storage.handoff import Batch, Handoff
from resumable.storage.store import Store

Entries = Sequence[tuple[bytes, bytes]]


class Writer:
    """Commits to one store on behalf of all runs of this process in one state directory. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = threading.Condition()
        self._runs: set[Handoff] = set()
        self._wanted: dict[Handoff, list[Future[None]]] = {}
        self._asked: list[tuple[Entries, Sequence[bytes], Future[None]]] = []
        self._closing = False
        self._thread: threading.Thread | None = None
        self._forks = fork_count()

    def add(self, run: Handoff) -> None:
        """Hand this run over to the log from now on, at the latest every `run.sync_every` seconds."""
        with self._turn:
            self._runs.add(run)
            self._wake()

    def remove(self, run: Handoff) -> None:
        """Forget a run."""
        with self._turn:
            self._runs.discard(run)

    def kick(self, run: Handoff) -> None:
        """Hand this run over as soon as can be, without waiting for it."""
        with self._turn:
            self._wanted.setdefault(run, [])
            self._wake()

    def flush(self, run: Handoff) -> None:
        """Return when the log has all that the run has published. Raises StorageError."""
        done: Future[None] = Future()
        with self._turn:
            self._wanted.setdefault(run, []).append(done)
            self._wake()
        done.result()

    def flush_all(self) -> None:
        """`flush` for every live run."""
        for run in list(self._runs):
            self.flush(run)

    def commit(self, puts: Entries, deletes: Sequence[bytes] = ()) -> None:
        """Commit entries of no live run. Raises StorageError."""
        done: Future[None] = Future()
        with self._turn:
            self._asked.append((puts, deletes, done))
            self._wake()
        done.result()

    def close(self) -> None:
        """End the thread once everything asked for is done."""
        with self._turn:
            self._closing = True
            thread = self._thread
            self._turn.notify_all()
        if thread is not None and self._forks == fork_count():
            thread.join()

    def _wake(self) -> None:
        if self._closing:
            raise StorageError("the log is closed (open the driver anew)")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="resumable-writer", daemon=True)
            self._thread.start()
        self._turn.notify_all()

    # ---- in the thread

    def _run(self) -> None:
        while True:
            with self._turn:
                while not (self._wanted or self._asked or self._closing or self._is_due()):
                    self._turn.wait(self._until_due())
                if self._closing and not (self._wanted or self._asked):
                    return
                wanted, self._wanted = self._wanted, {}
                asked, self._asked = self._asked, []
                # Whoever is not due rides along: a commit costs the same for one run and for many.
                runs = self._runs | wanted.keys()
            self._commit(runs, wanted, asked)

    def _is_due(self) -> bool:
        return any(run.due <= clock.monotonic() for run in self._runs)

    def _until_due(self) -> float | None:
        if not self._runs:
            return None
        return max(0.0, min(run.due for run in self._runs) - clock.monotonic())

    def _commit(
        self,
        runs: set[Handoff],
        wanted: dict[Handoff, list[Future[None]]],
        asked: list[tuple[Entries, Sequence[bytes], Future[None]]],
    ) -> None:
        targets = {run: run.journal.position for run in wanted}
        failures: dict[Handoff, ResumableError] = {}
        try:
            self._store_all(self._collect(runs, failures), asked)
            while behind := {run for run in targets if run not in failures and run.record.handed < targets[run]}:
                self._store_all(self._collect(behind, failures), [])
        except ResumableError as error:
            failures = dict.fromkeys(runs, error)
            for _, _, done in asked:
                done.set_exception(error)
        else:
            for _, _, done in asked:
                done.set_result(None)
        for run, error in failures.items():
            run.journal.failed(error)
        for run, futures in wanted.items():
            for done in futures:
                if run in failures:
                    done.set_exception(failures[run])
                else:
                    done.set_result(None)

    def _collect(self, runs: set[Handoff], failures: dict[Handoff, ResumableError]) -> dict[Handoff, Batch]:
        batches = {}
        for run in runs:
            run.due = clock.monotonic() + run.sync_every
            try:
                batch = run.collect()
            except ResumableError as error:  # one run's damaged file is no fault of the others
                failures[run] = error
            else:
                if batch is not None:
                    batches[run] = batch
        return batches

    def _store_all(
        self, batches: dict[Handoff, Batch], asked: list[tuple[Entries, Sequence[bytes], Future[None]]]
    ) -> None:
        puts = [entry for entries, _, _ in asked for entry in entries]
        deletes = [key for _, keys, _ in asked for key in keys]
        for batch in batches.values():
            puts += batch.puts
            deletes += batch.deletes
        if puts or deletes:
            self._store.commit(puts, deletes)
        for run, batch in batches.items():
            # A journal segment is given up for these entries, so they are read back first.
            for key, value in batch.puts:
                if self._store.get(key) != value:
                    raise DamagedLogError("the log did not give back what was just committed to it (check the disk)")
            run.committed(batch)
            run.journal.recovered()
