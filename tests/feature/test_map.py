"""`driver.map` and its kin: what comes out, in which order, what a resume does again, and how they are called wrongly."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from mapped_functions import fail_at_five, fail_at_five_later, square, square_later, unsavable_at_three

from resumable import (
    AsyncJobError,
    ChangedItemsError,
    DeadLetter,
    Driver,
    Preempted,
    ProgressInfo,
    RunLockedError,
    RunNameError,
    RunningLoopError,
    UnsavableStateError,
)


class Stumble(Exception):
    """Stands for a crash."""


# How the function is called: what makes the executor, and whether it is an async one that is called.
WAYS: dict[str, tuple[Callable[[], Any], bool]] = {
    "here": (lambda: nullcontext(None), False),
    "processes": (lambda: nullcontext(2), False),
    "threads": (lambda: ThreadPoolExecutor(3), False),
    "pool": (lambda: ProcessPoolExecutor(2), False),
    "async": (lambda: nullcontext(None), True),
}
IN_THIS_PROCESS = ["here", "threads", "async"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[tuple[int | Executor | None, bool]]:
    make, is_async = WAYS[request.param]
    with make() as executor:
        yield executor, is_async


@pytest.fixture(params=IN_THIS_PROCESS)
def near(request: pytest.FixtureRequest) -> Iterator[Callable[..., dict[str, Any]]]:
    """Makes the arguments of a map whose function, given as a plain one, is called in this process."""
    make, is_async = WAYS[request.param]
    with make() as executor:

        def given(fn: Callable[[Any], Any]) -> dict[str, Any]:
            async def later(item: Any) -> Any:
                await asyncio.sleep(0)
                return fn(item)

            return {"fn": later if is_async else fn, "executor": executor}

        yield given


# ---- results


def test_results_come_in_the_order_of_the_items(driver: Driver, way: tuple[Any, bool]) -> None:
    """However the function is called, the results are a sequence in the order of the items, also to who asks later."""
    executor, is_async = way
    found = driver.map(square_later if is_async else square, range(20), name="m", executor=executor)
    expected = [number * number for number in range(20)]
    assert list(found) == expected
    assert (len(found), found[3], found[-1], found[2:7:2], found[30:]) == (20, 9, 361, expected[2:7:2], [])
    with pytest.raises(IndexError):
        found[20]
    assert "20 results" in repr(found)
    assert list(driver.results("m")) == expected
    assert (driver.info("m").status, driver.info("m").results) == ("finished", 20)
    driver.map(square, range(3), name="m")
    assert list(found) == expected


def test_unordered_results_come_as_they_are_saved(driver: Driver, way: tuple[Any, bool]) -> None:
    """`map_unordered` gives each result once, all of them, and each is saved by then."""
    executor, is_async = way
    found = []
    for result in driver.map_unordered(square_later if is_async else square, range(20), name="m", executor=executor):
        found.append(result)
        assert driver.info("m").results >= len(found)
    assert sorted(found) == [number * number for number in range(20)]


def test_of_infinitely_many_items_few_are_taken_ahead(driver: Driver, way: tuple[Any, bool]) -> None:
    """Nobody pulls further ahead than what is in flight, and whoever leaves goes on later with nothing lost."""
    executor, is_async = way
    given: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            given.append(number)
            yield number

    seen: list[Any] = []
    for wanted in (5, 15):
        given.clear()
        results = driver.map_unordered(square_later if is_async else square, numbers(), name="m", executor=executor)
        before, seen = seen, list(itertools.islice(results, wanted))
        assert seen[: len(before)] == before
        assert len(given) <= wanted + 2 * 16
        results.close()     # type: ignore[attr-defined]
    assert sorted({number * number for number in range(40)} & set(seen)) == sorted(seen)
    assert driver.info("m").status == "interrupted"


def test_no_items(driver: Driver, way: tuple[Any, bool]) -> None:
    """Of no items come no results."""
    executor, is_async = way
    fn = square_later if is_async else square
    assert list(driver.map(fn, [], name="none", executor=executor)) == []
    assert list(driver.map_unordered(fn, iter(()), name="none", executor=executor)) == []


# ---- going on


@pytest.mark.parametrize("kind", [list, iter], ids=["sequence", "iterator"])
def test_what_is_done_is_not_done_again(driver: Driver, near: Any, kind: Callable[[Any], Iterable[int]]) -> None:
    """A map that is stopped by one item after the other calls the function once for each, and again for those that stopped it."""
    calls: list[int] = []
    stops: list[int] = []
    done: set[int] = set()

    def work(number: int) -> int:
        calls.append(number)
        if stops and number == stops[-1]:
            raise Stumble
        return number

    while left := [number for number in range(12) if number not in done and number not in stops]:
        stops.append(left[0])
        with pytest.raises(Stumble) as caught:
            driver.map(items=kind(range(12)), name="m", **near(work))
        assert f"item {stops[-1]} of map 'm'" in "".join(caught.value.__notes__)
        done = set(driver.results("m"))
    stopped, stops = stops, []
    assert list(driver.map(items=kind(range(12)), name="m", **near(work))) == list(range(12))
    assert sorted(calls) == sorted([*range(12), *stopped])


def test_others_in_flight_are_saved(driver: Driver, near: Any) -> None:
    """An item that fails stops the map, and those that are in flight then are waited for and saved."""

    def work(number: int) -> int:
        if number == 0:
            raise Stumble
        return number

    with pytest.raises(Stumble):
        driver.map(items=range(50), name="m", **near(work))
    kept = set(driver.results("m"))
    assert 0 not in kept
    assert set(driver.map(items=range(50), name="m", **near(lambda number: number + 100))) == kept | {
        number + 100 for number in range(50) if number not in kept
    }


def test_the_way_may_change(driver: Driver) -> None:
    """A map begun one way goes on in any other, with each result at its place."""
    stop = 0

    def work(number: int) -> int:
        if number == stop or number > stop + 6:     # however long the item at the stop takes, the next stop is not reached
            raise Stumble
        return number * number

    with ThreadPoolExecutor(3) as threads:
        for at, executor in ((3, None), (7, threads), (16, None), (20, threads)):
            stop = at
            with pytest.raises(Stumble):
                driver.map(work, range(30), name="m", executor=executor)
        results = driver.map_unordered(square_later, range(30), name="m")
        next(results)
        results.close()     # type: ignore[attr-defined]
    assert list(driver.map(square, range(30), name="m", executor=2)) == [number * number for number in range(30)]


def test_a_finished_map_begins_anew(driver: Driver, near: Any) -> None:
    """Gone to its end, a map begins anew; with `once` its results are read, and nothing is called."""
    calls: list[int] = []
    given = near(lambda number: calls.append(number) or number)
    assert list(driver.map(items=range(5), name="m", **given)) == [0, 1, 2, 3, 4]
    assert list(driver.map(items=range(5), name="m", once=True, **given)) == [0, 1, 2, 3, 4]
    assert sorted(driver.map_unordered(items=range(5), name="m", once=True, **given)) == [0, 1, 2, 3, 4]
    assert len(calls) == 5
    assert list(driver.map(items=range(5), name="m", **given)) == [0, 1, 2, 3, 4]
    assert len(calls) == 10


def test_changed_items_of_a_map(driver: Driver, near: Any) -> None:
    """Other items are an error; the ways out go on at the same place, or begin anew."""

    def work(number: int) -> int:
        if number == 99:
            raise Stumble
        return number

    with pytest.raises(Stumble):
        driver.map(items=[0, 1, 2, 99], name="m", **near(work))
    with pytest.raises(ChangedItemsError):
        driver.map(items=[7, 1, 2, 3], name="m", **near(work))
    assert list(driver.map(items=[7, 1, 2, 3], name="m", on_change="continue", **near(work))) == [0, 1, 2, 3]
    with pytest.raises(Stumble):
        driver.map(items=[0, 1, 2, 99], name="m", **near(work))
    assert list(driver.map(items=[7, 1], name="m", on_change="restart", **near(work))) == [7, 1]


def test_results_of_a_map_that_is_not_done(driver: Driver) -> None:
    """What there is of an unfinished map stands in the order of the items, with what is missing left out."""
    gates = [threading.Event() for _ in range(4)]

    def work(number: int) -> int:
        assert gates[number].wait(10)
        return number

    with ThreadPoolExecutor(4) as executor:
        results = driver.map_unordered(work, range(4), name="m", executor=executor)
        for number in (2, 0, 3):
            gates[number].set()
            assert next(results) == number
        assert list(driver.results("m")) == [0, 2, 3]
        assert (driver.results("m")[1], driver.results("m")[-1]) == (2, 3)
        gates[1].set()
        assert list(results) == [1]
    assert list(driver.results("m")) == [0, 1, 2, 3]


# ---- failing


def test_items_that_fail(driver: Driver, way: tuple[Any, bool]) -> None:
    """An item that is given up has a dead letter at its place, or None, and the others their results."""
    executor, is_async = way
    fn = fail_at_five_later if is_async else fail_at_five
    found = driver.map(fn, range(8), name="dead", executor=executor, max_attempts=3)
    letter = found[5]
    assert isinstance(letter, DeadLetter)
    assert (letter.index, letter.item, letter.attempts, letter.message) == (5, 5, 3, "five")
    assert letter.type.endswith("ValueError")
    assert "fail_at_five" in letter.traceback
    assert [result for result in found if result is not letter][:5] == [0, 1, 2, 3, 4]
    assert driver.results("dead")[5] == letter
    skipped = driver.map(fn, range(8), name="skip", executor=executor, on_error=lambda item, exc, attempt: "skip")
    assert list(skipped) == [0, 1, 2, 3, 4, None, 6, 7]
    with pytest.raises(ValueError, match="five"):
        driver.map(fn, range(8), name="fail", executor=executor, on_error=lambda item, exc, attempt: "fail")


def test_attempts_are_made_in_place(driver: Driver, near: Any) -> None:
    """A failed item is tried again, after the delay, until it is done; the others are called once."""
    calls: list[int] = []
    asked: list[tuple[int, int]] = []

    def work(number: int) -> int:
        calls.append(number)
        if number % 3 == 1 and calls.count(number) < 3:
            raise Stumble
        return number

    def on_error(item: int, exc: Exception, attempt: int) -> str:
        asked.append((item, attempt))
        return "retry"

    results = driver.map(items=range(10), name="m", on_error=on_error, backoff=lambda attempt: 0.001, **near(work))
    assert list(results) == list(range(10))
    assert sorted(asked) == [(item, attempt) for item in (1, 4, 7) for attempt in (1, 2)]
    assert sorted(calls) == sorted([*range(10), *([1, 4, 7] * 2)])


def test_attempts_count_over_all_lives(driver: Driver, near: Any) -> None:
    """`max_attempts` counts the attempts of every life."""
    calls: list[int] = []

    def work(number: int) -> int:
        if number == 2:
            calls.append(number)
            raise Stumble
        return number

    def once_a_life(item: int, exc: Exception, attempt: int) -> str:
        return "fail" if attempt < 3 else "dead_letter"

    for _ in range(2):
        with pytest.raises(Stumble):
            driver.map(items=range(5), name="m", on_error=once_a_life, **near(work))
    assert driver.map(items=range(5), name="m", on_error=once_a_life, **near(work))[2].attempts == 3
    assert len(calls) == 3


def test_a_result_that_cannot_be_saved_is_named(driver: Driver, way: tuple[Any, bool]) -> None:
    """It is an error that names the item, no matter what the policy is, and nothing else is lost."""
    executor, is_async = way

    async def later(number: int) -> Any:
        return unsavable_at_three(number)

    fn: Any = later if is_async else unsavable_at_three
    with pytest.raises(UnsavableStateError, match="result 3") as caught:
        driver.map(fn, range(6), name="m", executor=executor)
    assert caught.value.path.startswith("result 3")     # type: ignore[attr-defined]
    found = driver.map(square_later if is_async else square, range(6), name="m", executor=executor)
    assert found[3] == 9
    assert len(found) == 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_stop_is_no_failure_of_a_map(driver: Driver, near: Any, error: type[BaseException]) -> None:
    """Ctrl-C and the like stop the map whatever the policy is, and leave it resumable, without a failure."""

    def work(number: int) -> int:
        if number == 3:
            raise error
        return number

    with pytest.raises(error):
        driver.map(items=range(6), name="m", max_attempts=5, **near(work))
    assert (driver.info("m").status, driver.failure("m")) == ("interrupted", None)
    assert list(driver.map(items=range(6), name="m", **near(lambda number: number))) == list(range(6))


def test_a_map_that_is_preempted(make: Callable[..., Driver], near: Any) -> None:
    """A signal stops a map at its next results, those that are there are kept, and none is there twice in the end."""
    driver = make(preempt=[signal.SIGUSR1])
    gate = threading.Barrier(2)

    def work(number: int) -> int:
        if number == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return number

    def together(number: int) -> int:
        if number in (4, 5):
            gate.wait(10)
        return work(number)

    given = near(work)
    if given["executor"] is not None:
        given["fn"] = together      # so that two results are there when the map stops
    with pytest.raises(Preempted):
        driver.map(items=range(20), name="m", **given)
    assert driver.info("m").status == "interrupted"
    assert 4 in driver.results("m")
    assert list(driver.map(items=range(20), name="m", **near(lambda number: number))) == list(range(20))


def test_a_failure_shows_the_function(driver: Driver) -> None:
    """The failure that is kept has the locals of the function that was mapped."""
    with pytest.raises(ValueError, match="five"):
        driver.map(fail_at_five, range(8), name="m")
    failure = driver.failure("m")
    assert failure is not None
    assert failure.locals == {"number": 5}


def test_progress_of_a_map(driver: Driver, near: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A map tells how far it is, counts what is done, not what is handed out, and goes on from there."""
    seen: list[ProgressInfo] = []
    failed: list[int] = []

    def work(number: int) -> int:
        time.sleep(0.02)
        if number == 12 and not failed:
            failed.append(number)
            raise Stumble
        return number

    with pytest.raises(Stumble):
        driver.map(items=range(30), name="m", progress=seen.append, **near(work))
    assert (seen[0].done, seen[0].total) == (0, 30)
    done = driver.info("m").results
    driver.map(items=range(30), name="m", progress=seen.append, verbose=True, max_attempts=9, **near(work))
    assert seen[-1].done == seen[-1].total == 30
    assert seen[-1].skipped == done
    assert [info.done for info in seen] == sorted(info.done for info in seen)
    assert "'m' is complete: 30 items" in capsys.readouterr().err
    with pytest.raises(TypeError, match="progress"):
        driver.map(work, range(3), name="wrong", progress=5)


# ---- in an event loop


def test_in_an_event_loop(driver: Driver) -> None:
    """`amap` and `amap_unordered` do in an event loop what `map` does outside, with so many items at once and no more."""
    going = most = 0

    async def work(number: int) -> int:
        nonlocal going, most
        going += 1
        most = max(most, going)
        await asyncio.sleep(0.001)
        going -= 1
        return number

    async def main() -> None:
        with pytest.raises(RunningLoopError, match="amap"):
            driver.map(work, range(3), name="m")
        with pytest.raises(RunningLoopError, match="amap_unordered"):
            driver.map_unordered(work, range(3), name="m")
        with pytest.raises(AsyncJobError, match="to_thread"):
            await driver.amap(square, range(3), name="m")   # type: ignore[arg-type]
        assert list(await driver.amap(work, range(30), name="m", concurrency=4)) == list(range(30))
        found = [result async for result in driver.amap_unordered(work, range(30), name="u", concurrency=7)]
        assert sorted(found) == list(range(30))

    asyncio.run(main())
    assert most == 7
    assert {info.status for info in driver.runs()} == {"finished"}


def test_a_map_that_is_cancelled(driver: Driver) -> None:
    """Cancelled, it cancels what is in flight, keeps what is done, and goes on at the next call."""
    cancelled: list[int] = []
    slow = True

    async def work(number: int) -> int:
        try:
            await asyncio.sleep(30 if slow and number > 3 else 0)
        except asyncio.CancelledError:
            cancelled.append(number)
            raise
        return number

    async def main() -> None:
        nonlocal slow
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(driver.amap(work, range(20), name="m", concurrency=5), 0.2)
        assert driver.info("m").status == "interrupted"
        slow = False
        assert list(await driver.amap(work, range(20), name="m")) == list(range(20))

    asyncio.run(main())
    assert sorted(cancelled) == [4, 5, 6, 7, 8]


# ---- wrong calls


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"fn": 5}, TypeError, "fn is a function"),
    ({"items": 5}, TypeError, "an int cannot|a int cannot"),
    ({"executor": True}, TypeError, "number of processes"),
    ({"executor": 0}, ValueError, "at least 1 process"),
    ({"executor": "2"}, TypeError, "number of processes"),
    ({"fn": square_later, "executor": 2}, TypeError, "async one"),
    ({"concurrency": 2}, ValueError, "for async functions"),
    ({"concurrency": 2, "executor": 2}, ValueError, "for async functions"),
    ({"concurrency": 0, "fn": square_later}, ValueError, "at least 1"),
    ({"concurrency": True, "fn": square_later}, TypeError, "is an int"),
    ({"max_attempts": 0}, ValueError, "at least 1"),
]


@pytest.mark.parametrize(("given", "error", "match"), WRONG)
@pytest.mark.parametrize("how", ["map", "map_unordered"])
def test_wrong_calls_of_map(driver: Driver, how: str, given: dict[str, Any], error: type[Exception], match: str) -> None:
    """A wrong call says at once what is wrong, and begins no run."""
    with pytest.raises(error, match=match):
        getattr(driver, how)(**{"fn": square, "items": range(3), "name": "m", **given})
    assert driver.runs() == []


def test_a_loop_is_no_map(driver: Driver) -> None:
    """A map does not take a loop's run for its own, nor a loop a map's; one that goes on is locked."""
    for number in driver.items(range(3), name="loop"):
        if number == 1:
            break
    with pytest.raises(RunNameError, match="another name"):
        driver.map(square, range(3), name="loop")
    results = driver.map_unordered(square, range(3), name="map")
    next(results)
    with pytest.raises(RunLockedError):
        driver.map(square, range(3), name="map")
    results.close()     # type: ignore[attr-defined]
    with pytest.raises(RunNameError, match="another name"):
        next(iter(driver.items(range(3), name="map")))
    assert list(driver.map(square, range(3), name="map")) == [0, 1, 4]
