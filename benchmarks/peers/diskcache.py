"""One item of a diskcache.Cache per checkpoint; its SQLite file never syncs on commit by default."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from . import installed, states

NAME = "diskcache"
DURABILITY = {"process": "cache[i] = state, default settings"}


def version() -> str:
    return installed("diskcache")


def setup(directory: Path, level: str) -> AbstractContextManager[Any]:
    import diskcache

    cache: AbstractContextManager[Any] = diskcache.Cache(str(directory), eviction_policy="none")
    return cache


def run(cache: Any, n: int, level: str) -> None:
    for state in states(n):
        cache[state["i"]] = state
