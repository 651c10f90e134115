"""Dead letters of loops with `key=`: their items are done again wherever they stand, and nothing else is."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from stepping import STEPPING

from resumable import Driver, DuplicateKeyError, NotKept, ResumableError
from resumable.storage import keys as key_file
from resumable.work import requeue


class Poison(Exception):
    """What a body raises at an item."""


def go(
    driver: Driver, items: Iterable[Any], poison: Any = (), *, size: int = 0, until: Any = None, key: Any = str, **given: Any
) -> list[Any]:
    """A loop that makes dead letters of some items, and is left at another; what it saw."""
    seen = []
    found = driver.items(items, name="loop", key=key, max_attempts=1, **given)
    for item in found.batches(size) if size else found:
        if item == until:
            break
        with found.attempt():
            seen.append(list(item) if size else item)
            if item in poison:
                raise Poison(item)
    return seen


def letters(driver: Driver) -> list[Any]:
    return [letter.item for letter in driver.dead_letters("loop")]


@pytest.fixture(params=["mapped", "written"])
def mapped_or_written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files can be mapped, and where they cannot."""
    if request.param == "written":
        monkeypatch.setattr(key_file, "can_map", lambda fd: False)


@pytest.mark.parametrize("kind", [list, iter], ids=["list", "iterator"])
def test_letters_of_an_unfinished_keyed_loop(driver: Driver, kind: Callable[[Any], Any], mapped_or_written: None) -> None:
    """The items of the letters come among the new ones, in the order in which they stand now; nothing else comes twice."""
    assert go(driver, kind("abcdef"), "be", until="f") == [*"abcde"]
    assert letters(driver) == ["b", "e"]
    assert (driver.retry_dead_letters("loop"), driver.retry_dead_letters("loop")) == (2, 0)
    assert letters(driver) == []
    assert go(driver, kind("exfabzcd"), "b", until="z") == [*"exfb"]
    assert letters(driver) == ["b"]
    assert driver.retry_dead_letters("loop") == 1
    assert go(driver, kind("zxcvbnfade")) == [*"zvbn"]
    assert (driver.info("loop").status, letters(driver)) == ("finished", [])


@pytest.mark.parametrize("kind", [list, iter], ids=["list", "iterator"])
def test_letters_of_a_finished_keyed_loop(driver: Driver, kind: Callable[[Any], Any], mapped_or_written: None) -> None:
    """The next call of a finished loop is a new run, which does the items of the letters alone, wherever they stand."""
    go(driver, kind("abcdef"), "be")
    assert driver.retry_dead_letters("loop") == 2
    assert go(driver, kind("xedcbay"), until="b") == ["e"]
    assert go(driver, kind("fxdcebay"), "b") == ["b"]
    assert ([info.status for info in driver.runs()], letters(driver)) == (["finished"] * 2, ["b"])
    assert driver.retry_dead_letters("loop") == 1
    assert go(driver, kind("abcdefb"[:-1])) == ["b"]
    assert (letters(driver), driver.retry_dead_letters("loop")) == ([], 0)
    assert go(driver, kind("ab")) == [*"ab"]        # a finished loop begins anew


def test_keyed_requests_add_up(driver: Driver, mapped_or_written: None) -> None:
    """Letters that were taken and not done yet stay so when more are taken, over lives; an item that is gone is not missed."""
    for finished in (False, True):
        go(driver, "abcdefgh", "aceg", until=None if finished else "h", fresh=True)
        assert driver.retry_dead_letters("loop") == 4
        assert go(driver, "abcdefgh", "a", until="e") == ["a", "c"]
        assert driver.retry_dead_letters("loop") == 1
        assert go(driver, "gfedba", until="a") == ["g", "e"]
        assert go(driver, "hgfedbac") == (["a"] if finished else ["h", "a"])
        assert letters(driver) == []
        go(driver, "abc", "ab", fresh=True)
        driver.retry_dead_letters("loop")
        assert go(driver, "cb") == ["b"]
        assert (driver.info("loop").status, letters(driver)) == ("finished", [])


def test_a_keyed_state_goes_on(driver: Driver) -> None:
    """What a loop carries is carried on when its letters are done again, also into a new run: a sum ends as the sum."""

    def body(numbers: Iterable[int], poison: int, until: int = 0) -> int:
        items = driver.items(numbers, name="loop", key=lambda number: number, max_attempts=1)
        with items.state(total=0) as state:
            for number in items:
                if number == until:
                    break
                with items.attempt():
                    state.total += number
                    if number == poison:
                        raise Poison
        return int(state.total)

    assert body([1, 2, 3, 4, 5], 3, 5) == 7
    assert driver.retry_dead_letters("loop") == 1
    assert body([5, 4, 3, 2, 1], 3) == 12
    assert driver.retry_dead_letters("loop") == 1
    assert body([4, 3], 3) == 12
    assert driver.retry_dead_letters("loop") == 1
    assert body([3, 9], 0) == 15


def test_keyed_batches(driver: Driver) -> None:
    """The items of a batch come again, each for itself, in batches of what there is to do; also a batch of one."""
    go(driver, "abcdefg", [["c", "d"]], size=2, until=["g"])
    assert driver.retry_dead_letters("loop") == 1
    assert go(driver, "gxdyfecba", size=3) == [["g", "x", "d"], ["y", "c"]]
    go(driver, "abcdefg", (["c", "d"], ["g"]), size=2)
    assert driver.retry_dead_letters("loop") == 2
    assert go(driver, "gxdyfecba", size=2) == [["g", "d"], ["c"]]


def test_letters_of_items_that_were_not_kept(driver: Driver) -> None:
    """An item that could not be saved with its letter is done again like any other: it is known by its key."""
    things = {name: threading.Thread(name=name) for name in "abc"}
    for until in (things["c"], None):
        go(driver, things.values(), [things["b"]], until=until, key=lambda thing: thing.name, fresh=True)
        assert isinstance(letters(driver)[0], NotKept)
        assert driver.retry_dead_letters("loop") == 1
        expected = [things["b"]] if until is None else [things["c"], things["b"]]
        assert go(driver, reversed(things.values()), key=lambda thing: thing.name) == expected


def test_a_third_item_of_a_key_that_is_done_again(driver: Driver) -> None:
    """Two items with the key of a letter are an error, as always, and not one that is left out."""
    for until, stopped_at in (("d", "abcbd"), (None, "abcb")):
        go(driver, "abcd", "b", until=until, fresh=True)
        driver.retry_dead_letters("loop")
        with pytest.raises(DuplicateKeyError, match=r"items 1 and 3 have the same key"):
            go(driver, stopped_at)
        with pytest.raises(DuplicateKeyError):
            go(driver, stopped_at)      # it is done by now, and met twice


def test_attempts_of_a_keyed_item_that_is_done_again(driver: Driver) -> None:
    """An item that is done again has all its attempts again, over several lives, too; its idempotency key stays."""
    given = set()

    def body(letters: str, fails: bool) -> list[str]:
        seen = []
        items = driver.items(letters, name="loop", key=str, max_attempts=2)
        for letter in items:
            seen.append(letter)
            if letter == "b":
                given.add(items.idempotency_key())
            if letter == "b" and fails:
                raise Poison
        return seen

    for _ in range(3):
        for order in ("abc", "cab"):
            with pytest.raises(Poison):
                body(order, True)
        body("cba", False)
        assert [(letter.item, letter.attempts) for letter in driver.dead_letters("loop")] == [("b", 2)]
        assert driver.retry_dead_letters("loop") == 1
    assert body("bca", False) == ["b"]
    assert len(given) == 1


def test_keyed_letters_from_an_asynchronous_source(driver: Driver) -> None:
    """`async for` does keyed letters again, too."""

    async def slowly(letters: str) -> AsyncIterator[str]:
        for letter in letters:
            yield letter

    async def body(order: str, poison: str) -> list[str]:
        seen = []
        items = driver.items(slowly(order), name="loop", key=str, max_attempts=1)
        async for letter in items:
            async with items.attempt():
                seen.append(letter)
                if letter in poison:
                    raise Poison
        return seen

    assert asyncio.run(body("abcd", "bd")) == [*"abcd"]
    assert driver.retry_dead_letters("loop") == 2
    assert asyncio.run(body("dcba", "b")) == ["d", "b"]
    assert letters(driver) == ["b"]


def test_nothing_is_taken_ahead(driver: Driver) -> None:
    """An endless source is asked for one item after the other, and the letters' items come where they stand in it."""
    given: list[int] = []

    def numbers() -> Iterator[int]:
        for number in itertools.count():
            given.append(number)
            yield number

    go(driver, numbers(), (2, 3000), until=5000)
    assert driver.retry_dead_letters("loop") == 2
    given.clear()
    assert go(driver, numbers(), until=3000) == [2]
    assert given == list(range(3001))
    assert go(driver, numbers(), until=5001) == [3000, 5000]


def test_more_keyed_letters_than_can_be_done_again(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """More letters than the description can hold are an error that says what to do, and stay letters."""
    monkeypatch.setattr(requeue, "MOST", 3)
    for until in ("f", None):
        go(driver, "abcdef", "abcd", until=until, fresh=True)
        with pytest.raises(ResumableError, match="has 4 items among its dead letters"):
            driver.retry_dead_letters("loop")
        assert letters(driver) == [*"abcd"]


# ---- processes


KILLED = STEPPING + """
from resumable.runs import live, saving

phase, at, seen = sys.argv[2], int(sys.argv[3]), sys.argv[4]
for kind, name in ((saving.SavingRun, "describe_all"), (live.LiveRun, "leave"), (live.LiveRun, "finish")):
    stepping(kind, name)

driver = Driver(STATE)
if phase == "mended":
    driver.retry_dead_letters("loop")
order = [7, 3, 9, 1, 0, 5, 2, 4, 6] if phase == "mended" else range(8)
items = driver.items(order, name="loop", key=lambda number: number, max_attempts=1, once=phase == "mended")
with items.state(total=0) as state:
    for number in items:
        if phase == "left" and number == 7:
            break
        with items.attempt():
            step()
            with open(seen, "a") as file:
                file.write(f"{number}\\n")
            state.total += number
            items.record(number)
            step()
            if number in (1, 2, 5) and phase != "mended":
                raise ValueError(number)
print("total", state.total)
"""


@pytest.mark.parametrize("phase", ["letters", "left"])
def test_kill_at_every_step_of_keyed_letters(
    script: Callable[..., tuple[int, str, str]], state_dir: Path, tmp_path: Path, phase: str
) -> None:
    """Killed at each step of asking and doing again, among other items in another order, each item is done once."""
    seen = tmp_path / "seen"
    code, _, errors = script(KILLED, phase, -1, seen)
    assert code == 0, errors
    state_dir.rename(tmp_path / "made")
    whole = [5, 2, 1] if phase == "letters" else [9, 7, 5, 2, 1]
    code, at = -9, 0
    while code == -9:
        at += 1
        shutil.rmtree(state_dir, ignore_errors=True)
        shutil.copytree(tmp_path / "made", state_dir)
        seen.write_text("")
        code, _, errors = script(KILLED, "mended", at, seen)
        if code == -9:
            again, _, errors = script(KILLED, "mended", -1, seen)
            assert again == 0, errors
        counted = Counter(map(int, seen.read_text().split()))
        assert sorted(counted, reverse=True) == whole
        assert counted.total() - len(whole) <= (code == -9)
        with Driver(state_dir) as driver:
            total = sum(range(8)) + (9 if phase == "left" else 0)
            assert driver.state("loop")[1] == {"total": total}
            assert sorted(driver.results("loop")[-len(whole) :], reverse=True) == whole
            assert driver.info("loop").status == "finished"
    assert at > 2 * len(whole) + 4
