"""sqlite3 connections: a database with a path is opened again, one in memory is kept whole.

Kept: path, attached databases, isolation level, row and text factory, detect_types, check_same_thread, the class, and
the pragmas that a connection has to itself. Refused: an open transaction and temporary tables, which nothing can bring
back. Not kept: functions, collations and hooks set on the connection; `cached_statements`; a read-only URI.

Cost: about 50 µs; the first time 0.2 ms, as two settings have to be tried out.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import threading
from contextlib import closing, suppress
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from resumable.values.registry import Handler, alive

_PRAGMAS: Final = (
    "busy_timeout",
    "foreign_keys",
    "synchronous",
    "cache_size",
    "temp_store",
    "mmap_size",
    "recursive_triggers",
    "query_only",
    "secure_delete",
)
_PROBE: Final = "resumable_probe"
_BOUND: Final = 1 << 8  # beside the detect_types flags


def extract(connection: sqlite3.Connection) -> dict[str, Any]:
    """What it takes to make an equal connection. Raises LiveResourceError."""
    try:
        if connection.in_transaction:
            raise alive(connection, "it has an open transaction (commit() or roll back before the checkpoint)")
        return _describe(connection)
    except sqlite3.ProgrammingError as error:
        raise alive(connection, f"{error} (keep its path)") from error


def _describe(connection: sqlite3.Connection) -> dict[str, Any]:
    databases = _databases(connection)
    if "temp" in databases and _rows(connection, "SELECT 1 FROM sqlite_temp_master LIMIT 1"):
        raise alive(connection, "it has temporary tables (drop them before the checkpoint, or make them ordinary ones)")
    if databases.pop(_PROBE, None) is not None:
        _detach_probe(connection)
    attached = {name: path for name, path in databases.items() if name not in ("main", "temp")}
    if not all(attached.values()):
        raise alive(connection, "a database in memory is attached (detach it before the checkpoint)")
    detect_types, check_same_thread = _hidden(connection)
    return {
        "class": type(connection),
        "path": databases["main"] or None,
        # A buffer of its own can go out of band, beside the state.
        "content": None if databases["main"] else pickle.PickleBuffer(connection.serialize()),
        "attached": attached,
        "isolation_level": connection.isolation_level,
        "row_factory": connection.row_factory,
        "text_factory": connection.text_factory,
        "detect_types": detect_types,
        "check_same_thread": check_same_thread,
        "pragmas": {name: rows[0][0] for name in _PRAGMAS if (rows := _rows(connection, f"PRAGMA {name}"))},
    }


def identify(connection: sqlite3.Connection) -> dict[str, Any]:
    """Which database: its path, or for one in memory what is in it."""
    path = _databases(connection)["main"]
    return {"path": path, "content": None if path else connection.serialize()}


def reconnect(description: dict[str, Any]) -> sqlite3.Connection:
    """An equal connection. Raises sqlite3.Error or OSError; a database that is gone is not made anew, empty."""
    path = description["path"]
    connection: sqlite3.Connection = sqlite3.connect(
        ":memory:" if path is None else _existing(path),
        uri=path is not None,
        factory=description["class"],
        isolation_level=description["isolation_level"],
        detect_types=description["detect_types"],
        check_same_thread=description["check_same_thread"],
    )
    try:
        if path is None:
            connection.deserialize(bytes(description["content"]))
        for name, other in description["attached"].items():
            connection.execute(f'ATTACH DATABASE ? AS "{name}"', (_existing(other),))
        for name, value in description["pragmas"].items():
            connection.execute(f"PRAGMA {name} = {value:d}")
    except BaseException:
        connection.close()
        raise
    connection.row_factory, connection.text_factory = description["row_factory"], description["text_factory"]
    return connection


def _existing(path: str) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError(f"the database {path} is not there any more")
    return f"file:{quote(path)}?mode=rw"


def _databases(connection: sqlite3.Connection) -> dict[str, str]:
    """Paths by name; "" for one in memory. As blobs, for the text factory may make anything."""
    rows = _rows(connection, "SELECT CAST(name AS BLOB), CAST(file AS BLOB) FROM pragma_database_list")
    return {os.fsdecode(name): os.fsdecode(path or b"") for name, path in rows}


def _rows(connection: sqlite3.Connection, query: str) -> list[Any]:
    cursor = sqlite3.Cursor(connection)
    cursor.row_factory = None  # the connection's own would make other rows
    return cursor.execute(query).fetchall()


@cache
def _probe() -> bytes:
    """A database with one value of a declared type that has a converter."""
    sqlite3.register_converter(_PROBE, lambda value: _PROBE)
    connection = sqlite3.connect(":memory:")
    with closing(connection):
        connection.executescript(f"CREATE TABLE probe (value {_PROBE}); INSERT INTO probe VALUES (1)")
        return connection.serialize()


def _hidden(connection: sqlite3.Connection) -> tuple[int, bool]:
    """detect_types and check_same_thread: no attribute tells them, so they are tried out, once.

    What was found is kept in the connection itself, as an SQL function, as plain connections take no weak references.
    """
    try:
        ((found,),) = _rows(connection, f"SELECT {_PROBE}()")
    except sqlite3.OperationalError:  # no such function
        found = _detect_types(connection) | (_BOUND if _is_bound_to_thread(connection) else 0)
        connection.create_function(_PROBE, 0, lambda: found)
    return found & ~_BOUND, bool(found & _BOUND)


def _detect_types(connection: sqlite3.Connection) -> int:
    """The flags that it was opened with: see whether a converter is used.

    The probe comes in as a whole database, as an INSERT would open a transaction.
    """
    content = _probe()
    _rows(connection, f"ATTACH DATABASE ':memory:' AS {_PROBE}")
    connection.deserialize(content, name=_PROBE)
    by_declaration = _rows(connection, f"SELECT value FROM {_PROBE}.probe") == [(_PROBE,)]
    by_name = _rows(connection, f'SELECT 1 AS "value [{_PROBE}]"') == [(_PROBE,)]
    _detach_probe(connection)
    return (sqlite3.PARSE_DECLTYPES if by_declaration else 0) | (sqlite3.PARSE_COLNAMES if by_name else 0)


def _detach_probe(connection: sqlite3.Connection) -> None:
    with suppress(sqlite3.OperationalError):  # locked while a query is under way: then at a later checkpoint
        _rows(connection, f"DETACH DATABASE {_PROBE}")


def _is_bound_to_thread(connection: sqlite3.Connection) -> bool:
    """Whether it was opened with check_same_thread: only another thread can tell."""
    refused: list[bool] = []

    def use() -> None:
        try:
            connection.cursor()
        except sqlite3.ProgrammingError:
            refused.append(True)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    return bool(refused)


HANDLERS: Final = {"sqlite3:Connection": Handler("sqlite3:Connection", extract, reconnect, identify)}
