"""sqlite3 connections, to files and in memory."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from holding import resume, save
from killing import assert_done, run_with_kills

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
        with contextlib.closing(resume(save(back))) as again:
            assert again.execute("SELECT count(*) FROM t").fetchall() == [(rows + 1,)]


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


@pytest.mark.parametrize("pragma", [
    "trusted_schema = 0", "full_column_names = 1", "short_column_names = 0", "reverse_unordered_selects = 1", "fullfsync = 1",
    "checkpoint_fullfsync = 1", "legacy_alter_table = 1", "max_page_count = 77", "journal_size_limit = 4096",
    "recursive_triggers = 1", "cache_size = 11", "synchronous = 1", "query_only = 1", "ignore_check_constraints = 1",
])  # fmt: skip
def test_pragmas_that_change_what_statements_do_are_kept(database: sqlite3.Connection, pragma: str) -> None:
    """A pragma that a connection has to itself, and that changes results, limits or safety, comes back."""
    database.execute(f"PRAGMA {pragma}")
    name, _, value = pragma.partition(" = ")
    with contextlib.closing(resume(save(database))) as back:
        assert back.execute(f"PRAGMA {name}").fetchone() == (int(value),)


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


def test_databases_that_cannot_come_back_are_refused(database: sqlite3.Connection, tmp_path: Path) -> None:
    """Temporary tables, deleted files, shared memory and closed connections are refused, with what to do."""
    database.execute("CREATE TEMP TABLE gone (n)")
    with pytest.raises(LiveResourceError, match="temporary tables"):
        save(database)
    database.execute("DROP TABLE gone")
    save(database)
    (tmp_path / "a.db").unlink()
    with pytest.raises(LiveResourceError, match="is gone"):
        save(database)
    database.close()
    with pytest.raises(LiveResourceError, match="closed"):
        save(database)
    if sqlite3.sqlite_version_info >= (3, 36):
        with contextlib.closing(sqlite3.connect("file:/shared?vfs=memdb", uri=True)) as connection:
            with pytest.raises(LiveResourceError, match="was never one"):
                save(connection)


def test_attached_databases_in_memory_come_back_whole(database: sqlite3.Connection) -> None:
    """Several databases in memory, beside a file or one another, come back with their rows, empty ones empty."""
    with contextlib.closing(sqlite3.connect(":memory:")) as memory:
        for connection in (database, memory):
            for name in ("one", "two words", "empty"):
                connection.execute(f"ATTACH DATABASE ':memory:' AS \"{name}\"")
            connection.execute("CREATE TABLE one.t (n)")
            connection.execute('CREATE TABLE "two words".t (n)')
            connection.execute("INSERT INTO one.t VALUES (1)")
            connection.execute("INSERT INTO \"two words\".t VALUES ('2')")
            connection.commit()
            with contextlib.closing(resume(save(connection))) as back:
                assert back.execute("SELECT n FROM one.t").fetchall() == [(1,)]
                assert back.execute('SELECT n FROM "two words".t').fetchall() == [("2",)]
                assert back.execute("SELECT * FROM empty.sqlite_master").fetchall() == []
                back.execute("CREATE TABLE empty.t (n)")
                with contextlib.closing(resume(save(back))) as again:
                    assert again.execute("SELECT count(*) FROM one.t, empty.t").fetchall() == [(0,)]


def test_a_new_database_in_memory_comes_back(tmp_path: Path) -> None:
    """A database in memory without any table, which the library cannot serialize, comes back."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        with contextlib.closing(resume(save(connection))) as back:
            back.execute("CREATE TABLE t (n)")


@pytest.mark.parametrize("query_only", [0, 1])
def test_a_read_only_database_stays_so(database: sqlite3.Connection, tmp_path: Path, query_only: int) -> None:
    """A connection that was opened read-only comes back so; one that only has query_only can have that switched off."""
    for uri, expected in ((f"file:{tmp_path}/a.db?mode=ro", True), (f"file:{tmp_path}/a.db", False)):
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.execute(f"PRAGMA query_only = {query_only}")
            for _ in range(2):
                encoded = save(connection)
                assert connection.execute("PRAGMA query_only").fetchone() == (query_only,)
                assert not connection.in_transaction
        with contextlib.closing(resume(encoded)) as back:
            assert back.execute("PRAGMA query_only").fetchone() == (query_only,)
            back.execute("PRAGMA query_only = 0")
            if expected:
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    back.execute("INSERT INTO t VALUES (1)")
            else:
                back.execute("INSERT INTO t VALUES (1)")


def test_saving_waits_for_nobody(database: sqlite3.Connection, tmp_path: Path) -> None:
    """A connection can be saved at once while another one is writing, and is not taken for read-only."""
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", timeout=60)) as connection:
        database.execute("INSERT INTO t VALUES (1)")
        encoded = save(connection)
        database.commit()
    with contextlib.closing(resume(encoded)) as back:
        assert back.execute("PRAGMA busy_timeout").fetchone() == (60_000,)
        back.execute("INSERT INTO t VALUES (2)")


@pytest.mark.parametrize("mode", ["wal", "truncate", "memory"])
def test_journal_and_locking_are_kept(database: sqlite3.Connection, tmp_path: Path, mode: str) -> None:
    """The journal's mode, of the file or of the connection, the locking and the limit of the WAL come back."""
    for statement in (f"journal_mode = {mode}", "locking_mode = exclusive", "wal_autocheckpoint = 77"):
        database.execute(f"PRAGMA {statement}")
    encoded = save(database)
    database.close()
    with contextlib.closing(resume(encoded)) as back:
        for name, value in (("journal_mode", mode), ("locking_mode", "exclusive"), ("wal_autocheckpoint", 77)):
            assert back.execute(f"PRAGMA {name}").fetchone() == (value,)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has the attribute autocommit from 3.12 on")
def test_autocommit_is_kept(tmp_path: Path) -> None:
    """autocommit=True comes back; with False there is always a transaction, so that is refused with advice."""
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db", autocommit=True)) as connection:
        with contextlib.closing(resume(save(connection))) as back:
            assert back.autocommit is True
        connection.autocommit = False
        with pytest.raises(LiveResourceError, match="set autocommit = True"):
            save(connection)


def test_attributes_of_a_subclass_are_kept(tmp_path: Path) -> None:
    """What a job keeps in a connection of a class of its own comes back."""
    with contextlib.closing(sqlite3.connect(tmp_path / "b.db", factory=MyConnection)) as connection:
        connection.purpose = "test"
        with contextlib.closing(resume(save(connection))) as back:
            assert (type(back), back.purpose) == (MyConnection, "test")


def test_a_cursor_is_refused(database: sqlite3.Connection) -> None:
    """A cursor is refused, with what to keep instead."""
    with contextlib.closing(database.cursor()) as cursor:
        with pytest.raises(LiveResourceError, match="keep the connection and the rows"):
            save(cursor)


@pytest.mark.crash
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_job_is_killed_again_and_again(database: sqlite3.Connection, tmp_path: Path, seed: int, mode: str) -> None:
    """A killed job goes on: every row is there, at most one a kill is twice, and the database is sound."""
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("CREATE TABLE items (n INTEGER)")
    run_with_kills("into_sqlite", tmp_path / "home", str(tmp_path / "a.db"), 4, random.Random(seed))
    assert_done((n for (n,) in database.execute("SELECT n FROM items")), 4)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_vanished_database_is_not_made_anew(database: sqlite3.Connection, tmp_path: Path) -> None:
    """A database whose file is gone is a ReconnectError, not an empty database."""
    encoded = save(database)
    (tmp_path / "a.db").unlink()
    with pytest.raises(ReconnectError, match="not there any more"):
        resume(encoded)
    assert not (tmp_path / "a.db").exists()
