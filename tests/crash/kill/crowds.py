"""Several runs of one process in one directory, in threads, in turns and in one event loop; loops with keys; and the bitset.

Each run is a lane: the upper bits of what its events tell.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import jobs
from harness import Life
from jobs import ACK, BEGIN, START, Job, mixed, note

from resumable import Driver, checkpoint
from resumable._fastlog import Bitset
from resumable.runs.identity import identify
from resumable.storage import disksync, folder, keys
from resumable.storage.platform import create_file
from resumable.values.registry import GLOBAL

LANES, LANE_BITS = 3, 40
KEYED = "keyed"
PAGES = 4
bitset: Callable[[int, int], Any] = Bitset
_drivers: list[Driver] = []

State = tuple[int, int, bytes]


def _tell(what: int, lane: int, value: int) -> None:
    note(what, lane << LANE_BITS | value)


def lanes(life: Life) -> Iterator[tuple[int, Life]]:
    """A life's events as each lane's own."""
    for lane in range(LANES):
        part = Life()
        for event in life.events:
            if event >> 56 in (START, BEGIN, ACK) and event >> LANE_BITS & 0xFFFF == lane:
                part.events.append(event & ~(lane << LANE_BITS))
        yield lane, part


def _made(lane: int, i: int, digest: int, weight: int) -> Any:
    state = (i + 1, digest, bytes([i & 255]) * weight)
    return checkpoint(state, result=digest) if i % 5 == lane else checkpoint(state)


def _sync(i: int, weight: int) -> None:
    # Heavy states are those whose system calls are counted: nothing goes by the clock then.
    if weight and i % 6 == 4:
        _drivers[-1].sync()


def plain_lane(label: str, lane: int, items: int, weight: int, state: State = (0, 0, b"")) -> Job:
    done, digest, _ = state
    _tell(START, lane, done)
    for i in range(done, items):
        _tell(BEGIN, lane, i)
        digest = mixed(digest, i)
        yield _made(lane, i, digest, weight)
        _tell(ACK, lane, i)
        _sync(i, weight)
    return digest


async def awaiting_lane(label: str, lane: int, items: int, weight: int, state: State = (0, 0, b"")) -> int:
    done, digest, _ = state
    _tell(START, lane, done)
    for i in range(done, items):
        _tell(BEGIN, lane, i)
        digest = mixed(digest, i)
        await _made(lane, i, digest, weight)
        _tell(ACK, lane, i)
        _sync(i, weight)
        await asyncio.sleep(0)
    return digest


def keyed_lane(driver: Driver, label: str, lane: int, items: int, weight: int) -> None:
    """A loop with keys; an item is acknowledged when the `for` has come back for the next."""
    begun = False
    going = driver.items(range(items), name=f"{label}, {lane}", key=str, once=True)
    with going.state(digest=0, pad=b"") as state:
        for i in going:
            _tell(ACK if begun else START, lane, i - 1 if begun else i)
            begun = True
            _tell(BEGIN, lane, i)
            state.digest = mixed(state.digest, i)
            state.pad = bytes([i & 255]) * weight
            if i % 5 == lane:
                going.record(state.digest)
            _sync(i, weight)
        if begun:
            _tell(ACK, lane, items - 1)


class _StaysOpen(Exception):
    """Leaves a batch so that its runs stay finished."""


def _in_threads(driver: Driver, lanes: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(LANES) as pool:
        return list(pool.map(lambda lane: driver.run(lane, once=True), lanes))


def _in_turns(driver: Driver, lanes: list[Any]) -> list[Any]:
    values: list[Any] = []
    with suppress(_StaysOpen), driver.batch("turns"):
        values = driver.interleave(lanes)
        raise _StaysOpen
    return values


def _in_a_loop(driver: Driver, lanes: list[Any]) -> list[Any]:
    async def gather() -> list[Any]:
        return await asyncio.gather(*(driver.arun(lane, once=True) for lane in lanes))

    return asyncio.run(gather())


MANNERS: dict[str, tuple[Callable[..., Any], Callable[[Driver, list[Any]], list[Any]]]] = {
    "threads": (plain_lane, _in_threads),
    "turns": (plain_lane, _in_turns),
    "loop": (awaiting_lane, _in_a_loop),
}


def crowd(
    directory: str, label: str, manner: str, items: int, weight: int = 0, mapped: bool = True, **settings: Any
) -> list[list[Any]]:
    """Run or resume all the lanes: of each its value, and the count and digest of its results."""
    disksync.CAPACITY, keys.SMALLEST = 1 << 18, 128     # both are full every few items
    if not mapped:
        folder.can_map = keys.can_map = lambda fd: False
    with Driver(directory, **settings) as driver:
        _drivers.append(driver)
        if manner == KEYED:
            with ThreadPoolExecutor(LANES) as pool:
                list(pool.map(lambda lane: keyed_lane(driver, label, lane, items, weight), range(LANES)))
            results = [list(driver.results(f"{label}, {lane}")) for lane in range(LANES)]
            return [[0, len(kept), zlib.crc32(repr(kept).encode())] for kept in results]
        job, together = MANNERS[manner]
        bound = [partial(job, label, lane, items, weight) for lane in range(LANES)]
        values = together(driver, bound)
        # Interleaved runs cannot be given a name, and a report for a job means the one of it that was begun last.
        names = [identify(lane, (), {}, name=None, registry=GLOBAL, given=set()).name for lane in bound]
        results = [list(driver.results(name)) for name in names]
    return [[value, len(kept), zlib.crc32(repr(kept).encode())] for value, kept in zip(values, results, strict=True)]


# ---- the bitset: item `place(k)` is done k-th


def place_of(k: int) -> int:
    return k * 40503 % (PAGES * 32768)


def mark(directory: str, label: str, items: int) -> int:
    """Go on setting bits from the first that is not set; gives back how many are."""
    path = Path(directory, label)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".new").unlink(missing_ok=True)
        os.close(create_file(path.parent, path.with_suffix(".new").name, Bitset.file_size(PAGES)))
        path.with_suffix(".new").rename(path)
    fd = os.open(path, os.O_RDWR)
    bits = bitset(fd, PAGES)
    os.close(fd)
    done = next((k for k in range(items) if not bits.test(place_of(k))), items)
    note(START, done)
    for k in range(done, items):
        note(BEGIN, k)
        bits.set(place_of(k))
        note(ACK, k)
    return int(bits.count())


class _Late:
    """The planted bug: each bit is set when the next one is asked for."""

    def __init__(self, fd: int, pages: int) -> None:
        self._bits, self._held = Bitset(fd, pages), -1
        self.test, self.count = self._bits.test, self._bits.count

    def set(self, item: int) -> None:
        if self._held >= 0:
            self._bits.set(self._held)
        self._held = item


def _set_late() -> None:
    """A bit is acknowledged before it is set."""
    global bitset
    bitset = _Late


jobs.PLANTS["set late"] = _set_late
jobs.TASKS |= {"crowd": crowd, "mark": mark}
