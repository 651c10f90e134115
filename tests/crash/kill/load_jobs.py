"""A loop that fills a table in a transaction of the database: by psycopg, by a Session of SQLAlchemy, and in SQLite."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from typing import Any

import psycopg
import sqlalchemy
from jobs import ACK, BEGIN, PLANTS, START, TASKS, note
from sqlalchemy import orm

from resumable import Driver
from resumable._fastlog import encode_plain, siphash
from resumable.values import rng  # noqa: F401 - before the forks
from resumable.work import items, loop, mark_keys, transaction  # noqa: F401 - before the forks
from resumable.work.transaction import Transaction

ITEMS = 40
LINGER = 0.003
CONNECT: dict[str, Any] = {
    "psycopg": psycopg.connect, "session": lambda url: orm.Session(sqlalchemy.create_engine(url)), "sqlite": sqlite3.connect,
}  # fmt: skip


def load(kind: str, home: str, name: str, url: str) -> list[Any]:
    """Fill the table, or go on with that; the sum over the items, and the loop's results."""
    with Driver(home) as driver, closing(CONNECT[kind](url)) as connection:
        with driver.transaction(connection):
            things = driver.items(range(ITEMS), name=name, once=True)
            with things.state(total=0) as state:
                first = things.done
                for item in things:
                    note(START, item) if item == first else note(ACK, item - 1)
                    note(BEGIN, item)
                    state.total += item
                    _insert(connection, name, item, state.total)
                    things.record((item, state.total))
        return [driver.state(name)[1]["total"], list(driver.results(name))]


def load_shuffled(kind: str, home: str, name: str, url: str) -> list[Any]:
    """`load`, of items that are known by their keys and stand elsewhere in each life; places count in place of items."""
    order = random.Random(os.urandom(8)).sample(range(1, ITEMS + 1), ITEMS)
    with Driver(home) as driver, closing(CONNECT[kind](url)) as connection:
        with driver.transaction(connection):
            things = driver.items(order, name=name, key=str, once=True)
            with things.state(total=0) as state:
                first = things.done
                for item in things:
                    note(START, things.done) if things.done == first else note(ACK, things.done - 1)
                    note(BEGIN, things.done)
                    state.total += item
                    _insert(connection, name, item, state.total)
                    things.record((item, state.total))
        return [driver.state(name)[1]["total"], list(driver.results(name))]


def _insert(connection: Any, name: str, item: int, total: int) -> None:
    statement: Any = f"INSERT INTO loaded VALUES ('{name}', {item}, {total})"
    connection.execute(sqlalchemy.text(statement) if isinstance(connection, orm.Session) else statement)


def _linger(self: Transaction, done: int) -> object:
    """Most kills are to come here, where an item is committed and not yet in the log."""
    value = _mark(self, done)
    time.sleep(LINGER)
    return value


_mark, Transaction.mark = Transaction.mark, _linger  # type: ignore[method-assign]


def _believe_the_log() -> None:
    """On resume the log's mark counts, not the database's."""
    agreed = Transaction._agreed

    def log_counts(self: Any, open_loop: Any, run: Any, own: Any) -> Any:
        agreed(self, open_loop, run, own)
        return None

    Transaction._agreed = log_counts  # type: ignore[method-assign]


def _publish_first() -> None:
    """The mark is published, and then the item is committed."""
    begin = Transaction.marked
    late: list[int] = []

    def marked(self: Transaction) -> None:
        if late:
            time.sleep(LINGER)
            _mark(self, late.pop())
        begin(self)

    Transaction.mark = lambda self, done: late.append(done)  # type: ignore[method-assign,assignment]
    Transaction.marked = marked  # type: ignore[method-assign]


def _count_keys_alone() -> None:
    """On resume the database says how many items are done, and not which."""
    resumed = mark_keys.resumed

    def first_items(open_loop: Any, run: Any, done: int, *rest: Any, **given: Any) -> Any:
        found = resumed(open_loop, run, done, *rest, **given)
        assert found is not None
        keys = run.keys(b"", 0)     # those that are open
        keys.load(0)
        for item in range(1, done + 1):
            keys.meet_hash(siphash(run.described("keys"), encode_plain(str(item))))
        keys.load(done)
        return found

    mark_keys.resumed = first_items


PLANTS["count keys alone"] = _count_keys_alone
PLANTS["believe the log's mark"] = _believe_the_log
PLANTS["publish first"] = _publish_first
TASKS["load"] = load
TASKS["load shuffled"] = load_shuffled
