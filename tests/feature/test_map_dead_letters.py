"""Dead letters of maps: having their items done again, to the full list of results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from mapped_functions import square, square_later

from resumable import (
    ChangedItemsError,
    DamagedLogError,
    DeadLetter,
    Driver,
    Preempted,
    ResumableError,
    RunLockedError,
    UndecodableStateError,
)
from resumable.runs.saving import SavingRun
from resumable.tools.repair import repair
from resumable.work import requeue

Make = Callable[..., Driver]


class Stumble(Exception):
    """What a function raises of an item."""


class Work:
    """A function that fails at some items, and tells which it was called for."""

    def __init__(self, *bad: int) -> None:
        self.bad, self.calls = set(bad), list[int]()

    def __call__(self, number: int) -> Any:
        self.calls.append(number)
        if number in self.bad:
            raise Stumble(number)
        return number * number

    def mended(self, *bad: int) -> None:
        """From here on it fails at these."""
        self.bad = set(bad)
        self.calls.clear()


# How the function is called: what makes the executor, and whether it is an async one that is called.
WAYS: dict[str, tuple[Callable[[], Any], bool]] = {
    "here": (lambda: nullcontext(None), False), "threads": (lambda: ThreadPoolExecutor(3), False),
    "async": (lambda: nullcontext(None), True),
}
SOURCES: dict[str, Callable[[int], Any]] = {
    "list": lambda count: list(range(count)), "iterator": lambda count: iter(range(count)),
}


@pytest.fixture(params=WAYS)
def call(request: pytest.FixtureRequest, driver: Driver) -> Iterator[Callable[..., Any]]:
    """Maps in one of these ways, all of it or, `until` so many results came and the letters among them, a part."""
    make, is_async = WAYS[request.param]
    with make() as executor:

        def called(work: Work, items: Any, until: int | None = None) -> list[Any]:
            async def later(item: int) -> Any:
                await asyncio.sleep(0)
                return work(item)

            given: dict[str, Any] = {"fn": later if is_async else work, "items": items, "name": "m", "max_attempts": 1}
            if executor is not None:
                given["executor"] = executor
            if until is None:
                return shown(driver.map(**given))
            results, found, letters = driver.map_unordered(**given), list[Any](), 0
            for result in results:
                found.append(result)
                letters += isinstance(result, DeadLetter)
                if len(found) >= until and letters == len(work.bad):    # a thread may be late with one
                    break
            results.close()     # type: ignore[attr-defined]
            return shown(found)

        yield called


def shown(results: Any) -> list[Any]:
    """Results, with the index of a letter in place of it."""
    return [f"letter {result.index}" if isinstance(result, DeadLetter) else result for result in results]


def squares(count: int, *letters: int) -> list[Any]:
    return [f"letter {number}" if number in letters else number * number for number in range(count)]


def indices(driver: Driver, run: int | None = None) -> list[int]:
    return sorted(letter.index for letter in driver.dead_letters("m", run=run))


@pytest.mark.parametrize("source", SOURCES)
def test_letters_of_a_finished_map(driver: Driver, call: Callable[..., Any], source: str) -> None:
    """The next call of a finished map calls the function for the items of its letters alone, and gives back all results."""
    make, work = SOURCES[source], Work(2, 9, 19)
    assert call(work, make(20)) == squares(20, 2, 9, 19)
    assert indices(driver) == [2, 9, 19]
    assert (driver.retry_dead_letters("m"), driver.retry_dead_letters("m")) == (3, 0)
    assert (shown(driver.results("m")), indices(driver), indices(driver, 1)) == (squares(20, 2, 9, 19), [], [2, 9, 19])
    work.mended(9)
    assert call(work, make(20)) == squares(20, 9)
    assert sorted(work.calls) == [2, 9, 19]
    assert (shown(driver.results("m")), indices(driver), driver.info("m").status) == (squares(20, 9), [9], "finished")
    assert driver.retry_dead_letters("m") == 1
    work.mended()
    assert call(work, make(20)) == squares(20)
    assert (work.calls, indices(driver), driver.retry_dead_letters("m")) == ([9], [], 0)
    assert call(work, make(4)) == squares(4)        # a finished map begins anew


@pytest.mark.parametrize("source", SOURCES)
def test_letters_of_an_unfinished_map(driver: Driver, call: Callable[..., Any], source: str) -> None:
    """The next call does the items of the letters again, and nothing else twice, then goes on behind what is done."""
    make, work = SOURCES[source], Work(1, 3)
    call(work, make(60), until=10)
    done = set(work.calls)
    assert driver.retry_dead_letters("m") == 2
    assert indices(driver) == []
    work.mended(3)
    assert call(work, make(60)) == squares(60, 3)
    assert sorted(work.calls) == sorted({1, 3} | (set(range(60)) - done))
    assert (indices(driver), driver.info("m").number) == ([3], 1)
    work.mended()
    assert driver.retry_dead_letters("m") == 1
    assert call(work, make(60)) == squares(60)
    assert work.calls == [3]


def test_new_items_and_no_letters(driver: Driver) -> None:
    """Items that came at the end since are done, too; a map without letters stays as it is."""
    work = Work(2)
    driver.map(work, range(5), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    work.mended()
    assert list(driver.map(work, range(8), name="m")) == squares(8)
    assert work.calls == [2, 5, 6, 7]
    assert (driver.retry_dead_letters("m"), len(driver.runs())) == (0, 2)


def test_as_they_come(driver: Driver) -> None:
    """`map_unordered` gives out what the run has, but for the letters whose items are yet to be done, then those that come."""
    work = Work(1, 4)
    driver.map(work, range(6), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    work.mended(4)
    results = driver.map_unordered(work, range(6), name="m", max_attempts=1)
    assert [next(results) for _ in range(5)] == [0, 4, 9, 25, 1]
    results.close()     # type: ignore[attr-defined]
    assert shown(driver.results("m")) == squares(6, 4)
    assert shown(driver.map_unordered(work, range(6), name="m", max_attempts=1)) == [0, 4, 9, 25, 1, "letter 4"]
    assert work.calls == [1, 4]


def test_letters_in_the_middle_of_doing_others_again(driver: Driver) -> None:
    """Letters that were taken and not done yet stay so when more of them are taken."""
    work = Work(1, 3, 5)
    driver.map(work, range(8), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    results = driver.map_unordered(work, range(8), name="m", max_attempts=1)
    assert shown(next(results) for _ in range(6))[-1] == "letter 1"
    results.close()     # type: ignore[attr-defined]
    assert driver.retry_dead_letters("m") == 1
    work.mended()
    assert list(driver.map(work, range(8), name="m")) == squares(8)
    assert sorted(work.calls) == [1, 3, 5]
    assert indices(driver) == []


def test_attempts_begin_anew(driver: Driver) -> None:
    """An item that is done again has all its attempts again, and its new letter has their number."""
    work = Work(2)
    for _ in range(3):
        work.calls.clear()
        driver.map(work, range(4), name="m", max_attempts=3)
        assert work.calls.count(2) == 3
        assert [(letter.index, letter.attempts) for letter in driver.dead_letters("m")] == [(2, 3)]
        assert driver.retry_dead_letters("m") == 1


def test_the_older_run_is_there_until_all_is_done(make: Make) -> None:
    """With `keep_runs=1` nothing is lost before the new run is finished, and it stands alone from then on."""
    driver, work = make(keep_runs=1), Work(1, 2)
    for bad in ((2,), ()):
        driver.map(work, range(5), name="m", max_attempts=1)
        driver.retry_dead_letters("m")
        assert len(driver.runs()) == 2
        assert len(driver.results("m")) == 5
        work.mended(*bad)
    assert list(driver.map(work, range(5), name="m")) == squares(5)
    assert [info.number for info in driver.runs()] == [3]
    assert list(driver.results("m")) == squares(5)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_results_of_every_kind_are_taken_over(state_dir: Path, durability: Any) -> None:
    """Large, pickled and dilled results, and letters of large items, are in the new run as they were in the old one."""
    kinds: list[Any] = [b"x" * 3_000_000, Path("a"), {1, 2}, lambda: 5, (1, "b"), bytearray(2_000_000)]
    items = [*range(6), b"y" * 2_500_000, 7]

    def work(item: Any) -> Any:
        if item == 2 or (isinstance(item, bytes) and not mended):
            raise Stumble
        return len(item) if isinstance(item, bytes) else kinds[item % 6]

    mended: list[int] = []
    with Driver(state_dir, durability=durability, keep_runs=1) as driver:
        driver.map(work, items, name="m", max_attempts=1)
        driver.retry_dead_letters("m")
        mended.append(1)
        driver.map(work, items, name="m", max_attempts=1)
    with Driver(state_dir) as driver:
        found = driver.results("m")
        assert [found[at] for at in (0, 1, 4, 5, 6, 7)] == [kinds[0], kinds[1], kinds[4], kinds[5], 2_500_000, kinds[1]]
        assert found[3]() == 5
        assert indices(driver) == [2]
        assert driver.retry_dead_letters("m") == 1
        assert len(driver.map(lambda item: "new", items, name="m")) == 8
        assert driver.results("m")[2] == "new"


def test_preempted_while_results_are_taken_over(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal stops the taking over of results like a map itself, and the next call goes on with it."""
    work = Work(1)
    driver.map(work, range(6), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    work.mended()
    save = SavingRun._save_encoded

    def save_and_stop(run: Any, *given: Any) -> None:
        save(run, *given)
        run.stop_signal = 15 if run.write.results == 3 else 0

    with monkeypatch.context() as patched:
        patched.setattr(SavingRun, "_save_encoded", save_and_stop)
        with pytest.raises(Preempted):
            driver.map(work, range(6), name="m")
    assert (work.calls, driver.info("m").results, shown(driver.results("m"))) == ([], 3, squares(6, 1))
    assert (list(driver.map(work, range(6), name="m")), work.calls) == (squares(6), [1])


def test_a_result_that_is_lost(state_dir: Path, tmp_path: Path) -> None:
    """A result of the finished run that cannot be taken over is a named error; in a repaired copy it alone cannot be read."""
    work = Work(1)
    items = [0, 1, 2, b"x" * 1_500_000]

    def named(item: Any) -> Any:
        return item if isinstance(item, bytes) else work(item)

    with Driver(state_dir) as driver:
        driver.map(named, items, name="m", max_attempts=1)
        driver.retry_dead_letters("m")
        work.mended()
        [side] = state_dir.rglob("*.result.3")
        side.unlink()
        with pytest.raises(DamagedLogError, match="repair"):
            driver.map(named, items, name="m")
        assert work.calls == []
    repair(state_dir, tmp_path / "copy")
    with Driver(tmp_path / "copy") as driver:
        found = driver.map(named, items, name="m")
        assert (len(found), found[:3], work.calls) == (4, [0, 1, 4], [1])
        with pytest.raises(UndecodableStateError):
            found[3]


def test_letters_with_a_plain_codec(make: Make) -> None:
    """Letters of items that are done out of order are kept, listed and done again with codec="plain", too."""
    driver, work = make(codec="plain"), Work(2)
    with ThreadPoolExecutor(2) as executor:
        driver.map(work, range(5), name="m", executor=executor, max_attempts=1)
        assert [(letter.index, letter.item) for letter in driver.dead_letters("m")] == [(2, 2)]
        driver.retry_dead_letters("m")
        work.mended()
        assert list(driver.map(work, range(5), name="m", executor=executor)) == squares(5)


def test_once_and_fresh(driver: Driver) -> None:
    """`once=True` does what is to be done again and has the results from then on; `fresh=True` begins with nothing."""
    work = Work(1)
    driver.map(work, range(3), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    work.mended()
    for _ in range(2):
        assert list(driver.map(work, range(3), name="m", once=True)) == squares(3)
    assert work.calls == [1]
    work.mended(1)
    driver.map(work, range(3), name="m", max_attempts=1, fresh=True)
    driver.retry_dead_letters("m")
    work.mended()
    assert list(driver.map(work, range(3), name="m", fresh=True)) == squares(3)
    assert (work.calls, [info.status for info in driver.runs()]) == ([0, 1, 2], ["finished", "abandoned", *["finished"] * 3])


@pytest.mark.parametrize("way", ["map", "loop"])
def test_inside_a_batch(driver: Driver, way: str) -> None:
    """A batch that has the value of what is finished does its dead letters again all the same."""
    work = Work(1)

    def go() -> None:
        if way == "map":
            driver.map(work, range(3), name="m", max_attempts=1)
            return
        items = driver.items(range(3), name="m", max_attempts=1)
        for number in items:
            with items.attempt():
                work(number)

    with driver.batch("b"):
        go()
        go()
        assert work.calls == [0, 1, 2]
        assert driver.retry_dead_letters("m") == 1
        work.mended()
        go()
        go()
    assert work.calls == [1]
    assert indices(driver) == []


def test_other_items(driver: Driver) -> None:
    """Other items are an error, a new beginning, or those at the places of the letters, as `on_change` says."""
    work = Work(2)
    driver.map(work, range(4), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    work.mended()
    with pytest.raises(ChangedItemsError):
        driver.map(work, range(10, 14), name="m")
    assert work.calls == []
    assert list(driver.map(work, range(10, 14), name="m", on_change="continue")) == [0, 1, 144, 9]
    assert work.calls == [12]
    work.mended(1)
    driver.map(work, range(3), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    work.mended()
    assert list(driver.map(work, range(5, 8), name="m", on_change="restart")) == [25, 36, 49]


def test_while_the_map_is_running(driver: Driver) -> None:
    """The letters of a running map can be listed, and are taken by nobody until it is left."""
    work = Work(0)
    results = driver.map_unordered(work, range(4), name="m", max_attempts=1)
    next(results)
    assert indices(driver) == [0]
    with pytest.raises(RunLockedError):
        driver.retry_dead_letters("m")
    results.close()     # type: ignore[attr-defined]
    assert driver.retry_dead_letters("m") == 1


def test_more_letters_than_can_be_done_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """More letters than the description can hold are an error that says what to do, and stay letters."""
    monkeypatch.setattr(requeue, "MOST", 3)
    driver.map(Work(1, 2, 3, 4), range(10), name="m", max_attempts=1)
    with pytest.raises(ResumableError, match="has 4 items among its dead letters"):
        driver.retry_dead_letters("m")
    assert indices(driver) == [1, 2, 3, 4]


def test_ways_may_change(driver: Driver) -> None:
    """What was done in order is done again out of order, and in processes, and the other way round."""
    work = Work(1)
    driver.map(work, range(4), name="m", max_attempts=1)
    driver.retry_dead_letters("m")
    assert list(driver.map(square, range(4), name="m", executor=2)) == squares(4)
    asyncio.run(driver.amap(work_later, range(4), name="a", max_attempts=1))
    driver.retry_dead_letters("a")
    assert list(driver.map(square, range(4), name="a")) == squares(4)
    assert list(asyncio.run(driver.amap(square_later, range(4), name="a"))) == squares(4)


async def work_later(number: int) -> int:
    raise Stumble(number)
