"""Preemption: a machine that is about to be taken away says so by a signal; the job stops at its next checkpoint.

Opt-in, because installing signal handlers is the program's business. The earlier handler is called after ours. A second
signal does not wait for a checkpoint.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

from resumable._fastlog import fork_count
from resumable.errors import Preempted
from resumable.runs.live import LiveRun

DEFAULT = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """Handles the signals while at least one run is inside. Outside the main thread, where Python takes no handlers, the
    runs are stopped by signals that the main thread's runs handle, or not at all."""

    def __init__(self, signals: Iterable[int]) -> None:
        self._signals = tuple(signals)
        self._runs: list[LiveRun] = []
        self._earlier: dict[int, Any] = {}
        self._unanswered = 0
        self._forks = 0

    def add(self, run: LiveRun) -> None:
        """From now on the signals stop this run; so does one that came too late for the run before it."""
        if self._forks != fork_count():     # a child's own: the parent's runs are not in this process
            self._runs, self._earlier, self._unanswered, self._forks = [], {}, 0, fork_count()
        if self._unanswered:
            self._stop(run, self._unanswered)
            self._unanswered = 0
        if threading.current_thread() is threading.main_thread() and not self._earlier:
            for number in self._signals:
                self._earlier[number] = signal.signal(number, self._handle)
        self._runs.append(run)

    def remove(self, run: LiveRun) -> None:
        """They do not any more; after the last run the earlier handlers are back."""
        if run in self._runs:
            self._runs.remove(run)
            self._unanswered = 0 if run.stopped else run.stop_signal
        if not self._runs and self._earlier and threading.current_thread() is threading.main_thread():
            for number, earlier in self._earlier.items():
                signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)
            self._earlier = {}

    @staticmethod
    def _stop(run: LiveRun, number: int) -> None:
        run.stop_signal = number
        run.write.attention = 1

    def _handle(self, number: int, frame: FrameType | None) -> None:
        earlier = self._earlier.get(number)
        if self._forks != fork_count():     # a forked child has no run to stop: it does what it did before
            signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)
            signal.raise_signal(number)
            return
        again = any(run.stop_signal for run in self._runs)
        for run in self._runs:
            self._stop(run, number)
        if callable(earlier):
            earlier(number, frame)
        if again and self._runs:
            raise Preempted(self._runs[-1].identity.name, self._runs[-1].seq, number)
