"""Databases that loops write to in transactions, and such loops."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psycopg
from servers import Server
from sqlalchemy import text

from resumable import Driver

SQLITE: Final[dict[str, dict[str, Any]]] = {
    "sqlite": {}, "sqlite, autocommit": {"isolation_level": None}, "sqlite, immediate": {"isolation_level": "IMMEDIATE"},
}  # fmt: skip
if sys.version_info >= (3, 12):
    SQLITE.update({"sqlite, autocommit=True": {"autocommit": True}, "sqlite, autocommit=False": {"autocommit": False}})
KINDS: Final = [
    *SQLITE, "psycopg", "psycopg, autocommit", "sqlite by sqlalchemy", "sqlite by a session", "psycopg by sqlalchemy",
    "psycopg by a session", "psycopg2 by sqlalchemy",
]  # fmt: skip


class Stumble(Exception):
    """Stands for a crash of the body."""


@dataclass
class Base:
    """A database with an empty table `rows`, how to connect to it, and how to look into it beside that."""

    kind: str
    connect: Callable[[], Any]
    look: Callable[[str], list[Any]]

    def rows(self) -> list[int]:
        return [row[0] for row in self.look("SELECT n FROM rows ORDER BY n")]

    def marks(self) -> list[tuple[str, int, int]]:
        return self.look("SELECT run, number, done FROM resumable_loops ORDER BY run")


def execute(connection: Any, statement: str) -> Any:
    return connection.execute(text(statement) if type(connection).__module__.startswith("sqlalchemy") else statement)


def sqlite_base(path: Path, kind: str = "sqlite") -> Base:
    def look(query: str) -> list[Any]:
        with closing(sqlite3.connect(path)) as connection:
            return connection.execute(query).fetchall()

    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE rows (n INTEGER)")
    return Base(kind, lambda: sqlite3.connect(path, **SQLITE.get(kind, {})), look)


def postgres_base(server: Server, kind: str = "psycopg") -> Base:
    def look(query: str) -> list[Any]:
        with psycopg.connect(server.url, autocommit=True) as connection:
            return connection.execute(query).fetchall()

    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS rows, resumable_loops")
        connection.execute("CREATE TABLE rows (n int)")
    return Base(kind, lambda: psycopg.connect(server.url, autocommit=kind.endswith("autocommit")), look)


def go(
    driver: Driver, base: Base, *, count: int = 10, until: int | None = None, results: bool = True,
    order: Iterable[int] | None = None, **given: Any,
) -> list[int]:
    """A loop over so many items, or those in `order`, that writes a row an item, with a sum, and fails in an item behind its
    row; the items it saw."""
    seen = []
    connection = base.connect()
    try:
        with driver.transaction(connection):
            items = driver.items(range(count) if order is None else order, name="load", **given)
            with items.state(total=0) as state:
                for number in items:
                    seen.append(number)
                    execute(connection, f"INSERT INTO rows VALUES ({number})")
                    state.total += number
                    if results:
                        items.record(number)
                    if number == until:
                        raise Stumble
    except Stumble:
        pass
    finally:
        connection.close()
    return seen
