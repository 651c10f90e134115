"""sqlite3 connections, to files and in memory."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save

from resumable.errors import LiveResourceError, ReconnectError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        yield connection


class MyConnection(sqlite3.Connection):
    pass


def as_dict(cursor: sqlite3.Cursor, row: Any) -> dict[str, Any]:
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def test_a_database_is_opened_again(database: sqlite3.Connection) -> None:
    """A connection comes back to the same database, with what was committed."""
    with database:
        database.execute("INSERT INTO t VALUES (1)")
    encoded = save(database)
    with database:
        database.execute("INSERT INTO t VALUES (2)")
    with contextlib.closing(resume(encoded)) as back:
        assert back.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]


def test_an_open_transaction_is_refused(database: sqlite3.Connection) -> None:
    """Uncommitted work would be lost: the error says commit first, and the transaction is untouched."""
    database.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(LiveResourceError, match="commit") as caught:
        save(database)
    assert caught.value.path == 'state["a"][0].held[0]'
    database.commit()
    assert database.execute("SELECT n FROM t").fetchall() == [(1,)]
    save(database)


@pytest.mark.parametrize("rows", [0, 3, 20_000])
def test_a_database_in_memory_comes_back_whole(rows: int) -> None:
    """A :memory: database is restored with all its rows, never as an empty one."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        with connection:
            connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(rows)])
        encoded = save(connection)
    assert bool(encoded.buffers) == (rows == 20_000)
    with contextlib.closing(resume(encoded)) as back:
        assert back.execute("SELECT count(*) FROM t").fetchall() == [(rows,)]
        with back:
            back.execute("INSERT INTO t VALUES (7)")


def test_settings_of_a_connection_are_kept(tmp_path: Path) -> None:
    """Class, isolation level, factories, pragmas and attached databases come back."""
    other = tmp_path / "other.db"
    settings: dict[str, Any] = {"isolation_level": "IMMEDIATE", "timeout": 3.5, "factory": MyConnection}
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", **settings)) as connection:
        connection.execute("ATTACH DATABASE ? AS other", (str(other),))
        connection.execute("CREATE TABLE other.t (n)")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.row_factory, connection.text_factory = as_dict, bytes
        encoded = save(connection)
    with contextlib.closing(resume(encoded)) as back:
        assert type(back) is MyConnection
        assert (back.isolation_level, back.row_factory, back.text_factory) == ("IMMEDIATE", as_dict, bytes)
        assert back.execute("PRAGMA busy_timeout").fetchone() == {"timeout": 3500}
        assert back.execute("PRAGMA foreign_keys").fetchone() == {"foreign_keys": 1}
        assert back.execute("SELECT count(*) AS n FROM other.t").fetchone() == {"n": 0}


@pytest.mark.parametrize("flags", range(4))
@pytest.mark.parametrize("bound", [True, False])
def test_hidden_settings_are_found_out(database: sqlite3.Connection, tmp_path: Path, flags: int, bound: bool) -> None:
    """detect_types and check_same_thread, which no attribute tells, come back."""
    sqlite3.register_converter("stamp", lambda value: ("converted", value))
    database.execute("CREATE TABLE d (at stamp)")
    database.execute("INSERT INTO d VALUES ('2026-01-02')")
    database.commit()
    query = 'SELECT at, at AS "b [stamp]" FROM d'
    with contextlib.closing(
        sqlite3.connect(tmp_path / "a.db", detect_types=flags, check_same_thread=bound)
    ) as connection:
        encoded, expected = save(connection), str(connection.execute(query).fetchall())
        assert not connection.in_transaction
    with contextlib.closing(resume(encoded)) as back:
        assert str(back.execute(query).fetchall()) == expected
        errors: list[BaseException] = []

        def use() -> None:
            try:
                back.execute("SELECT 1")
            except sqlite3.ProgrammingError as error:
                errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert bool(errors) == bound


def test_saving_in_the_middle_of_a_query(database: sqlite3.Connection) -> None:
    """A connection with a cursor under way can be saved, and the cursor goes on."""
    with database:
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(10)])
    cursor = database.execute("SELECT n FROM t")
    assert cursor.fetchone() == (0,)
    save(database)
    assert len(cursor.fetchall()) == 9


def test_databases_that_cannot_come_back_are_refused(database: sqlite3.Connection) -> None:
    """Temporary tables, attached databases in memory and closed connections are refused."""
    database.execute("CREATE TEMP TABLE gone (n)")
    with pytest.raises(LiveResourceError, match="temporary tables"):
        save(database)
    database.execute("DROP TABLE gone")
    save(database)
    database.execute("ATTACH DATABASE ':memory:' AS m")
    with pytest.raises(LiveResourceError, match="attached"):
        save(database)
    database.close()
    with pytest.raises(LiveResourceError, match="closed"):
        save(database)


def test_a_vanished_database_is_not_made_anew(database: sqlite3.Connection, tmp_path: Path) -> None:
    """A database whose file is gone is a ReconnectError, not an empty database."""
    encoded = save(database)
    (tmp_path / "a.db").unlink()
    with pytest.raises(ReconnectError, match="not there any more"):
        resume(encoded)
    assert not (tmp_path / "a.db").exists()
