"""Dead letters of loops: what is kept of them, and having their items done again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from stepping import STEPPING

from resumable import DeadLetter, Driver, NotKept, ResumableError, RunLockedError, RunNameError, RunNotFoundError, checkpoint
from resumable.values.known_secrets import remember
from resumable.work import requeue


class Poison(Exception):
    """What a body raises at an item."""


def go(
    driver: Driver, numbers: Iterable[Any], poison: Any = (), *, size: int = 0, until: Any = None,
) -> list[Any]:
    """A loop that makes dead letters of some items, and is left at another; what it saw."""
    seen = []
    items = driver.items(numbers, name="loop", max_attempts=1)
    for item in items.batches(size) if size else items:
        if item == until:
            break
        with items.attempt():
            seen.append((items.index, item))
            if item in poison:
                raise Poison(item)
            items.record(item)
    return seen


def indices(driver: Driver, run: int | None = None) -> list[int]:
    return [letter.index for letter in driver.dead_letters("loop", run=run)]


SOURCES: dict[str, Callable[[int], Any]] = {
    "list": lambda count: list(range(count)), "generator": lambda count: (number for number in range(count)),
    "map": lambda count: map(int, map(str, range(count))), "dict": lambda count: dict.fromkeys(range(count)),
}


def pairs(*numbers: int) -> list[tuple[int, int]]:
    return [(number, number) for number in numbers]


@pytest.mark.parametrize("source", SOURCES)
def test_letters_of_an_unfinished_loop(driver: Driver, source: str) -> None:
    """The next call of a loop does the items of its letters again, and nothing else twice, then goes on behind what is done."""
    make = SOURCES[source]
    assert go(driver, make(300), (2, 70, 71), until=150) == pairs(*range(150))
    assert indices(driver) == [2, 70, 71]
    assert driver.retry_dead_letters("loop") == 3
    assert indices(driver) == []
    assert driver.retry_dead_letters("loop") == 0
    assert go(driver, make(300), (70,), until=200) == pairs(2, 70, 71, *range(150, 200))
    assert indices(driver) == [70]
    assert go(driver, make(300)) == pairs(*range(200, 300))
    assert driver.info("loop").status == "finished"
    assert indices(driver) == [70]


@pytest.mark.parametrize("source", SOURCES)
def test_letters_of_a_finished_loop(driver: Driver, source: str) -> None:
    """The next call of a finished loop is a new run, which does the items of the letters alone."""
    make = SOURCES[source]
    go(driver, make(300), (2, 299))
    assert driver.retry_dead_letters("loop") == 2
    assert [(info.status, info.number) for info in driver.runs()] == [("interrupted", 2), ("finished", 1)]
    assert driver.retry_dead_letters("loop") == 0
    assert go(driver, make(300), (299,)) == pairs(2, 299)
    assert [info.status for info in driver.runs()] == ["finished", "finished"]
    assert (indices(driver), indices(driver, 1)) == ([299], [2, 299])
    assert driver.retry_dead_letters("loop") == 1
    assert go(driver, make(300)) == pairs(299)
    assert indices(driver) == []
    assert go(driver, make(3)) == pairs(0, 1, 2)    # a finished loop begins anew


def test_new_items_behind_a_finished_loop(driver: Driver) -> None:
    """Items that came at the end since are done, too."""
    go(driver, range(5), (2,))
    driver.retry_dead_letters("loop")
    assert go(driver, range(7)) == pairs(2, 5, 6)


def test_requests_add_up(driver: Driver) -> None:
    """Letters that were taken and not done yet stay so when more of them are taken."""
    go(driver, range(20), (2, 4, 6), until=10)
    assert driver.retry_dead_letters("loop") == 3
    assert go(driver, range(20), (2,), until=4) == pairs(2)     # 2 is a letter again, 4 and 6 are yet to be done
    assert driver.retry_dead_letters("loop") == 1
    assert go(driver, range(20)) == pairs(2, 4, 6, *range(10, 20))
    assert indices(driver) == []


def test_letters_of_batches(driver: Driver) -> None:
    """The items of a batch are done again as a batch, in lists of what follows one on another."""
    seen = go(driver, range(10), ([2, 3], [4, 5], [8, 9]), size=2)
    assert seen == [(0, [0, 1]), (2, [2, 3]), (4, [4, 5]), (6, [6, 7]), (8, [8, 9])]
    assert driver.retry_dead_letters("loop") == 3
    assert go(driver, range(10), ([2, 3, 4],), size=3) == [(2, [2, 3, 4]), (5, [5]), (8, [8, 9])]
    [letter] = driver.dead_letters("loop")
    assert (letter.index, letter.item, letter.count) == (2, [2, 3, 4], 3)
    assert driver.retry_dead_letters("loop") == 1
    assert go(driver, range(10)) == pairs(2, 3, 4)


def test_the_state_goes_on(driver: Driver) -> None:
    """What a loop carries is carried on when its letters are done again, also into a new run: a sum ends as the sum."""

    def body(poison: int) -> int:
        items = driver.items([1, 2, 3, 4, 5], name="loop", max_attempts=1)
        with items.state(total=0) as state:
            for number in items:
                with items.attempt():
                    state.total += number
                    if number == poison:
                        raise Poison
        return int(state.total)

    assert body(3) == 12
    assert driver.retry_dead_letters("loop") == 1
    assert body(3) == 12
    assert driver.retry_dead_letters("loop") == 1
    assert body(0) == 15


def test_attempts_of_what_is_done_again(driver: Driver) -> None:
    """An item that is done again for the second time has all its attempts again, over several lives, too."""

    def body(fails: int) -> list[int]:
        seen = []
        for number in driver.items(range(4), name="loop", max_attempts=2):
            seen.append(number)
            if number == 2 and fails > 0:
                raise Poison
        return seen

    for _ in range(3):
        for _ in range(2):
            with pytest.raises(Poison):
                body(1)
        body(0)
        assert [(letter.index, letter.attempts) for letter in driver.dead_letters("loop")] == [(2, 2)]
        assert driver.retry_dead_letters("loop") == 1
    assert body(0) == [2]


def test_a_state_with_save_every(make: Callable[..., Driver]) -> None:
    """A new run takes over from the very end of the finished one, whatever `save_every` says."""
    driver = make(save_every=100)
    go(driver, range(50), (7,))
    driver.retry_dead_letters("loop")
    assert go(driver, range(50)) == pairs(7)


def test_a_state_that_is_too_large(driver: Driver) -> None:
    """A state that cannot be taken over is an error that says what to do, and nothing has happened."""
    items = driver.items(range(3), name="loop", max_attempts=1)
    with items.state(data=b"x" * 2_000_000):
        for number in items:
            with items.attempt():
                if number == 1:
                    raise Poison
    with pytest.raises(ResumableError, match="a loop of their own"):
        driver.retry_dead_letters("loop")
    assert len(driver.runs()) == 1


def test_more_letters_than_can_be_done_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """More letters than the description can hold are an error that says what to do, and stay letters."""
    monkeypatch.setattr(requeue, "MOST", 3)
    for until in (8, None):
        go(driver, range(10), (1, 2, 3, 4), until=until)
        with pytest.raises(ResumableError, match="has 4 items among its dead letters"):
            driver.retry_dead_letters("loop")
        assert indices(driver) == [1, 2, 3, 4]


def test_from_an_asynchronous_source(driver: Driver) -> None:
    """`async for` does letters again, too."""

    async def source() -> AsyncIterator[int]:
        for number in range(10):
            yield number

    async def body(poison: tuple[int, ...]) -> list[int]:
        seen = []
        items = driver.items(source(), name="loop", max_attempts=2)
        async for number in items:
            async with items.attempt():
                seen.append(number)
                if number in poison:
                    raise Poison
        return seen

    assert asyncio.run(body((3, 6))) == [0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9]
    assert driver.retry_dead_letters("loop") == 2
    assert asyncio.run(body((6,))) == [3, 6, 6]
    assert indices(driver) == [6]


def test_async_batches(driver: Driver) -> None:
    """Batches of an `async for` come again whole."""

    async def body() -> list[list[int]]:
        seen = []
        items = driver.items(range(5), name="loop", max_attempts=2)
        async for batch in items.batches(2):
            async with items.attempt():
                seen.append(list(batch))
                if batch.pop() == 3:
                    raise Poison
        return seen

    assert asyncio.run(body()) == [[0, 1], [2, 3], [2, 3], [4]]
    assert [(letter.index, letter.item) for letter in driver.dead_letters("loop")] == [(2, [2, 3])]
    assert driver.retry_dead_letters("loop") == 1
    assert asyncio.run(body()) == [[2, 3], [2, 3]]


def test_while_the_loop_is_running(driver: Driver) -> None:
    """The letters of a running loop can be listed, and are taken by nobody until it is left."""
    items = driver.items(range(4), name="loop", max_attempts=1)
    for number in items:
        with items.attempt():
            if number == 1:
                raise Poison
        if number == 3:
            assert indices(driver) == [1]
            with pytest.raises(RunLockedError):
                driver.retry_dead_letters("loop")
    assert driver.retry_dead_letters("loop") == 1


def test_where_there_is_nothing_to_do_again(driver: Driver) -> None:
    """A loop without letters stays as it is; what is no loop, or is not there, is an error."""

    def job(state: int = 0) -> Any:
        yield checkpoint(1, result=2)

    go(driver, range(3))
    assert driver.retry_dead_letters("loop") == 0
    assert len(driver.runs()) == 1
    with pytest.raises(RunNotFoundError):
        driver.retry_dead_letters("other")
    driver.run(job, name="job")
    assert driver.dead_letters("job") == []
    with pytest.raises(RunNameError, match="not one of a loop or map"):
        driver.retry_dead_letters("job")


def test_letters_among_results(driver: Driver) -> None:
    """A letter stands at its place among the results, however the others are saved."""
    kinds: list[Any] = [1, Path("a"), "x", lambda: 5]
    items = driver.items(range(8), name="loop", max_attempts=1)
    for number in items:
        with items.attempt():
            if number % 4 == 2:
                raise Poison
            items.record(kinds[number % 4])
    found = driver.results("loop")
    assert [type(value).__name__ for value in found] == ["int", "PosixPath", "DeadLetter", "function"] * 2
    assert isinstance(found[2], DeadLetter)
    assert found[6] == driver.dead_letters("loop")[1]


def test_letters_of_unsavable_and_secret_items(driver: Driver) -> None:
    """An item that cannot be saved, or holds a secret, makes a letter all the same, described and masked."""
    remember("a-secret-we-have-met")
    things = [threading.Thread(name="unsavable"), "https://me:hunter2hunter2@host/", "a-secret-we-have-met", "plain"]
    items = driver.items(things, name="loop", max_attempts=1)
    for thing in items:
        with items.attempt():
            raise Poison(f"with {thing}")
    letters = driver.dead_letters("loop")
    assert [isinstance(letter.item, NotKept) for letter in letters] == [True, True, True, False]
    shown = "".join(repr(letter) for letter in letters)
    assert "hunter2hunter2" not in shown
    assert "a-secret-we-have-met" not in shown
    assert letters[2].message == "with ***"
    assert "unsavable" in letters[0].item.shown


def test_letters_with_a_plain_codec(make: Callable[..., Driver]) -> None:
    """With codec="plain" letters are kept like anywhere else."""
    driver = make(codec="plain")
    go(driver, [1, 2, 3], (2,))
    assert [(letter.index, letter.item) for letter in driver.dead_letters("loop")] == [(1, 2)]


def test_large_letters(driver: Driver) -> None:
    """A letter whose item is large goes to a side file, like any large result."""
    go(driver, [b"x" * 3_000_000, b"y"], (b"x" * 3_000_000,))
    assert [len(letter.item) for letter in driver.dead_letters("loop")] == [3_000_000]
    assert driver.results("loop")[1] == b"y"


# ---- processes


KILLED = STEPPING + """
at = int(sys.argv[2])
driver = Driver(STATE)
items = driver.items(range(8), name="loop", max_attempts=1)
with items.state(total=0) as state:
    for number in items:
        step()
        with items.attempt():
            state.total += number
            items.record(number)
            step()
            if number in (1, 2, 5) and len(sys.argv) == 3:
                raise ValueError(number)
print("total", state.total)
"""


@pytest.mark.parametrize("finished", [True, False])
def test_kill_at_every_step_of_doing_again(
    script: Callable[..., tuple[int, str, str]], state_dir: Path, tmp_path: Path, finished: bool
) -> None:
    """Killed before and inside each item that is done again, the loop ends with each result once and the sum of all items."""
    at = 0
    code = -9
    while code == -9:
        at += 1
        if at > 1:
            state_dir.rename(tmp_path / f"state{at}")
        code, out, errors = script(KILLED, -1 if finished else 15)     # 15: in the last item
        assert code == (0 if finished else -9), errors
        with Driver(state_dir) as driver:
            assert driver.retry_dead_letters("loop") == 3
        code, out, errors = script(KILLED, at, "mended")
        if code == -9:
            code, out, errors = script(KILLED, -1, "mended")
            assert code == 0, errors
            code = -9
        assert out == "total 28", errors
        with Driver(state_dir) as driver:
            assert driver.dead_letters("loop") == []
            values = [value for value in driver.results("loop") if not isinstance(value, DeadLetter)]
            assert values == ([1, 2, 5] if finished else [0, 3, 4, 6, 1, 2, 5, 7])
    assert at == (7 if finished else 9)


REQUEUED = """
driver = Driver(STATE)
print(driver.retry_dead_letters("loop"), flush=True)
kill()
"""


@pytest.mark.parametrize("finished", [True, False])
def test_killed_behind_the_request(disk: Driver, script: Callable[..., tuple[int, str, str]], finished: bool) -> None:
    """What was said to be done again is, though the process that said so was killed at once."""
    go(disk, range(10), (2, 5), until=None if finished else 8)
    disk.close()
    assert script(REQUEUED)[:2] == (-9, "2")
    with Driver(disk.path) as driver:
        assert go(driver, range(10)) == pairs(2, 5) + ([] if finished else pairs(8, 9))
