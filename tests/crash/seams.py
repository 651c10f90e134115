"""Where a kill that the clock draws hardly ever comes: between two steps of one module."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import resumable

PACKAGE = Path(resumable.__file__).parent

# What a run goes through as it begins, is handed over to the log, and ends; half of it is the journal.
_OTHERS = (
    "runs/live.py", "runs/opening.py", "storage/disksync.py", "storage/folder.py", "storage/handoff.py", "storage/lmdb_log.py",
    "storage/lock.py", "storage/side.py", "storage/writer.py",
)
MODULES = (*_OTHERS, *["storage/journal.py"] * len(_OTHERS))


def kill_at(module: str, step: int) -> None:
    """SIGKILL this process at the so-many-th step of a module from here on: a call, a return, a call of compiled code."""
    file = str(PACKAGE / module)
    left = step

    def look(frame: FrameType, event: str, arg: object) -> None:
        nonlocal left
        if frame.f_code.co_filename == file:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    _watch(look)


def steps_of(work: Callable[[], object]) -> dict[str, int]:
    """How many steps the library's modules take in this work, of those that take any."""
    steps: Counter[str] = Counter()

    def look(frame: FrameType, event: str, arg: object) -> None:
        steps[frame.f_code.co_filename] += 1

    _watch(look)
    work()
    _watch(None)
    return {str(Path(file).relative_to(PACKAGE)): count for file, count in steps.items() if Path(file).is_relative_to(PACKAGE)}


def _watch(look: Callable[[FrameType, str, object], None] | None) -> None:
    threading.setprofile(look)  # type: ignore[arg-type]
    sys.setprofile(look)
