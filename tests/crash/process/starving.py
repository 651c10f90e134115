"""A run whose memory gives out at a chosen allocation, and whether the process can go on after it."""

from __future__ import annotations

import contextvars
import ctypes
import functools
import gc
import signal
import sysconfig
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import jobs
from compiled import compile_c
from plots import aftermath, begin, play

from resumable import Driver
from resumable.storage import home, lmdb_log, lock
from resumable.values.plugins import top_levels

LOCK_KEPT = "a lock that Python kept"
NOT_STARTED = "a thread that Python did not start"
RESERVE = 16


class NotStarted(BaseException):
    """A thread had no memory to begin with, and `Thread.start` waits for ever until it says that it has begun."""


def _look(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code is threading.Thread.start.__code__:
            raise NotStarted
        frame = frame.f_back


@functools.cache
def allocations() -> ctypes.PyDLL:
    """no_memory.c, in this process."""
    source = Path(__file__).parent / "no_memory.c"
    library = ctypes.PyDLL(str(compile_c(source, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}")))
    library.no_memory_from.argtypes = [ctypes.c_long, ctypes.c_long]
    library.no_memory_end.restype = ctypes.c_long
    if library.no_memory_for(b"/lmdb/") < 2:
        raise RuntimeError("LMDB's allocations were not found: is its module linked in another way?")
    return library


def starved(
    directory: str, way: str, durability: str, resume: bool, inline: bool, name: str | None, go_on: bool, first: int = 0,
    last: int = 0,
) -> list[Any]:
    """A run in which the allocations `first` to `last` fail; then, if this process is to `go_on`, the same run again."""
    library = allocations()
    _warm_up(way)
    driver = begin(directory, way, durability, resume, inline, name)
    ended = ""
    signal.signal(signal.SIGALRM, _look)
    signal.setitimer(signal.ITIMER_REAL, 3)
    library.no_memory_from(first, last)
    try:
        play(driver, way, name=name)
    except NotStarted:
        return [None, NOT_STARTED, library.no_memory_end()]
    except BaseException as error:  # noqa: BLE001 - which one it is, is the answer
        library.no_memory_end()
        kinds = [kind.__name__ for kind in type(error).__mro__]
        ended = "a named error" if "ResumableError" in kinds else kinds[0]
    count = library.no_memory_end()
    if _is_kept(driver, last - first + 1):
        return [None, LOCK_KEPT, count]
    return [aftermath(driver, directory, way, name) if go_on else None, ended, count]


def _is_kept(driver: Driver, failed: int) -> bool:
    """Whether this thread holds a lock although it is in no `with` block.

    CPython leaves a block without releasing the lock when it has no memory for the call of `__exit__`. Another thread
    that wants it then waits for ever, so all that such a process can do is end. And when its reserve of 16 errors is used
    up, it raises the same one again and again, and never lets go of the frames of that, nor of a run in one of them.
    """
    gc.collect()
    engine = driver._engine
    found: list[Any] = [home._turn, lmdb_log._lock, lock._forks]  # type: ignore[attr-defined]
    plain: list[Any] = [driver._turn]
    if engine is not None:
        plain.append(engine._turn)
        if engine._home is not None:
            found.append(engine._home.writer._lock)  # type: ignore[attr-defined]
    if any(each._is_owned() for each in found) or any(each.locked() for each in plain):
        return True
    return failed > RESERVE and any(each._fd is not None for each in lock._held)


def _warm_up(way: str) -> None:
    """Import what a run imports: Python's own start is not what is tried here, and it would be most of it."""
    told, jobs.oracle = jobs.oracle, -1
    # The first use of a context variable in a thread crashes CPython 3.11 when it has no memory for it.
    contextvars.ContextVar("any").set(None)
    with Driver(":memory:") as driver:
        play(driver, way)
    jobs.oracle = told


top_levels()        # in the server, once: it takes longer than a run
jobs.TASKS["starved"] = starved
