"""`driver.seen`: keys that were marked as seen, in whatever life."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from resumable import Driver, ResumableError, RunLockedError, RunNameError, UnsavableStateError


def test_keys_are_kept(driver: Driver) -> None:
    """Keys of any savable type are there in the next life, equal and of their type; those that were forgotten are not."""
    keys = ["a", b"a", 7, (1, "x"), None, 1.5, date(2026, 1, 2), Path("a/b"), frozenset({1})]
    with driver.seen("mails") as seen:
        assert len(seen) == 0
        for key in keys:
            assert key not in seen
            seen.mark(key)
            seen.mark(key)      # once is enough
            assert key in seen
            assert seen.seen(key)
        seen.forget(7)
        seen.forget("never marked")
        assert not seen.seen(7)
    for _ in range(2):
        with driver.seen("mails") as seen:
            assert [key for key in keys if key not in seen] == [7]
            assert len(seen) == len(keys) - 1
    with driver.seen("others") as others:
        assert len(others) == 0


def test_clearing(driver: Driver) -> None:
    """A cleared set is empty, takes keys again, and leaves no earlier run behind."""
    seen = driver.seen("mails")
    for number in range(1000):
        seen.mark(number)
    seen.clear()
    assert (len(seen), 5 in seen) == (0, False)
    seen.mark(5)
    seen.close()
    seen.close()
    with driver.seen("mails") as seen:
        assert len(seen) == 1
    assert len(driver.runs()) == 1


def test_one_at_a_time(driver: Driver) -> None:
    """Open in one place, the set is refused at another by an error that names the holder; dropped or closed, it is free."""
    seen = driver.seen("mails")
    with pytest.raises(RunLockedError, match="this very process"):
        driver.seen("mails")
    del seen
    with driver.seen("mails") as seen:
        seen.mark(1)
    with pytest.raises(ResumableError, match="are closed"):
        seen.mark(2)
    with pytest.raises(ResumableError, match="are closed"):
        len(seen)


def test_keys_that_cannot_be(driver: Driver) -> None:
    """What could never be met again, or cannot be saved, is refused, and the set is as before."""
    with driver.seen("mails") as seen:
        with pytest.raises(UnsavableStateError, match="does not equal itself"):
            seen.mark(Plain())
        with pytest.raises(UnsavableStateError):
            seen.mark(threading.Lock())
        with pytest.raises(TypeError):
            seen.mark([1])  # type: ignore[arg-type]
        assert len(seen) == 0
        seen.mark(1)


class Plain:
    """Compares by identity."""


def test_the_name_of_a_job(driver: Driver) -> None:
    """A loop's run is not taken for a set of keys."""
    for _ in driver.items(range(3), name="seen:mails"):
        break
    with pytest.raises(RunNameError, match="give the set of keys another name"):
        driver.seen("mails")
    assert [number for number in driver.items(range(3), name="seen:mails")] == [0, 1, 2]  # noqa: C416


def test_seen_by_threads(driver: Driver) -> None:
    """Many threads mark, forget and ask at once, and no key is lost or doubled."""
    earlier = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with driver.seen("mails") as seen, ThreadPoolExecutor(8) as pool:

            def work(thread: int) -> None:
                for number in range(300):
                    seen.mark(("both", number))
                    seen.mark((thread, number))
                    assert (thread, number) in seen
                    if number % 3 == 0:
                        seen.forget((thread, number))

            list(pool.map(work, range(8)))
            there = len(seen)
    finally:
        sys.setswitchinterval(earlier)
    assert there == 300 + 8 * 200
    with driver.seen("mails") as seen:
        assert len(seen) == there


def test_the_cost_does_not_grow(disk: Driver) -> None:
    """A mark among a hundred thousand keys costs what one among a thousand did."""

    def cost(seen: Any, first: int) -> float:
        took = []
        for number in range(first, first + 1000):
            began = perf_counter()
            seen.mark(number)
            took.append(perf_counter() - began)
        return sorted(took)[500]

    with disk.seen("mails") as seen:
        few = cost(seen, 0)
        for number in range(1000, 100_000):
            seen.mark(number)
        assert cost(seen, 100_000) < 5 * few


MARKING = """
import itertools
seen = Driver(STATE).seen("mails")
for number in itertools.count(len(seen)):
    seen.mark(number)
    print(number, flush=True)
    if number == int(sys.argv[2]):
        kill()
"""


def test_no_kill_takes_a_key(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> None:
    """A key that was marked is there after a kill -9, and after the next."""
    for at in (3, 4, 50):
        code, out, errors = script(MARKING, at)
        assert (code, out.split()[-1]) == (-9, str(at)), errors
    with Driver(state_dir) as driver, driver.seen("mails") as seen:
        assert (len(seen), 50 in seen) == (51, True)
