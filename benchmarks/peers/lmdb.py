"""One put and one commit per checkpoint, through py-lmdb."""

from __future__ import annotations

import pickle
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from . import installed, states

NAME = "py-lmdb"
DURABILITY = {"process": "pickle, put and commit, sync=False", "disk": "pickle, put and commit, sync=True"}


def version() -> str:
    return installed("lmdb")


def setup(directory: Path, level: str) -> AbstractContextManager[Any]:
    import lmdb

    return lmdb.open(str(directory), map_size=1 << 34, sync=level == "disk")


def run(environment: Any, n: int, level: str) -> None:
    for state in states(n):
        with environment.begin(write=True) as transaction:
            transaction.put(state["i"].to_bytes(8), pickle.dumps(state), append=True)
