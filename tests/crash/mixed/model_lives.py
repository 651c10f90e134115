"""Processes of the state machine: what one told, against what it should have; and one that waits in the middle of its run."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Life
from model import Event, Expected, Note
from model_jobs import CALL, RAISED


def notes_of(life: Life) -> list[Note]:
    return [note for note in life.list() if note[0] >= CALL]


class Verdict:
    """Whether a life can have gone this way: then `events` are all that may have happened, else `wrong` says why not."""

    def __init__(self, way: Expected, life: Life, *, failing: bool) -> None:
        """`failing`: system calls of it were made to fail."""
        self._way, self._life, self._notes = way, life, notes_of(life)
        self.events: list[list[Event]] = []
        self.wrong: str | None = None
        if life.timed_out:
            self.wrong = "it hung"
        elif life.killed:
            self._killed()
        elif life.code:
            self.wrong = f"its exit code is {life.code}"
        elif failing:
            self._failing()
        else:
            self._whole()

    def _killed(self) -> None:
        told = self._way.notes()
        if self._notes != told[: len(self._notes)]:
            self.wrong = f"killed, it told {self._notes}, not the first of {told}"
        else:
            self.events = list(self._way.stopped(len(self._notes)))

    def _whole(self) -> None:
        if "value" not in self._life.report:
            self.wrong = f"it failed: {self._life.report.get('trace')}"
        elif self._notes != self._way.notes():
            self.wrong = f"it told {self._notes}, not {self._way.notes()}: {self._life.report}"
        else:
            self._compare(self._life.report["value"])
            self.events = [] if self.wrong else [self._way.events()]

    def _compare(self, outcomes: list[dict[str, Any]], *, failing: bool = False) -> None:
        for outcome, expected in zip(outcomes, self._way.outcomes, strict=False):
            same = {key: outcome[key] for key in ("error", "value") if key in outcome} == expected
            if not same and not (failing and "ResumableError" in outcome.get("bases", ())):
                self.wrong = f"a call came to {outcome}, not {expected}"

    def _failing(self) -> None:
        report = self._life.report
        if "value" in report:
            self._compare(report["value"], failing=True)
        elif "ResumableError" not in report["bases"]:
            self.wrong = f"it failed: {report['trace']}"
        raised = any(note[0] == RAISED for note in self._notes)
        sure = next((at for at, note in enumerate(self._notes) if note[0] == RAISED), len(self._notes))
        if self._notes[:sure] != self._way.notes()[:sure]:
            self.wrong = f"failing, it told {self._notes}, not the first of {self._way.notes()}"
        if self.wrong:
            return
        if raised or self._notes != self._way.notes():
            self.events = list(self._way.stopped(sure))
        else:
            self.events = [self._way.events()]
        if "NotDurableWarning" in report["warnings"]:
            late = ("durable", "prune", "told")
            self.events += [[event for event in events if event.what not in late] for events in self.events]


class Held:
    """A life that waits behind one of its notes, until it is ended."""

    def __init__(self, live: Callable[..., Life], request: dict[str, Any], note: Note, leave: Path) -> None:
        self.request, self._note, self._leave = request, note, leave
        self._reached = threading.Event()
        self.pid = 0
        self.life = Life()
        self._live = live
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._go)
        self._thread.start()

    def _go(self) -> None:
        try:
            self.life = self._live("calls", server=1, kill_at=self._look, timeout=300, **self.request)
        except BaseException as error:  # noqa: BLE001 - raised in the test's own thread
            self._error = error
        self._reached.set()

    def _look(self, life: Life) -> bool:
        if self._note in life.list():
            self.pid = life.pid
            self._reached.set()
        return False

    def waits(self) -> bool:
        """Whether it came to the place where it waits."""
        self._reached.wait()
        if not self.pid:
            self._join()
        return self.pid > 0

    def end(self, how: str) -> None:
        """Have it go on, or kill it; back when it has ended."""
        if how == "kill":
            os.kill(self.pid, signal.SIGKILL)
        else:
            self._leave.touch()
        self._join()

    def _join(self) -> None:
        self._thread.join()
        self._leave.unlink(missing_ok=True)
        if self._error is not None:
            raise self._error
