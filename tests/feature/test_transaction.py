"""`driver.transaction`: how the block and its loops stand to each other, and kills at every point of an item. With SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, ItemsConsumerError, TransactionError, loop
from resumable.work import databases, parts
from resumable.work import loop as work_loop


class Stumble(Exception):
    """Stands for a crash of the body."""


@pytest.fixture
def connection(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database)) as made:
        yield made


def add(connection: sqlite3.Connection, row: object) -> None:
    connection.execute("INSERT INTO rows VALUES (?)", (row,))


Rows = Callable[[], list[Any]]


# ---- the block and its loops


def test_a_batch_is_one_transaction(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """Items that are done together are committed together: a batch that fails leaves nothing, and comes again whole."""
    batches = []

    def life(until: int) -> None:
        with driver.transaction(connection):
            for batch in driver.items(range(10), name="batches").batches(4):
                batches.append(batch)
                for number in batch:
                    add(connection, number)
                    if number == until:
                        raise Stumble

    with pytest.raises(Stumble):
        life(6)
    assert rows() == [0, 1, 2, 3]
    life(-1)
    assert rows() == list(range(10))
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("how", ["break", "return", "interrupt"])
def test_left_transactions(driver: Driver, connection: sqlite3.Connection, rows: Rows, how: str) -> None:
    """Left in whatever way, the item at hand has no rows and nothing of ours stays open."""

    def life() -> None:
        with driver.transaction(connection):
            for number in driver.items(range(9), name="left"):
                add(connection, number)
                if number == 5:
                    if how == "return":
                        return
                    if how == "break":
                        break
                    raise KeyboardInterrupt

    if how == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            life()
    else:
        life()
    assert not connection.in_transaction
    assert rows() == [0, 1, 2, 3, 4]


def test_what_comes_after_the_loop(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """What the block does after its loop is committed at its end, and undone if it raises."""
    for fails in (True, False):

        def life(fails: bool = fails) -> None:
            with driver.transaction(connection):
                for number in driver.items(range(2), name="after", once=True):
                    add(connection, number)
                add(connection, "total")
                if fails:
                    raise Stumble

        if fails:
            with pytest.raises(Stumble):
                life()
            assert rows() == [0, 1]
        else:
            life()
            assert rows() == [0, 1, "total"]


def test_loops_one_after_another(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """Each loop that starts in the block is in the transaction."""

    def life(until: str) -> None:
        with driver.transaction(connection), driver.batch("both"):
            for name in ("a", "b"):
                for number in driver.items(range(3), name=name, once=True):
                    add(connection, f"{name}{number}")
                    if until == f"{name}{number}":
                        raise Stumble

    for until, there in (("a1", ["a0"]), ("b2", ["a0", "a1", "a2", "b0", "b1"])):
        with pytest.raises(Stumble):
            life(until)
        assert rows() == there
    life("")
    assert rows() == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert connection.execute("SELECT * FROM resumable_loops").fetchall() == []


def test_a_loop_inside_an_item(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """A loop in an item of a loop that is in a transaction is refused, for its marks would outlive the item's rows."""

    def life() -> None:
        with driver.transaction(connection):
            for outer in driver.items(range(3), name="outer"):
                add(connection, outer)
                for _ in driver.items(range(3), name="inner"):
                    pass

    with pytest.raises(TransactionError, match="loop 'inner' begins in an item of another"):
        life()
    assert rows() == []


def test_a_transaction_for_the_inner_loop(driver: Driver, connection: sqlite3.Connection, rows: Rows, tmp_path: Path) -> None:
    """An inner loop with a transaction of its own, on another connection, has that one; the outer keeps its."""
    with closing(sqlite3.connect(tmp_path / "inner.db")) as other:
        other.execute("CREATE TABLE rows (n)")

        def life(until: tuple[int, int] | None) -> None:
            with driver.transaction(connection):
                for outer in driver.items(range(2), name="outer"):
                    add(connection, outer)
                    with driver.transaction(other):
                        for inner in driver.items(range(2), name=f"inner {outer}", once=True):
                            add(other, 10 * outer + inner)
                            if (outer, inner) == until:
                                raise Stumble

        with pytest.raises(Stumble):
            life((1, 1))
        assert rows() == [0]
        assert other.execute("SELECT n FROM rows").fetchall() == [(0,), (1,), (10,)]
        life(None)
        assert rows() == [0, 1]
        assert other.execute("SELECT n FROM rows").fetchall() == [(0,), (1,), (10,), (11,)]


def test_a_transaction_in_the_body(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """A transaction inside the loop, which could not know on resume what the database has, is refused with what to write."""

    def life() -> None:
        for number in driver.items(range(3), name="inside out"):
            with driver.transaction(connection):
                add(connection, number)

    with pytest.raises(TransactionError, match=r"put `with driver.transaction.*around the loop"):
        life()
    assert rows() == []


def test_a_loop_that_outlives_the_block(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """A loop that goes on when the block has ended is stopped at its next mark, with an error that says so."""

    def numbers() -> Iterator[int]:
        block = driver.transaction(connection)
        block.__enter__()
        for number in driver.items(range(5), name="outlives"):
            add(connection, number)
            if number == 2:
                block.__exit__(None, None, None)
            yield number

    with pytest.raises(TransactionError, match="goes on outside its transaction"):
        list(numbers())
    assert rows() == [0, 1]


def test_what_marks_nothing_commits_nothing(driver: Driver, connection: sqlite3.Connection) -> None:
    """What goes over the items without saying when one is done is refused in a transaction."""
    with pytest.raises(ItemsConsumerError, match="no transaction can be committed"):
        with driver.transaction(connection):
            list(driver.items(range(3), name="all at once"))


class Other:
    """Another part of a loop, which has to be as far as the loop is."""

    key = "other"
    leads = False
    found: Any = "nothing"

    def joined(self, loop: object, saved: Any) -> None:
        self.found = saved

    def mark(self, done: int) -> int:
        return done * 10

    def marked(self) -> None:
        if self.found is None:      # in the first life
            raise Stumble

    def again(self) -> None:
        pass

    def missed(self, saved: object) -> None:
        pass

    def left(self) -> None:
        pass


def test_other_parts_are_in_the_database(
    driver: Driver, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other parts of the loop save with an item is committed with it, and counts on resume where the log lacks it."""

    def life() -> Any:
        other = Other()
        with driver.transaction(connection):
            parts.wait(other)
            for _ in driver.items(range(3), name="parts"):
                pass
        return other.found

    with monkeypatch.context() as patch:
        patch.setattr(work_loop, "take_checkpoint", lambda write, made: True)
        with pytest.raises(Stumble):
            life()
    assert driver.info("parts").seq == 0
    assert life() == 10


def test_a_state_that_came_first(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """A loop that `items.state` has opened before the transaction began is refused: it did not hear what the database has."""

    def life() -> None:
        items = driver.items(range(3), name="state first")
        with items.state(total=0), driver.transaction(connection):
            for number in items:
                add(connection, number)

    with pytest.raises(TransactionError, match=r"opened by items\.state before its transaction"):
        life()
    assert rows() == []


def test_the_log_knows_the_run_first(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """When a row of a run is committed the disk knows of that run, so that after a power cut the row is not a stranger's."""
    with Driver(tmp_path / "state", sync_every=1000) as driver:
        with driver.transaction(connection):
            for _ in driver.items(range(1), name="first"):
                assert list(driver._open().home.store.scan(b"r"))


def test_a_failed_attempt(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """What a failed attempt at an item wrote is dropped, and what the next one writes is committed."""
    block = driver.transaction(connection)
    with block:
        for number in driver.items(range(3), name="attempts"):
            add(connection, number)
            if number == 1:
                block.again()  # type: ignore[attr-defined]
                add(connection, "again")
    assert rows() == [0, "again", 2]


def test_several_connections(
    driver: Driver, connection: sqlite3.Connection, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are committed and rolled back together; the first has the marks, the others are at most the item at hand ahead."""
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        copy.execute("CREATE TABLE rows (n)")

        def life(until: int) -> None:
            with driver.transaction(connection, copy):
                for number in driver.items(range(6), name="two"):
                    add(connection, number)
                    add(copy, number)
                    if number == until:
                        raise Stumble

        with pytest.raises(Stumble):
            life(3)
        assert rows() == [0, 1, 2]
        assert copy.execute("SELECT n FROM rows").fetchall() == [(0,), (1,), (2,)]
        with monkeypatch.context() as patch:
            patch.setattr(databases._Sqlite, "commit", fails_for(connection, databases._Sqlite.commit))
            with pytest.raises(KeyboardInterrupt):
                life(-1)
        assert rows() == [0, 1, 2]
        assert copy.execute("SELECT n FROM rows").fetchall() == [(0,), (1,), (2,), (3,)]
        life(-1)
        assert rows() == [0, 1, 2, 3, 4, 5]
        assert [row for row, in copy.execute("SELECT n FROM rows")] == [0, 1, 2, 3, 3, 4, 5]


def fails_for(connection: sqlite3.Connection, commit: Callable[[Any], None]) -> Callable[[Any], None]:
    """A commit that a kill keeps from this connection, once there are rows in it."""

    def commit_or_fail(self: Any) -> None:
        if self.connection is connection and connection.execute("SELECT count(*) FROM rows").fetchone()[0] > 3:
            raise KeyboardInterrupt
        commit(self)

    return commit_or_fail


def test_without_a_loop(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """Without a loop the block commits all of its connections, or none if it raises."""
    with driver.transaction(connection):
        add(connection, 1)

    def life() -> None:
        with driver.transaction(connection):
            add(connection, 2)
            raise Stumble

    with pytest.raises(Stumble):
        life()
    assert rows() == [1]


def test_connections_that_are_none(driver: Driver, connection: sqlite3.Connection) -> None:
    """What is no connection, none at all, or one twice, is refused at once, by its type."""
    with pytest.raises(TypeError, match=r"not of a builtins\.str"):
        driver.transaction("rows.db")
    with pytest.raises(TypeError, match="takes a connection"):
        driver.transaction()
    with pytest.raises(ValueError, match="each connection once"):
        driver.transaction(connection, connection)


@pytest.mark.parametrize("settings", [{"save_every": 10}, {"durability": "disk"}, {"codec": "plain"}], ids=str)
def test_other_drivers(make: Callable[..., Driver], connection: sqlite3.Connection, rows: Rows, settings: dict[str, Any]) -> None:
    """Rows are there once where only some marks are saved, where each is synced, and where nothing is pickled."""
    made = make(**settings)

    def life(until: int) -> None:
        with made.transaction(connection):
            items = made.items(range(25), name="load")
            with items.state(total=0) as state:
                for number in items:
                    add(connection, number)
                    state.total += number
                    if number % 7 == 0:
                        items.record(number)
                    if number == until:
                        raise Stumble

    for until in (3, 8, 9, 24):
        with pytest.raises(Stumble):
            life(until)
        assert rows() == list(range(until))
    life(-1)
    assert rows() == list(range(25))
    assert list(made.results("load")) == [0, 7, 14, 21]


def test_an_async_for_in_a_transaction(driver: Driver, connection: sqlite3.Connection, rows: Rows) -> None:
    """The items of an `async for` are committed one by one, too."""

    async def source() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def life(until: int) -> None:
        with driver.transaction(connection):
            async for number in driver.items(source(), name="load"):
                add(connection, number)
                await asyncio.sleep(0)
                if number == until:
                    raise Stumble

    with pytest.raises(Stumble):
        asyncio.run(life(2))
    assert rows() == [0, 1]
    asyncio.run(life(-1))
    assert rows() == [0, 1, 2, 3, 4]


# ---- the decorator


def test_a_decorated_function(make: Callable[..., Driver], connection: sqlite3.Connection, rows: Rows) -> None:
    """In a function that is a loop the block may end before the run: each row is there once, wherever the function fails."""
    driver = make()
    fails: object = None

    @loop(driver=driver, name="decorated")
    def load(numbers: range) -> str:
        with driver.transaction(connection):
            for number in numbers:
                add(connection, number)
                if number == fails:
                    raise Stumble
            add(connection, "total")
            if fails == "total":
                raise Stumble
        if fails == "behind":
            raise Stumble
        return "done"

    for at, there in ((1, [0]), ("total", [0, 1, 2]), ("behind", [0, 1, 2, "total"])):
        fails = at
        with pytest.raises(Stumble):
            load(range(3))
        assert rows() == there
        assert not connection.in_transaction
    fails = None
    assert load(range(3)) == "done"
    assert rows() == [0, 1, 2, "total", "total"]
    assert connection.execute("SELECT * FROM resumable_loops").fetchall() == []


def test_a_decorated_function_that_breaks(make: Callable[..., Driver], connection: sqlite3.Connection, rows: Rows) -> None:
    """A function that leaves its loop and returns is finished: the last item's rows stay, and the next call begins anew."""
    driver = make()

    @loop(driver=driver, name="breaks")
    def first_above(numbers: list[int], limit: int) -> int | None:
        with driver.transaction(connection):
            for number in numbers:
                add(connection, number)
                if number > limit:
                    break
        return number

    for _ in range(2):
        assert first_above([1, 2, 3, 4], 2) == 3
    assert rows() == [1, 2, 3, 1, 2, 3]


# ---- kills


KILLED = """
import sqlite3
import resumable
from resumable.work import loop
item, where, database = int(sys.argv[2]), sys.argv[3], sys.argv[4]

def dies(write, made):
    done = made.state[0] == item + 1
    if done and where == "after the commit":
        kill()
    taken = whole(write, made)
    if done and where == "after the mark":
        kill()
    return taken

whole, loop.take_checkpoint = loop.take_checkpoint, dies
connection = sqlite3.connect(database)
driver = Driver(STATE)
with driver.transaction(connection), resumable.open(database + ".txt", "w") as file:
    items = driver.items(range(6), name="killed")
    with items.state(total=0) as state:
        for number in items:
            print(number)
            connection.execute("INSERT INTO rows VALUES (?)", (number,))
            state.total += number
            items.record(number * number)
            print(number, file=file)
            if number == item and where == "in the item":
                kill()
print("total", state.total)
"""


@pytest.mark.parametrize("where", ["in the item", "after the commit", "after the mark"])
def test_kill_at_every_point(
    script: Callable[..., tuple[int, str, str]], state_dir: Path, database: Path, rows: Rows, where: str
) -> None:
    """Killed in each item, between its commit and its mark, and behind that, the loop has each row, result and line once."""
    seen: list[str] = []
    for item in range(6):
        code, out, errors = script(KILLED, item, where, database)
        assert code == -9, errors
        seen += out.split()
    code, out, errors = script(KILLED, -1, where, database)
    assert (code, out.split()[-2:]) == (0, ["total", "15"]), errors
    repeated = len(seen) + len(out.split()) - 2 - 6
    assert repeated == (6 if where == "in the item" else 0)
    assert rows() == [0, 1, 2, 3, 4, 5]
    assert Path(f"{database}.txt").read_text() == "0\n1\n2\n3\n4\n5\n"
    with Driver(state_dir) as driver:
        assert list(driver.results("killed")) == [0, 1, 4, 9, 16, 25]
