"""What a MemoryError in the midst of things must not leave behind; tests/crash/process/test_starving.py goes through all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable.runs.saving import SavingRun
from resumable.storage import journal, writer

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
