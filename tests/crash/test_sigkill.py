"""SIGKILL at random instants of real jobs."""

from __future__ import annotations

import random
from pathlib import Path

import jobs
import pytest
from figures import Figures, amount
from harness import Ledger, Life, Lost, Server, scratch, spread

pytestmark = pytest.mark.crash

KILLS = amount("K2", 300)
SHARE_OF_RESUMES = 0.3


class Slaughter:
    """Kills runs of one kind of job until it has its number, then lets the last one finish."""

    def __init__(self, server: Server, kind: str, place: Path, seed: int, plant: str | None = None) -> None:
        self._server, self._kind, self._place, self._plant = server, kind, place, plant
        self._random = random.Random(f"{seed} {kind}")
        self._opening = 0.02
        self.kills = self.resumes = self.acks = self.repeated = self.runs = 0

    def _life(self, name: str, kill_after: float | None) -> Life:
        return self._server.live(
            "kind", kind=self._kind, directory=str(self._place), name=name, plant=self._plant, kill_after=kill_after,
            sync_every=self._random.uniform(0.01, 0.05),
        )

    def go(self, kills: int) -> None:
        undisturbed = self._life("undisturbed", None).value()
        while self.kills < kills:
            self.runs += 1
            self._one_run(f"run {self.runs}", kills, undisturbed)

    def _one_run(self, name: str, kills: int, undisturbed: object) -> None:
        ledger = Ledger()
        while True:
            delay = None
            if self.kills < kills:
                aim_at_resume = ledger.begun and self.resumes < SHARE_OF_RESUMES * (self.kills + 1)
                limit = self._opening if aim_at_resume else self._opening + 0.05
                delay = self._random.uniform(0, limit)
            life = self._life(name, delay)
            ledger.add(life, jobs)
            if life.first_start is not None:
                self._opening += (life.first_start - self._opening) / 8
            if not life.killed:
                assert life.value() == undisturbed
                break
            self.kills += 1
            self.resumes += ledger.begun > 0 and life.first(jobs.START) is None
        self.acks += ledger.events
        self.repeated += ledger.repeated


def test_random_kills(seed: int, figures: Figures) -> None:
    """kill -9 at any instant loses no acknowledged checkpoint and repeats at most the item in flight."""
    done: list[Slaughter] = []
    each = -(-KILLS // len(jobs.KINDS))

    def work(server: Server, kind: str) -> None:
        with scratch() as place:
            slaughter = Slaughter(server, kind, place, seed)
            slaughter.go(each)
            done.append(slaughter)

    spread(jobs.KINDS, work)
    kills, resumes = sum(one.kills for one in done), sum(one.resumes for one in done)
    figures(
        "K2", kills=kills, while_resuming=resumes, runs=sum(one.runs for one in done),
        acknowledged=sum(one.acks for one in done), repeated=sum(one.repeated for one in done),
    )
    assert kills >= KILLS
    assert resumes >= SHARE_OF_RESUMES * kills


def test_control_acknowledged_too_early(seed: int) -> None:
    """A driver that publishes each checkpoint one yield late is found out."""
    with scratch() as place, Server() as server, pytest.raises(Lost):
        Slaughter(server, "ints", place, seed, plant="acknowledge early").go(20)


def test_control_parts_removed_early(seed: int) -> None:
    """A driver that removes side files in which parts of its last state stand is found out."""
    with scratch() as place, Server() as server, pytest.raises(AssertionError, match=r"StateGoneError|DamagedLogError"):
        Slaughter(server, "layers", place, seed, plant="forget parts").go(20)
