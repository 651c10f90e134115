"""Ctrl-C at a chosen opcode, and whether the process can go on after it."""

from __future__ import annotations

import contextlib
import dis
import os
import sys
from collections import Counter
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

import jobs
from jobs import ACK, BEGIN, START, Job, Stumble, mixed, note

from resumable import Driver, checkpoint

ITEMS = 8
Place = tuple[str, str, int]     # file, function, offset of the opcode

_JUMPS_BACK = {number for name, number in dis.opmap.items() if name.startswith("JUMP_BACKWARD")}


class Tracer:
    """Raises KeyboardInterrupt at one of the opcodes of this package's frames where the interpreter looks for signals.

    That is when a function begins, after a call, and where a loop goes back. Nowhere else can Ctrl-C come, so that, say,
    `with lock:` is safe: nothing is looked at between the end of its body and the release.
    """

    def __init__(self, place: Place | None, occurrence: int) -> None:
        self.seen: Counter[Place] = Counter()
        self.hit = False
        self._place, self._occurrence = place, occurrence
        self._codes: dict[CodeType, bytes] = {}

    def start(self) -> None:
        sys.setprofile(self.profile)
        sys.settrace(self.trace)

    @staticmethod
    def stop() -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "call":
            if not _is_ours(frame):
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            code = self._codes.setdefault(frame.f_code, frame.f_code.co_code)
            if code[frame.f_lasti] in _JUMPS_BACK:
                self._look(frame)
        return self.trace

    def profile(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_return") and _is_ours(frame):
            self._look(frame)

    def _look(self, frame: FrameType) -> None:
        place = os.path.basename(frame.f_code.co_filename), frame.f_code.co_qualname, frame.f_lasti
        self.seen[place] += 1
        if place == self._place and self.seen[place] == self._occurrence:
            self.hit = True
            raise KeyboardInterrupt


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] == "resumable"


def plot(driver: Driver, stumble: bool) -> Callable[..., Job]:
    """A short job that goes every way a checkpoint can go."""

    def job(state: tuple[int, int, Any] = (0, 0, None)) -> Job:
        done, digest, _ = state
        note(START, done)
        for i in range(done, ITEMS):
            note(BEGIN, i)
            if stumble and i == 3:
                raise Stumble
            digest = mixed(digest, i)
            filling = [None, b"small", bytes(300_000), {"set": {i}}, bytes(70_000), [i] * 9, 1j, jobs.Progress(i)][i]
            if i % 3 == 0:
                yield checkpoint((i + 1, digest, filling), result=(i, digest))
            else:
                yield checkpoint((i + 1, digest, filling))
            note(ACK, i)
            if i == 5:
                driver.sync()
        return digest

    return job


def interrupted(
    directory: str, durability: str, resume: bool, place: list[Any] | None = None, occurrence: int = 0
) -> list[Any]:
    """Ctrl-C in a run, then the same run again, here and in a new driver."""
    from resumable.storage import disksync

    disksync.CAPACITY = 1 << 18
    driver = Driver(directory, durability=durability, sync_every=3600)
    if resume:
        with contextlib.suppress(Stumble):
            driver.run(plot(driver, True), name="plot")
    tracer = Tracer((place[0], place[1], place[2]) if place else None, occurrence)
    tracer.start()
    try:
        driver.run(plot(driver, False), name="plot")
    except KeyboardInterrupt:
        pass
    finally:
        tracer.stop()
    value = driver.run(plot(driver, False), name="plot", once=True)
    rows = [list(row) for row in driver.results("plot")]
    info = driver.info("plot")
    driver.close()
    with Driver(directory) as other:
        again = other.run(plot(other, False), name="plot", once=True)
    left = sorted(name for name in os.listdir(f"{directory}/runs") if os.listdir(f"{directory}/runs/{name}"))
    seen = [[*key, count] for key, count in tracer.seen.items()] if place is None else []
    return [[value, again, rows, info.status, info.pid, left], tracer.hit, seen]


jobs.TASKS["interrupted"] = interrupted
