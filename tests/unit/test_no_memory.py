"""What a MemoryError in the midst of things must not leave behind; tests/crash/process/test_starving.py goes through all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable._fastlog import ResultChunk
from resumable.runs.saving import SavingRun
from resumable.storage import journal, writer
from resumable.storage.folder import DiskFolder
from resumable.storage.memory import MemoryStore
from resumable.storage.records import CHECKPOINT
from resumable.storage.recovery import read_left

Job = Callable[..., Generator[Any, None, int]]


class NoMemory:
    """A journal's write end without memory."""

    def attach(self, *_: object) -> None: ...

    def append(self, *_: object) -> bool:
        raise MemoryError


def test_a_roll_that_fails_leaves_the_segment_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment whose first record could not be written is not in use: the failure stands in the one before."""
    states: list[int] = []

    def job(state: tuple[int, bytes] = (0, b"")) -> Generator[Any, None, int]:
        states.append(state[0])
        for i in range(state[0], 3):
            if i == 1 and len(states) == 1:
                monkeypatch.setattr(journal, "Journal", NoMemory)
            yield checkpoint((i + 1, bytes(40_000)))
        return 3

    with Driver(tmp_path / "d") as driver:
        with pytest.raises(MemoryError):
            driver.run(job, name="job")
        monkeypatch.undo()
        failure = driver.failure("job")
        assert failure is not None
        assert failure.type == "MemoryError"
        assert driver.run(job, name="job") == 3
    assert states == [0, 1]


@pytest.mark.parametrize(("rolls", "log", "need"), [(10, True, 0), (2, True, 6 << 20), (10, True, 6 << 20), (1, False, 0)])
def test_a_segment_that_a_roll_took_in_vain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolls: int, log: bool, need: int
) -> None:
    """A roll that fails behind its segment's making leaves no damage for the log or the next life, and the next roll goes on."""

    def wait() -> None:
        raise AssertionError("there is nothing to wait for")

    folder = DiskFolder(tmp_path)
    run = journal.RunJournal(folder, bytes(16), 1, keep_states=None, head=lambda: b"head", wait=wait)
    run.begin([], index=0, seq=0, results=0, handed=(0, 0), handed_seq=0)
    for seq in range(1, rolls + 1):     # after ten all segments are of the largest size
        run.append(CHECKPOINT, 0, b"state")
        if log:
            run.committed(run.position, seq)
        run.roll(0)
    for seq in range(rolls + 1, rolls + 4):
        monkeypatch.setattr(journal, "Journal", NoMemory)
        with pytest.raises(MemoryError):
            run.roll(need)
        monkeypatch.undo()
        run.append(CHECKPOINT, 0, b"state %d" % seq)
        records, position = run.collect(1 << 20, ResultChunk(0))
        assert records[-1][4] == b"state %d" % seq
        run.committed(position, seq)
        run.roll(0)
    run.close()
    left = read_left(folder, bytes(16), 1, None, MemoryStore())
    assert left is not None
    assert left.state is not None
    assert (left.seq, left.state.payload) == (seq, b"state %d" % seq)


def test_the_writer_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A MemoryError in the writer's thread does not end it."""
    told = threading.Event()

    class Clock:
        @staticmethod
        def monotonic() -> float:
            if threading.current_thread().name == "resumable-writer" and not told.is_set():
                told.set()
                raise MemoryError
            return time.monotonic()

    def job(state: int = 0) -> Generator[Any, None, bool]:
        yield checkpoint(state + 1)
        told.wait(5)
        limit = time.monotonic() + 5
        while driver.info("job").on_disk == 0 and time.monotonic() < limit:
            time.sleep(0.01)
        return driver.info("job").on_disk == 1

    monkeypatch.setattr(writer, "clock", Clock)
    with Driver(tmp_path / "d", sync_every=0.05) as driver:
        assert driver.run(job, name="job")
    assert told.is_set()


def test_a_thread_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without memory for the writer's thread the run fails; the next one has it."""

    def start(self: threading.Thread) -> None:
        raise MemoryError

    def job(state: int = 0) -> Generator[Any, None, int]:
        yield checkpoint(state + 1)
        return sum(thread.name == "resumable-writer" for thread in set(threading.enumerate()) - before)

    before = set(threading.enumerate())
    with Driver(tmp_path / "d") as driver:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(MemoryError):
            driver.run(job, name="job")
        monkeypatch.undo()
        assert driver.run(job, name="job") == 1


def test_the_lock_is_free_whatever_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that has no memory even for its end lets go of its lock."""

    def job(state: int = 0) -> Generator[Any, None, int]:
        yield checkpoint(state + 1)
        if state == 0:
            monkeypatch.setattr(SavingRun, "warn_unyielded", no_memory)
            raise ValueError
        return state

    def no_memory(self: SavingRun) -> None:
        raise MemoryError

    with Driver(tmp_path / "d") as driver:
        with pytest.raises(MemoryError) as kept:        # its traceback has the run, so no collector frees the lock
            driver.run(job, name="job")
        monkeypatch.undo()
        assert driver.run(job, name="job") == 1
    assert kept.value
