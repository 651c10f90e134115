"""One row and one transaction per checkpoint."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

from . import states

NAME = "sqlite3"
DURABILITY = {"process": "pickle, INSERT, WAL, synchronous=OFF", "disk": "pickle, INSERT, WAL, synchronous=FULL"}


def version() -> str:
    return f"SQLite {sqlite3.sqlite_version}"


def setup(directory: Path, level: str) -> closing[sqlite3.Connection]:
    connection = sqlite3.connect(directory / "states.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={'FULL' if level == 'disk' else 'OFF'}")
    connection.execute("CREATE TABLE states (i INTEGER PRIMARY KEY, state BLOB)")
    return closing(connection)


def run(connection: sqlite3.Connection, n: int, level: str) -> None:
    for state in states(n):
        connection.execute("INSERT INTO states VALUES (?, ?)", (state["i"], pickle.dumps(state)))
