"""Plain loops over `driver.items`: what is left out after a crash, when an item is done, and what belongs to it."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from resumable import (
    ChangedItemsError,
    Driver,
    ItemsConsumerError,
    ResumableError,
    RunLockedError,
    RunNameError,
    UnmarkedItemsWarning,
    UnsavableStateError,
)


class Stumble(Exception):
    """Stands for a crash of the body."""


def go(driver: Driver, items: Iterable[Any], *, until: Any = None, **given: Any) -> list[Any]:
    """A loop whose body fails at an item; the items that it saw."""
    seen = []
    try:
        for item in driver.items(items, name="loop", **given):
            seen.append(item)
            if item == until:
                raise Stumble
    except Stumble:
        pass
    return seen


SOURCES: dict[str, Callable[[], Iterable[Any]]] = {
    "list": lambda: list(range(10)),
    "tuple": lambda: tuple(range(10)),
    "range": lambda: range(10),
    "generator": lambda: (number for number in range(10)),
    "dict": lambda: dict.fromkeys(range(10)),
    "map": lambda: map(int, "0123456789"),
    "infinite": itertools.count,
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_done_is_left_out(driver: Driver, source: str) -> None:
    """After a failing body the loop goes on with the item that was at hand, whatever the items come from."""
    assert go(driver, SOURCES[source](), until=4) == [0, 1, 2, 3, 4]
    assert driver.info("loop").seq == 4
    failure = driver.failure("loop")
    assert failure is not None
    assert failure.type.endswith("Stumble")
    assert failure.locals["seen"] == [0, 1, 2, 3, 4]
    assert go(driver, SOURCES[source](), until=9) == [4, 5, 6, 7, 8, 9]
    assert driver.info("loop").status == "failed"
    if source != "infinite":
        assert go(driver, SOURCES[source]()) == [9]
        assert driver.info("loop").status == "finished"
        assert driver.info("loop").seq == 10


def test_a_finished_loop_begins_anew(driver: Driver) -> None:
    """Gone through, a loop begins anew; with `once` there is nothing left to do, with `fresh` an unfinished one begins anew."""
    assert go(driver, range(3)) == [0, 1, 2]
    assert go(driver, range(3), once=True) == []
    assert go(driver, range(3), until=1) == [0, 1]
    assert go(driver, range(3), fresh=True) == [0, 1, 2]
    assert [info.status for info in driver.runs()] == ["finished", "abandoned", "finished"]


def test_nothing_is_asked_for_ahead(driver: Driver) -> None:
    """The source is asked for an item when the loop asks for it, and not before."""
    asked: list[int] = []

    def source() -> Iterator[int]:
        for number in range(5):
            asked.append(number)
            yield number

    for item in driver.items(source(), name="lazy"):
        assert asked == list(range(item + 1))


@pytest.mark.parametrize("how", ["break", "return"])
def test_a_loop_that_is_left(driver: Driver, how: str) -> None:
    """`break` and `return` let go of the run, also while the items are still held; the item at hand comes again."""
    held = []

    def body() -> None:
        held.append(driver.items(range(9), name="left"))
        for item in held[0]:
            if item == 5:
                if how == "return":
                    return
                break

    body()
    assert (driver.info("left").status, driver.info("left").seq) == ("interrupted", 5)
    for item in driver.items(range(9), name="left"):
        assert item == 5
        break


def test_nested_loops(driver: Driver) -> None:
    """A loop inside another goes on where it was, and only then the outer one with its next item."""
    seen = []

    def both(until: tuple[int, int] | None) -> None:
        for outer in driver.items(range(3), name="outer"):
            for inner in driver.items(range(3), name=f"inner {outer}"):
                seen.append((outer, inner))
                if (outer, inner) == until:
                    raise Stumble

    with pytest.raises(Stumble):
        both((1, 1))
    both(None)
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]


def test_one_loop_at_a_time(driver: Driver) -> None:
    """A second loop of the name, while the first goes on, raises RunLockedError and does the first no harm."""
    seen = []
    for item in driver.items(range(3), name="one"):
        seen.append(item)
        with pytest.raises(RunLockedError):
            for _ in driver.items(range(3), name="one"):
                pass
    assert seen == [0, 1, 2]


def test_items_are_gone_through_once(driver: Driver) -> None:
    """A second `for` over the same items, beside the first or after it, is an error that says what to do."""
    items = driver.items(range(2), name="once")
    for _ in items:
        with pytest.raises(ResumableError, match="gone through once"):
            next(iter(items))
    with pytest.raises(ResumableError, match="call driver"):
        next(iter(items))
    assert driver.info("once").status == "finished"


def test_a_state_that_is_forgotten(driver: Driver) -> None:
    """Items whose state was asked for, and that were dropped, let go of the run."""
    driver.items(range(3), name="loop").state(total=0)
    assert go(driver, range(3)) == [0, 1, 2]


def test_a_job_of_that_name(driver: Driver) -> None:
    """A loop does not take the run of a job for its own."""

    def job(state: int = 0) -> Iterator[Any]:
        from resumable import checkpoint

        yield checkpoint(1)
        raise Stumble

    with pytest.raises(Stumble):
        driver.run(job, name="loop")  # type: ignore[arg-type, type-var]
    with pytest.raises(RunNameError, match="of a job, not of a loop"):
        go(driver, range(3))
    assert driver.state("loop") == 1
    failure = driver.failure("loop")
    assert failure is not None
    assert failure.type.endswith("Stumble")


# ---- who goes over the items


def test_enumerate_and_zip_are_refused(driver: Driver) -> None:
    """What would count or pair wrongly after a resume is refused at the first item of the first run, with what to write."""
    with pytest.raises(ItemsConsumerError, match=r"items\(enumerate\(xs\)"):
        for _ in enumerate(driver.items(range(3), name="n")):
            pass
    with pytest.raises(ItemsConsumerError, match=r"items\(zip\(xs, ys\)"):
        for _ in zip(driver.items(range(3), name="n"), range(3), strict=True):
            pass
    with pytest.raises(ItemsConsumerError):
        for _ in enumerate(map(str, driver.items(range(3), name="n"))):
            pass
    assert driver.runs() == []


def chunks(items: Iterable[int]) -> Iterator[list[int]]:
    while some := list(itertools.islice(items, 2)):
        yield some


CONSUMERS: dict[str, Callable[[Any], Any]] = {
    "list": list,
    "sorted": sorted,
    "star": lambda items: [*items],
    "tee": lambda items: [*itertools.tee(items)[0]],
    "pairwise": lambda items: [*itertools.pairwise(items)],
    "chunks": lambda items: [*chunks(iter(items))],
    "generator": lambda items: [*(item for item in items)],
    "next": lambda items: next(iter(items)),
    "list of a map": lambda items: list(map(str, items)),
}
if sys.version_info >= (3, 12):
    CONSUMERS["batched"] = lambda items: [*itertools.batched(items, 2)]


@pytest.mark.parametrize("consumer", CONSUMERS)
def test_other_consumers_mark_nothing(driver: Driver, consumer: str) -> None:
    """Whatever else goes over the items warns at the user's line, and no item is called done."""
    items = driver.items(range(10), name="loop")
    with pytest.warns(UnmarkedItemsWarning, match="none is marked"):
        CONSUMERS[consumer](items)
    with pytest.raises(ResumableError):
        items.record(1)
    assert (driver.info("loop").status, driver.info("loop").seq) == ("interrupted", 0)


def test_consumers_that_come_back(driver: Driver) -> None:
    """A comprehension, `map` and `filter` go over the items one by one."""
    assert [item for item in driver.items(range(3), name="a")] == [0, 1, 2]  # noqa: C416 - the comprehension is the point
    assert {item for item in driver.items(range(3), name="b")} == {0, 1, 2}  # noqa: C416
    seen = []
    for item in map(str, driver.items(range(3), name="c")):
        seen.append(item)
    for number in filter(None, driver.items(range(3), name="d")):
        seen.append(number)
    assert seen == ["0", "1", "2", 1, 2]
    assert {info.status for info in driver.runs()} == {"finished"}


@contextmanager
def monitored() -> Iterator[None]:
    """With instrumented bytecode, as debuggers and coverage have it from CPython 3.12 on."""
    if sys.version_info < (3, 12):
        pytest.skip("CPython 3.12 brought sys.monitoring")
    else:
        monitoring, told = sys.monitoring, itertools.count()
        events = monitoring.events
        monitoring.use_tool_id(monitoring.DEBUGGER_ID, "test")
        try:
            for event in (events.LINE, events.INSTRUCTION, events.BRANCH, events.JUMP, events.CALL):
                monitoring.register_callback(monitoring.DEBUGGER_ID, event, lambda *about: next(told) and None)
            monitoring.set_events(
                monitoring.DEBUGGER_ID, events.LINE | events.INSTRUCTION | events.BRANCH | events.JUMP | events.CALL
            )
            yield
        finally:
            monitoring.set_events(monitoring.DEBUGGER_ID, 0)
            monitoring.free_tool_id(monitoring.DEBUGGER_ID)
        assert next(told)


def test_a_for_is_a_for_while_it_is_monitored(driver: Driver) -> None:
    """With `sys.monitoring` on, before the loop or from its middle on, a `for` marks its items as ever, and others mark none."""
    with monitored():
        go(driver, range(10), until=4)
        assert go(driver, range(10)) == [4, 5, 6, 7, 8, 9]
        with pytest.warns(UnmarkedItemsWarning, match="none is marked"):
            list(driver.items(range(10), name="list"))
        with pytest.raises(ItemsConsumerError):
            next(iter(enumerate(driver.items(range(3), name="counted"))))
    for number in driver.items(range(10), name="middle"):
        if number == 5:
            with monitored():
                list(range(number))
    assert driver.info("middle").status == "finished"


@pytest.mark.parametrize("tool", ["settrace", "setprofile", "threads"])
def test_a_for_is_a_for_under_tools(driver: Driver, tool: str) -> None:
    """Debuggers, coverage and profilers change nothing, nor do other threads."""

    def trace(frame: Any, event: str, argument: Any) -> Any:
        return trace

    earlier = sys.gettrace(), sys.getprofile()
    try:
        if tool == "settrace":
            sys.settrace(trace)
        elif tool == "setprofile":
            sys.setprofile(trace)
        if tool == "threads":
            thread = threading.Thread(target=go, args=(driver, range(10)))
            thread.start()
            thread.join()
        else:
            go(driver, range(10))
    finally:
        sys.settrace(earlier[0])
        sys.setprofile(earlier[1])
    assert (driver.info("loop").status, driver.info("loop").seq) == ("finished", 10)


# ---- other items


@pytest.mark.parametrize("kind", [list, iter], ids=["sequence", "iterator"])
def test_changed_items(driver: Driver, kind: Callable[[list[int]], Iterable[int]]) -> None:
    """Other items are an error that says where; the ways out go on at the same place, or begin anew."""
    numbers = list(range(10))
    go(driver, kind(numbers), until=4)
    with pytest.raises(ChangedItemsError, match="item 0 is another") as caught:
        go(driver, kind([99, *numbers]))
    assert (caught.value.run, caught.value.index) == ("loop", 0)
    failure = driver.failure("loop")
    assert failure is not None
    assert failure.type.endswith("Stumble")     # the run's own; a call with other items is no failure of it
    with pytest.raises(ChangedItemsError, match=r"4 were done|there were 10"):
        go(driver, kind(numbers[:2]))
    assert go(driver, kind([*numbers, 10, 11]), until=10) == [4, 5, 6, 7, 8, 9, 10]
    assert go(driver, kind([5] * 12), on_change="continue", until=99) == [5, 5]
    go(driver, kind(numbers), until=4)
    if kind is list:
        assert go(driver, [7, 8], on_change="restart") == [7, 8]
        return
    with pytest.raises(ChangedItemsError) as caught:
        go(driver, iter([7, 8]), on_change="restart")
    assert "fresh=True" in caught.value.__notes__[0]
    assert go(driver, iter([7, 8]), fresh=True) == [7, 8]


def test_later_samples_of_an_iterator(driver: Driver) -> None:
    """Of what can only be gone through, samples are taken on the way, and compared on the way back."""
    go(driver, iter(range(1000)), until=300)
    changed = [*range(64), -1, *range(65, 1000)]
    with pytest.raises(ChangedItemsError, match="item 64 is another"):
        go(driver, iter(changed))
    assert go(driver, iter(range(1000)))[0] == 300


# ---- what belongs to an item


def test_results(driver: Driver) -> None:
    """A recorded value is stored with the item's mark, once, and is not repeated after a crash."""
    for until in (3, None):
        try:
            items = driver.items(range(6), name="r")
            for item in items:
                assert (items.index, items.done, items.total) == (item, item, 6)
                items.record(item * 10)
                with pytest.raises(ResumableError, match="has a result already"):
                    items.record(0)
                if item == until:
                    raise Stumble
        except Stumble:
            assert list(driver.results("r")) == [0, 10, 20]
    assert list(driver.results("r")) == [0, 10, 20, 30, 40, 50]
    with pytest.raises(ResumableError, match="is at hand"):
        items.record(1)


def test_a_result_that_cannot_be_saved(driver: Driver) -> None:
    """The item of such a result is not done; the error names the path."""

    def body() -> None:
        items = driver.items(range(3), name="r")
        for _ in items:
            items.record(threading.Thread())

    with pytest.raises(UnsavableStateError, match="result"):
        body()
    assert driver.info("r").seq == 0


def test_state_comes_back(driver: Driver) -> None:
    """A sum over a loop that fails at each item in turn is the sum."""
    for stop in range(1, 7):
        items = driver.items([1, 2, 3, 4, 5], name="s")
        try:
            with items.state(total=0, seen=[]) as state:
                for number in items:
                    if number == stop:
                        raise Stumble
                    state.total += number
                    state.seen.append(number)
        except Stumble:
            pass
    assert (state.total, state.seen) == (15, [1, 2, 3, 4, 5])


def test_state_without_a_loop(driver: Driver) -> None:
    """Left before the loop began, the state's block lets go of the run."""
    items = driver.items(range(3), name="s")
    with pytest.raises(Stumble), items.state(total=0):
        raise Stumble
    assert go(driver, range(3)) == [0, 1, 2]


def test_batches(driver: Driver) -> None:
    """The items of a batch are done together."""
    seen = []
    for until in ([4, 5], None):
        try:
            items = driver.items(range(7), name="b")
            for batch in items.batches(2):
                assert items.index == batch[0]
                seen.append(batch)
                if batch == until:
                    raise Stumble
        except Stumble:
            assert driver.info("b").status == "failed"
    assert seen == [[0, 1], [2, 3], [4, 5], [4, 5], [6]]
    for size, error in ((0, ValueError), (True, TypeError), (1.5, TypeError)):
        with pytest.raises(error):
            items.batches(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_stop_is_no_failure(driver: Driver, error: type[BaseException]) -> None:
    """Ctrl-C and the like leave the loop resumable, without a failure."""

    def body() -> None:
        for item in driver.items(range(5), name="stop"):
            if item == 2:
                raise error

    with pytest.raises(error):
        body()
    assert (driver.info("stop").status, driver.info("stop").seq, driver.failure("stop")) == ("interrupted", 2, None)


def test_what_cannot_be_gone_through(driver: Driver) -> None:
    """Something without items is a TypeError at once."""
    with pytest.raises(TypeError, match="a NoneType cannot"):
        driver.items(None, name="none")  # type: ignore[arg-type, type-var]


LEFT_OPEN = """
from resumable import Driver

def going():
    for number in Driver(STATE).items(range(10), name="open"):
        yield number

half = going()
print(next(half), next(half))
"""


def test_a_program_that_ends_inside_a_loop(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> None:
    """A loop that is half gone through when the program ends lets go without a word, and goes on."""
    assert script(LEFT_OPEN) == (0, "0 1", "")
    assert script(LEFT_OPEN) == (0, "1 2", "")


KILLED = """
import os, sys
from resumable import Driver

items = Driver(STATE).items(range(30), name="killed")
with items.state(total=0) as state:
    for number in items:
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), 9)
        state.total += number
        items.record(number)
print(state.total)
"""


def test_kill_at_every_item(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> None:
    """Killed at each item in turn, the loop ends with the right sum and each result once."""
    for at in range(30):
        code, _, errors = script(KILLED, at)
        assert code == -9, errors
    assert script(KILLED, -1)[1].strip() == str(sum(range(30)))
    with Driver(state_dir) as driver:
        assert list(driver.results("killed")) == list(range(30))
