"""Loops in transactions whose items fail, are tried again, and become dead letters."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from resumable import DeadLetter, Driver, TransactionError
from resumable.work import loop


class Broken(Exception):
    """What an item fails with."""


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "rows.db")) as made:
        made.execute("CREATE TABLE rows (n)")
        yield made


def rows(connection: sqlite3.Connection) -> list[Any]:
    return [row for (row,) in connection.execute("SELECT n FROM rows ORDER BY rowid")]


def add(connection: sqlite3.Connection, row: object) -> None:
    connection.execute("INSERT INTO rows VALUES (?)", (row,))


Life = Callable[..., list[int]]


@pytest.fixture
def life(driver: Driver, connection: sqlite3.Connection) -> Life:
    """A loop over five items; those in `fail` do so behind their row."""

    def one(*fail: int, inside: bool = True, **given: Any) -> list[int]:
        seen = []
        items = driver.items(range(5), name="load", **given)
        with driver.transaction(connection):
            for number in items:
                seen.append(number)
                if not inside:
                    add(connection, number)
                    if number in fail:
                        raise Broken
                    continue
                with items.attempt():
                    add(connection, number)
                    if number in fail and seen.count(number) < 3:
                        raise Broken
        return seen

    return one


def test_an_item_that_is_tried_again(life: Life, connection: sqlite3.Connection) -> None:
    """What failed attempts wrote is not there, what the last one wrote is, once."""
    assert life(1, 4, max_attempts=3) == [0, 1, 1, 1, 2, 3, 4, 4, 4]
    assert rows(connection) == [0, 1, 2, 3, 4]


def test_an_item_that_is_given_up(life: Life, driver: Driver, connection: sqlite3.Connection) -> None:
    """A dead letter has no rows and is a result; done again it has its row, and no other item is."""
    assert life(2, max_attempts=1) == [0, 1, 2, 3, 4]
    assert rows(connection) == [0, 1, 3, 4]
    assert [letter.index for letter in driver.dead_letters("load")] == [2]
    assert driver.retry_dead_letters("load") == 1
    assert life(max_attempts=1) == [2]
    assert rows(connection) == [0, 1, 3, 4, 2]
    assert connection.execute("SELECT * FROM resumable_loops").fetchall() == []


def test_a_plain_body_that_fails(life: Life, driver: Driver, connection: sqlite3.Connection) -> None:
    """Attempts over several lives are counted, and the item becomes a dead letter without rows."""
    for _ in range(2):
        with pytest.raises(Broken):
            life(2, inside=False, max_attempts=2)
        assert rows(connection) == [0, 1]
    assert [letter.attempts for letter in driver.dead_letters("load")] == [2]
    assert life(inside=False, max_attempts=2) == [3, 4]
    assert rows(connection) == [0, 1, 3, 4]


def test_letters_of_a_loop_that_goes_on(life: Life, driver: Driver, connection: sqlite3.Connection) -> None:
    """Letters of a loop that is not finished are done again first, each in a transaction, and then it goes on."""
    with pytest.raises(Broken):
        life(2, 3, inside=False, on_error=lambda item, error, attempt: "dead_letter")
    with pytest.raises(Broken):
        life(3, inside=False, on_error=lambda item, error, attempt: "dead_letter")
    assert rows(connection) == [0, 1]
    assert driver.retry_dead_letters("load") == 2
    with pytest.raises(Broken):
        life(3, inside=False)
    assert rows(connection) == [0, 1, 2]
    assert life(inside=False) == [3, 4]
    assert rows(connection) == [0, 1, 2, 3, 4]


def test_a_letter_that_the_log_missed(
    life: Life, driver: Driver, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item that is given up and committed, and was not published, is a dead letter all the same, and is not repeated."""
    whole = loop.take_checkpoint

    def die(write: Any, made: Any) -> bool:
        if made.state[0] == 3:
            raise KeyboardInterrupt
        return whole(write, made)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_checkpoint", die)
        with pytest.raises(KeyboardInterrupt):
            life(2, max_attempts=1)
    assert list(driver.results("load")) == []
    assert life(max_attempts=1) == [3, 4]
    (letter,) = driver.results("load")
    assert isinstance(letter, DeadLetter)
    assert (letter.index, letter.item, letter.attempts) == (2, 2, 1)
    assert rows(connection) == [0, 1, 3, 4]


def test_a_map_is_refused(driver: Driver, connection: sqlite3.Connection) -> None:
    """A map, whose items need not be done one after another, cannot be in a transaction."""
    with pytest.raises(TransactionError, match=r"no loop whose items are done one after another"):
        with driver.transaction(connection):
            driver.map(str, range(3), name="map")
