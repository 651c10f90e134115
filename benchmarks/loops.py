"""What an item of a loop costs, however many there are, and against safe-state: `python -m benchmarks.loops [--smoke]`.

The first table is measured in one process, subject and bare `for` in turn; medians over the rounds. In the second each subject
has a process and a directory of its own, and the time is the whole call's: beginning and finishing the run count. safe-state
writes all that is done again after each item, so 10,000 items take it minutes: it is stopped after `--limit` seconds, and what
stands there is the mean of the items that it got through, the cheaper ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from resumable import Driver, loop
from resumable.runs.progress import Progress

from .bars import in_turn


def gone_through(numbers: Iterable[int], count: int) -> float:
    """Seconds from the first item to the last: beginning and finishing the run are no cost of an item."""
    begun = ended = 0.0
    for number in numbers:
        if not number:
            begun = time.perf_counter()
        elif number == count:
            ended = time.perf_counter()
    return ended - begun


def costs(driver: Driver, count: int, rounds: int) -> dict[str, float]:
    """ns that an item costs over a bare `for`, for each way to write the loop."""

    def items(progress: Progress = None) -> float:
        begun = ended = 0.0
        for number in driver.items(range(count + 1), name="items", progress=progress):     # the `for` stands where they are made
            if not number:
                begun = time.perf_counter()
            elif number == count:
                ended = time.perf_counter()
        return ended - begun

    decorated = loop(driver=driver, name="decorated")(gone_through)
    subjects: dict[str, Callable[[], float]] = {
        "driver.items": items, "the same with progress": lambda: items(lambda info: None),
        "@resumable.loop": lambda: decorated(range(count + 1), count),
    }  # fmt: skip
    base, *others = in_turn(rounds, lambda: gone_through(range(count + 1), count), *subjects.values())
    return {
        name: statistics.median(mine - bare for mine, bare in zip(times, base, strict=True)) / count * 1e9
        for name, times in zip(subjects, others, strict=True)
    }


# ---- against safe-state, in processes of their own


class Late(Exception):
    """The time is up."""


def whole_call(name: str, count: int, limit: float, directory: str) -> tuple[int, float]:
    """(items gone through, seconds) of a decorated function over so many items: its second call, in a directory of its own."""
    if name == "safe-state":
        from safe_state import safe_state

        decorate: Any = safe_state(name="loop", state_dir=directory, save_every=1)
    else:
        decorate = loop(name="loop", driver=directory)
    gone, begun = 0, time.perf_counter()

    def body(numbers: Iterable[int]) -> None:
        nonlocal gone
        for number in numbers:
            gone = number + 1
            if not number % 64 and time.perf_counter() - begun > limit:
                raise Late

    decorated = decorate(body)
    decorated(range(1))     # whatever is loaded and made at the first use
    begun = time.perf_counter()
    with suppress(Late):
        decorated(range(count))
    return gone, time.perf_counter() - begun


def in_a_process(name: str, count: int, limit: float, directory: Path) -> tuple[int, float]:
    """The same, measured in a process of its own."""
    with tempfile.TemporaryDirectory(dir=directory, prefix=".loops-") as fresh:
        command = [sys.executable, "-m", "benchmarks.loops", "--one", name, str(count), str(limit), fresh]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    gone, took = json.loads(done.stdout.splitlines()[-1])
    return gone, took


def compare(counts: list[int], limit: float, rounds: int, directory: Path) -> None:
    """Print the second table."""
    try:
        peer = f"safe-state {version('safe-state')}"
    except PackageNotFoundError:
        print("\nsafe-state is not installed: pip install '.[bench]'")
        return
    print(f"\n{'us an item, whole call':24}" + "".join(f"{'N = ' + format(count, ','):>14}" for count in counts))
    ours, theirs, notes = [], [], []
    for count in counts:
        calls = [in_a_process("ours", count, limit, directory) for _ in range(rounds)]
        ours.append(statistics.median(took / gone for gone, took in calls))
        gone, took = in_a_process("safe-state", count, limit, directory)
        theirs.append(took / gone)
        if gone < count:
            notes.append(f"N = {count:,}: stopped after {gone:,} items")
    for name, figures in ((peer, theirs), ("@resumable.loop", ours)):
        print(f"{name:24}" + "".join(f"{1e6 * figure:14,.2f}" for figure in figures))
    print(f"{'ratio':24}" + "".join(f"{slow / quick:14,.0f}" for slow, quick in zip(theirs, ours, strict=True)))
    print("\n".join(notes))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--limit", type=float, default=60, help="seconds for safe-state (default: %(default)s)")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to save; a real disk (default: here)")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, count, limit, directory = options.one
        print(json.dumps(whole_call(name, int(count), float(limit), directory)))
        return 0
    counts = [100, 1_000] if options.smoke else [10_000, 1_000_000, 100_000_000]
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=options.directory, prefix=".loops-") as directory, Driver(directory) as driver:
        for count in counts:
            for name, figure in costs(driver, count, 1 if options.smoke else 3 if count > 10**7 else 9).items():
                rows.setdefault(name, []).append(figure)
    print(f"{'ns an item, over for':24}" + "".join(f"{'N = ' + format(count, ','):>18}" for count in counts))
    for name, figures in rows.items():
        print(f"{name:24}" + "".join(f"{figure:18,.1f}" for figure in figures))
    compared = [50, 100] if options.smoke else [1_000, 10_000]
    compare(compared, options.limit, 1 if options.smoke else 5, options.directory.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
