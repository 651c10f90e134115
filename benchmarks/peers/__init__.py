"""What saving one small checkpoint costs elsewhere, at equal durability.

One file per peer, all with the names of `Peer`. Third-party modules are imported inside the functions, so that a peer
which is not installed can still say what it is. Every peer saves the same states; each save stands on its own when the
next state is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypedDict

LEVELS = {"process": "survives kill -9", "disk": "survives power loss"}


class State(TypedDict):
    i: int
    total: float
    name: str


class Peer(Protocol):
    NAME: str
    DURABILITY: dict[str, str]  # level -> the setting that gives it

    def version(self) -> str:
        """The versions that matter; PackageNotFoundError when the peer is not installed."""

    def setup(self, directory: Path, level: str) -> AbstractContextManager[Any]:
        """Open the store, outside the measured time."""

    def run(self, opened: Any, n: int, level: str) -> None:
        """Save `states(n)` one by one."""


class Feed:
    """How many states were made, and whether to stop making them because the time is up."""

    def __init__(self) -> None:
        self.made = 0
        self.stopped = False


feed = Feed()  # of this process: one measurement each


def states(n: int, after: State | None = None) -> Iterator[State]:
    """The states to save, going on after a saved one."""
    first, total = (0, 0.0) if after is None else (after["i"] + 1, after["total"])
    for i in range(first, n):
        if feed.stopped:
            break
        total += i * 0.5
        feed.made += 1
        yield {"i": i, "total": total, "name": f"item-{i}"}


def installed(*distributions: str) -> str:
    """Their versions in one line."""
    return ", ".join(f"{name} {version(name)}" for name in distributions)
