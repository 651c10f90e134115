"""Loops in transactions of real databases: an item's rows and its mark are there together, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from loading import KINDS, Base, Stumble, execute, go, postgres_base, sqlite_base
from servers import Server
from sqlalchemy import orm

from resumable import Driver, TransactionError
from resumable.work import loop


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Base]:
    kind = request.param
    if kind.startswith("sqlite"):
        found, url = sqlite_base(tmp_path / "rows.db", kind), f"sqlite:///{tmp_path / 'rows.db'}"
    else:
        server: Server = request.getfixturevalue("postgres_server")
        found, url = postgres_base(server, kind), server.url.replace("postgresql:", f"postgresql+{kind.split()[0]}:")
    if " by " not in kind:
        yield found
        return
    engine = sqlalchemy.create_engine(url)
    found.connect = engine.connect if kind.endswith("sqlalchemy") else lambda: orm.Session(engine)
    yield found
    engine.dispose()


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    with Driver(tmp_path / "state") as made:
        yield made


def lose_publishing(monkeypatch: pytest.MonkeyPatch, of: int) -> None:
    """The process ends between the commit of an item and the record of it."""

    def die(write: Any, made: Any) -> bool:
        if made.state[0] == of + 1:
            raise KeyboardInterrupt
        return whole(write, made)

    whole = loop.take_checkpoint
    monkeypatch.setattr(loop, "take_checkpoint", die)


# ---- database and log agree


def test_rows_are_there_once(driver: Driver, base: Base) -> None:
    """Failing at item after item, a loop leaves each row once, exact sums and results, and nothing of ours when it is done."""
    for until, first in ((0, 0), (3, 0), (3, 3), (9, 3)):
        assert go(driver, base, until=until) == list(range(first, until + 1))
        assert base.rows() == list(range(until))
        assert base.marks() == [("load", 1, until)]
    assert go(driver, base) == [9]
    assert base.rows() == list(driver.results("load")) == list(range(10))
    assert driver.state("load")[1] == {"total": 45}
    assert base.marks() == []
    assert go(driver, base) == list(range(10))      # a finished loop begins anew


def test_a_commit_that_the_log_missed(driver: Driver, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that is committed and was not published is not repeated, and the log gets its result and state."""
    with monkeypatch.context() as patch:
        lose_publishing(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            go(driver, base)
    assert (driver.state("load")[0], len(driver.results("load")), base.rows()) == (4, 4, [0, 1, 2, 3, 4])
    assert go(driver, base, until=5) == [5]
    assert (driver.state("load")[:2], list(driver.results("load"))) == ((5, {"total": 10}), [0, 1, 2, 3, 4])
    assert go(driver, base) == [5, 6, 7, 8, 9]
    assert base.rows() == list(driver.results("load")) == list(range(10))


def test_rows_of_keyed_items(driver: Driver, base: Base) -> None:
    """Items that are known by their keys, and stand elsewhere in each life, have a row each, and the sum and results of each."""
    lives: list[tuple[list[int], int | None, list[int]]] = [
        ([3, 1, 4], 1, [3, 1]), ([5, 9, 1, 3, 4], 4, [5, 9, 1, 4]), ([2, 3, 4, 5, 6, 1], 6, [2, 4, 6]), ([6, 5, 7], None, [6, 7]),
    ]  # fmt: skip
    for order, until, seen in lives:
        assert go(driver, base, order=order, until=until, key=str) == seen
    assert base.rows() == sorted(driver.results("load")) == [1, 2, 3, 4, 5, 6, 7, 9]
    assert driver.state("load")[1] == {"total": 37}
    assert base.marks() == []


def test_a_directory_that_lost_keys(tmp_path: Path, base: Base) -> None:
    """A state directory that is behind, with more items than one row has the keys of, gets the rest from the database."""
    with Driver(tmp_path / "state") as made:
        go(made, base, order=range(70), until=68, results=False, key=str)
    shutil.copytree(tmp_path / "state", tmp_path / "kept")
    with Driver(tmp_path / "state") as made:
        go(made, base, order=reversed(range(80)), until=72, results=False, key=str)
    shutil.rmtree(tmp_path / "state")
    with Driver(tmp_path / "kept") as made:
        assert go(made, base, order=reversed(range(80)), results=False, key=str) == [72, 71, 70, 69, 68]
    assert base.rows() == [*range(80)]


def test_a_commit_of_a_key_that_the_log_missed(driver: Driver, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that is committed and was not published is known by its key when it comes again elsewhere."""
    with monkeypatch.context() as patch:
        lose_publishing(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            go(driver, base, order=[7, 8, 9], key=str)
    assert go(driver, base, order=[6, 9, 8, 7], key=str) == [6]
    assert base.rows() == sorted(driver.results("load")) == [6, 7, 8, 9]


def test_the_body_ends_no_transaction(driver: Driver, base: Base) -> None:
    """A commit or rollback in the body is an error that names the item; the item is not done."""
    for end in () if base.kind.endswith("=True") else ("commit", "rollback"):      # there these do nothing
        connection = base.connect()

        def body(connection: Any = connection, end: str = end) -> None:
            with closing(connection), driver.transaction(connection):
                for number in driver.items(range(5), name=end):
                    execute(connection, f"INSERT INTO rows VALUES ({number})")
                    if number == 2:
                        getattr(connection, end)()
                        execute(connection, "INSERT INTO rows VALUES (100)")

        with pytest.raises(TransactionError, match=r"item 2 of loop.*leave out commit") as caught:
            body()
        assert caught.value.run == end
        assert driver.state(end)[0] == 2
        assert 100 not in base.rows() or base.kind.endswith("autocommit")


def test_tables_belong_to_the_item(driver: Driver, base: Base) -> None:
    """What an item does to tables before it writes a row is undone with it."""
    for until in (1, None):
        connection = base.connect()
        try:
            with closing(connection), driver.transaction(connection):
                for number in driver.items(range(2), name="tables"):
                    execute(connection, f"CREATE TABLE made_{number} (n int)")
                    if number == until:
                        raise Stumble
        except Stumble:
            pass
    tables = "sqlite_master WHERE name" if base.kind.startswith("sqlite") else "pg_tables WHERE tablename"
    assert len(base.look(f"SELECT 1 FROM {tables} LIKE 'made_%'")) == 2
    for number in range(2):
        with closing(base.connect()) as connection:
            execute(connection, f"DROP TABLE made_{number}")
            connection.commit()


def test_a_busy_connection(driver: Driver, base: Base) -> None:
    """A connection with something open is refused, before the block and before the loop, and what is open is left alone."""
    if "autocommit" in base.kind:      # nothing is ever open, or something always is
        return
    with closing(base.connect()) as connection:
        execute(connection, "INSERT INTO rows VALUES (1)")
        with pytest.raises(TransactionError, match=r"open on it .*before the block"):
            driver.transaction(connection).__enter__()
        connection.commit()

        def body() -> None:
            with driver.transaction(connection):
                execute(connection, "INSERT INTO rows VALUES (2)")
                for _ in driver.items(range(3), name="busy"):
                    pass

        with pytest.raises(TransactionError, match="before loop 'busy'"):
            body()
    assert base.rows() == [1]
