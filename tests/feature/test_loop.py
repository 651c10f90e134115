"""`@resumable.loop`: functions whose loop goes on where it was when they are called again."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import (
    ChangedArgumentsError,
    ChangedItemsError,
    Driver,
    ResumableError,
    RunLockedError,
    RunNameError,
    UnmarkedItemsWarning,
    UnstableArgumentError,
    loop,
)


class Stumble(Exception):
    """Stands for a crash of the body."""


def lives(call: Callable[[], Any]) -> Any:
    """What the call gives in the end: called again as long as it stumbles."""
    while True:
        try:
            return call()
        except Stumble:
            continue


class Body:
    """A function's effects, with stumbles at some items, once each."""

    def __init__(self, *stumbles: Any) -> None:
        self.seen: list[Any] = []
        self.stumbles = list(stumbles)

    def __call__(self, item: Any) -> None:
        self.seen.append(item)
        if item in self.stumbles:
            self.stumbles.remove(item)
            raise Stumble


body = Body()       # not closed over, as that would be part of the runs' names


@pytest.fixture(autouse=True)
def _new_body() -> None:
    global body
    body = Body()


def test_called_again_it_leaves_out_what_is_done(driver: Driver) -> None:
    """A function under the bare decorator's options goes on with the item that was at hand, and forgets when it has returned."""
    body.stumbles = [2, 5]

    @loop(driver=driver)
    def work(numbers: Iterable[int]) -> str:
        for number in numbers:
            body(number)
        return "done"

    assert lives(lambda: work(range(7))) == "done"
    assert body.seen == [0, 1, 2, 2, 3, 4, 5, 5, 6]
    assert driver.runs() == []
    assert work.peek_checkpoint() is None
    assert work(range(7)) == "done"
    assert body.seen[9:] == list(range(7))


BARE = """
import resumable

@resumable.loop
def main(numbers):
    for number in numbers:
        print(number, end=" ", flush=True)
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), 9)

main(range(5))
"""


def test_without_parentheses(script: Callable[..., tuple[int, str, str]]) -> None:
    """The bare decorator keeps its progress with the default driver, and two scripts with a `main` do not share it."""
    env = {"RESUMABLE_HOME": "home"}
    assert script(BARE, 3, env=env)[1] == "0 1 2 3"
    assert script(BARE, -1, env=env, file="other.py")[1] == "0 1 2 3 4"
    assert script(BARE, -1, env=env)[1] == "3 4"


def test_kinds_of_functions(driver: Driver) -> None:
    """Generators, coroutines and asynchronous generators go on as plain functions do, and stay what they are."""
    body.stumbles = [1, 3]

    @loop(driver=driver)
    def generator(numbers: Iterable[int]) -> Iterator[int]:
        for number in numbers:
            yield number * 10
            body(number)

    @loop(driver=driver)
    async def coroutine(numbers: Iterable[int]) -> str:
        for number in numbers:
            await asyncio.sleep(0)
            body(number)
        return "done"

    @loop(driver=driver)
    async def awaited(numbers: Any) -> AsyncIterator[int]:
        async for number in numbers:
            yield number * 10
            body(number)

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def collected() -> list[int]:
        return [number async for number in awaited(source())]

    wanted = [0, 1, 1, 2, 3, 3, 4]
    assert lives(lambda: list(generator(range(5)))) == [30, 40]
    assert body.seen == wanted
    body.seen.clear()
    body.stumbles = [1, 3]
    assert asyncio.iscoroutinefunction(coroutine)
    assert lives(lambda: asyncio.run(coroutine(range(5)))) == "done"
    assert body.seen == wanted
    body.seen.clear()
    body.stumbles = [1, 3]
    assert lives(lambda: asyncio.run(collected())) == [30, 40]
    assert body.seen == wanted
    assert driver.runs() == []


def test_methods(driver: Driver) -> None:
    """A method's items are its first argument after self, whatever `self` is if the run has a name."""

    class Mailer:
        def __init__(self) -> None:
            self.body = Body("b")

        @loop(driver=driver, name="mailer")
        def send(self, addresses: Iterable[str]) -> None:
            for address in addresses:
                self.body(address)

        @loop(driver=driver)
        def unnamed(self, addresses: Iterable[str]) -> None:
            """Its self tells nothing."""

    mailer = Mailer()
    lives(lambda: mailer.send(["a", "b", "c"]))
    assert mailer.body.seen == ["a", "b", "b", "c"]
    assert mailer.send.job_name == "mailer"     # type: ignore[attr-defined] # a method has its function's attributes
    with pytest.raises(UnstableArgumentError, match="name="):
        mailer.unnamed(["a"])


@pytest.mark.parametrize("place", [1, "numbers"])
def test_where_the_items_come_in(driver: Driver, place: int | str) -> None:
    """The items may come in any parameter, told by position or name, and be given by position or keyword, or by default."""
    body.stumbles = [2]

    @loop(driver=driver, iterable_arg=place)
    def work(factor: int, numbers: Iterable[int] = range(4)) -> int:
        for number in numbers:
            body(number * factor)
        return factor

    assert lives(lambda: work(1, range(4))) == 1
    assert lives(lambda: work(1, numbers=range(2))) == 1
    assert work(3) == 3
    assert body.seen == [0, 1, 2, 2, 3, 0, 1, 0, 3, 6, 9]


def test_other_arguments_are_another_run(driver: Driver) -> None:
    """Arguments beside the items tell the run; under a name of its own other ones are refused, the items are not its name."""
    body.stumbles = ["a1", "b0"]

    @loop(driver=driver)
    def work(numbers: Iterable[int], letter: str) -> None:
        for number in numbers:
            body(f"{letter}{number}")

    @loop(driver=driver, name="named")
    def named(numbers: Iterable[int], letter: str) -> None:
        for number in numbers:
            body(f"{letter}{number}")

    with pytest.raises(Stumble):
        work(range(2), "a")
    with pytest.warns(resumable.OtherArgumentsWarning), pytest.raises(Stumble):
        work(range(2), "b")
    work(range(3), "a")     # more at the end
    work(range(2), "b")
    assert body.seen == ["a0", "a1", "b0", "a1", "a2", "b0", "b1"]
    body.stumbles = ["c0"]
    with pytest.raises(Stumble):
        named(range(2), "c")
    with pytest.raises(ChangedArgumentsError, match="letter"):
        named(range(2), "d")
    with pytest.raises(ChangedItemsError):
        named([5, 6], "c")


def test_keep_on_success(driver: Driver) -> None:
    """Kept on success, a further call does nothing and gives the value back, until it is cleared."""
    body.stumbles = [1]

    @loop(driver=driver, keep_on_success=True)
    def work(numbers: Iterable[int]) -> dict[str, int]:
        for number in numbers:
            body(number)
        return {"total": sum(body.seen)}

    assert lives(lambda: work(range(3))) == {"total": 4}
    assert work(range(3)) == {"total": 4}
    assert body.seen == [0, 1, 1, 2]
    record = work.peek_checkpoint()
    assert record is not None
    assert (record.status, list(record.completed_indices), record.run_count) == ("finished", [0, 1, 2], 2)
    assert work.clear_checkpoint() == 1
    work(range(3))
    assert body.seen[4:] == [0, 1, 2]


def test_fresh_and_on_change(driver: Driver) -> None:
    """`fresh` begins anew at each call; `on_change` says what other items mean."""
    body.stumbles = [1]

    def made(**options: Any) -> Callable[[Iterable[int]], None]:
        @loop(driver=driver, name="work", **options)
        def work(numbers: Iterable[int]) -> None:
            for number in numbers:
                body(number)

        return work

    with pytest.raises(Stumble):
        made()(range(3))
    made(fresh=True, keep_on_success=True)(range(3))
    assert body.seen == [0, 1, 0, 1, 2]
    body.stumbles = [1]
    with pytest.raises(Stumble):
        made()(range(3))
    made(on_change="restart")([7, 8])
    assert body.seen[5:] == [0, 1, 7, 8]


def test_what_is_kept_of_a_failure(driver: Driver, state_dir: Path) -> None:
    """Of a failed call the record tells how many items are done, which one was at hand, and the function's locals."""

    @loop(driver=driver)
    def work(words: Iterable[str]) -> None:
        for word in words:
            if word == "bad":
                raise ValueError("not this one")

    assert work.checkpoint_path is None
    for calls in (1, 2):
        with pytest.raises(ValueError, match="not this one"):
            work(["good", "good", "bad", "good"])
        record = work.peek_checkpoint()
        assert record is not None
        assert (list(record.completed_indices), record.total_items, record.run_count) == ([0, 1], 4, calls)
        assert record.last_failure is not None
        assert (record.last_failure.type, record.last_failure.message) == ("ValueError", "not this one")
        assert (record.last_failure.index, record.last_failure.item) == (2, "'bad'")
        assert "not this one" in record.last_failure.traceback
        assert record.frozen_state["word"] == "bad"
    if driver.path != ":memory:":
        assert work.checkpoint_path is not None
        assert work.checkpoint_path.parent.parent == state_dir
        assert any(work.checkpoint_path.iterdir())
    assert work.clear_checkpoint() == 1
    assert work.peek_checkpoint() is None


def test_an_exception_after_the_loop(driver: Driver) -> None:
    """What raises behind the loop is no failure of an item: called again, no item is done again, and the rest of it is."""
    ends = [Stumble, None]

    @loop(driver=driver, name="work")
    def work(numbers: Iterable[int]) -> None:
        for number in numbers:
            body(number)
        if end := ends.pop(0):
            raise end

    with pytest.raises(Stumble):
        work(range(3))
    failure = driver.failure("work")
    assert failure is not None
    assert (failure.index, failure.item) == (None, None)
    work(range(3))
    assert body.seen == [0, 1, 2]
    assert driver.runs() == []


@pytest.mark.parametrize("how", ["break", "return"])
def test_a_loop_that_is_left(driver: Driver, how: str) -> None:
    """A function that has returned is finished, also when it left its loop before the end."""
    @loop(driver=driver, name="work")
    def work(numbers: Iterable[int]) -> str:
        for number in numbers:
            body(number)
            if number == 1:
                if how == "return":
                    return how
                break
        return "break"

    assert work(range(9)) == how
    assert driver.runs() == []
    assert work(range(9)) == how
    assert body.seen == [0, 1, 0, 1]


def test_results(driver: Driver) -> None:
    """Results are kept where they are asked for; what a generator has yielded comes first when it is called again."""
    body.stumbles = [1, 2]

    @loop(driver=driver, store_results=True, keep_on_success=True, name="plain")
    def plain(numbers: Any) -> None:
        for number in numbers:
            numbers.record(number * 10)
            body(number)

    @loop(driver=driver, store_results=True)
    def generator(numbers: Iterable[int]) -> Iterator[str]:
        for number in numbers:
            yield f"a{number}"
            body(number)
            yield f"b{number}"
        yield "end"

    lives(lambda: plain(range(4)))
    assert list(driver.results("plain")) == [0, 10, 20, 30]
    body.stumbles = [1, 2]
    assert lives(lambda: list(generator(range(4)))) == ["a0", "b0", "a1", "b1", "a2", "b2", "a3", "b3", "end"]

    @loop(driver=driver, name="none")
    def none(numbers: Any) -> None:
        for _ in numbers:
            numbers.record(1)

    with pytest.raises(ResumableError, match="store_results=True"):
        none(range(2))


def test_carried_state(driver: Driver) -> None:
    """A sum over a decorated loop that failed and went on is the sum."""
    body.stumbles = [4]

    @loop(driver=driver)
    def work(numbers: Any) -> int:
        with numbers.state(total=0) as carried:
            for number in numbers:
                carried.total += number
                body(number)
        return int(carried.total)

    assert lives(lambda: work([1, 2, 3, 4, 5])) == 15


def test_what_marks_nothing(driver: Driver) -> None:
    """What takes all items at once marks none and warns; they are done when the function has returned."""
    body.stumbles = ["sorted"]

    @loop(driver=driver)
    def work(numbers: Iterable[int]) -> list[int]:
        found = sorted(numbers)
        body("sorted")
        return found

    with pytest.warns(UnmarkedItemsWarning), pytest.raises(Stumble):
        work([3, 1, 2])
    with pytest.warns(UnmarkedItemsWarning):
        assert work([3, 1, 2]) == [1, 2, 3]
    assert driver.runs() == []


def test_two_at_once(driver: Driver) -> None:
    """A function that is running cannot be called again from inside, whatever its items are."""

    @loop(driver=driver, name="work")
    def work(numbers: Iterable[int]) -> None:
        for _ in numbers:
            work([5])

    with pytest.raises(RunLockedError):
        work(range(2))


def test_save_every(driver: Driver) -> None:
    """With `save_every` each N-th mark is saved, and all of them when the loop is left."""
    body.stumbles = [25]

    @loop(driver=driver, save_every=10, name="sparing")
    def work(numbers: Iterable[int]) -> None:
        for number in numbers:
            body(number)

    with pytest.raises(Stumble):
        work(range(40))
    assert (driver.info("sparing").seq, driver.state("sparing")) == (3, 25)


def test_failing_items(driver: Driver) -> None:
    """A decorated loop tries items again in place, keeps its finished run for dead letters, and does those again when asked."""

    @loop(driver=driver, name="numbers", max_attempts=2)
    def work(texts: Any) -> int:
        with texts.state(total=0) as carried:
            for text in texts:
                with texts.attempt():
                    body(text)
                    carried.total += int(text)
        return int(carried.total)

    assert work(["1", "x", "3"]) == 4
    assert body.seen == ["1", "x", "x", "3"]
    record = work.peek_checkpoint()
    assert record is not None
    assert [(letter.index, letter.item, letter.attempts) for letter in record.dead_letters] == [(1, "x", 2)]
    assert driver.retry_dead_letters("numbers") == 1
    body.seen.clear()
    with pytest.raises(ChangedItemsError):
        work(["1", "2", "4"])
    assert work(["1", "x", "3"]) == 4
    assert body.seen == ["x", "x"]
    work.clear_checkpoint()
    assert work(["1", "2", "3"]) == 6
    assert driver.runs() == []


def test_items_with_keys(driver: Driver) -> None:
    """A decorated loop with keys leaves out what is done wherever it stands by now."""
    body.stumbles = ["c"]

    @loop(driver=driver, key=str.lower)
    def work(words: Iterable[str]) -> None:
        for word in words:
            body(word)

    with pytest.raises(Stumble):
        work(["a", "b", "c"])
    work(["new", "c", "B", "A"])
    assert body.seen == ["a", "b", "c", "new", "c"]


# ---- what is no loop


def test_manual_mode(driver: Driver) -> None:
    """What `save` was given comes back from `saved` in the next life, and only there; the default before."""
    stumbles = [2, 4]
    pages = []

    @loop(driver=driver, auto_iterate=False, name="pages")
    def crawl(start: str) -> str:
        state = resumable.saved({"page": 0, "found": []})
        found = list(state["found"])
        for page in range(state["page"], 6):
            pages.append(page)
            found.append(f"{start}{page}")
            if page in stumbles:
                stumbles.remove(page)
                raise Stumble
            resumable.save(page=page + 1, found=found)
        return "".join(found)

    assert lives(lambda: crawl("p")) == "p0p1p2p3p4p5"
    assert pages == [0, 1, 2, 2, 3, 4, 4, 5]
    assert driver.runs() == []
    with pytest.raises(ResumableError, match="auto_iterate=False"):
        resumable.save(page=1)
    with pytest.raises(ResumableError, match="auto_iterate=False"):
        resumable.saved()


def test_manual_mode_and_loops_apart(driver: Driver) -> None:
    """A name is a loop's or another function's: neither takes up the other's run, nor spoils it."""

    @loop(driver=driver, name="one")
    def goes(numbers: Iterable[int]) -> None:
        for _ in numbers:
            raise Stumble

    @loop(driver=driver, name="one", auto_iterate=False)
    def saves(numbers: Iterable[int]) -> None:
        resumable.save(a=1)
        raise Stumble

    for first, second in ((goes, saves), (saves, goes)):
        with pytest.raises(Stumble):
            first([1, 2])
        with pytest.raises(RunNameError):
            second([1, 2])
        failure = driver.failure("one")
        assert failure is not None
        assert failure.type.endswith("Stumble")
        driver.clear("one")


# ---- the decorator itself


def work(numbers: list[int]) -> int:
    """Adds."""
    return sum(1 for _ in numbers)


def test_it_stays_the_function() -> None:
    """Name, documentation, signature and annotations are the function's."""
    made = loop(work)
    assert (made.__name__, made.__doc__, made.__wrapped__) == ("work", "Adds.", work)   # type: ignore[attr-defined]
    assert inspect.signature(made) == inspect.signature(work)
    assert "test_loop:work" in repr(made)


@loop(name="by name")
def by_name(numbers: list[int]) -> None:
    """Can be found by its name."""


def test_it_can_be_pickled() -> None:
    """A decorated function is pickled by its name, as functions are."""
    assert pickle.loads(pickle.dumps(by_name)) is by_name


MISUSE: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "package": (lambda: resumable(work), TypeError, "@resumable.loop"),      # type: ignore[operator]
    "called": (lambda: resumable(name="x"), TypeError, "@resumable.loop"),   # type: ignore[operator]
    "module": (lambda: loop(resumable), TypeError, "no code"),      # type: ignore[call-overload]
    "name first": (lambda: loop("name"), TypeError, "name="),                # type: ignore[call-overload]
    "partial": (lambda: loop(partial(work, [1])), TypeError, "no code"),
    "no parameter": (lambda: loop(lambda: None), ValueError, "0 parameters"),
    "no such index": (lambda: loop(iterable_arg=1)(work), ValueError, "1 parameters"),
    "no such name": (lambda: loop(iterable_arg="x")(work), ValueError, "'x'"),
    "odd place": (lambda: loop(iterable_arg=1.5)(work), TypeError, "1.5"),   # type: ignore[call-overload]
    "save_every 0": (lambda: loop(save_every=0)(work), ValueError, "save_every"),
    "save_every x": (lambda: loop(save_every="x")(work), TypeError, "save_every"),   # type: ignore[call-overload]
    "flag": (lambda: loop(store_results=1)(work), TypeError, "store_results"),       # type: ignore[call-overload]
    "driver": (lambda: loop(driver=5)(work), TypeError, "driver"),           # type: ignore[call-overload]
    "no items": (lambda: loop(driver=":memory:")(work)(5), TypeError, "int cannot"),  # type: ignore[arg-type]
    "missing": (loop(work), TypeError, "numbers"),                           # type: ignore[call-arg]
}


@pytest.mark.parametrize("misuse", MISUSE)
def test_misuse(misuse: str) -> None:
    """What is written wrongly is said at once, with what to write."""
    call, kind, text = MISUSE[misuse]
    with pytest.raises(kind, match=text):
        call()


KILLED_LATE = """
from resumable import loop
from resumable.storage.folder import DiskFolder

@loop(driver=STATE, name="late")
def count(numbers):
    return sum([1 for number in numbers])

if sys.argv[2] == "kill":
    DiskFolder.discard = lambda *_, **__: kill()     # all is in the log, and the journal is still there
print(count(range(5)))
"""


def test_a_kill_before_all_is_forgotten(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> None:
    """Killed when it was finished and not yet forgotten, a function's value is given by the next call, which then forgets."""
    assert script(KILLED_LATE, "kill")[0] == -9
    assert script(KILLED_LATE, "go on")[:2] == (0, "5")
    with Driver(state_dir) as driver:
        assert driver.runs() == []
