"""What a checkpoint costs whose state holds a live resource: `python -m benchmarks.resources [--smoke]`.

Each loop is run twice in one process, in turn: through a Driver with the resource in the state, and bare. Printed is the
difference for one checkpoint, the median over the rounds, against the bar where there is one.
"""

# ruff: noqa: SIM115 - the files stay open

from __future__ import annotations

import argparse
import gzip
import os
import sqlite3
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from resumable import Driver, checkpoint, csv_writer

LINE = "a line of some sixty characters, as logs and tables have them\n"
Step = Callable[[Any], Any]


def job(resource: Any, step: Step, count: int, state: Any = None) -> Iterator[Any]:
    for _ in range(count):
        step(resource)
        yield checkpoint(resource)


def bare(resource: Any, step: Step, count: int) -> Iterator[Any]:
    for _ in range(count):
        step(resource)
        yield resource


def cases(folder: Path) -> Iterator[tuple[str, float | None, float, Callable[[], Any], Step]]:
    """Name, bar in us if there is one, share of the count, what opens the resource, and what is done between checkpoints."""
    source = folder / "source"
    source.write_text(LINE * 60_000)
    yield "text file, a line written", 10, 1, lambda: open(folder / "a", "w"), lambda it: it.write(LINE)
    yield "binary file, a line written", 10, 1, lambda: open(folder / "b", "wb"), lambda it: it.write(b"x" * 62)
    yield "text file, `for line in file`", 100, 1, lambda: open(source), next
    yield "text file, readline()", 100, 1, lambda: open(source), lambda it: it.readline()
    yield "csv_writer, a row written", None, 1, lambda: csv_writer(folder / "c"), lambda it: it.writerow((1, "abc"))
    yield "gzip file, a line written", None, 1, lambda: gzip.open(folder / "d", "wb"), lambda it: it.write(b"x" * 62)
    yield "sqlite3 connection, idle", None, 0.2, lambda: sqlite3.connect(folder / "e"), lambda it: None


def cost(driver: Driver, open_it: Callable[[], Any], step: Step, count: int, rounds: int) -> float:
    """Microseconds that a checkpoint of this resource adds."""
    added = []
    for _ in range(rounds):
        with_resource = open_it()
        begun = time.perf_counter()
        driver.run(job, with_resource, step, count, name="resource", fresh=True, on_change="restart")
        between = time.perf_counter()
        with_resource.close()
        without = open_it()
        bare_begun = time.perf_counter()
        deque(bare(without, step, count), maxlen=0)
        added.append(between - begun - (time.perf_counter() - bare_begun))
        without.close()
    return statistics.median(added) / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="see whether it runs")
    count, rounds = (50, 1) if parser.parse_args().smoke else (5_000, 7)
    print(f"{'resource in the state':32}{'us':>8}{'bar':>8}")
    with tempfile.TemporaryDirectory() as folder, Driver(os.path.join(folder, "home")) as driver:
        for name, bar, share, open_it, step in cases(Path(folder)):
            measured = cost(driver, open_it, step, int(count * share), rounds)
            print(f"{name:32}{measured:8.1f}{'' if bar is None else f'{bar:8.0f}'}")


if __name__ == "__main__":
    main()
