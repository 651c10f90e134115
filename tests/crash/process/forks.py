"""Parents and children of the fork matrix."""

from __future__ import annotations

import asyncio
import atexit
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import jobs
from jobs import ACK, BEGIN, START, Job, note

from resumable import Driver, checkpoint

ITEMS, AT = 12, 5


def _small(state: int = 0) -> Job:
    for i in range(state, 3):
        yield checkpoint(i + 1)
    return 3


def _tried(name: str, driver: Driver) -> Any:
    try:
        return driver.run(_small, name=name, on_change="continue")
    except Exception as error:  # noqa: BLE001 - which one it is, is the answer
        return type(error).__name__


def child(deed: str, directory: str, during: bool) -> None:
    """What a child does that was not forked from the parent: it has a driver of its own."""
    driver = Driver(directory)
    answer: dict[str, Any] = {}
    if deed == "saves":
        answer["same"] = _tried("parent", driver) if during else "RunLockedError"
        answer["another"] = _tried("child", driver)
    driver.runs()
    if deed != "exits":
        driver.close()
    _tell(directory, answer)
    if deed == "outlives":
        _outlive(directory)


def _tell(directory: str, answer: dict[str, Any]) -> None:
    path = Path(directory).parent / "answer"
    path.with_suffix(".new").write_text(json.dumps(answer))
    path.with_suffix(".new").rename(path)


def _outlive(directory: str) -> None:
    leave = Path(directory).parent / "leave"
    limit = time.monotonic() + 20
    while not leave.exists() and time.monotonic() < limit:
        time.sleep(0.005)


class _Parent:
    def __init__(self, directory: str, how: str, when: str, deed: str, durability: Any = "process") -> None:
        self.directory, self.how, self.when, self.deed = directory, how, when, deed
        self.driver = Driver(directory, durability=durability)
        self.is_child = False

    def begin(self, when: str) -> None:
        """Make the child, if it is the time. In a forked child this comes back with `is_child`."""
        if when != self.when:
            return
        process, pid = None, 0
        if self.how != "fork":
            process = multiprocessing.get_context(self.how).Process(
                target=child, args=(self.deed, self.directory, when == "during")
            )
            process.start()
        else:
            pid = os.fork()
            self.is_child = pid == 0
        if self.is_child:
            # Or the test would wait for this process to end.
            for pipe in jobs.pipes:
                os.close(pipe)
            jobs.oracle = -1
        elif self.deed == "outlives":
            while not (Path(self.directory).parent / "answer").exists():
                time.sleep(0.001)
        elif process is not None:
            process.join()
        else:
            os.waitpid(pid, 0)

    def job(self, state: int = 0) -> Job:
        note(START, state)
        for i in range(state, ITEMS):
            note(BEGIN, i)
            yield checkpoint(i + 1)
            note(ACK, i)
            if i == AT:
                self.begin("during")
                if self.is_child and self.deed == "exits":
                    sys.exit(0)
                if self.is_child and self.deed != "saves":
                    self.be_forked({})
            elif i > AT and (self.when, self.deed) == ("during", "outlives"):
                signal.pause()      # it is killed here, and its child lives on
        return ITEMS

    async def job_in_loop(self, state: int = 0) -> int:
        """The same as a coroutine: the child is made, and lives, inside a running event loop."""
        made = self.job(state)
        while True:
            try:
                each = next(made)
            except StopIteration as end:
                return int(end.value)
            await each

    def be_forked(self, answer: dict[str, Any]) -> None:
        """The rest of a forked child's life."""
        if self.deed == "saves":
            answer["another"] = _tried("child", self.driver)
        if self.deed in ("saves", "closes"):
            self.driver.close()
        if self.deed == "exits":
            atexit._run_exitfuncs()
        _tell(self.directory, answer)
        if self.deed == "outlives":
            _outlive(self.directory)
        os._exit(0)


def cell(directory: str, how: str, when: str, deed: str, durability: str, in_loop: bool) -> int:
    """A parent whose child is made at this moment, in this way, and does this; gives back the run's value."""
    parent = _Parent(directory, how, when, deed, durability)
    try:
        parent.driver.runs()
        parent.begin("before")
        if parent.is_child:
            parent.be_forked({})
        if in_loop:
            value = asyncio.run(parent.driver.arun(parent.job_in_loop, name="parent"))
        else:
            value = parent.driver.run(parent.job, name="parent")
        parent.begin("after")
    except BaseException as error:
        if parent.is_child:
            parent.be_forked({"in progress": type(error).__name__})
        raise
    if parent.is_child:
        parent.be_forked({})
    parent.driver.close()
    return value


def again(directory: str, in_loop: bool) -> list[int]:
    """The parent's run once more."""
    with Driver(directory) as driver:
        last, parent = driver.info("parent").seq, _Parent(directory, "", "", "")
        if in_loop:
            return [last, asyncio.run(driver.arun(parent.job_in_loop, name="parent", once=True))]
        return [last, driver.run(parent.job, name="parent", once=True)]


jobs.TASKS |= {"cell": cell, "again": again}
