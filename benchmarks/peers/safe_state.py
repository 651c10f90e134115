"""The items of a function under @safe_state, saved after each one.

It writes the set of finished items, never the state: its `checkpoint(**state)` cannot be read back by the job. Every
save is synced, and there is no setting without, so the same run stands at both levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from . import installed, states

NAME = "safe-state"
DURABILITY = dict.fromkeys(["process", "disk"], "save_every=1, always syncs file and directory")


def version() -> str:
    return installed("safe-state")


def setup(directory: Path, level: str) -> AbstractContextManager[Any]:
    from safe_state import safe_state

    return nullcontext(safe_state(name="peer", state_dir=directory, save_every=1))


def run(decorate: Any, n: int, level: str) -> None:
    def job(items: Iterable[int]) -> None:
        for _ in zip(items, states(n), strict=False):  # ends with the states when the time is up
            pass

    decorate(job)(range(n))
