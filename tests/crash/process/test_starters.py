"""Two starters of one run at once."""

from __future__ import annotations

import random
import socket
import threading
import time
from pathlib import Path

import jobs
import pytest
from figures import Figures, amount
from harness import Life, Server, scratch

pytestmark = pytest.mark.crash

RACES = amount("L1", 60)


class Race:
    """Two processes start one run at the same moment; the winner holds it until the loser has been told."""

    def __init__(self, servers: list[Server], directory: Path, number: int, plant: str | None = None) -> None:
        self._servers, self._plant = servers, plant
        self._task = {"directory": str(directory), "name": f"run {number}"}
        self._gate, self._exit = directory.parent / f"gate.{number}", directory.parent / f"exit.{number}"
        self._lives = [Life(), Life()]
        self._ready = [threading.Event(), threading.Event()]
        self._done = [threading.Event(), threading.Event()]

    def run(self, kill: bool) -> float:
        """Race, check who won, end the winner; gives back how long the next start took."""
        threads = [threading.Thread(target=self._start, args=(i, kill)) for i in (0, 1)]
        for thread in threads:
            thread.start()
        for event in self._ready:
            event.wait(10)
        self._gate.touch()
        for thread in threads:
            thread.join()
        self._judge()
        began = time.monotonic()
        self._servers[0].live("contend", **self._task, gate="", leave="").value()
        return time.monotonic() - began

    def _start(self, i: int, kill: bool) -> None:
        def stop(life: Life) -> bool:
            if life.events:
                self._ready[i].set()
            if life.last(jobs.START) is None:
                return False
            self._done[1 - i].wait(2)
            self._exit.touch()
            return kill

        gate, leave = str(self._gate), "" if kill else str(self._exit)
        self._lives[i] = self._servers[i].live(
            "contend", **self._task, gate=gate, leave=leave or "never", plant=self._plant, kill_at=stop
        )
        self._done[i].set()

    def _judge(self) -> None:
        winners = [life for life in self._lives if life.last(jobs.START) is not None]
        assert len(winners) == 1, f"{len(winners)} of 2 hold the run: {[life.report.get('trace') for life in self._lives]}"
        (loser,) = (life for life in self._lives if life is not winners[0])
        assert loser.report.get("error") == "RunLockedError", loser.report
        named = loser.report["fields"]
        assert named["pid"] == winners[0].pid
        assert named["host"] == socket.gethostname()
        assert abs(named["since"] - time.time()) < 30


def test_two_starters(seed: int, figures: Figures) -> None:
    """Of two starters one wins, the other's error names pid, host and since when, and a killed holder is in nobody's way."""
    choose = random.Random(seed)
    slowest = 0.0
    killed = 0
    with Server() as one, Server() as other, scratch() as place:
        for number in range(RACES):
            kill = choose.random() < 0.5
            # Every tenth race is for a directory that is not there yet.
            after = Race([one, other], place / f"d{number // 10}", number).run(kill)
            killed += kill
            slowest = max(slowest, after)
    figures("L1", f"the next start took at most {slowest * 1000:.0f} ms", races=RACES, winners_killed=killed)
    assert slowest < 5


def test_control_no_lock() -> None:
    """A lock that locks nothing is found out."""

    def race_on() -> None:
        with Server() as one, Server() as other, scratch() as place:
            for number in range(10):
                Race([one, other], place / "d", number, plant="lock nothing").run(False)

    with pytest.raises(AssertionError):
        race_on()
