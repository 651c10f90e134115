"""File objects that a life which failed in this process has left open: they spoil nothing of the next one."""

from __future__ import annotations

import bz2
import gc
import gzip
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint, csv_writer

# How it is opened, written and read.
FILES: dict[str, tuple[Callable[[Path], Any], Callable[[Any, str], Any], Callable[[Path], str]]] = {
    "text": (lambda path: path.open("w"), lambda file, line: file.write(line + "\n"), Path.read_text),
    "update": (lambda path: path.open("w+"), lambda file, line: file.write(line + "\n"), Path.read_text),
    "csv": (csv_writer, lambda file, line: file.writerow([line]), Path.read_text),
    "gzip": (
        lambda path: gzip.open(path, "w"),  # noqa: SIM115 - the job closes it
        lambda file, line: file.write(line.encode() + b"\n"),
        lambda path: gzip.decompress(path.read_bytes()).decode(),
    ),
    "text over bz2": (
        lambda path: bz2.open(path, "wt"),  # noqa: SIM115 - the job closes it
        lambda file, line: file.write(line + "\n"),
        lambda path: bz2.decompress(path.read_bytes()).decode(),
    ),
}


lives = itertools.count(1)


class Crash(Exception):
    """Ends a life of the job."""


@pytest.mark.parametrize("kind", FILES)
def test_a_life_that_failed_before_its_first_checkpoint_writes_nothing_later(tmp_path: Path, kind: str) -> None:
    """What a life wrote after resuming and before it failed stays out, though its exception keeps the file alive."""
    global lives  # a job closes over what counts as an argument
    lives = itertools.count(1)
    path = tmp_path / "out"
    errors: list[Crash] = []
    open_it, write, read = FILES[kind]

    def job(state: Any = None) -> Iterator[Any]:
        life = next(lives)
        done, file = state or (0, open_it(path))
        for n in range(done, 5):
            write(file, f"line {n} of life {life}")
            if life == 2 or (life == 1 and n == 2):
                raise Crash
            yield checkpoint((n + 1, file))
        file.close()

    with Driver(tmp_path / "state") as driver:
        for _ in range(2):
            with pytest.raises(Crash) as caught:
                driver.run(job, name="job")
            errors.append(caught.value)
        driver.run(job, name="job")
    del caught
    errors.clear()
    gc.collect()
    assert read(path).splitlines() == [f"line {n} of life {1 if n < 2 else 3}" for n in range(5)]
