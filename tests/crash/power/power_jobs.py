"""The jobs of the machine that loses its power: in the guest they tell the oracle what they were promised; after the cut the
same jobs go on on the host.

Every state follows from its number alone, so what comes back can be checked without knowing what was lost.
"""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import Layer

from resumable import Driver, checkpoint
from resumable._fastlog import Bitset
from resumable.storage import disksync
from resumable.storage.platform import create_file, fsync_directory
from resumable.storage.writer import Writer

# What an event says; its value is a number of checkpoints, of a brief run its number.
READY, BEGUN, START, ACK, DURABLE, DONE, CLEARING, CLEARED, FAILED, COMMITTING, COMMITTED = range(1, 12)
EVENT = struct.Struct("<BBHIQ")  # what, kind, life, value, microseconds of the guest's clock

MOUNT = "/mnt"
WINDOW = 0.25
BRIEF_ITEMS = 5
ALL_BITS = 32768

Job = Generator[Any, None, Any]


@dataclass(frozen=True)
class Kind:
    """How a job of the guest runs. `stride`: it tells of each such number of checkpoints."""

    durability: str = "process"
    stride: int = 1
    results: bool = False


KINDS = {
    "ints": Kind(stride=64),
    "rows": Kind(stride=4, results=True),
    "sets": Kind(),
    "lines": Kind(stride=4),
    "large": Kind(results=True),
    "layers": Kind(),
    "disk": Kind("disk"),
    "disk rows": Kind("disk", results=True),
    "disk large": Kind("disk"),
    "brief": Kind(),
    "bits": Kind(stride=8),
}
NAMES = list(KINDS)
LARGE = frozenset(("large", "disk large"))


class Enough(Exception):
    """The host has seen a job go on."""


# What the jobs tell, to whom, and when they stop.
tell: Callable[[bytes], Any] = lambda event: None  # noqa: E731
stop_after = 1 << 40
life = 0
actual_window = WINDOW
syncs_asked = 0.01      # after which part of the checkpoints
between: dict[str, Callable[[int], None]] = {}


def note(what: int, kind: str, value: int = 0) -> None:
    tell(EVENT.pack(what, NAMES.index(kind), life, value, time.monotonic_ns() // 1000))


# ---- what a job's state is


def state_of(kind: str, seq: int) -> Any:
    """The state of checkpoint `seq`."""
    if kind == "sets":
        return {"done": seq, "seen": {seq, seq - 1}, "of": frozenset((seq,)), "same": [[seq]] * 2}
    if kind in LARGE:
        return seq, bytes([seq & 255]) * 300_000
    if kind == "layers":
        # One of four changes each time, so the others are not written again.
        return seq, [Layer(bytes([(seq - (seq - place) % 4) & 255]) * 80_000) for place in range(4)]
    return seq, zlib.crc32(seq.to_bytes(8, "little"))


def seq_of(kind: str, state: Any) -> int:
    return int(state["done"] if kind == "sets" else state[0])


def result_of(kind: str, seq: int) -> Any:
    """The result that checkpoint `seq` brings; now and then a large one."""
    return (seq, bytes([seq & 255]) * 300_000) if kind == "large" and seq % 16 == 0 else (seq, f"row {seq}")


def line_of(seq: int) -> str:
    return f"{seq} {zlib.crc32(seq.to_bytes(8, 'little'))}\n"


def check_state(kind: str, seq: int, state: Any) -> None:
    """Raises AssertionError if this is not what checkpoint `seq` saved."""
    assert repr(state) == repr(state_of(kind, seq)), f"{kind}: {str(state)[:80]} is not the state of checkpoint {seq}"


# ---- jobs


def work(kind: str, state: Any = None) -> Job:
    done = 0
    if state is not None:
        done = seq_of(kind, state)
        check_state(kind, done, state)
    note(START, kind, done)
    stride, results = KINDS[kind].stride, KINDS[kind].results
    for seq in range(done + 1, done + 1 + stop_after):
        if results:
            yield checkpoint(state_of(kind, seq), result=result_of(kind, seq))
        else:
            yield checkpoint(state_of(kind, seq))
        if seq % stride == 0:
            note(ACK, kind, seq)
            if kind in between:
                between[kind](seq)
    raise Enough


def lines(path: str, state: tuple[int, Any] | None = None) -> Job:
    """A file that is being written is part of the state."""
    done, out = state or (0, open(path, "w"))      # noqa: SIM115 - it is closed below
    note(START, "lines", done)
    with out:
        for seq in range(done + 1, done + 1 + stop_after):
            out.write(line_of(seq))
            yield checkpoint((seq, out))
            if seq % KINDS["lines"].stride == 0:
                note(ACK, "lines", seq)
                if "lines" in between:
                    between["lines"](seq)
        raise Enough


def brief(number: int, state: int = 0) -> Job:
    for i in range(state, BRIEF_ITEMS):
        yield checkpoint(i + 1, result=(number, i))
    return number * 3


# ---- one thread of the guest each


def run_work(directory: Path, kind: str, chance: random.Random) -> None:
    """A run that goes on for ever, and now and then is brought to disk."""
    with Driver(directory, durability=KINDS[kind].durability, sync_every=actual_window) as driver:

        def ask(seq: int) -> None:
            if chance.random() < syncs_asked:
                driver.sync()
                note(DURABLE, kind, seq)
            elif chance.random() < 0.02:
                note(DURABLE, kind, driver.info(kind).on_disk)

        between[kind] = ask
        start(driver, kind, directory.parent)


def start(driver: Driver, kind: str, place: Path) -> None:
    """Run or resume the job of this kind; it ends with Enough."""
    if kind == "lines":
        driver.run(lines, str(place / "lines.txt"), name=kind)
    else:
        driver.run(work, kind, name=kind)


def run_briefs(directory: Path, chance: random.Random) -> None:
    """One short run after the other; some are cleared again."""
    with Driver(directory, durability=chance.choice(("process", "disk"))) as driver:
        for number in range(life << 16, life + 1 << 16):
            if driver.run(brief, number, name=f"brief {number}") != number * 3:
                raise AssertionError(f"brief {number} gave back a wrong value")
            note(DONE, "brief", number)
            if chance.random() < 0.3:
                note(CLEARING, "brief", number)
                driver.clear(f"brief {number}")
                note(CLEARED, "brief", number)


def watch_commits() -> None:
    """Tell when the writer of this process begins a commit and when it has ended: on a slow machine that is what is lost."""
    whole = Writer._commit

    def commit(self: Writer, runs: Any, failures: Any) -> None:
        note(COMMITTING, "ints", os.getpid())
        whole(self, runs, failures)
        note(COMMITTED, "ints", os.getpid())

    Writer._commit = commit  # type: ignore[method-assign]


def item_at(place: int) -> int:
    """The items of the bitset in the order in which they are done."""
    return place * 7919 % ALL_BITS


def run_bits(path: Path) -> None:
    """Marks in the bitset, with a sync now and then."""
    fd = os.open(path, os.O_RDWR) if path.exists() else create_file(path.parent, path.name, Bitset.file_size(1))
    os.fsync(fd)
    fsync_directory(path.parent)
    bits = Bitset(fd, 1)
    first = next(place for place in range(ALL_BITS) if not bits.test(item_at(place)))
    note(START, "bits", first)
    for place in range(first, ALL_BITS):
        bits.set(item_at(place))
        if (place + 1) % KINDS["bits"].stride == 0:
            note(ACK, "bits", place + 1)
        if (place + 1) % 64 == 0:
            os.fsync(fd)
            note(DURABLE, "bits", place + 1)
        time.sleep(0)


def run_kind(kind: str, place: Path, seed: str) -> None:
    """What one thread of the guest does until the power is cut."""
    disksync.CAPACITY = 1 << 18         # so that sync files are changed often
    chance = random.Random(f"{seed} {kind}")
    if kind == "bits":
        run_bits(place / "bits")
    elif kind == "brief":
        run_briefs(place / "state", chance)
    else:
        run_work(place / "state", kind, chance)
