"""Preemption: a machine that is about to be taken away says so by a signal; the job stops at its next checkpoint.

Opt-in, because installing signal handlers is the program's business. A handler of the program's own is called too, at
once. A second signal does not wait for a checkpoint, and one that no checkpoint obeyed before the last run was over does
then what it would have done without us.

One list of runs and one handler for the whole process: runs of several drivers end in any order. Python takes handlers in
the main thread alone: runs in other threads are stopped by the signals that the main thread's runs handle, or not at all.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from resumable._fastlog import fork_count
from resumable.errors import Preempted
from resumable.runs.live import LiveRun

DEFAULT = (signal.SIGTERM, signal.SIGUSR1)

# No lock: a signal handler could not wait for it. Each step below leaves what a handler can make sense of.
_runs: dict[LiveRun, frozenset[int]] = {}
_earlier: dict[int, Any] = {}
_unanswered = 0     # a signal that no run has obeyed yet
_forks = fork_count()


@contextmanager
def preemptible(run: LiveRun, signals: Iterable[int]) -> Iterator[None]:
    """Inside, these signals stop the run. The earlier handlers are back when no run is left that stops on them."""
    watch(run, signals)
    try:
        yield
    finally:
        forget(run)


def watch(run: LiveRun, signals: Iterable[int]) -> None:
    """From here on these signals stop the run, until it is forgotten."""
    if signals := frozenset(signals):
        _add(run, signals)


def forget(run: LiveRun) -> None:
    """The run is over; without effect if it was not watched."""
    if run in _runs:
        _remove(run)


def _add(run: LiveRun, signals: frozenset[int]) -> None:
    _forget_the_parents()
    _restore()
    _runs[run] = signals
    if _unanswered in signals:      # another run has yet to stop for it
        _stop(run, _unanswered)
    if threading.current_thread() is threading.main_thread():
        for number in signals - _earlier.keys():
            # None, a handler that was not installed from Python, cannot be put back.
            _earlier[number] = signal.getsignal(number) or signal.SIG_DFL
            signal.signal(number, _handle)


def _remove(run: LiveRun) -> None:
    global _unanswered
    _forget_the_parents()
    _runs.pop(run, None)
    if run.stopped:
        _unanswered = 0
    number = _unanswered
    heard = callable(_earlier.get(number))
    _restore()
    if number and not _stopping_on(number):
        _unanswered = 0
        if not heard:
            os.kill(os.getpid(), number)


def _handle(number: int, frame: FrameType | None) -> None:
    global _unanswered
    _forget_the_parents()
    _unanswered = number    # first: a run that another thread removes from now on sees it
    runs, earlier = _stopping_on(number), _earlier.get(number)
    if not runs:
        _unanswered = 0
        _restore()
    again = any(run.stop_signal for run in runs)
    for run in runs:
        _stop(run, number)
    if callable(earlier):
        earlier(number, frame)
    elif not runs and signal.getsignal(number) is signal.SIG_DFL:
        signal.raise_signal(number)
    if again:
        _unanswered = 0
        raise Preempted(runs[-1].identity.name, runs[-1].seq, number)


def _stop(run: LiveRun, number: int) -> None:
    run.stop_signal = number
    run.write.attention = 1


def _stopping_on(number: int) -> list[LiveRun]:
    return [run for run, signals in list(_runs.items()) if number in signals]


def _restore() -> None:
    """Put back the handlers of signals that stop no run any more; another thread leaves that to the main thread."""
    if threading.current_thread() is threading.main_thread():
        for number, earlier in list(_earlier.items()):
            if not _stopping_on(number):
                if signal.getsignal(number) is _handle:     # else the program has put its own in our place
                    signal.signal(number, earlier)
                del _earlier[number]


def _forget_the_parents() -> None:
    """A forked child has the parent's handlers, but none of its runs."""
    global _unanswered, _forks
    if _forks != fork_count():
        _runs.clear()
        _unanswered, _forks = 0, fork_count()
