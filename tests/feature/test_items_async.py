"""`async for` over `driver.items`: the same promises as a plain `for`, from sources of either kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from resumable import ChangedItemsError, Driver, ResumableError, RunLockedError, UnmarkedItemsWarning


class Stumble(Exception):
    """Stands for a crash of the body."""


async def counted(total: int, first: int = 0) -> AsyncIterator[int]:
    for number in range(first, total):
        await asyncio.sleep(0)
        yield number


async def go(driver: Driver, items: Any, *, until: Any = None, **given: Any) -> list[Any]:
    """A loop whose body fails at an item; the items that it saw."""
    seen = []
    try:
        async for item in driver.items(items, name="loop", **given):
            seen.append(item)
            await asyncio.sleep(0)
            if item == until:
                raise Stumble
    except Stumble:
        pass
    return seen


SOURCES: dict[str, Callable[[], Any]] = {
    "asynchronous": lambda: counted(10), "list": lambda: list(range(10)), "generator": lambda: (n for n in range(10)),
}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_done_is_left_out_awaiting(make: Callable[..., Driver], source: str) -> None:
    """After a failing body an `async for` goes on with the item that was at hand, at either durability."""
    for durability in ("process", "disk"):
        driver = make(durability=durability)
        assert asyncio.run(go(driver, SOURCES[source](), until=4)) == [0, 1, 2, 3, 4]
        failure = driver.failure("loop")
        assert failure is not None
        assert (failure.index, failure.seq) == (4, 4)
        assert asyncio.run(go(driver, SOURCES[source](), until=9)) == [4, 5, 6, 7, 8, 9]
        assert asyncio.run(go(driver, SOURCES[source]())) == [9]
        assert (driver.info("loop").status, driver.info("loop").seq) == ("finished", 10)
        driver.close()


def test_nothing_is_asked_for_ahead_awaiting(driver: Driver) -> None:
    """An asynchronous source is asked for an item when the loop asks for it, and not before."""
    asked: list[int] = []

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            asked.append(number)
            yield number

    async def body() -> None:
        async for item in driver.items(source(), name="lazy"):
            assert asked == list(range(item + 1))

    asyncio.run(body())


def test_items_are_gone_through_once_awaiting(driver: Driver) -> None:
    """A second `async for` over the same items is an error, whatever the first one is doing; that goes on to its end."""

    async def second(items: Any) -> None:
        with pytest.raises(ResumableError, match="gone through once"):
            await anext(aiter(items))

    async def body() -> None:
        others: list[asyncio.Task[None]] = []
        items: Any = None

        async def source() -> AsyncIterator[int]:
            for number in range(3):
                others.append(asyncio.create_task(second(items)))
                await asyncio.sleep(0.001)      # no item is at hand, and the second loop begins
                yield number

        items = driver.items(source(), name="once")
        async for _ in items:
            await second(items)
        await second(items)
        await asyncio.gather(*others)

    asyncio.run(body())
    assert (driver.info("once").status, driver.info("once").seq) == ("finished", 3)


@pytest.mark.parametrize("how", ["break", "return"])
def test_a_loop_that_is_left_awaiting(driver: Driver, how: str) -> None:
    """`break` and `return` let go of the run; the item at hand comes again."""

    async def body() -> int:
        items = driver.items(counted(9), name="left")
        async for item in items:
            if item == 5:
                if how == "return":
                    break
                return items.index
        return items.done

    assert asyncio.run(body()) == 5
    assert (driver.info("left").status, driver.info("left").seq) == ("interrupted", 5)
    assert asyncio.run(body()) == 5


def test_cancelled_in_body_and_source(driver: Driver) -> None:
    """A cancelled loop is stopped, not failed, and has every item that was done, wherever it waited."""

    async def source() -> AsyncIterator[int]:
        yield 0
        yield 1
        await asyncio.sleep(60)

    async def waits(items: Any, reached: asyncio.Event) -> None:
        async for item in driver.items(items, name="cancelled"):
            if item == 1:
                reached.set()
                if not isinstance(items, AsyncIterator):
                    await asyncio.sleep(60)

    async def cancel(items: Any) -> None:
        reached = asyncio.Event()
        task = asyncio.create_task(waits(items, reached))
        await reached.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel(range(3)))
    assert (driver.info("cancelled").status, driver.info("cancelled").seq) == ("interrupted", 1)
    assert driver.failure("cancelled") is None
    driver.clear("cancelled")
    asyncio.run(cancel(source()))
    assert (driver.info("cancelled").status, driver.info("cancelled").seq) == ("interrupted", 2)


def test_batches_and_results_awaiting(driver: Driver) -> None:
    """Batches, results and carried state belong to the items of an `async for`, too."""

    async def body(until: int) -> int:
        items = driver.items(counted(10), name="loop")
        with items.state(total=0) as carried:
            async for batch in items.batches(3):
                carried.total += sum(batch)
                if batch[0] == until:
                    raise Stumble
                items.record(len(batch))
        return int(carried.total)

    for until in (3, 6):
        with pytest.raises(Stumble):
            asyncio.run(body(until))
    assert asyncio.run(body(-1)) == sum(range(10))
    assert list(driver.results("loop")) == [3, 3, 3, 1]


def test_changed_items_awaiting(driver: Driver) -> None:
    """Other items from an asynchronous source are refused, adopted or begun anew, as `on_change` says."""
    asyncio.run(go(driver, counted(200), until=150))
    with pytest.raises(ChangedItemsError):
        asyncio.run(go(driver, counted(200, 1)))
    with pytest.raises(ChangedItemsError, match="fewer"):
        asyncio.run(go(driver, counted(100)))
    assert driver.info("loop").seq == 150
    failure = driver.failure("loop")
    assert failure is not None
    assert failure.type.endswith("Stumble")
    assert asyncio.run(go(driver, counted(200, 1), until=153, on_change="continue")) == [151, 152, 153]

    class Again:
        def __aiter__(self) -> AsyncIterator[int]:
            return counted(3)

    assert asyncio.run(go(driver, Again(), on_change="restart")) == [0, 1, 2]


def test_other_consumers_awaiting(driver: Driver) -> None:
    """Whoever else goes over the items marks none and warns; a comprehension in the function itself is a loop."""

    async def outside(items: Any) -> list[int]:
        return [item async for item in items]

    async def inside() -> list[int]:
        return [item async for item in driver.items(counted(3), name="inside")]

    async def handed_on() -> list[int]:
        return await outside(driver.items(counted(3), name="outside"))

    assert asyncio.run(inside()) == [0, 1, 2]
    assert driver.info("inside").status == "finished"
    with pytest.warns(UnmarkedItemsWarning):
        assert asyncio.run(handed_on()) == [0, 1, 2]
    assert driver.info("outside").status == "interrupted"


def test_a_plain_for_over_an_asynchronous_source(driver: Driver) -> None:
    """A plain `for` over an asynchronous source says what to write, and begins nothing."""
    with pytest.raises(TypeError, match="async for"):
        iter(driver.items(counted(3), name="loop"))
    assert driver.runs() == []


def test_tasks_side_by_side(driver: Driver) -> None:
    """Loops in tasks of one event loop do not get in each other's way; two over one run are refused."""

    async def one(name: str) -> int:
        items = driver.items(counted(20), name=name)
        async for _ in items:
            await asyncio.sleep(0)
        return items.done

    async def both(*names: str) -> list[Any]:
        return await asyncio.gather(*(one(name) for name in names), return_exceptions=True)

    assert asyncio.run(both("a", "b", "c")) == [20, 20, 20]
    found = asyncio.run(both("d", "d"))
    assert found[0] == 20
    assert isinstance(found[1], RunLockedError)
