"""A job that copies a file line by line, both files in its state; run as a script, to be killed."""

# ruff: noqa: SIM115 - the files stay open

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import resumable
from resumable import Driver, checkpoint

LINES = 120
OPENERS: dict[str, Callable[[str, str], Any]] = {
    "text": lambda path, mode: open(path, mode, encoding="utf-8"),
    "binary": lambda path, mode: open(path, f"{mode}b"),
    "unbuffered": lambda path, mode: open(path, f"{mode}b", buffering=0),
    "gzip": lambda path, mode: gzip.open(path, f"{mode}b"),
    "bz2": lambda path, mode: bz2.open(path, f"{mode}b"),
    "xz": lambda path, mode: lzma.open(path, f"{mode}b", preset=0 if mode == "w" else None),
    "csv": lambda path, mode: resumable.csv_writer(path, header=["é", "b"]) if mode == "w" else resumable.csv_reader(path),
}


def copy(kind: str, source: str, target: str, *, state: Any = None) -> Iterator[Any]:
    reader, writer, done = state or (OPENERS[kind](source, "r"), OPENERS[kind](target, "w"), 0)
    with reader, writer:
        for item in reader:
            if kind != "csv":
                writer.write(item)
            elif done:  # the first row is the header
                writer.writerow(item)
            done += 1
            yield checkpoint((reader, writer, done))
            print(done, flush=True)


if __name__ == "__main__":
    kind, home, source, target = sys.argv[1:]
    with Driver(Path(home)) as driver:
        driver.run(copy, kind, source, target, name="copy")
