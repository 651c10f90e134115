"""One step of a DBOS workflow per checkpoint, on SQLite.

DBOS leaves SQLite at its defaults, a rollback journal and synchronous=FULL, and has no setting for it: it pays for
syncs at the level that needs none. It needs SQLite 3.42 or newer; where Python's is older, pysqlite3 takes its place.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import State, installed, states

NAME = "DBOS"
DURABILITY = {"process": "step on SQLite, always syncs (rollback journal, FULL)"}
SQLITE_IS_OLD = sqlite3.sqlite_version_info < (3, 42)


def version() -> str:
    return installed("dbos", "pysqlite3-binary") if SQLITE_IS_OLD else installed("dbos")


@contextmanager
def setup(directory: Path, level: str) -> Iterator[Callable[[int], None]]:
    if SQLITE_IS_OLD:
        import pysqlite3

        sys.modules["sqlite3"] = pysqlite3
    from dbos import DBOS

    @DBOS.step()
    def save(state: State) -> State:
        return state

    @DBOS.workflow()
    def workflow(n: int) -> None:
        for state in states(n):
            save(state)

    url = f"sqlite:///{directory}/dbos.sqlite"
    DBOS(config={"name": "peer", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    yield workflow
    DBOS.destroy()


def run(workflow: Callable[[int], None], n: int, level: str) -> None:
    workflow(n)
