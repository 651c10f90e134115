"""The jobs that get killed, and what a process under test does with them.

A job tells the oracle, a pipe to the test, which item it begins and which it was acknowledged for. What it computes
depends on every item, so that one skipped, repeated or half saved shows in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Generator
from dataclasses import dataclass, field
from typing import Any

from planted import PLANTS as PLANTS

import resumable.runs.engine  # noqa: F401 - loaded before the forks, not in each child
from resumable import Driver, checkpoint

START, BEGIN, ACK, END, CLEAR, ENTERED = range(1, 7)

Job = Generator[Any, None, Any]

oracle = -1
pipes: list[int] = []
drivers: list[Driver] = []


def note(what: int, value: int = 0) -> None:
    """Tell the oracle; 8 bytes, so the pipe never holds half an event."""
    if oracle >= 0:
        os.write(oracle, struct.pack("<Q", what << 56 | value))


def mixed(digest: int, i: int) -> int:
    return zlib.crc32(i.to_bytes(4, "little"), digest)


# ---- jobs of every kind


def ints(n: int, state: int = 0) -> Job:
    note(START, state)
    for i in range(state, n):
        note(BEGIN, i)
        yield checkpoint(i + 1)
        note(ACK, i)
        state = i + 1
    return state


def dicts(n: int, state: dict[str, Any] | None = None) -> Job:
    state = state or {"done": 0, "digest": 0, "last": []}
    note(START, state["done"])
    for i in range(state["done"], n):
        note(BEGIN, i)
        state["done"], state["digest"] = i + 1, mixed(state["digest"], i)
        state["last"] = [*state["last"][-3:], f"item {i}"]
        yield checkpoint(state)
        note(ACK, i)
    return state


@dataclass
class Progress:
    """A state that only pickle can save."""

    done: int = 0
    digest: int = 0
    seen: set[int] = field(default_factory=set)


def objects(n: int, state: Progress | None = None) -> Job:
    state = state or Progress()
    note(START, state.done)
    for i in range(state.done, n):
        note(BEGIN, i)
        state.done, state.digest = i + 1, mixed(state.digest, i)
        state.seen = {i - 1, i}
        yield checkpoint(state)
        note(ACK, i)
    return state.done, state.digest, sorted(state.seen)


def rows(n: int, state: int = 0) -> Job:
    note(START, state)
    for i in range(state, n):
        note(BEGIN, i)
        yield checkpoint(i + 1, result=(i, mixed(0, i)))
        note(ACK, i)
    return n


def _heavy(n: int, state: tuple[int, int, bytes], size: int, syncs: bool) -> Job:
    done, digest, last = state
    note(START, done)
    for i in range(done, n):
        note(BEGIN, i)
        digest, last = mixed(zlib.crc32(last, digest), i), bytes([i & 255]) * size
        yield checkpoint((i + 1, digest, last))
        note(ACK, i)
        if syncs and i % 3 == 0:
            drivers[-1].sync()
    return digest


def large(n: int, state: tuple[int, int, bytes] = (0, 0, b"")) -> Job:
    return (yield from _heavy(n, state, 300_000, syncs=False))


def weighty(n: int, state: tuple[int, int, bytes] = (0, 0, b"")) -> Job:
    """Segments are used again and again, as the log has them soon."""
    return (yield from _heavy(n, state, 20_000, syncs=True))


class Layer:
    """Bytes that are handed out as they lie in memory, as NumPy and torch do with theirs."""

    def __init__(self, content: Any) -> None:
        self.content = bytes(content)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Layer, (pickle.PickleBuffer(self.content),)

    def __repr__(self) -> str:
        return f"<{len(self.content)} bytes, CRC {zlib.crc32(self.content)}>"


def layers(n: int, state: tuple[int, int, list[Layer]] | None = None) -> Job:
    """One of four changes each time, so three are not written again."""
    done, digest, held = state or (0, 0, [Layer(bytes(100_000)) for _ in range(4)])
    note(START, done)
    for i in range(done, n):
        note(BEGIN, i)
        digest, held[i % 4] = mixed(zlib.crc32(repr(held).encode(), digest), i), Layer(bytes([i & 255]) * 100_000)
        yield checkpoint((i + 1, digest, held))
        note(ACK, i)
    return digest


def chances(n: int, state: tuple[int, float] | None = None) -> Job:
    if state is None:
        random.seed(4)
    done, total = state or (0, 0.0)
    note(START, done)
    for i in range(done, n):
        note(BEGIN, i)
        total += random.random()
        yield checkpoint((i + 1, total))
        note(ACK, i)
    return total


async def awaits(n: int, state: tuple[int, int] = (0, 0)) -> int:
    done, digest = state
    note(START, done)
    for i in range(done, n):
        note(BEGIN, i)
        digest = mixed(digest, i)
        await checkpoint((i + 1, digest))
        note(ACK, i)
        if i % 64 == 0:
            await asyncio.sleep(0)
    return digest


async def yields(n: int, state: tuple[int, int] = (0, 0)) -> AsyncIterator[Any]:
    done, digest = state
    note(START, done)
    for i in range(done, n):
        note(BEGIN, i)
        digest = mixed(digest, i)
        yield checkpoint((i + 1, digest))
        note(ACK, i)


# kind: job, items, keywords of the Driver
KINDS: dict[str, tuple[Callable[..., Any], int, dict[str, Any]]] = {
    "ints": (ints, 150_000, {}),
    "few states": (ints, 150_000, {"keep_states": 5}),
    "all states": (ints, 30_000, {"keep_states": None}),
    "dicts": (dicts, 40_000, {}),
    "objects": (objects, 15_000, {}),
    "results": (rows, 25_000, {}),
    "large": (large, 120, {}),
    "weighty": (weighty, 1_000, {}),
    "layers": (layers, 120, {}),
    "chances": (chances, 3_000, {"rng": True}),
    "awaits": (awaits, 50_000, {}),
    "yields": (yields, 50_000, {}),
    "disk": (ints, 10_000, {"durability": "disk"}),
}


def run_kind(kind: str, directory: str, name: str, sync_every: float) -> list[Any]:
    """Run or resume a job of this kind; its value, last state and a digest of its results."""
    job, n, keywords = KINDS[kind]
    with Driver(directory, sync_every=sync_every, **keywords) as driver:
        drivers.append(driver)
        if job in (awaits, yields):
            value = asyncio.run(driver.arun(job, n, name=name, once=True))
        else:
            value = driver.run(job, n, name=name, once=True)
        kept = list(driver.results(name)) if job is rows else []
        return [value, zlib.crc32(repr(driver.state(name)).encode()), len(kept), zlib.crc32(repr(kept).encode())]


# ---- a story with everything in it, the same calls each time


STORY_ITEMS, STUMBLE_AT = 36, 17
BRIEF_STUMBLES_AT = 6


class Stumble(Exception):
    """The story's own failure, halfway."""


def filling_of(i: int) -> Any:
    """What a state of the story is heavy with: now and then two layers, of which one is the same in all of them."""
    if i < 0:
        return b""
    return [Layer(bytes(200_000)), Layer(bytes([i]) * 100_000)] if i % 8 in (5, 6) else bytes([i]) * 40_000


def story(driver: Driver, stumble: bool) -> Callable[..., Job]:
    def job(state: tuple[int, int, Any] = (0, 0, b"")) -> Job:
        done, digest, filling = state
        assert repr(filling) == repr(filling_of(done - 1)), "this is not what was saved"
        note(START, done)
        for i in range(done, STORY_ITEMS):
            note(BEGIN, i)
            if stumble and i == STUMBLE_AT:
                raise Stumble
            digest = mixed(digest, i)
            filling = filling_of(i)
            if i % 3 == 0:
                yield checkpoint((i + 1, digest, filling), result=(i, digest))
            else:
                yield checkpoint((i + 1, digest, filling))
            note(ACK, i)
            if i % 12 == 10:
                driver.sync()
        return digest

    return job


def brief(started: list[int], stumble: bool) -> Callable[..., Job]:
    """A job for being forgotten halfway."""

    def job(state: tuple[int, bytes] = (0, b"")) -> Job:
        started.append(state[0])
        for i in range(state[0], 8):
            if stumble and i == BRIEF_STUMBLES_AT:
                raise Stumble
            yield checkpoint((i + 1, bytes(40_000)))

    return job


def run_story(
    directory: str, durability: str = "process", whole: bool = True, keep_states: int | None = 6, mapped: bool = True
) -> tuple[list[Any], int | None]:
    """Create, append, roll, hand off, fail, resume, finish; and, if `whole`, forget a finished run and an unfinished one.

    Gives back the story's value and results, and where the other run went on from; None when an earlier life had finished it.
    """
    from resumable.storage import disksync, folder

    disksync.CAPACITY = 1 << 18
    if not mapped:
        folder.can_map = lambda fd: False
    driver = Driver(directory, durability=durability, sync_every=3600, keep_states=keep_states)
    begun: list[int] = []
    with driver:
        if whole:
            with contextlib.suppress(Stumble):
                driver.run(story(driver, True), name="story", once=True)
        value = driver.run(story(driver, False), name="story", once=True)
        note(END)
        kept = [list(row) for row in driver.results("story")]
        with contextlib.suppress(Stumble):
            driver.run(brief(begun, whole), name="brief", on_change="continue")
        if whole:
            note(CLEAR)
            driver.clear("story")
            driver.clear("brief")
    return [value, kept], begun[0] if begun else None


def contend(directory: str, name: str, gate: str, leave: str) -> None:
    """Start a run when the file `gate` appears, and hold it until the file `leave` does."""

    def job(state: int = 0) -> Job:
        note(START, state)
        yield checkpoint(state + 1)
        while leave and not os.path.exists(leave):
            time.sleep(0.001)

    while gate and not os.path.exists(gate):
        time.sleep(0)
    with Driver(directory) as driver:
        driver.run(job, name=name, on_change="continue")


TASKS: dict[str, Callable[..., Any]] = {"kind": run_kind, "story": run_story, "contend": contend}
