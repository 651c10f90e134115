"""Log and database that do not agree: which of them counts, and what is refused with the ways out."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from loading import Base, go, postgres_base, sqlite_base
from servers import Server

from resumable import DamagedLogError, Driver, TransactionError, UnsavableStateError
from resumable.work.transaction import Transaction

Lives = Callable[..., list[int]]


@pytest.fixture
def base(tmp_path: Path) -> Base:
    return sqlite_base(tmp_path / "rows.db")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def live(base: Base, state: Path) -> Lives:
    """A life of the loop in a driver of its own."""

    def one(until: int | None = None, **given: object) -> list[int]:
        with Driver(state) as driver:
            return go(driver, base, until=until, **given)  # type: ignore[arg-type]

    return one


def put_back(what: Path, kept: Path) -> None:
    """As a backup that is restored."""
    if what.is_dir():
        shutil.rmtree(what)
        shutil.copytree(kept, what)
    else:
        shutil.copy(kept, what)


def test_a_log_that_is_behind(live: Lives, base: Base, state: Path, tmp_path: Path) -> None:
    """Where a power cut took marks from the log, the loop goes on from the database's, with the state that belongs to it."""
    live(3, results=False)
    shutil.copytree(state, tmp_path / "kept")
    live(7, results=False)
    put_back(state, tmp_path / "kept")
    assert live(results=False) == [7, 8, 9]
    assert base.rows() == list(range(10))
    with Driver(state) as driver:
        assert driver.state("load")[1] == {"total": 45}


def test_a_database_that_is_behind(live: Lives, base: Base, tmp_path: Path) -> None:
    """A database that lost its last commits is gone on with from where it is."""
    live(3, results=False)
    shutil.copy(tmp_path / "rows.db", tmp_path / "kept.db")
    live(7, results=False)
    put_back(tmp_path / "rows.db", tmp_path / "kept.db")
    assert live(results=False) == [3, 4, 5, 6, 7, 8, 9]
    assert base.rows() == list(range(10))


@pytest.mark.parametrize("lost", ["log", "database"])
def test_results_that_do_not_agree(live: Lives, base: Base, state: Path, tmp_path: Path, lost: str) -> None:
    """Where results of items are lost, or would be stored twice, the loop does not go on unless it is told to."""
    path, kept = (state, tmp_path / "kept") if lost == "log" else (tmp_path / "rows.db", tmp_path / "kept.db")
    live(3)
    shutil.copytree(path, kept) if path.is_dir() else shutil.copy(path, kept)
    live(7)
    put_back(path, kept)
    with pytest.raises(TransactionError, match=r"has . results as the database has it.*durability") as caught:
        live()
    assert (caught.value.run, caught.value.database, caught.value.log) == (("load", 7, 3) if lost == "log" else ("load", 3, 7))
    assert live(on_change="continue")[0] == (7 if lost == "log" else 3)
    assert base.rows() == list(range(10))
    assert live() == list(range(10))


def test_another_database(live: Lives, base: Base, tmp_path: Path) -> None:
    """A database without the loop's row is refused, with both, until it is said to go on there or to begin anew."""
    live(4)
    (tmp_path / "rows.db").rename(tmp_path / "kept.db")
    base.connect = sqlite_base(tmp_path / "rows.db").connect
    with pytest.raises(TransactionError, match=r"has no row of it: it is another one.*at item 4") as caught:
        live()
    assert (caught.value.database, caught.value.log) == (None, 4)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.log) == (str(caught.value), 4)
    assert base.rows() == []
    shutil.copy(tmp_path / "rows.db", tmp_path / "empty.db")
    assert live(5, on_change="continue") == [4, 5]
    put_back(tmp_path / "rows.db", tmp_path / "empty.db")
    assert live(fresh=True) == list(range(10))


def test_another_directory(live: Lives, base: Base, state: Path) -> None:
    """A row of a run that the state directory does not know is refused; `on_change="continue"` goes on from it."""
    live(4)
    shutil.rmtree(state)
    with pytest.raises(TransactionError, match="with 4 items done, of which this state directory knows nothing") as caught:
        live()
    assert caught.value.database == 4
    assert live(6, on_change="continue", results=False) == [4, 5, 6]
    assert live(results=False) == [6, 7, 8, 9]
    assert base.rows() == list(range(10))


def test_begun_anew(live: Lives, base: Base, state: Path) -> None:
    """A run that was given up leaves no row that holds up the next, nor does one whose row outlived its end."""
    live(4)
    assert live(2, fresh=True) == [0, 1, 2]
    assert [mark[1:] for mark in base.marks()] == [(2, 2)]
    assert live() == [2, 3, 4, 5, 6, 7, 8, 9]
    assert base.marks() == []


def test_a_row_that_outlived_its_run(live: Lives, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between a loop's end and the removal of its row holds nothing up: the next run takes the row's place."""
    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "_tidy", lambda self: None)
        live()
    assert base.marks() == [("load", 1, 10)]
    assert live(1) == [0, 1]
    assert base.marks() == [("load", 2, 1)]


def test_other_items(live: Lives, base: Base, state: Path) -> None:
    """`on_change="restart"` begins anew in the transaction, too."""
    live(4)
    seen = []
    with Driver(state) as driver, closing(base.connect()) as connection:
        with driver.transaction(connection):
            for number in driver.items(range(50, 53), name="load", on_change="restart"):
                seen.append(number)
                connection.execute("INSERT INTO rows VALUES (?)", (number,))
    assert seen == [50, 51, 52]
    assert base.rows() == [0, 1, 2, 3, 50, 51, 52]
    assert base.marks() == []


def test_without_its_transaction(live: Lives, state: Path) -> None:
    """A loop that is in a transaction does not go on without one, as the database may be ahead; anew it may."""
    live(4)
    with Driver(state) as driver:
        with pytest.raises(TransactionError, match=r"put `with driver.transaction"):
            list(driver.items(range(10), name="load"))
        assert [number for number in driver.items(range(3), name="load", fresh=True)] == [0, 1, 2]  # noqa: C416


def test_a_transaction_that_came_later(base: Base, state: Path) -> None:
    """A loop that was begun without a transaction goes on in one, from the log's mark."""
    with Driver(state) as driver:
        for number in driver.items(range(10), name="load"):
            if number == 4:
                break
        assert go(driver, base) == [4, 5, 6, 7, 8, 9]
    assert base.rows() == [4, 5, 6, 7, 8, 9]


def test_two_directories_at_once(base: Base, state: Path, tmp_path: Path) -> None:
    """Where two processes run one loop on one database, from two directories, the one whose row is taken stops."""
    with Driver(state) as driver, Driver(tmp_path / "other") as other, closing(base.connect()) as connection:

        def body() -> None:
            with driver.transaction(connection):
                for number in driver.items(range(10), name="load"):
                    if number == 2:
                        assert go(other, base, until=1, fresh=True) == [0, 1]
                    connection.execute("INSERT INTO rows VALUES (?)", (100 + number,))

        with pytest.raises(TransactionError, match="another process on another state directory"):
            body()
    assert base.rows() == [0, 100, 101]


# ---- what cannot stand in the database


def test_plain_values_alone(base: Base, state: Path) -> None:
    """A result or a state that is no plain value is refused by its place; the item is not done."""
    for what in ("result", "state"):

        def body(what: str = what) -> None:
            with Driver(state) as driver, closing(base.connect()) as connection, driver.transaction(connection):
                items = driver.items(range(3), name=what)
                carried = items.state(value=0)
                for _ in items:
                    connection.execute("INSERT INTO rows VALUES (1)")
                    if what == "state":
                        carried.value = Path("here")
                    else:
                        items.record(Path("here"))

        with pytest.raises(UnsavableStateError, match="the database, which holds plain values alone") as caught:
            body()
        assert what in caught.value.path
    assert base.rows() == []


def test_a_server_that_goes_away(postgres_server: Server, state: Path) -> None:
    """A lost connection ends the loop with its own error, the run is free, and the loop goes on with a new one."""
    base = postgres_base(postgres_server)

    def body(driver: Driver) -> None:
        with base.connect() as connection, driver.transaction(connection):
            for number in driver.items(range(5), name="load"):
                connection.execute("INSERT INTO rows VALUES (%s)", (number,))
                if number == 3:
                    with base.connect() as other:
                        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))

    with Driver(state) as driver:
        with pytest.raises(psycopg.OperationalError):
            body(driver)
        assert base.rows() == [0, 1, 2]
        assert go(driver, base, count=5) == [3, 4]
    assert base.rows() == [0, 1, 2, 3, 4]


def test_an_item_whose_error_was_swallowed(postgres_server: Server, state: Path) -> None:
    """An item whose transaction has failed is not done, even if the body went on."""
    base = postgres_base(postgres_server)

    def body(driver: Driver) -> None:
        with base.connect() as connection, driver.transaction(connection):
            for number in driver.items(range(5), name="load"):
                connection.execute("INSERT INTO rows VALUES (%s)", (number,))
                if number == 3:
                    with pytest.raises(psycopg.Error):
                        connection.execute("SELECT nothing")

    with Driver(state) as driver:
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            body(driver)
        assert base.rows() == [0, 1, 2]


def test_a_deferred_constraint(postgres_server: Server, state: Path) -> None:
    """What the database refuses at the commit leaves the item undone, in the database and in the log."""
    base = postgres_base(postgres_server)
    with base.connect() as connection:
        connection.execute("ALTER TABLE rows ADD CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED")

    def body(driver: Driver, items: list[int]) -> None:
        with base.connect() as connection, driver.transaction(connection):
            for number in driver.items(items, name="load", on_change="continue"):
                connection.execute("INSERT INTO rows VALUES (%s)", (number,))

    with Driver(state) as driver:
        with pytest.raises(psycopg.errors.UniqueViolation):
            body(driver, [0, 1, 1, 3])
        assert (base.rows(), driver.state("load")[0]) == ([0, 1], 2)
        body(driver, [0, 1, 2, 3])
    assert base.rows() == [0, 1, 2, 3]


# ---- damage


def test_a_row_that_is_damaged(live: Lives, base: Base) -> None:
    """A row that is not what was written is a named error."""
    live(3)
    with closing(base.connect()) as connection:
        connection.execute("UPDATE resumable_loops SET state = x'00ff'")
        connection.commit()
    with pytest.raises(DamagedLogError, match="the mark of loop 'load' in the database"):
        live()
