"""A log that refuses entries, or forgets them: nothing that was handed over is given up, and no job goes on for long."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resumable import DamagedLogError, DiskFullError, Driver, StorageError, checkpoint
from resumable.storage import journal


def refuse(*_: object) -> None:
    raise StorageError("the log cannot be written")


def test_a_failed_commit_is_made_up_for(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was in a commit that failed is in the next one that does not."""

    def job(state: int = 0) -> Iterator[Any]:
        for i in range(10):
            yield checkpoint(i + 1, result=i)
        with monkeypatch.context() as patch:
            patch.setattr(store, "commit", refuse)
            with pytest.raises(StorageError):
                driver.sync()
        driver.sync()
        for i in range(10, 20):
            yield checkpoint(i + 1, result=i)

    with Driver(state_dir, sync_every=3600) as driver:
        driver.runs()       # opens the directory
        store = driver._engine.home.store
        driver.run(job, name="job")
        assert list(driver.results("job")) == list(range(20))
        assert [record.seq for record in driver.history("job")] == list(range(1, 21))


def test_a_log_that_forgets_stops_the_run(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that is not there when it is read back is a DamagedLogError, and the journal keeps what was in it."""

    def job(state: int = 0) -> Iterator[Any]:
        yield from (checkpoint(i + 1, result=i) for i in range(state, 10))
        if state == 0:
            monkeypatch.setattr(store, "commit", lambda puts, deletes: None)
            driver.sync()

    with Driver(state_dir, sync_every=3600) as driver:
        driver.runs()
        store = driver._engine.home.store
        with pytest.raises(DamagedLogError, match="did not give back"):
            driver.run(job, name="job")
        monkeypatch.undo()
        driver.run(job, name="job")
        assert list(driver.results("job")) == list(range(10))


def test_a_refused_commit_stops_the_job_at_its_next_checkpoint(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that passes over the error of `sync` stops at its next checkpoint, however small its states are."""

    def job(state: int = 0) -> Iterator[Any]:
        yield checkpoint(1)
        with pytest.raises(StorageError):
            driver.sync()
        yield checkpoint(2)
        ended.append(True)

    ended: list[bool] = []
    with Driver(state_dir, sync_every=3600) as driver:
        driver.runs()
        monkeypatch.setattr(driver._engine.home.store, "commit", refuse)
        with pytest.raises(StorageError, match="cannot be written"):
            driver.run(job, name="job")
        monkeypatch.undo()
    assert not ended


def test_a_failing_log_stops_a_fast_job(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose states need no log to find room stops all the same when the log takes nothing."""

    def job(state: int = 0) -> Iterator[Any]:
        limit = time.monotonic() + 5
        while time.monotonic() < limit:
            yield checkpoint(state)
        ended.append(True)

    ended: list[bool] = []
    with Driver(state_dir, sync_every=0.01) as driver:
        driver.runs()
        monkeypatch.setattr(driver._engine.home.store, "commit", refuse)
        with pytest.raises(StorageError, match="cannot be written"):
            driver.run(job, name="job")
        monkeypatch.undo()
    assert not ended


def test_a_journal_that_refuses_its_first_record(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where journals are written by pwrite, a run that cannot write its description ends with a named error."""

    class Refusing:
        seq = tail = 0

        def attach(self, *_: object) -> None:
            pass

        def append(self, *_: object) -> bool:
            raise OSError(errno.EDQUOT, "the journal segment cannot be written")

    def job(state: int = 0) -> Iterator[Any]:
        yield checkpoint(state + 1)
        return state

    with Driver(state_dir) as driver:
        with monkeypatch.context() as patch:
            patch.setattr(journal, "Journal", Refusing)
            with pytest.raises(DiskFullError, match="the journal cannot be written"):
                driver.run(job, name="job")
        assert driver.run(job, name="job") == 0


@pytest.mark.filterwarnings("ignore::resumable.NotDurableWarning")
@pytest.mark.parametrize("returns", [True, False])
@pytest.mark.parametrize("then", ["again", "elsewhere", "clear"])
def test_sync_knows_of_runs_that_ended(state_dir: Path, monkeypatch: pytest.MonkeyPatch, then: str, returns: bool) -> None:
    """`sync` raises as long as the log lacks something of a run that has ended, and not when that run is settled or forgotten."""

    def refuse(puts: object, deletes: object = ()) -> None:
        raise DiskFullError("no space", errno=errno.ENOSPC)

    def job(state: int = 0) -> Iterator[Any]:
        yield from (checkpoint(i + 1) for i in range(state, 3))
        if not (returns or state):
            raise ArithmeticError

    with Driver(state_dir, sync_every=3600) as driver:
        driver.sync()
        store = driver._engine.home.store
        with monkeypatch.context() as patch, suppress(ArithmeticError):
            patch.setattr(store, "commit", refuse)
            driver.run(job, name="job")
        for _ in range(2):
            with pytest.raises(StorageError, match=r"'job' ended before the log had its last checkpoints .*no space") as caught:
                driver.sync()
        assert caught.value.run == "job"
        if then == "again":
            driver.run(job, name="job", once=True)
        elif then == "clear":
            driver.clear("job")
        else:
            call = f"""
from resumable import Driver, checkpoint
def job(state=0):
    yield from (checkpoint(i + 1) for i in range(state, 3))
with Driver({str(state_dir)!r}) as driver:
    driver.run(job, name="job", once=True, on_change="continue")
"""
            subprocess.run([sys.executable, "-c", call], check=True)
        driver.sync()
