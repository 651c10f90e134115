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

    def add(self, run: LiveRun) -> None:
        """From now on the signals stop this run."""
        if threading.current_thread() is threading.main_thread() and not self._earlier:
            for number in self._signals:
                self._earlier[number] = signal.signal(number, self._handle)
        self._runs.append(run)

    def remove(self, run: LiveRun) -> None:
        """They do not any more; after the last run the earlier handlers are back."""
        if run in self._runs:
            self._runs.remove(run)
        if not self._runs and self._earlier and threading.current_thread() is threading.main_thread():
            for number, earlier in self._earlier.items():
                signal.signal(number, earlier if earlier is not None else signal.SIG_DFL)
            self._earlier = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        earlier = self._earlier.get(number)
        again = any(run.stop_signal for run in self._runs)
        for run in self._runs:
            run.stop_signal = number
            run.write.attention = 1
        if callable(earlier):
            earlier(number, frame)
        if again and self._runs:
            raise Preempted(self._runs[-1].identity.name, self._runs[-1].seq, number)
