"""One missed call of a function under joblib.Memory per checkpoint: a directory with two files each."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from . import State, installed, states

NAME = "joblib"
DURABILITY = {"process": "Memory.cache, each call a miss"}


def version() -> str:
    return installed("joblib")


def setup(directory: Path, level: str) -> AbstractContextManager[Any]:
    import joblib

    return nullcontext(joblib.Memory(directory, verbose=0))


def step(i: int, state: State) -> State:
    return state


def run(memory: Any, n: int, level: str) -> None:
    cached = memory.cache(step, ignore=["state"])
    for state in states(n):
        cached(state["i"], state)
