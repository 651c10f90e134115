"""Damaged copies of a state directory, each read by the library in a process that may die of it."""

from __future__ import annotations

import contextlib
import itertools
import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import jobs
import plots
from jobs import ACK, START, Job, Stumble, note

from resumable import Driver, ResumableError, checkpoint

BLOCKS = (512, 4096)
PAGE, OVERFLOW = 4096, 4
ENDS = AS_WRITTEN, NAMED, WRONG = range(3)
Damage = tuple[Any, ...]     # a kind, then what `apply` takes of it


def few(state: int = 0) -> Job:
    for i in range(state, 4):
        yield checkpoint(i + 1, result=f"result {i}")
    return "few"


def make(base: str) -> list[Any]:
    """A directory with a finished run, a large state and an unfinished one; `earlier` is its log before the last commits."""
    driver = plots.begin(f"{base}/d", plots.RUN, "process", False, False)
    plots.play(driver, plots.RUN)
    driver.run(few, name="few")
    shutil.copyfile(f"{base}/d/log/data.mdb", f"{base}/earlier")
    for name in ("second", "third"):
        with contextlib.suppress(Stumble):
            plots.play(driver, plots.RUN, True, name)
    driver.close()
    shutil.copytree(f"{base}/d", f"{base}/copy")
    return read(f"{base}/copy")


def read(directory: str) -> list[Any]:
    """All that the reports tell, and what running gives back. An error of ours ends it."""
    with Driver(directory) as driver:
        found: list[Any] = []
        for run in driver.runs():
            rows = [list(row) for row in driver.results(run.name)]
            states = [zlib.crc32(repr(record.state).encode()) for record in driver.history(run.name)]
            found.append([run.name, run.status, run.seq, rows, states])
        values = [plots.play(driver, plots.RUN, False, name, once=True) for name in ("plot", "second")]
        return [*found, *values, driver.run(few, name="few", once=True)]


def tree_pages(data: bytes) -> list[int]:
    """Where the pages of LMDB's trees and its first pages begin. The others are values, each with a checksum."""
    found, page = [], 0
    while page < len(data) // PAGE:
        number, flags, pages = struct.unpack_from("<Q2xHI", data, page * PAGE)
        is_value = number == page and flags & OVERFLOW
        if not is_value:
            found.append(page * PAGE)
        page += pages if is_value else 1
    return found


def damages(data: bytes, kind: str) -> list[Damage]:
    """All the damages of one kind that a file can have."""
    size = len(data)
    if kind == "tree bit":
        return [("bit", at, bit) for page in tree_pages(data) for at in range(page, page + PAGE) for bit in range(8)]
    if kind == "bit":
        return [("bit", at, bit) for at in range(size) for bit in range(8)]
    if kind == "cut":
        return [("cut", length) for length in range(size)]
    found: list[Damage] = []
    for block in BLOCKS:
        places = range(0, size, block)
        if kind in ("zeros", "stale"):
            found += [(kind, block, at) for at in places]
        else:
            found += [(kind, block, at, to) for at, to in itertools.permutations(places, 2)]
    return found


def apply(data: bytes, earlier: bytes, damage: Damage) -> bytes:
    changed = bytearray(data)
    match damage:
        case ("bit", at, bit):
            changed[at] ^= 1 << bit
        case ("cut", length):
            del changed[length:]
        case ("zeros", size, at):
            changed[at : at + size] = bytes(len(data[at : at + size]))
        case ("stale", size, at):
            changed[at : at + size] = earlier[at : at + size].ljust(len(data[at : at + size]), b"\0")
        case ("doubled", size, at, to):
            changed[to : to + size] = data[at : at + size]
        case ("swapped", size, at, to):
            changed[to : to + size], changed[at : at + size] = data[at : at + size], data[to : to + size]
    return bytes(changed)


def try_damages(
    base: str, file: str, kind: str, seed: int, count: int, first: int, stop: int, right: list[Any]
) -> list[Any]:
    """Read the copies with damages `first` to `stop` of `count`; the oracle is told how each ends. Gives back what was wrong."""
    path = Path(base) / "d" / file
    data, earlier = path.read_bytes(), (Path(base) / "earlier").read_bytes()
    every = damages(data, kind)
    chosen = random.Random(f"{seed} {file} {kind}").sample(every, min(count, len(every)))
    wrong: list[Any] = []
    told = jobs.oracle
    for number in range(first, min(stop, len(chosen))):
        note(START, number)
        jobs.oracle = -1        # it is not told of the jobs
        copy = f"{base}/copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(f"{base}/d", copy)
        (Path(copy) / file).write_bytes(apply(data, earlier, chosen[number]))
        end, found = _read_end(copy, right)
        if end == WRONG:
            wrong.append([chosen[number], found])
        jobs.oracle = told
        note(ACK, end)
    return wrong


def _read_end(copy: str, right: list[Any]) -> tuple[int, Any]:
    try:
        found = read(copy)
    except ResumableError as error:
        return NAMED, str(error)
    except Exception as error:  # noqa: BLE001 - what is no error of ours is wrong
        return WRONG, f"{type(error).__name__}: {error}"
    return AS_WRITTEN if found == right else WRONG, found


jobs.TASKS |= {"make": make, "try_damages": try_damages}
