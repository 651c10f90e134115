"""The library of this repository: a generator job under a Driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from . import State, installed, states

NAME = "resumable"
DURABILITY = {"process": 'durability="process"', "disk": 'durability="disk"'}


def version() -> str:
    try:
        return installed("resumable-jobs")
    except PackageNotFoundError:
        return "checkout"  # imported from src/, not installed


def setup(directory: Path, level: str) -> AbstractContextManager[Any]:
    from resumable import Driver

    driver: Any = Driver(directory, durability="disk" if level == "disk" else "process")
    driver.runs()  # opens the directory, as the other peers' files are open when their time begins
    opened: AbstractContextManager[Any] = driver
    return opened


def job(n: int, state: State | None = None) -> Iterator[Any]:
    from resumable import checkpoint

    for new in states(n, after=state):
        yield checkpoint(new)


def run(driver: Any, n: int, level: str) -> None:
    driver.run(job, n)
