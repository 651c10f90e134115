"""sqlite3 connections: a database with a path is opened again, one in memory is kept whole.

Kept: path, whether it is read-only, attached databases (those in memory whole), isolation level, autocommit, row and text
factory, detect_types, check_same_thread, the class and its attributes, and the pragmas that a connection has to itself,
but for those that make it faster or slower alone (threads, automatic_index ...).

Refused: an open transaction, which `autocommit=False` always has; temporary tables; a file that was deleted. Cursors and
blobs: keep the connection and the last key.

Not kept: functions, collations, hooks and limits set on the connection; `cached_statements`; other parameters of a URI. An
attached database is as read-only as the main one.
Pitfall: connections that share a database in memory (`cache=shared`) look as if each had its own, and come back so.

Cost: about 80 µs, and the size of what is in memory; the first time 0.5 to 3 ms, as three settings have to be tried out.
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
    "wal_autocheckpoint",
    "ignore_check_constraints",
    "read_uncommitted",
    "trusted_schema",
    "full_column_names",
    "short_column_names",
    "reverse_unordered_selects",
    "legacy_alter_table",
    "max_page_count",
    "journal_size_limit",
    "fullfsync",
    "checkpoint_fullfsync",
)
_OF_THE_FILE: Final = ("wal", "delete")  # journal modes that are the file's, or what it has unasked
_PROBE: Final = "resumable_probe"
_BOUND: Final = 1 << 8  # beside the detect_types flags
_READ_ONLY: Final = 1 << 9
_LEGACY: Final = -1  # sqlite3.LEGACY_TRANSACTION_CONTROL, which Python 3.11 does not have


def extract(connection: sqlite3.Connection) -> dict[str, Any]:
    """What it takes to make an equal connection. Raises LiveResourceError."""
    try:
        if _autocommit(connection) is False:
            reason = "with autocommit=False it always has an open transaction (commit(), and set autocommit = True for the "
            raise alive(connection, f"{reason}checkpoint, or keep its path)")
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
    for path in filter(None, databases.values()):
        if not os.path.exists(path):
            raise alive(connection, f"its file {path} is gone, or was never one (keep the database in a file of its own)")
    flags = _hidden(connection, bool(databases["main"]))
    return {
        "class": type(connection),
        "attributes": dict(getattr(connection, "__dict__", {})),
        "path": databases["main"] or None,
        "read_only": bool(flags & _READ_ONLY),
        "content": None if databases["main"] else _content(connection, "main"),
        "attached": {name: path for name, path in databases.items() if name not in ("main", "temp")},
        "contents": {
            name: _content(connection, name) for name, path in databases.items() if not path and name not in ("main", "temp")
        },
        "isolation_level": connection.isolation_level,
        "autocommit": _autocommit(connection),
        "row_factory": connection.row_factory,
        "text_factory": connection.text_factory,
        "detect_types": flags & ~(_BOUND | _READ_ONLY),
        "check_same_thread": bool(flags & _BOUND),
        "pragmas": {name: rows[0][0] for name in _PRAGMAS if (rows := _rows(connection, f"PRAGMA {name}"))},
        "locking_mode": _mode(connection, "locking"),
        "journal_mode": _mode(connection, "journal"),
    }


def _content(connection: sqlite3.Connection, name: str) -> pickle.PickleBuffer | None:
    """A database in memory; None for one without anything, which the library cannot serialize."""
    if _rows(connection, f'PRAGMA "{name}".page_count') == [(0,)]:
        return None
    # A buffer of its own can go out of band, beside the state.
    return pickle.PickleBuffer(connection.serialize(name=name))


def _autocommit(connection: sqlite3.Connection) -> bool | int:
    found: bool | int = getattr(connection, "autocommit", _LEGACY)  # new in Python 3.12
    return found


def _mode(connection: sqlite3.Connection, kind: str) -> str:
    # As a blob, for the text factory may make anything.
    ((mode,),) = _rows(connection, f"SELECT CAST({kind}_mode AS BLOB) FROM pragma_{kind}_mode")
    return str(mode, "ascii")


def identify(connection: sqlite3.Connection) -> dict[str, Any]:
    """Which database: its path, or for one in memory what is in it."""
    path = _databases(connection)["main"]
    content = None if path else _content(connection, "main")
    return {"path": path, "content": None if content is None else bytes(content)}


def reconnect(description: dict[str, Any]) -> sqlite3.Connection:
    """An equal connection. Raises sqlite3.Error or OSError; a database that is gone is not made anew, empty."""
    path, autocommit = description["path"], description["autocommit"]
    connection: sqlite3.Connection = sqlite3.connect(
        ":memory:" if path is None else _existing(path, description["read_only"]),
        uri=path is not None,
        factory=description["class"],
        isolation_level=description["isolation_level"],
        detect_types=description["detect_types"],
        check_same_thread=description["check_same_thread"],
        **({} if autocommit == _LEGACY else {"autocommit": autocommit}),
    )
    try:
        if description["content"] is not None:
            connection.deserialize(bytes(description["content"]))
        for name, other in description["attached"].items():
            where = _existing(other, description["read_only"]) if other else ":memory:"
            connection.execute(f'ATTACH DATABASE ? AS "{name}"', (where,))
            if description["contents"].get(name) is not None:
                connection.deserialize(bytes(description["contents"][name]), name=name)
        for name, value in description["pragmas"].items():
            connection.execute(f"PRAGMA {name} = {value:d}")
        connection.execute(f"PRAGMA locking_mode = {description['locking_mode']}")
        if path is not None and description["journal_mode"] not in _OF_THE_FILE and _mode(connection, "journal") != "wal":
            connection.execute(f"PRAGMA journal_mode = {description['journal_mode']}")
    except BaseException:
        connection.close()
        raise
    if description["attributes"]:
        vars(connection).update(description["attributes"])
    connection.row_factory, connection.text_factory = description["row_factory"], description["text_factory"]
    return connection


def _existing(path: str, read_only: bool) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError(f"the database {path} is not there any more")
    return f"file:{quote(path)}?mode={'ro' if read_only else 'rw'}"


def _databases(connection: sqlite3.Connection) -> dict[str, str]:
    """Paths by name; "" for one in memory. As blobs, for the text factory may make anything.

    A path is always absolute. One in memory that was restored is called "x".
    """
    rows = _rows(connection, "SELECT CAST(name AS BLOB), CAST(file AS BLOB) FROM pragma_database_list")
    paths = {os.fsdecode(name): os.fsdecode(path or b"") for name, path in rows}
    return {name: path if path.startswith("/") else "" for name, path in paths.items()}


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


def _hidden(connection: sqlite3.Connection, is_file: bool) -> int:
    """detect_types, check_same_thread, read-only: no attribute tells them, so they are tried out, once.

    What was found is kept in the connection itself, as an SQL function, as plain connections take no weak references.
    """
    try:
        ((found,),) = _rows(connection, f"SELECT {_PROBE}()")
    except sqlite3.OperationalError:  # no such function
        found = _detect_types(connection) | (_BOUND if _is_bound_to_thread(connection) else 0)
        found |= _READ_ONLY if is_file and _is_read_only(connection) else 0
        connection.create_function(_PROBE, 0, lambda: found)
    return int(found)


def _is_read_only(connection: sqlite3.Connection) -> bool:
    """Whether the library would refuse to write; nothing is written, and nobody is waited for.

    BEGIN IMMEDIATE is taken for BEGIN where one cannot write. This pragma begins to write, and finds nothing to do.
    """
    settings = {name: _rows(connection, f"PRAGMA {name}")[0][0] for name in ("query_only", "busy_timeout")}
    for name in settings:
        _rows(connection, f"PRAGMA {name} = 0")
    try:
        _rows(connection, "BEGIN")
        _rows(connection, "PRAGMA incremental_vacuum(1)")
    except sqlite3.OperationalError as error:
        # Any other says that somebody else is writing just now: then the file is open for writing.
        return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
    finally:
        _rows(connection, "ROLLBACK")
        for name, value in settings.items():
            _rows(connection, f"PRAGMA {name} = {value}")
    return False


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
