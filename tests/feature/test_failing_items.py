"""Items that fail in a plain `for` body: attempts over all lives, and what the exception that leaves the loop says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, ItemAnswerError, StorageError, UnsavableStateError


class Poison(Exception):
    """What a body raises at an item."""


def life(driver: Driver, poison: Any, numbers: Any = range(6), **given: Any) -> tuple[list[int], BaseException | None]:
    """One call of a loop that fails at an item: what it saw, and what came out of it."""
    seen = []
    try:
        for number in driver.items(numbers, name="loop", **given):
            seen.append(number)
            if number == poison:
                raise Poison(number)
    except Poison as error:
        return seen, error
    return seen, None


def note(error: BaseException | None) -> str:
    return error.__notes__[0] if error is not None else ""


def test_attempts_are_counted_over_all_lives(driver: Driver) -> None:
    """The third attempt, each in a life of its own, makes a dead letter; the next call goes on behind the item."""
    for attempt in (1, 2):
        seen, error = life(driver, 2, max_attempts=3)
        assert seen == ([0, 1, 2] if attempt == 1 else [2])
        assert isinstance(error, Poison)
        assert f"attempt {attempt} at item 2 of loop 'loop' failed" in note(error)
        assert "items.attempt()" in note(error)
        assert "driver.map" in note(error)
        assert driver.dead_letters("loop") == []
    seen, error = life(driver, 2, max_attempts=3)
    assert seen == [2]
    assert "item 2 of loop 'loop' is a dead letter now" in note(error)
    assert (driver.info("loop").status, driver.state("loop")) == ("failed", 3)
    [letter] = driver.dead_letters("loop")
    assert (letter.index, letter.item, letter.attempts, letter.message, letter.count) == (2, 2, 3, "2", 1)
    assert letter.type.endswith("Poison")
    assert "raise Poison(number)" in letter.traceback
    assert list(driver.results("loop")) == [letter]
    assert life(driver, 2, max_attempts=3) == ([3, 4, 5], None)
    assert driver.info("loop").status == "finished"


def test_an_item_that_recovers(driver: Driver) -> None:
    """Attempts are forgotten with the item's mark: each item has all of its own."""
    for poison in (2, 3, 4):
        for _ in range(2):
            life(driver, poison, max_attempts=3)
    assert life(driver, None, max_attempts=3)[0] == [4, 5]
    assert driver.dead_letters("loop") == []


@pytest.mark.parametrize("answer", ["skip", "dead_letter", "retry", "fail"])
def test_what_on_error_answers(driver: Driver, answer: Any) -> None:
    """Each answer is done: left out, kept as a letter, or at hand again at the next call."""
    asked = []

    def on_error(item: int, error: Exception, attempt: int) -> Any:
        asked.append((item, type(error), attempt))
        return answer

    seen, error = life(driver, 2, on_error=on_error)
    assert (seen, asked) == ([0, 1, 2], [(2, Poison, 1)])
    assert isinstance(error, Poison)
    gone = answer in ("skip", "dead_letter")
    assert driver.state("loop") == (3 if gone else (2, None, {"attempts": {2: 1}}))
    assert len(driver.dead_letters("loop")) == (answer == "dead_letter")
    told = {"skip": "left out", "dead_letter": "dead letter", "retry": "items.attempt()", "fail": "is safe at checkpoint"}
    assert told[answer] in note(error)
    assert life(driver, 2, on_error=on_error)[0] == ([3, 4, 5] if gone else [2])
    assert asked[1:] == ([] if gone else [(2, Poison, 2)])


def test_without_a_policy(driver: Driver) -> None:
    """Nothing given, an exception stops the loop as often as it comes, and nothing beside the marks is saved."""
    for _ in range(3):
        assert isinstance(life(driver, 2)[1], Poison)
    assert driver.state("loop") == 2


def test_a_life_without_a_policy(driver: Driver) -> None:
    """A call without a policy forgets the attempts as soon as it saves."""
    life(driver, 2, max_attempts=3)
    assert life(driver, 4)[0] == [2, 3, 4]
    assert driver.state("loop") == 4


@pytest.mark.parametrize("save_every", [1, 4])
def test_nothing_of_a_failed_attempt_is_saved(make: Callable[..., Driver], save_every: int) -> None:
    """What a body did to the loop's state before it raised is neither saved with the attempt nor with the dead letter."""
    driver = make(save_every=save_every)

    def body() -> Any:
        items = driver.items([1, 2, 3, 4, 5, 6], name="loop", max_attempts=2)
        with items.state(total=0, seen=[]) as state:
            for number in items:
                state.total += number
                state.seen.append(number)
                items.record(number)
                if number == 3:
                    raise Poison
        return state

    for _ in range(2):
        with pytest.raises(Poison):
            body()
    state = body()
    assert (state.total, state.seen) == (1 + 2 + 4 + 5 + 6, [1, 2, 4, 5, 6])
    assert [getattr(value, "index", value) for value in driver.results("loop")] == [1, 2, 2, 4, 5, 6]


def test_with_save_every(make: Callable[..., Driver]) -> None:
    """Attempts, letters and what is left out are saved at once, whatever `save_every` says."""
    driver = make(save_every=100)
    assert life(driver, 2, max_attempts=2)[0] == [0, 1, 2]
    assert life(driver, 2, max_attempts=2)[0] == [2]
    assert life(driver, 4, on_error=lambda *_: "skip")[0] == [3, 4]
    assert life(driver, None)[0] == [5]
    assert [letter.index for letter in driver.dead_letters("loop")] == [2]


STOPS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StorageError]


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.__name__)
def test_what_stops_the_job_is_no_failure(driver: Driver, stop: type[BaseException]) -> None:
    """Ctrl-C, exits, cancellation and a failing disk stop the loop at once, count no attempt, and make no dead letter."""
    seen: list[int] = []

    def body() -> None:
        for number in driver.items(range(5), name="loop", max_attempts=1, on_error=lambda *_: "skip"):
            seen.append(number)
            if number == 2:
                raise stop

    for _ in range(3):
        with pytest.raises(stop):
            body()
    assert seen == [0, 1, 2, 2, 2]
    assert driver.dead_letters("loop") == []
    assert driver.state("loop") == 2


@pytest.mark.parametrize("answer", ["again", None])
def test_an_on_error_that_is_wrong(driver: Driver, answer: Any) -> None:
    """An `on_error` that answers nothing, or raises, does not hide the item's exception; a note names it."""
    _, error = life(driver, 2, on_error=lambda *_: answer)
    assert isinstance(error, Poison)
    assert ItemAnswerError.__name__ in note(error)

    def broken(*_: Any) -> Any:
        raise LookupError("mine")

    _, error = life(driver, 2, on_error=broken)
    assert isinstance(error, Poison)
    assert "met LookupError: mine" in note(error)
    assert driver.state("loop") == (2, None, {"attempts": {2: 2}})


def test_an_exception_after_the_loop(driver: Driver) -> None:
    """What is raised after the loop, or by its source, is no item's failure."""

    def source() -> Any:
        yield 0
        raise Poison

    def body() -> None:
        for _ in driver.items([1], name="after", max_attempts=1):
            pass
        raise Poison

    with pytest.raises(Poison):
        body()
    assert driver.dead_letters("after") == []
    for _ in range(2):
        with pytest.raises(Poison):
            for _ in driver.items(source(), name="source", max_attempts=1):
                pass
    assert driver.dead_letters("source") == []


def test_a_mark_that_cannot_be_saved(driver: Driver) -> None:
    """A result that cannot be saved is an error of the loop, not of an attempt: the item is not given up for it."""

    def body() -> None:
        items = driver.items(range(3), name="loop", max_attempts=1)
        for _ in items:
            items.record(threading.Thread())

    for _ in range(2):
        with pytest.raises(UnsavableStateError):
            body()
    assert (driver.info("loop").seq, driver.dead_letters("loop")) == (0, [])


def test_attempts_with_keys(driver: Driver) -> None:
    """With `key=` an item's attempts are its own, wherever it stands by now and whatever is done or fails before it."""

    def body(letters: str, *bad: str) -> list[str]:
        seen = []
        with suppress(Poison):
            for one in driver.items(list(letters), name="loop", key=str, max_attempts=3):
                seen.append(one)
                if one in bad:
                    raise Poison
        return seen

    assert body("abc", "b") == ["a", "b"]
    assert body("xabc", "b") == ["x", "b"]
    assert body("yxabc", "b", "y") == ["y"]
    assert body("yxabc", "b") == ["y", "b"]
    assert [(letter.index, letter.item, letter.attempts) for letter in driver.dead_letters("loop")] == [(3, "b", 3)]
    assert body("cbayx") == ["c"]


def test_failing_batches(driver: Driver) -> None:
    """A batch that fails is one letter, for all of its items."""

    def body() -> None:
        for batch in driver.items(range(7), name="loop", max_attempts=1).batches(3):
            if 4 in batch:
                batch.clear()
                raise Poison

    with pytest.raises(Poison):
        body()
    [letter] = driver.dead_letters("loop")
    assert (letter.index, letter.item, letter.count) == (3, [3, 4, 5], 3)
    for batch in driver.items(range(7), name="loop").batches(3):
        assert batch == [6]


# ---- the defects of others


def test_ctrl_c_and_exits_are_not_swallowed(driver: Driver) -> None:
    """A loop with `max_attempts` that is told to stop, by Ctrl-C or sys.exit, stops; neither ends up as a dead letter (A4)."""
    bodies: list[int] = []
    told = {1: KeyboardInterrupt, 3: SystemExit}

    def body() -> list[int]:
        for number in driver.items(range(5), name="loop", max_attempts=3):
            bodies.append(number)
            if stop := told.pop(number, None):
                raise stop
        return bodies

    with pytest.raises(KeyboardInterrupt):
        body()
    with pytest.raises(SystemExit):
        body()
    assert body() == [0, 1, 1, 2, 3, 3, 4]
    assert driver.dead_letters("loop") == []


def test_a_poison_item_costs_the_sum_nothing_else(driver: Driver) -> None:
    """A poison item in the middle neither resets the body's sum nor runs finished items again: 1+2+(poison)+4+5 is 12 (A5)."""
    bodies = []

    def body() -> int:
        total = 0
        items = driver.items([1, 2, 3, 4, 5], name="loop", max_attempts=3)
        for number in items:
            with items.attempt():
                bodies.append(number)
                if number == 3:
                    raise Poison
                total += number
        return total

    assert body() == 12
    assert bodies == [1, 2, 3, 3, 3, 4, 5]


KILLED = """
seen = open(sys.argv[2], "a+", buffering=1)
items = Driver(STATE).items(range(12), name="loop", max_attempts=3)
with items.state(total=0) as state:
    for number in items:
        seen.seek(0)
        first = str(number) not in seen.read().split()
        print(number, file=seen)
        state.total += number
        items.record(number)
        if first:
            kill()
        if number % 4 == 3:
            raise ValueError(number)
print("total", state.total)
seen.close()
"""


def test_kill_at_every_item_of_failing_loops(
    script: Callable[..., tuple[int, str, str]], state_dir: Path, tmp_path: Path
) -> None:
    """Killed in the middle of each item, and failing at some, the loop has the letters, results and sum of an undisturbed one."""
    seen = tmp_path / "seen"
    codes = []
    while 0 not in codes:
        code, out, errors = script(KILLED, seen)
        assert code == 1 or not errors, errors  # of an item that fails
        codes.append(code)
    assert (codes.count(-9), codes.count(1)) == (12, 9)
    assert out == f"total {sum(number for number in range(12) if number % 4 != 3)}"
    with Driver(state_dir) as driver:
        letters = driver.dead_letters("loop")
        assert [(letter.index, letter.item, letter.attempts) for letter in letters] == [(3, 3, 3), (7, 7, 3), (11, 11, 3)]
        values = [getattr(value, "index", value) for value in driver.results("loop")]
        assert values == list(range(12))
    counts = [seen.read_text().split().count(str(number)) for number in range(12)]
    assert all(count == (4 if number % 4 == 3 else 2) for number, count in enumerate(counts)), counts
