"""Loops, maps and loops in transactions that are killed at steps of any module, in one life after the other.

Each task goes on with what the lives before have left, and gives back all that there is at the end.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import jobs
import seams
from jobs import BEGIN, note

import resumable
from resumable import DeadLetter, Driver

ITEMS = 60


def keyed(driver: Driver, place: Path, seed: int) -> Any:
    """Items in another order in each life; results and a sum."""
    keys = list(range(ITEMS))
    random.Random(seed).shuffle(keys)
    items = driver.items(keys, name="loop", key=str, once=True)
    with items.state(total=0) as carried:
        for key in items:
            note(BEGIN, key)
            carried.total += key
            items.record(key * 2)
    return [carried.total, sorted(driver.results("loop"))]


def rows(driver: Driver, place: Path, seed: int) -> Any:
    """Rows of a database, and a sum."""
    with closing(sqlite3.connect(place / "rows")) as rows:
        with rows:
            rows.execute("PRAGMA synchronous = OFF")    # what a kill leaves is the same
            rows.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
        items = driver.items(range(ITEMS), name="loop", once=True)
        with driver.transaction(rows), items.state(total=0) as carried:
            for number in items:
                note(BEGIN, number)
                rows.execute("INSERT INTO numbers VALUES (?)", (number,))
                carried.total += number
        return [carried.total, [number for number, in rows.execute("SELECT number FROM numbers ORDER BY number")]]


def lines(driver: Driver, place: Path, seed: int) -> Any:
    """Lines of a file, results, a sum, and items that fail for good."""
    items = driver.items(range(ITEMS), name="loop", once=True, max_attempts=2)
    with resumable.open(place / "lines") as file, items.state(total=0) as carried:
        for number in items:
            with items.attempt():
                note(BEGIN, number)
                file.write(f"{number}: " + "-" * (number * 53 % 211) + "\n")
                carried.total += number
                items.record(number)
                if number % 13 == 5:
                    raise ValueError(number)
    results = [result.index if isinstance(result, DeadLetter) else [result] for result in driver.results("loop")]
    return [carried.total, results, (place / "lines").read_text()]


def mapped(driver: Driver, place: Path, seed: int) -> Any:
    """A map whose dead letters are done again, now in threads and now not."""
    mended = place / "mended"

    def square(number: int) -> int:
        note(BEGIN, number)
        if number % 11 == 3 and not mended.exists():
            raise ValueError(number)
        return number * number

    with ThreadPoolExecutor(3) as threads:
        executor = threads if seed % 2 else None
        driver.map(square, range(ITEMS), name="loop", max_attempts=2, executor=executor, once=True)
        letters = sorted(letter.index for letter in driver.dead_letters("loop"))     # in threads not in their items' order
        if not mended.exists():
            assert letters == [number for number in range(ITEMS) if number % 11 == 3]
            mended.touch()
        if letters:
            driver.retry_dead_letters("loop")
        return list(driver.map(square, range(ITEMS), name="loop", max_attempts=2, executor=executor, once=True))


def seen(driver: Driver, place: Path, seed: int) -> Any:
    """A set of keys beside a loop."""
    with driver.seen("numbers") as numbers:
        for number in driver.items(range(ITEMS), name="loop", once=True):
            if number not in numbers:
                note(BEGIN, number)
                numbers.mark(number)
            if number % 5 == 0:
                numbers.forget(number)
        return [number in numbers for number in range(ITEMS)]


KINDS: dict[str, Callable[[Driver, Path, int], Any]] = {
    "keyed": keyed, "rows": rows, "lines": lines, "mapped": mapped, "seen": seen,
}


def live(kind: str, place: str, seed: int, settings: dict[str, Any]) -> Any:
    """One life."""
    Path(place).mkdir(exist_ok=True)
    with Driver(Path(place) / "state", **settings) as driver:
        return KINDS[kind](driver, Path(place), seed)


def steps(kind: str, place: str) -> dict[str, int]:
    """The steps of an undisturbed life, by module."""
    return seams.steps_of(lambda: live(kind, place, 0, {}))


def _forget_the_end() -> None:
    """A finished loop has no state."""
    from resumable.runs.engine import Engine

    Engine.last_state = lambda self, name: None  # type: ignore[method-assign]


jobs.PLANTS["forget the end"] = _forget_the_end
jobs.TASKS |= {"loop life": live, "loop steps": steps}
