"""`with items.attempt():` around a loop's body: the same item once more, without leaving the loop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stepping import STEPPING

from resumable import Driver, ItemAnswerError, ResumableError, StorageError, UnmarkedItemsWarning
from resumable.backoff import constant
from resumable.work.parts import Part


class Poison(Exception):
    """What a body raises at an item."""


def go(
    driver: Driver, fails: dict[Any, int], numbers: Any = range(6), *, size: int = 0, error: type[BaseException] = Poison,
    **given: Any,
) -> list[Any]:
    """A loop whose body fails so often at these items; what it saw."""
    seen = []
    left = dict(fails)
    items = driver.items(numbers, name="loop", **given)
    for item in items.batches(size) if size else items:
        with items.attempt():
            seen.append(list(item) if size else item)
            key = item[0] if size else item
            if left.get(key, 0):
                left[key] -= 1
                if size:
                    item.clear()
                raise error(key)
    return seen


SOURCES: dict[str, Callable[[], Any]] = {
    "list": lambda: list(range(6)), "generator": lambda: (number for number in range(6)), "map": lambda: map(int, "012345"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_item_once_more(driver: Driver, source: str) -> None:
    """An item that fails is given out again, and nothing else is, whatever the items come from."""
    assert go(driver, {2: 2, 4: 1}, SOURCES[source](), max_attempts=3) == [0, 1, 2, 2, 2, 3, 4, 4, 5]
    assert (driver.info("loop").status, driver.dead_letters("loop")) == ("finished", [])


def test_through_map(driver: Driver) -> None:
    """`map` around the items sees the item again, too."""
    seen, left = [], 2
    items = driver.items(range(4), name="loop", max_attempts=5)
    for text in map(str, items):
        with items.attempt():
            seen.append(text)
            if text == "1" and left:
                left -= 1
                raise Poison
    assert seen == ["0", "1", "1", "1", "2", "3"]


def test_the_last_attempt_makes_a_dead_letter(driver: Driver) -> None:
    """After the last attempt the `for` goes on; the letter stands in the item's place among the results."""
    assert go(driver, {2: 9}, max_attempts=3) == [0, 1, 2, 2, 2, 3, 4, 5]
    [letter] = driver.dead_letters("loop")
    assert (letter.index, letter.item, letter.attempts, letter.message) == (2, 2, 3, "2")
    assert driver.info("loop").status == "finished"


def test_answers(driver: Driver) -> None:
    """What `on_error` answers is done there and then."""
    answers: dict[int, Any] = {1: "skip", 3: "dead_letter"}
    assert go(driver, {1: 9, 3: 9}, on_error=lambda item, error, attempt: answers[item]) == [0, 1, 2, 3, 4, 5]
    assert [letter.index for letter in driver.dead_letters("loop")] == [3]
    with pytest.raises(Poison):
        go(driver, {2: 1}, on_error=lambda *_: "fail")
    assert driver.state("loop") == (2, None, {"attempts": {2: 1}})
    assert go(driver, {2: 1}, on_error=lambda item, error, attempt: "retry" if attempt == 2 else "fail") == [2, 2, 3, 4, 5]


def test_an_on_error_that_raises_leaves_the_loop(driver: Driver) -> None:
    """What is wrong with `on_error` comes out of the loop, chained to the item's exception; the attempt is counted."""

    def broken(*_: Any) -> Any:
        raise LookupError("mine")

    with pytest.raises(LookupError) as caught:
        go(driver, {2: 9}, on_error=broken)
    assert isinstance(caught.value.__context__, Poison)
    with pytest.raises(ItemAnswerError) as wrong:
        go(driver, {2: 9}, on_error=lambda *_: "?")
    assert isinstance(wrong.value.__cause__, Poison)
    assert driver.state("loop") == (2, None, {"attempts": {2: 2}})


def test_without_any_policy(driver: Driver) -> None:
    """An attempt of a loop that was given no policy changes nothing."""
    with pytest.raises(Poison):
        go(driver, {2: 1})
    assert driver.state("loop") == 2
    assert go(driver, {}) == [2, 3, 4, 5]


def test_batches_again(driver: Driver) -> None:
    """A batch comes again whole, whatever the body did to its list; the last attempt makes one letter of it."""
    assert go(driver, {2: 1}, range(5), size=2, max_attempts=2) == [[0, 1], [2, 3], [2, 3], [4]]
    assert go(driver, {2: 9, 4: 9}, range(5), size=2, max_attempts=2) == [[0, 1], [2, 3], [2, 3], [4], [4]]
    assert [(one.index, one.item, one.count) for one in driver.dead_letters("loop")] == [(2, [2, 3], 2), (4, [4], 1)]


STOPS = [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StorageError]


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop.__name__)
def test_what_stops_goes_through(driver: Driver, stop: type[BaseException]) -> None:
    """Ctrl-C, exits, cancellation and a failing disk leave the loop at once, and count no attempt."""
    with pytest.raises(stop):
        go(driver, {2: 9}, error=stop, max_attempts=2)
    assert driver.state("loop") == 2
    assert go(driver, {2: 1}, max_attempts=2) == [2, 2, 3, 4, 5]


def test_nothing_stays_of_a_failed_attempt(driver: Driver) -> None:
    """The loop's state is as before the item, and its result is dropped; locals of the function stay as they are."""
    items = driver.items([1, 2, 3, 4], name="loop", max_attempts=3)
    tries = 0
    with items.state(total=0, seen=[]) as state:
        for number in items:
            with items.attempt():
                items.record(number * 10)
                state.total += number
                state.seen.append(number)
                state.extra = number
                tries += 1
                if number == 2 and tries < 4:
                    raise Poison
    assert (state.total, state.seen, state.extra, tries) == (10, [1, 2, 3, 4], 4, 6)
    assert list(driver.results("loop")) == [10, 20, 30, 40]


class Recorder:
    """A part that notes what it is told."""

    key, leads = "recorder", False

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def joined(self, loop: Any, saved: Any) -> None:
        self.heard.append(("joined", saved))

    def mark(self, done: int) -> object:
        self.heard.append(("mark", done))
        return done

    def marked(self) -> None:
        self.heard.append("marked")

    def again(self) -> None:
        self.heard.append("again")

    def left(self) -> None:
        self.heard.append("left")


def test_parts_are_told(driver: Driver) -> None:
    """What takes part in the marks is told to drop what a failed attempt did, and is marked once for each item."""
    from resumable.work import parts

    part: Part = Recorder()
    parts.wait(part)
    assert go(driver, {1: 1, 2: 9}, range(3), max_attempts=2) == [0, 1, 1, 2, 2]
    mark = [[("mark", done), "marked"] for done in range(4)]
    assert part.heard == [  # type: ignore[attr-defined]
        ("joined", None), *mark[1], "again", *mark[2], "again", "again", *mark[3], "left",
    ]


def test_a_part_of_a_loop_that_is_left(driver: Driver) -> None:
    """A dead letter of a plain body is a mark like any other to what takes part, with the attempt's own work dropped."""
    from resumable.work import parts

    def body() -> None:
        for _ in driver.items(range(3), name="loop", max_attempts=1):
            raise Poison

    part = Recorder()
    parts.wait(part)
    with pytest.raises(Poison):
        body()
    assert part.heard == [("joined", None), "again", ("mark", 1), "marked", "left"]
    assert driver.state("loop") == (1, None, {"recorder": 1})


def test_the_whole_body_belongs_inside(driver: Driver) -> None:
    """What follows a failed attempt in the body cannot record for its item, nor begin a second attempt: it raises."""

    def recording() -> None:
        items = driver.items(range(3), name="loop", max_attempts=9)
        for _ in items:
            with items.attempt():
                raise Poison
            items.record(1)     # type: ignore[unreachable]

    def beginning_another() -> None:
        items = driver.items(range(3), name="loop", max_attempts=9)
        for _ in items:
            with items.attempt():
                raise Poison
            with items.attempt():   # type: ignore[unreachable]
                pass

    for body in (recording, beginning_another):
        with pytest.raises(ResumableError, match="the whole body"):
            body()
    assert driver.state("loop") == (0, None, {"attempts": {0: 2}})


def test_where_there_is_no_item(driver: Driver) -> None:
    """Outside a loop's body, or where none is marked, an attempt is an error that says so."""
    items = driver.items(range(3), name="loop", max_attempts=2)
    with pytest.raises(ResumableError, match="is at hand"), items.attempt():
        pass
    iterator = iter(items)
    with pytest.warns(UnmarkedItemsWarning):
        next(iterator)
    with pytest.raises(ResumableError, match="is marked"), items.attempt():
        pass


@pytest.mark.parametrize("how", ["break", "continue", "return"])
def test_leaving_an_attempt(driver: Driver, how: str) -> None:
    """`break`, `continue` and `return` inside an attempt mean what they mean in a loop."""

    def body() -> list[int]:
        seen = []
        items = driver.items(range(4), name="loop", max_attempts=2)
        for number in items:
            with items.attempt():
                seen.append(number)
                if number == 2:
                    if how == "break":
                        break
                    if how == "return":
                        return seen
                    continue
        return seen

    assert body() == ([0, 1, 2, 3] if how == "continue" else [0, 1, 2])
    assert driver.info("loop").seq == (4 if how == "continue" else 2)


def test_the_pause(driver: Driver) -> None:
    """Between two attempts the backoff's time goes by, with the number of the attempt, and none after the last one."""
    asked: list[int] = []

    def pauses(attempt: int) -> float:
        asked.append(attempt)
        return 0.02

    started = time.monotonic()
    go(driver, {1: 9}, range(3), max_attempts=4, backoff=pauses)
    assert asked == [1, 2, 3]
    assert 0.06 <= time.monotonic() - started < 5


def test_retry_after_is_waited_for(driver: Driver) -> None:
    """An exception that asks for a pause gets it."""

    class Busy(Exception):
        retry_after = 0.1

    started = time.monotonic()
    go(driver, {1: 1}, range(3), error=Busy, max_attempts=2)
    assert 0.1 <= time.monotonic() - started < 5


def test_in_a_coroutine(driver: Driver) -> None:
    """`async with items.attempt()` does the same, and lets other tasks run during its pause."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.005)

    async def body() -> list[int]:
        ticking = asyncio.create_task(tick())
        seen, left = [], 2
        items = driver.items(range(4), name="loop", max_attempts=3, backoff=constant(0.1))
        for number in items:
            async with items.attempt():
                seen.append(number)
                await asyncio.sleep(0)
                if number == 1 and left:
                    left -= 1
                    raise Poison
        ticking.cancel()
        return seen

    assert asyncio.run(body()) == [0, 1, 1, 1, 2, 3]
    assert ticks > 5


def test_cancelled_in_a_pause(driver: Driver) -> None:
    """Cancellation in the middle of a pause leaves the loop at once, with the attempt saved."""

    async def body() -> None:
        items = driver.items(range(4), name="loop", max_attempts=3, backoff=constant(60))
        for _ in items:
            async with items.attempt():
                raise Poison

    async def impatient() -> None:
        await asyncio.wait_for(body(), 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert driver.state("loop") == (0, None, {"attempts": {0: 1}})
    assert driver.info("loop").status == "interrupted"


def test_live_resources_of_the_state(driver: Driver, tmp_path: Path) -> None:
    """A file in the loop's state is opened again where it was before the item, as on a resume."""
    path = tmp_path / "lines"
    path.write_text("".join(f"{number}\n" for number in range(6)))
    items = driver.items(range(4), name="loop", max_attempts=3)
    lines, left = [], 1
    with items.state(file=path.open()) as state:
        for number in items:
            with items.attempt():
                line = state.file.readline()
                if number == 2 and left:
                    left -= 1
                    state.file.close()
                    raise Poison
                lines.append(line)
        state.file.close()
    assert lines == ["0\n", "1\n", "2\n", "3\n"]


# ---- processes


INTERRUPTED = """
from resumable.backoff import constant

items = Driver(STATE, preempt=True).items(range(4), name="loop", max_attempts=3, backoff=constant(60))
for number in items:
    with items.attempt():
        print(number, flush=True)
        if number == 2:
            raise ValueError(number)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_pause(start: Callable[..., Any], state_dir: Path, number: signal.Signals) -> None:
    """Ctrl-C, or the machine's wish to stop, ends a long pause at once, with the attempt saved."""
    process = start(INTERRUPTED)
    assert [process.stdout.readline() for _ in range(3)] == ["0\n", "1\n", "2\n"]
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == (-2 if number == signal.SIGINT else 75), errors
    with Driver(state_dir) as driver:
        assert driver.state("loop") == (2, None, {"attempts": {2: 1}})
        assert driver.info("loop").status == "interrupted"


KILLED = STEPPING + """
at, tries = int(sys.argv[2]), open(sys.argv[3], "a", buffering=1)

def on_error(item, error, attempt):
    print(item, attempt, file=tries)
    step()
    return "retry"

def pause(attempt):
    step()
    return 0

items = Driver(STATE).items(range(6), name="loop", max_attempts=3, on_error=on_error, backoff=pause)
with items.state(total=0) as state:
    for number in items:
        step()
        with items.attempt():
            state.total += number
            items.record(number)
            step()
            if number in (2, 4):
                raise ValueError(number)
        step()
print("total", state.total)
"""


def test_kill_at_every_step_of_the_attempts(script: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    """Killed before, inside and behind each attempt, while it is decided about and in the pause: letters, results, the sum and
    the numbers of the attempts are those of an undisturbed loop."""
    at = 0
    while True:
        at += 1
        tries = tmp_path / f"tries{at}"
        (tmp_path / "state").rename(tmp_path / f"state{at}") if at > 1 else None
        code, out, errors = script(KILLED, at, tries)
        if code == 0:
            break
        assert code == -9, errors
        code, out, errors = script(KILLED, -1, tries)
        assert (code, out) == (0, "total 9"), errors
        with Driver(tmp_path / "state") as driver:
            assert [(one.index, one.item, one.attempts) for one in driver.dead_letters("loop")] == [(2, 2, 3), (4, 4, 3)]
            assert [getattr(value, "index", value) for value in driver.results("loop")] == list(range(6))
        decided = [line.split() for line in tries.read_text().splitlines()]
        for item in ("2", "4"):
            numbers = [int(attempt) for which, attempt in decided if which == item]
            assert sorted(set(numbers)) == [1, 2, 3]
            assert len(numbers) <= 4    # the one that was being decided about may come again, and no other
    assert at > 25
