"""A short job that goes every way a checkpoint can go, run in every way, for processes that are to survive a fault."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import zlib
from collections.abc import AsyncIterator
from typing import Any

import jobs
from jobs import ACK, BEGIN, START, Job, Stumble, mixed, note

from resumable import Driver, checkpoint

ITEMS, STUMBLE_AT, SYNC_AT = 10, 3, 5
ARGUMENTS = ("plot", {"of": [1, 2.5, None]}, range(3))
FILLING = random.Random(4).randbytes(300_000)
RUN, YIELDS, AWAITS = "run", "yields", "awaits"


# Not in the jobs' closures: a run without a name is known by those, too.
_driver: Driver
_stumbling = False


def plot(what: str, of: object, parts: object, state: tuple[int, int, Any] = (0, 0, None)) -> Job:
    done, digest, _ = state
    note(START, done)
    for i in range(done, ITEMS):
        note(BEGIN, i)
        if _stumbling and i == STUMBLE_AT:
            raise Stumble
        digest = mixed(digest, i)
        filling = [
            None, b"small", FILLING, {"set": {i}}, FILLING[:40_000], [i] * 9, 1j, jobs.Progress(i), FILLING[:50_000],
            FILLING[:60_000],
        ][i]  # fmt: skip
        if i % 3 == 0:
            yield checkpoint((i + 1, digest, filling), result=(i, digest))
        else:
            yield checkpoint((i + 1, digest, filling))
        note(ACK, i)
        if i == SYNC_AT:
            _driver.sync()
    return digest


async def yielding_plot(
    what: str, of: object, parts: object, state: tuple[int, int, Any] = (0, 0, None)
) -> AsyncIterator[Any]:
    for made in plot(what, of, parts, state):
        yield made
        await asyncio.sleep(0)


async def awaiting_plot(what: str, of: object, parts: object, state: tuple[int, int, Any] = (0, 0, None)) -> None:
    for made in plot(what, of, parts, state):
        await made
        await asyncio.sleep(0)


def play(
    driver: Driver, way: str, stumble: bool = False, name: str | None = "plot", once: bool = False, cancel_at: int = -1
) -> Any:
    """Run the plot in this way; if it is async, cancel it at this of its pauses."""
    global _driver, _stumbling
    _driver, _stumbling = driver, stumble
    if way == RUN:
        return driver.run(plot, *ARGUMENTS, name=name, once=once)
    going = driver.arun(ASYNC_PLOTS[way], *ARGUMENTS, name=name, once=once)
    # Not in an event loop, which itself waits for ever when it has no memory for the call that would wake it.
    pause = 0
    while True:
        try:
            if pause == cancel_at:
                going.throw(asyncio.CancelledError)
            else:
                going.send(None)
        except StopIteration as end:
            return end.value
        pause += 1


ASYNC_PLOTS: dict[str, Any] = {YIELDS: yielding_plot, AWAITS: awaiting_plot}


def begin(directory: str, way: str, durability: str, resume: bool, inline: bool, name: str | None = "plot") -> Driver:
    """A driver, and if `resume`, a plot that stumbled."""
    from resumable.storage import disksync, journal

    # Small files, so that a short job needs many of them.
    disksync.CAPACITY = 1 << 18
    journal.LARGEST = journal.SMALLEST
    if inline:
        _write_inline()
    driver = Driver(directory, durability=durability, sync_every=3600, keep_states=None)
    if resume:
        with contextlib.suppress(Stumble):
            play(driver, way, True, name)
    return driver


def aftermath(driver: Driver, directory: str, way: str, name: str | None = "plot") -> list[Any]:
    """The same run again, here and in a new driver: what everybody finds then."""
    value = play(driver, way, False, name, once=True)
    found = [[info.name, info.status, info.pid] for info in driver.runs()]
    rows = [list(row) for row in driver.results(found[0][0])]
    state = zlib.crc32(repr(driver.state(found[0][0])).encode())
    driver.close()
    with Driver(directory) as other:
        again = play(other, way, False, name, once=True)
    left = sorted(name for name in os.listdir(f"{directory}/runs") if os.listdir(f"{directory}/runs/{name}"))
    return [value, again, found, rows, state, left]


def elsewhere(directory: str, way: str, durability: str, name: str | None = "plot") -> list[Any]:
    """The aftermath, in another process than the fault's."""
    return aftermath(begin(directory, way, durability, False, False, name), directory, way, name)


def _write_inline() -> None:
    """What the writer thread does, the thread that asks for it does."""
    from resumable.storage.writer import Writer

    def kick(self: Writer, run: Any) -> None:
        self._wanted.add(run)
        with self._committing:
            self._commit(self._take_wanted(), {})

    Writer._start = lambda self: None  # type: ignore[method-assign]
    Writer.kick = kick  # type: ignore[method-assign]


jobs.TASKS["elsewhere"] = elsewhere
