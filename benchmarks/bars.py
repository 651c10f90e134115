"""The speed bars of the design, measured and printed: `python -m benchmarks.bars [--json FILE] [--smoke]`.

Everything is measured in one process, subject and base in turn, so that a drifting machine drifts for both; what is printed is
the median over the rounds. A bar is what may be called done, an aim is the goal; neither is a test.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import resumable
from resumable import Driver, checkpoint

Timed = Callable[[], float]


@dataclass(frozen=True)
class Bar:
    """One line of the table: `measured` against `bar` and `aim`, all in `unit`; `more` is what else was seen."""

    name: str
    measured: float
    bar: float
    aim: float
    unit: str
    more: str = ""
    at_least: bool = False

    @property
    def verdict(self) -> str:
        holds = (lambda limit: self.measured >= limit) if self.at_least else (lambda limit: self.measured <= limit)
        return "aim" if holds(self.aim) else "bar" if holds(self.bar) else "MISSED"


@dataclass
class Point:
    """A state that only the pickler can save."""

    x: int
    y: float
    label: str


def seconds(call: Callable[[], Any]) -> float:
    """How long one call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def in_turn(rounds: int, *timed: Timed) -> list[list[float]]:
    """Each function timed once a round, in turn: a list of times for each."""
    times: list[list[float]] = [[] for _ in timed]
    for _ in range(rounds):
        for mine, function in zip(times, timed, strict=True):
            gc.collect()
            mine.append(function())
    return times


def consume(items: Iterator[Any]) -> None:
    """The bare loop: everything is asked for and dropped, as the driver does it."""
    deque(items, maxlen=0)


# ---- what a checkpoint costs

STATES: dict[str, Callable[[int], Any]] = {
    "int": lambda i: i,
    "3-key dict": lambda i: {"i": i, "total": i * 0.5, "name": "item-17"},
    "plain, 1 KB": lambda i: {"done": i, "rows": [[j, j * 1.5, "label"] for j in range(24)], "note": "x" * 200},
    "dataclass": lambda i: Point(i, 0.5, "here"),
    "dataclasses, 1 KB": lambda i: [Point(j, 0.5, f"here-and-there-{j}") for j in range(20)],
}


def cost_of(kind: str, count: int, rounds: int, driver: Driver) -> tuple[float, float]:
    """(ns that a checkpoint of this state adds to the bare loop, ns of pickle.dumps of it)."""
    # The state is made beforehand where making it would drown what is measured; an int and a small dict are made fresh.
    make = STATES[kind]
    fresh = kind in ("int", "3-key dict")
    constant = make(17)

    def bare_int(n: int) -> Iterator[Any]:
        for i in range(n):  # noqa: UP028 - the loop that the job has too
            yield i

    def job_int(n: int, state: Any = None) -> Iterator[Any]:
        for i in range(n):
            yield checkpoint(i)

    def bare_dict(n: int) -> Iterator[Any]:
        for i in range(n):
            yield {"i": i, "total": 0.5, "name": "item-17"}

    def job_dict(n: int, state: Any = None) -> Iterator[Any]:
        for i in range(n):
            yield checkpoint({"i": i, "total": 0.5, "name": "item-17"})

    def bare_constant(n: int) -> Iterator[Any]:
        for _ in range(n):
            yield constant

    def job_constant(n: int, state: Any = None) -> Iterator[Any]:
        for _ in range(n):
            yield checkpoint(constant)

    bare, job = (bare_int, job_int) if kind == "int" else (bare_dict, job_dict) if fresh else (bare_constant, job_constant)

    def pickled() -> None:
        for _ in range(count):
            pickle.dumps(constant, 5)

    def loop_alone() -> None:
        for _ in range(count):
            pass

    bare_times, job_times, pickle_times, loop_times = in_turn(
        rounds,
        lambda: seconds(lambda: consume(bare(count))),
        lambda: seconds(lambda: driver.run(job, count, name=f"bars {kind}", fresh=True)),
        lambda: seconds(pickled),
        lambda: seconds(loop_alone),
    )
    added = statistics.median(j - b for j, b in zip(job_times, bare_times, strict=True))
    dumps = statistics.median(p - e for p, e in zip(pickle_times, loop_times, strict=True))
    return added / count * 1e9, dumps / count * 1e9


def checkpoint_bars(count: int, rounds: int, driver: Driver) -> Iterator[Bar]:
    """The bars of a single checkpoint."""
    added, dumps = cost_of("int", 25 * count, rounds, driver)
    yield Bar("int state, over the bare loop", added, 50, 20, "ns", f"pickle.dumps {dumps:.0f} ns")
    added, dumps = cost_of("3-key dict", 5 * count, rounds, driver)
    yield Bar("3-key dict, share of pickle.dumps", added / dumps, 0.4, 0.2, "x", f"{added:.0f} of {dumps:.0f} ns")
    added, dumps = cost_of("plain, 1 KB", count, rounds, driver)
    yield Bar("plain state of 1 KB", added, 1000, 1000, "ns", f"pickle.dumps {dumps:.0f} ns")
    yield Bar("plain state of 1 KB, share of pickle.dumps", added / dumps, 1.0, 0.4, "x")
    for kind in ("dataclass", "dataclasses, 1 KB"):
        added, dumps = cost_of(kind, count // 4, rounds, driver)
        yield Bar(
            f"{kind}, above 1.3 (aim 1.1) x pickle.dumps", added - 1.3 * dumps, 1000, 300 - 0.2 * dumps, "ns",
            f"{added:.0f} against {dumps:.0f} ns",
        )


def items_bar(count: int, rounds: int, driver: Driver) -> Bar:
    """What a loop's marks add to a bare `for`."""

    def bare() -> None:
        for _ in range(count):
            pass

    def marked() -> None:
        for _ in driver.items(range(count), name="bars items"):
            pass

    bare_times, marked_times = in_turn(rounds, lambda: seconds(bare), lambda: seconds(marked))
    added = statistics.median(m - b for m, b in zip(marked_times, bare_times, strict=True))
    return Bar("an item of driver.items, over a bare for", added / count * 1e9, 20, 8, "ns")


def _successor(number: int) -> int:
    return number + 1


def map_bar(count: int, rounds: int, driver: Driver) -> Bar:
    """What a map adds to calling its function in a loop: each result is kept, and is in the log when the map returns."""

    def called() -> None:
        for number in range(count):
            _successor(number)

    def mapped() -> None:
        driver.map(_successor, range(count), name="bars map")

    called_times, mapped_times = in_turn(rounds, lambda: seconds(called), lambda: seconds(mapped))
    added = statistics.median(m - c for m, c in zip(mapped_times, called_times, strict=True))
    return Bar("an item of driver.map, over calling the function", added / count * 1e9, 300, 300, "ns")


def line_bar(count: int, rounds: int, driver: Driver, directory: Path) -> Bar:
    """What a line of a managed file costs, its loop included, over a bare `for`."""
    path, line = directory / "lines", "x" * 33 + "\n"

    def bare() -> None:
        for _ in range(count):
            pass

    def managed() -> None:
        with resumable.open(path) as file:
            for _ in driver.items(range(count), name="bars lines"):
                file.write(line)

    def builtin() -> None:
        with open(path, "w") as file:
            for _ in range(count):
                file.write(line)

    def to_new_file(write: Callable[[], None]) -> float:
        path.unlink(missing_ok=True)    # what the round before has written: to free it is no cost of a line
        return seconds(write)

    bare_times, managed_times, builtin_times = in_turn(
        rounds, lambda: seconds(bare), lambda: to_new_file(managed), lambda: to_new_file(builtin),
    )
    added = statistics.median(m - b for m, b in zip(managed_times, bare_times, strict=True)) / count * 1e9
    plain = statistics.median(p - b for p, b in zip(builtin_times, bare_times, strict=True)) / count * 1e9
    return Bar("a 34-byte line to a file of a loop, over a bare for", added, 300, 300, "ns", f"the builtin open: {plain:.0f} ns")


def keyed_bar(count: int, rounds: int, driver: Driver) -> Bar:
    """What marks and keys add to a bare `for` over texts, the call of the key function included."""
    items = [f"item-{number:08d}" for number in range(count)]

    def bare() -> None:
        for _ in items:
            pass

    def marked() -> None:
        for _ in driver.items(items, name="bars keyed items", key=lambda item: item):
            pass

    def called() -> None:
        key = lambda item: item     # noqa: E731 - as above
        for item in items:
            key(item)

    bare_times, marked_times, called_times = in_turn(
        rounds, lambda: seconds(bare), lambda: seconds(marked), lambda: seconds(called)
    )
    added = statistics.median(m - b for m, b in zip(marked_times, bare_times, strict=True))
    alone = statistics.median(c - b for c, b in zip(called_times, bare_times, strict=True))
    more = f"{alone / count * 1e9:.0f} of them the call; {count:,} items"
    return Bar("an item with key=, over a bare for", added / count * 1e9, 250, 150, "ns", more)


# ---- the rest


_resumed_at: list[float] = []      # a global: what a job's closure holds is part of the run's identity


def resume_bar(rounds: int, long: int, directory: Path) -> Bar:
    """Resuming after a long history against a short one."""

    def job(n: int, state: int = 0) -> Iterator[Any]:
        if state:
            _resumed_at.append(time.perf_counter())
            raise InterruptedError
        for i in range(1, n + 1):
            yield checkpoint(i)
        raise InterruptedError

    def resume(driver: Driver, n: int) -> float:
        begun = time.perf_counter()
        with suppress(InterruptedError):
            driver.run(job, n, name=f"resume {n}")
        return _resumed_at[-1] - begun

    with Driver(directory) as driver:
        for n in (1000, long):
            with suppress(InterruptedError):
                driver.run(job, n, name=f"resume {n}")
        short_times, long_times = in_turn(rounds, lambda: resume(driver, 1000), lambda: resume(driver, long))
    ratio = statistics.median(long_times) / statistics.median(short_times)
    return Bar(f"resume after {long:,} checkpoints against 1,000", ratio, 2, 1.1, "x",
               f"{statistics.median(long_times) * 1e3:.2f} ms")


def small_run_bars(rounds: int, directory: Path) -> Iterator[Bar]:
    """Starting and finishing a run of ten checkpoints."""

    def job(state: int = 0) -> Iterator[Any]:
        for i in range(state, 10):
            yield checkpoint(i + 1)

    with Driver(directory) as driver:
        driver.run(job)
        times = [seconds(lambda: driver.run(job)) for _ in range(max(rounds, 5) * 5)]
        size = sum(path.lstat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
    yield Bar("a run of 10 checkpoints, Driver open", statistics.median(times) * 1e3, 5, 1, "ms")
    yield Bar("its bytes on disk", size / 1024, 256, 256, "KiB")


def disk_bars(count: int, rounds: int, directory: Path) -> Iterator[Bar]:
    """durability="disk" against append and fdatasync of the same bytes; then 32 jobs at once."""
    state = {"i": 17, "total": 0.5, "name": "item-17"}
    body = pickle.dumps(state, 5)

    def job(n: int, state: Any = None) -> Iterator[Any]:
        for _ in range(n):
            yield checkpoint(constant)

    constant = state
    os.sync()       # what the rows before have written, or the disk is busy with it

    def by_hand() -> None:
        with (directory / "by-hand").open("ab", buffering=0) as file:
            for _ in range(count):
                file.write(body)
                os.fdatasync(file.fileno())

    with Driver(directory / "state", durability="disk") as driver:
        driver.run(job, 1, name="warm")

        def many() -> None:
            threads = [
                threading.Thread(target=driver.run, args=(job, count), kwargs={"name": f"disk {i}"}) for i in range(32)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        hand_times, one_times, many_times = in_turn(
            rounds, lambda: seconds(by_hand), lambda: seconds(lambda: driver.run(job, count, name="disk")),
            lambda: seconds(many),
        )
    ratio = statistics.median(o / h for o, h in zip(one_times, hand_times, strict=True))
    each = statistics.median(one_times) / count * 1e6
    yield Bar('durability="disk" against append + fdatasync', ratio, 1.3, 1.05, "x", f"{each:.0f} us a checkpoint")
    gain = statistics.median(
        32 * o / m for m, o in zip(many_times, one_times, strict=True)
    )
    yield Bar("the same with 32 jobs, throughput over one job's", gain, 5, 10, "x", at_least=True)


def memory_bar(long: int, directory: Path) -> Bar:
    """Memory that a long run adds, in a process of its own."""
    script = f"""
import resource
import resumable
from resumable import Driver, checkpoint
def job(n, state=0):
    for i in range(n):
        yield checkpoint(i)
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
with Driver({str(directory)!r}) as driver:
    driver.run(job, 10)
    before = peak()
    driver.run(job, {long})
    print(peak() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    return Bar(f"memory for {long:,} checkpoints", grown / 1024, 50, 25, "MiB")


def import_bar(rounds: int) -> Bar:
    """`import resumable` over an empty program."""

    def started(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    empty, loaded = in_turn(max(rounds, 7), lambda: started("pass"), lambda: started("import resumable"))
    added = statistics.median(b - a for a, b in zip(empty, loaded, strict=True))
    return Bar("import resumable", added * 1e3, 60, 30, "ms")


def array_bar(megabytes: int, rounds: int, directory: Path) -> Bar | None:
    """A large array state against writing and syncing the same bytes to the same disk."""
    try:
        import numpy
    except ImportError:
        return None
    array = numpy.random.default_rng(1).integers(0, 255, megabytes << 20, dtype=numpy.uint8)

    def job(state: Any = None) -> Iterator[Any]:
        yield checkpoint(array)

    def by_hand() -> None:
        path = directory / "by-hand"
        with path.open("wb", buffering=0) as file:
            view = memoryview(array)
            for start in range(0, len(view), 8 << 20):
                file.write(view[start : start + (8 << 20)])
            os.fsync(file.fileno())
        path.unlink()

    with Driver(directory / "state") as driver:
        hand_times, our_times = in_turn(
            max(3, rounds // 3), lambda: seconds(by_hand), lambda: seconds(lambda: driver.run(job, name="array")),
        )
    share = statistics.median(h / o for h, o in zip(hand_times, our_times, strict=True))
    rate = megabytes / statistics.median(our_times)
    return Bar(f"{megabytes} MB array, speed of write + fsync of it", share, 0.7, 0.95, "x", f"{rate:.0f} MB/s", True)


def bitset_bar(count: int, rounds: int) -> Bar:
    """Marking an item in the bare bitset, over the bare loop."""
    from resumable._fastlog import Bitset

    bits = Bitset(-1, count // 32768 + 1)

    def marked() -> None:
        mark = bits.set
        for i in range(count):
            mark(i)

    def bare() -> None:
        for _ in range(count):
            pass

    marked_times, bare_times = in_turn(rounds, lambda: seconds(marked), lambda: seconds(bare))
    added = statistics.median(m - b for m, b in zip(marked_times, bare_times, strict=True)) / count * 1e9
    return Bar("bitset.set, called from Python, over the bare loop", added, 50, 25, "ns")


def all_bars(smoke: bool, directory: Path) -> Iterator[Bar]:
    """Every bar, in the order of the table."""
    rounds, count = (1, 2_000) if smoke else (9, 200_000)
    with Driver(directory / "checkpoints") as driver:
        yield from checkpoint_bars(count, rounds, driver)
        yield items_bar(250 * count, rounds, driver)
        yield keyed_bar(5 * count, rounds, driver)
        yield map_bar(5 * count, rounds, driver)
        yield line_bar(10 * count, rounds, driver, directory)
    yield bitset_bar(count, rounds)
    yield resume_bar(rounds, 20_000 if smoke else 10_000_000, directory / "resume")
    yield from small_run_bars(rounds, directory / "small")
    (directory / "disk").mkdir()
    yield from disk_bars(20 if smoke else 1000, rounds, directory / "disk")
    yield memory_bar(20_000 if smoke else 10_000_000, directory / "memory")
    (directory / "array").mkdir()
    array = array_bar(8 if smoke else 1000, rounds, directory / "array")
    if array is not None:
        yield array
    yield import_bar(rounds)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 also when a bar is missed: bars are no tests."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bars", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there as well")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    options = parser.parse_args(arguments)
    found = []
    with tempfile.TemporaryDirectory(dir=".", prefix=".bars-") as directory:
        print(f"{'':52} {'measured':>10} {'bar':>8} {'aim':>8}")
        for bar in all_bars(options.smoke, Path(directory).resolve()):
            found.append(bar)
            sign = ">=" if bar.at_least else "<="
            print(f"{bar.name:52} {bar.measured:8.2f} {bar.unit:3} {sign}{bar.bar:6g} {sign}{bar.aim:6g}  "
                  f"{bar.verdict:6} {bar.more}", flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(bar) | {"verdict": bar.verdict} for bar in found], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
