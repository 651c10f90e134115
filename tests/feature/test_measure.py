"""What saving costs: `measure(state)`, and the same for a user's own job."""

from __future__ import annotations

import queue
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import AsyncJobError, NotAJobError, UnsavableStateError, WrongArgumentsError, checkpoint
from resumable.tools.measure import JobCost, duration, measure, measure_job


class Point:
    def __init__(self) -> None:
        self.x = 1


def test_a_plain_state() -> None:
    """A small plain state goes to the journal, in far less than the 100 microseconds that a commit would take."""
    found = measure({"a": 1, "b": 2.0, "c": "x"})
    assert (found.tier, found.where) == ("plain", "journal")
    assert 20 < found.bytes < 60
    assert 0 <= found.nanoseconds < 100_000
    assert found.pickle_nanoseconds is not None
    assert str(found).startswith(f"plain, {found.bytes} bytes, saved to the journal in ")
    assert "\n" not in str(found)


def test_other_tiers_come_with_advice() -> None:
    """An instance takes pickle, a lambda takes dill, and both say what would be faster."""
    assert measure(Point()).tier == "pickle"
    assert "plain data" in str(measure(Point()))
    found = measure(lambda: 1)
    assert (found.tier, found.pickle_nanoseconds) == ("dill", None)
    assert "dill is slow" in str(found)
    assert "pickle.dumps cannot" in str(found)


def test_a_large_state_goes_to_a_side_file() -> None:
    """From 256 KiB on the cost is that of writing a file, and the advice says so."""
    found = measure("x" * 300_000)
    assert found.where == "side file"
    assert found.bytes > 300_000
    assert "a file each time" in str(found)


def test_a_live_resource_is_described(tmp_path: Path) -> None:
    """What the registry handles is measured although pickle alone refuses it."""
    connection = sqlite3.connect(tmp_path / "some.db")
    try:
        found = measure({"db": connection})
    finally:
        connection.close()
    assert (found.tier, found.pickle_nanoseconds) == ("pickle", None)


def test_what_cannot_be_saved_is_refused() -> None:
    """measure raises what a checkpoint would raise, with the place in the state."""
    with pytest.raises(UnsavableStateError) as caught:
        measure({"queue": queue.SimpleQueue()})
    assert caught.value.__dict__["path"] == 'state["queue"]'
    with pytest.raises(UnsavableStateError):
        measure(Point(), codec="plain")


def test_it_is_public() -> None:
    """`resumable.measure` is this function."""
    assert resumable.measure is measure


@pytest.mark.parametrize(("given", "shown"), [(61.2, "61 ns"), (1234.0, "1.23 µs"), (5e6, "5 ms"), (2.5e9, "2.5 s")])
def test_durations(given: float, shown: str) -> None:
    """A time is shown in the unit that suits it."""
    assert duration(given) == shown


# ---- jobs


def cost(job: Callable[..., Any], *args: Any, seconds: float = 5.0, limit: int | None = None) -> JobCost:
    return measure_job(job, args, seconds=seconds, limit=limit)


def counting(n: int, state: int = 0) -> Iterator[object]:
    for i in range(state, n):
        yield checkpoint(i + 1)


def test_a_job_runs_once(tmp_path: Path) -> None:
    """Each item of the job happens once, however its cost is found out."""
    effects: list[int] = []

    def job(n: int, state: int = 0) -> Iterator[object]:
        for i in range(state, n):
            effects.append(i)
            yield checkpoint(i + 1)

    assert cost(job, 50).checkpoints == 50
    assert effects == list(range(50))


def test_what_checkpoints_cost() -> None:
    """A loop that does nothing spends much of its time on checkpoints, one that waits next to none."""

    def waiting(n: int, state: int = 0) -> Iterator[object]:
        for i in range(state, n):
            time.sleep(0.002)
            yield checkpoint(i + 1)

    fast, slow = cost(counting, 200_000), cost(waiting, 50)
    assert fast.tiers == {"plain": 1000}
    assert fast.saving / fast.checkpoints < 10_000
    assert slow.share < 0.1
    assert slow.inside > 50 * 2_000_000
    assert fast.saving + fast.inside < fast.total
    assert "200,000 checkpoints in" in str(fast)
    assert f"{fast.share:.2%} of the job's time" in str(fast)


def test_a_slow_save_is_seen() -> None:
    """What the time of a checkpoint is spent on counts, here a side file each."""

    def large(n: int, state: str = "") -> Iterator[object]:
        for _ in range(n):
            yield checkpoint("x" * 400_000)

    found = cost(large, 5)
    assert found.saving / found.checkpoints > 20_000
    assert found.sizes[0] > 400_000
    assert found.share > 0.1


def test_limits_end_the_job() -> None:
    """After so many checkpoints or seconds the job is closed, and the text says so."""
    closed: list[bool] = []

    def forever(state: int = 0) -> Iterator[object]:
        try:
            while True:
                state += 1
                yield checkpoint(state)
        finally:
            closed.append(True)

    found = cost(forever, limit=17)
    assert (found.checkpoints, found.stopped) == (17, True)
    assert "stopped" in str(found)
    begun = time.monotonic()
    assert cost(forever, seconds=0.2).stopped
    assert time.monotonic() - begun < 3
    assert closed == [True, True]


def test_a_job_without_checkpoints() -> None:
    """Nothing is divided by zero."""
    found = cost(counting, 0)
    assert (found.checkpoints, found.share) == (0, 0.0)
    assert str(found).endswith(str(duration(found.total)))


def test_what_is_no_job_is_refused_before_it_runs() -> None:
    """Wrong arguments, plain functions and async jobs each raise an error of their own."""

    def plain(state: object = None) -> int:
        return 1

    async def later(state: object = None) -> None: ...

    with pytest.raises(WrongArgumentsError, match="'n'"):
        cost(counting)
    with pytest.raises(NotAJobError):
        cost(plain)
    with pytest.raises(AsyncJobError):
        cost(later)
