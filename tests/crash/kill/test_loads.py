"""Loops that fill a table through `driver.transaction`, killed again and again: the rows are those of an undisturbed run."""

from __future__ import annotations

import itertools
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jobs
import load_jobs
import psycopg
import pytest
from figures import Figures, share
from harness import Ledger, Server, scratch
from places import RESOURCES

sys.path.append(str(RESOURCES))

import servers

pytestmark = pytest.mark.crash

KILLS = 200 if share() else 12
TABLE = "CREATE TABLE loaded (run text, item int, total int)"
WANTED = {"load": [*range(load_jobs.ITEMS)], "load shuffled": [*range(1, load_jobs.ITEMS + 1)]}


@dataclass
class Outside:
    """Where a database is, and what others see in it."""

    url: str
    look: Callable[[str], list[Any]]


@contextmanager
def postgres(kind: str) -> Iterator[Outside]:
    with servers.postgres() as server, psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(TABLE)
        url = server.url if kind == "psycopg" else server.url.replace("postgresql:", "postgresql+psycopg:")
        yield Outside(url, lambda query: connection.execute(query).fetchall())


@contextmanager
def sqlite(directory: Path) -> Iterator[Outside]:
    path = str(directory / "loaded.db")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute(TABLE)
        yield Outside(path, lambda query: connection.execute(query).fetchall())


class Loading:
    """Kills loops of one kind until it has its number, lets each come to its end, and looks at the table."""

    def __init__(
        self, server: Server, kind: str, outside: Outside, home: Path, seed: int, task: str, plant: str | None = None
    ) -> None:
        self._server, self._kind, self._outside, self._home, self._plant = server, kind, outside, home, plant
        self._task = task
        self._random = random.Random(f"{seed} {kind}")
        self._opening = 0.05
        self.kills = self.runs = self.repeated = 0
        self.committed = 0      # kills that came when the item in flight was committed

    def go(self, kills: int) -> None:
        while self._goes_on(kills):
            self.runs += 1
            self._one_run(f"run {self.runs}", kills)

    def _goes_on(self, kills: int) -> bool:
        """Also until a kill came where it matters: on a busy machine the first ones may all come before the loop begins."""
        return self.kills < kills or (not self.committed and self.kills < 20 * kills)

    def _one_run(self, name: str, kills: int) -> None:
        ledger = Ledger()
        while True:
            delay = self._random.uniform(0, self._opening + 0.1) if self._goes_on(kills) else None
            life = self._server.live(
                self._task, kind=self._kind, home=str(self._home), name=name, url=self._outside.url, kill_after=delay, timeout=60,
                plant=self._plant,
            )
            begun, first = ledger.begun, life.first(jobs.START)
            ledger.add(life, jobs)
            self.committed += begun > 0 and first == begun
            self._opening += (life.first_start - self._opening) / 8 if life.first_start else self._opening / 4
            if not life.killed:
                break
            self.kills += 1
        self.repeated += ledger.repeated
        found = self._outside.look(f"SELECT item, total FROM loaded WHERE run = '{name}' ORDER BY total, item")
        items = [item for item, _ in found]
        assert (items if self._task == "load" else sorted(items)) == WANTED[self._task]
        assert [total for _, total in found] == list(itertools.accumulate(items))
        assert life.value() == [sum(items), [list(row) for row in found]]
        # A kill behind the loop's end may leave its row, which the next run of that name takes.
        marks = self._outside.look(f"SELECT done FROM resumable_loops WHERE run = '{name}'")
        assert marks in ([], [(load_jobs.ITEMS,)])


def loading(kind: str, kills: int, seed: int, task: str = "load", plant: str | None = None) -> Loading:
    with scratch() as place, Server("load_jobs") as server:
        with sqlite(place) if kind == "sqlite" else postgres(kind) as outside:
            one = Loading(server, kind, outside, place / "home", seed, task, plant)
            one.go(kills)
            return one


@pytest.mark.parametrize("task", WANTED)
@pytest.mark.parametrize("kind", load_jobs.CONNECT)
def test_a_table_is_filled_under_kills(seed: int, figures: Figures, kind: str, task: str) -> None:
    """Killed at random instants, a loop in a transaction leaves each row once, in number and sum, and each of its results; also
    where the items are known by their keys and stand elsewhere in each life."""
    done = loading(kind, KILLS, seed, task)
    figures(
        "K2", f"of loops in transactions, {kind}{'' if task == 'load' else ', items shuffled'}", kills=done.kills, runs=done.runs,
        repeated=done.repeated, committed_in_flight=done.committed,
    )
    assert done.kills >= KILLS
    assert done.committed > 0


@pytest.mark.parametrize(
    ("plant", "task"), [("believe the log's mark", "load"), ("publish first", "load"), ("count keys alone", "load shuffled")]
)
def test_control_of_transactions(seed: int, plant: str, task: str) -> None:
    """A loop that goes on from the log's mark, one whose marks are published before their rows, and one that has lost which
    items are done, are found out."""
    with pytest.raises(AssertionError):
        loading("sqlite", 60, seed, task, plant)
