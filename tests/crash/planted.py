"""Planted bugs: with one of them a harness must fail."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from typing import Any

Job = Generator[Any, None, Any]



def _acknowledge_early() -> None:
    """Each checkpoint is published when the next one is yielded."""
    from resumable._fastlog import take_checkpoint
    from resumable.runs import engine

    def drive(generator: Job, journal: Any, run: Any) -> Any:
        held = None
        while True:
            try:
                made = next(generator)
            except StopIteration as end:
                return end.value
            finally:
                if held is not None and not take_checkpoint(journal, held):
                    run.save(held)
            held = made

    engine.drive = drive


def _lock_nothing() -> None:
    """Whoever asks for the lock has it."""
    import fcntl

    fcntl.flock = lambda fd, how: None


def _keep_the_lock() -> None:
    """A forked child does not give up its copy of the lock."""
    from resumable.storage import lock

    whole = lock.RunLock._take

    def take(self: lock.RunLock) -> bool:
        taken = whole(self)
        lock._held.discard(self)
        return taken

    lock.RunLock._take = take  # type: ignore[method-assign]


def _never_let_go() -> None:
    """A run that Ctrl-C ends keeps its lock."""
    from resumable.runs.live import LiveRun
    from resumable.storage.lock import RunLock

    LiveRun._let_go = lambda self: None  # type: ignore[method-assign]
    del RunLock.__del__


def _swallow_faults() -> None:
    """What the log refused counts as committed."""
    from resumable.storage.writer import Writer

    whole = Writer._store_all

    def store_all(self: Writer, batches: Any) -> None:
        try:
            whole(self, batches)
        except OSError:
            for run, batch in batches.items():
                run.committed(batch)

    Writer._store_all = store_all  # type: ignore[method-assign]


def _settle_early() -> None:
    """The journal of a finished run is removed before the log has its end: only a kill in between tells."""
    from resumable.storage.writer import Writer

    whole = Writer.flush

    def flush(self: Writer, run: Any) -> None:
        if run.describe()[0] == "finished":
            run.journal.folder.discard(run.journal.number)
        whole(self, run)

    Writer.flush = flush  # type: ignore[method-assign]


def _allocate_nothing() -> None:
    """Files get holes instead of space."""
    os.posix_fallocate = lambda fd, at, size: os.ftruncate(fd, at + size)


def _forget_parts() -> None:
    """Side files go although parts of later states stand in them."""
    from resumable.storage.side_window import SideWindow

    whole = SideWindow.written

    def written(self: SideWindow, seq: int, reference: bytes) -> bool:
        crowded = whole(self, seq, reference)
        self._needs[seq] = set()
        return crowded

    SideWindow.written = written  # type: ignore[method-assign]


def _shrug_off_memory() -> None:
    """A checkpoint for which there is no memory counts as saved."""
    from resumable.runs.saving import SavingRun

    whole = SavingRun.save

    def save(self: SavingRun, *args: Any) -> None:
        with contextlib.suppress(MemoryError):
            whole(self, *args)

    SavingRun.save = save  # type: ignore[method-assign]


def _believe_the_log() -> None:
    """The checksums of the log's values are not looked at."""
    from resumable.storage.lmdb_log import LmdbStore

    LmdbStore._unseal = lambda self, key, stored: stored[4:]  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "acknowledge early": _acknowledge_early,
    "lock nothing": _lock_nothing,
    "keep the lock": _keep_the_lock,
    "never let go": _never_let_go,
    "shrug off memory": _shrug_off_memory,
    "believe the log": _believe_the_log,
    "swallow faults": _swallow_faults,
    "settle early": _settle_early,
    "allocate nothing": _allocate_nothing,
    "forget parts": _forget_parts,
}
