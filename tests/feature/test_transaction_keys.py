"""Loops with `key=` in a transaction: items come, go and change places between lives, and each has its row once."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from resumable import ChangedItemsError, Driver, DuplicateKeyError
from resumable.work import loop
from resumable.work.mark_keys import MOST


class Stumble(Exception):
    """Stands for a crash of the body."""


Rows = Callable[[], list[Any]]
Life = Callable[..., list[Any]]


@pytest.fixture
def life(driver: Driver, database: Path) -> Life:
    """A loop over these items that writes a row for each, and fails in one behind its row; the items that it saw."""

    def one(items: Iterable[Any], until: Any = None, *, key: Any = str, name: str = "load", **given: Any) -> list[Any]:
        seen = []
        with closing(sqlite3.connect(database)) as connection, suppress(Stumble), driver.transaction(connection):
            for item in driver.items(items, name=name, key=key, **given):
                seen.append(item)
                connection.execute("INSERT INTO rows VALUES (?)", (item,))
                if item == until:
                    raise Stumble
        return seen

    return one


def test_items_that_change_places_in_a_transaction(life: Life, rows: Rows, database: Path) -> None:
    """Items that come, go and change places have a row each, once, and nothing of ours is left when the loop is through."""
    assert life("abcdef", "d") == ["a", "b", "c", "d"]
    assert rows() == ["a", "b", "c"]
    assert life("xfedcba", "e") == ["x", "f", "e"]
    assert life("bdgxa") == ["d", "g"]
    assert rows() == ["a", "b", "c", "x", "f", "d", "g"]
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT * FROM resumable_loops").fetchall() == []
    assert life("ab") == ["a", "b"]      # a finished loop begins anew


def test_batches_with_keys_in_a_transaction(driver: Driver, database: Path, rows: Rows) -> None:
    """A batch of new items is one transaction: it is there whole, or comes again, wherever its items stand by then."""
    seen = []
    for letters, until in (("abcdefg", "e"), ("gfedcbaz", None)):
        with closing(sqlite3.connect(database)) as connection, suppress(Stumble), driver.transaction(connection):
            for batch in driver.items(letters, name="load", key=str).batches(3):
                seen.append(batch)
                connection.executemany("INSERT INTO rows VALUES (?)", batch)
                if until in batch:
                    raise Stumble
    assert seen == [["a", "b", "c"], ["d", "e", "f"], ["g", "f", "e"], ["d", "z"]]
    assert rows() == [*"abcgfedz"]


def test_an_async_for_with_keys_in_a_transaction(driver: Driver, database: Path, rows: Rows) -> None:
    """The items of an `async for` are known by their keys, and committed one by one, too."""

    async def source(letters: str) -> AsyncIterator[str]:
        for letter in letters:
            await asyncio.sleep(0)
            yield letter

    async def one(letters: str, until: str | None) -> None:
        with closing(sqlite3.connect(database)) as connection, suppress(Stumble), driver.transaction(connection):
            async for letter in driver.items(source(letters), name="load", key=str):
                connection.execute("INSERT INTO rows VALUES (?)", (letter,))
                if letter == until:
                    raise Stumble

    asyncio.run(one("abcd", "c"))
    asyncio.run(one("dxcba", None))
    assert rows() == [*"abdxc"]


def test_one_key_twice_in_a_transaction(life: Life, rows: Rows) -> None:
    """The second item of a key is an error in a transaction, too, and the items before it stay done."""
    with pytest.raises(DuplicateKeyError):
        life("abca")
    assert rows() == [*"abc"]
    assert life("dcba") == ["d"]


def test_state_and_results_of_keyed_items_in_a_transaction(driver: Driver, database: Path) -> None:
    """A sum and the results are those of each item once, whatever the order of the items."""
    for order, stop in (("abcdef", "c"), ("fedcba", "d"), ("cabfed", "d"), ("fabcde", None)):
        with closing(sqlite3.connect(database)) as connection, driver.transaction(connection):
            items = driver.items(order, name="load", key=str)
            with items.state(total=0) as state:
                for item in items:
                    if item == stop:
                        break
                    state.total += ord(item)
                    items.record(item)
    assert state.total == sum(map(ord, "abcdef"))
    assert sorted(driver.results("load")) == list("abcdef")


def test_attempts_with_keys_in_a_transaction(driver: Driver, database: Path, rows: Rows) -> None:
    """Attempts over several lives are the item's own, wherever it stands, and one that is given up has no row and stays done."""

    def one(letters: str) -> list[str]:
        seen = []
        with closing(sqlite3.connect(database)) as connection, suppress(Stumble), driver.transaction(connection):
            for letter in driver.items(letters, name="load", key=str, max_attempts=2):
                seen.append(letter)
                connection.execute("INSERT INTO rows VALUES (?)", (letter,))
                if letter == "b":
                    raise Stumble
        return seen

    assert [one("abc"), one("xbac"), one("cbax")] == [["a", "b"], ["x", "b"], ["c"]]
    assert rows() == [*"axc"]
    assert [(letter.item, letter.attempts) for letter in driver.dead_letters("load")] == [("b", 2)]


def test_a_keyed_loop_that_came_into_a_transaction_later(driver: Driver, life: Life, rows: Rows) -> None:
    """A loop with keys that was begun without a transaction goes on in one, with what is done by then, however much that is."""
    for count, name in ((3, "few"), (MOST + 3, "many")):
        for number in driver.items(range(1000), name=name, key=str):
            if number == count:
                break
        before = rows()
        assert life([7000, *range(count, -1, -1)], count, name=name) == [7000, count]
        assert life([*range(count + 1), 8000], name=name) == [count, 8000]
        assert rows() == [*before, 7000, count, 8000]


def test_ways_out_with_keys(life: Life, rows: Rows) -> None:
    """`fresh` and `restart` begin anew, `once` leaves a finished loop, and a loop keeps its way with keys or without."""
    assert life("abc", "b") == ["a", "b"]
    with pytest.raises(ChangedItemsError, match="was begun with key="):
        life("abc", key=None)
    assert life("abc", "c", key=None, on_change="restart") == ["a", "b", "c"]
    assert life("cba", "a", on_change="restart") == ["c", "b", "a"]
    assert life("ac", "c", fresh=True) == ["a", "c"]
    assert life("ca") == ["c"]
    assert life("cab", once=True) == []
    assert rows() == [*"a", *"ab", *"cb", *"a", *"c"]


def test_a_row_holds_few_keys(driver: Driver, database: Path) -> None:
    """However many items are done, one by one or in batches, a row stays small, and the key file is synced now and then alone."""
    sizes = []
    for size in (1, 5, MOST, MOST + 1):
        with closing(sqlite3.connect(database)) as connection, driver.transaction(connection):
            for _ in driver.items(range(5 * MOST), name="load", key=str, fresh=True).batches(size):
                [[length]] = connection.execute("SELECT length(state) FROM resumable_loops")
                sizes.append(length)
    assert 16 * (MOST - 5) < max(sizes) < 16 * MOST + 200


# ---- kills


KILLED = """
import sqlite3
from contextlib import closing
import resumable
from resumable.work import databases, loop
letters, target, where, database, size = sys.argv[2].split(), sys.argv[3], sys.argv[4], sys.argv[5], int(sys.argv[6])
doomed = False      # the target is at hand

def commits(self):
    if doomed and where == "before the commit":
        kill()
    commit(self)
    if doomed and where == "after the commit":
        kill()

def publishes(write, made):
    taken = publish(write, made)
    if doomed and where == "after the mark":
        kill()
    return taken

commit, databases._Sqlite.commit = databases._Sqlite.commit, commits
publish, loop.take_checkpoint = loop.take_checkpoint, publishes
with closing(sqlite3.connect(database)) as connection:
    driver = Driver(STATE)
    with driver.transaction(connection), resumable.open(database + ".txt", "w") as file:
        items = driver.items(letters, name="killed", key=str)
        if size == 1:
            for letter in items:
                connection.execute("INSERT INTO rows VALUES (?)", (letter,))
                items.record(letter)
                print(letter, file=file)
                doomed = letter == target
                if doomed and where == "in the item":
                    kill()
        else:
            for batch in items.batches(size):
                connection.executemany("INSERT INTO rows VALUES (?)", [(letter,) for letter in batch])
                items.record(batch)
                print(*batch, file=file, sep=chr(10))
                doomed = target in batch
                if doomed and where == "in the item":
                    kill()
"""


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("where", ["in the item", "before the commit", "after the commit", "after the mark"])
def test_kill_at_every_point_with_keys(
    script: Callable[..., tuple[int, str, str]], state_dir: Path, database: Path, rows: Rows, where: str, size: int, seed: int
) -> None:
    """Killed at any point of an item, with items put in, taken out and moved between the lives, each life adds the rows,
    results and lines of what was not committed, in its order, once."""
    chosen = random.Random(f"{seed} {where} {size}")
    order = [f"item{number}" for number in range(6)]
    expected: list[str] = []
    for one in range(8):
        new = [letter for letter in order if letter not in expected]
        target = chosen.choice(new) if one < 7 else "none"
        code, _, errors = script(KILLED, " ".join(order), target, where, database, size)
        assert code == (-9 if one < 7 else 0), errors
        batches = [new[start : start + size] for start in range(0, len(new), size)]
        reached = next((number for number, batch in enumerate(batches) if target in batch), len(batches))
        done = batches[: reached + (where in ("after the commit", "after the mark"))]
        expected += [letter for batch in done for letter in batch]
        assert rows() == expected, (order, target)
        order.remove(chosen.choice(order))
        order += [f"new{one}", f"newer{one}"]
        chosen.shuffle(order)
    assert Path(f"{database}.txt").read_text().split() == expected
    with Driver(state_dir) as driver:
        results = list(driver.results("killed"))
    assert (results if size == 1 else [letter for batch in results for letter in batch]) == expected


def test_a_commit_of_keys_that_the_log_missed(life: Life, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that is committed and was not published is not done again, even if it stands elsewhere then."""
    whole = loop.take_checkpoint

    def die(write: Any, made: Any) -> bool:
        if made.state[0] == 3:
            raise KeyboardInterrupt
        return whole(write, made)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            life("abcd")
    assert life("cxba") == ["x"]
    assert rows() == [*"abcx"]
