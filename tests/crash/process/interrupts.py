"""Ctrl-C at a chosen opcode, and whether the process can go on after it."""

from __future__ import annotations

import asyncio
import dis
import os
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any

import jobs
from plots import RUN, aftermath, begin, play

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


def interrupted(
    directory: str, durability: str, resume: bool, way: str = RUN, place: list[Any] | None = None, occurrence: int = 0,
    cancel_at: int = -1,
) -> list[Any]:
    """Ctrl-C in a run, or cancelling at one of its pauses; then the same run again, here and in a new driver.

    What the writer thread does is done inline, so that it is interrupted, too.
    """
    driver = begin(directory, way, durability, resume, inline=True)
    tracer = Tracer((place[0], place[1], place[2]) if place else None, occurrence)
    cancelled = False
    tracer.start()
    try:
        play(driver, way, cancel_at=cancel_at)
    except KeyboardInterrupt:
        pass
    except asyncio.CancelledError:
        cancelled = True
    finally:
        tracer.stop()
    seen = [[*key, count] for key, count in tracer.seen.items()] if place is None else []
    return [aftermath(driver, directory, way), tracer.hit or cancelled, seen]


jobs.TASKS["interrupted"] = interrupted
