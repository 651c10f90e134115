"""Connections to a user's own databases, as a transaction of a loop uses them: sqlite3, psycopg, and SQLAlchemy over either.

An item's transaction is begun before the item, in whatever mode the connection is, with a savepoint in it: if that is gone when
the item is done, somebody else has ended the transaction meanwhile.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from resumable.errors import TransactionError

if TYPE_CHECKING:
    import sqlite3

    import psycopg
    from sqlalchemy import engine, orm

_SAVEPOINT: Final = "resumable_item"
# PostgreSQL: no such savepoint; no transaction at all.
_GONE_STATES: Final = ("3B001", "25P01")
_IDLE: Final = 0    # of libpq's states of a transaction

_COLUMNS: Final = (
    "id {text} PRIMARY KEY, run {text} NOT NULL, number {int} NOT NULL, begun {int} NOT NULL, done {int} NOT NULL, "
    "state {bytes} NOT NULL"
)
_TYPES: Final = {
    "sqlite": {"text": "TEXT", "int": "INTEGER", "bytes": "BLOB"},
    "postgresql": {"text": "text", "int": "bigint", "bytes": "bytea"},
}
_IS_THERE: Final = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = :table",
    "postgresql": "SELECT 1 WHERE to_regclass(:table) IS NOT NULL",
}


class Database:
    """One connection. Statements have their values as `:name`; rows come as tuples."""

    dialect: str

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __repr__(self) -> str:
        kind = type(self.connection)
        return f"the {kind.__module__.partition('.')[0]} {kind.__name__}"

    # ---- what each kind does in its own way

    def busy(self) -> str | None:
        """What is open on the connection, so that no transaction of ours can begin on it."""
        raise NotImplementedError

    def run(self, statement: str, values: dict[str, Any]) -> tuple[int, Sequence[tuple[Any, ...]]]:
        """(how many rows it changed, the rows it gives)."""
        raise NotImplementedError

    def open(self) -> None:
        """A transaction is open when this returns."""
        raise NotImplementedError

    def commit(self) -> None:
        """Commit what is open, if anything is."""
        raise NotImplementedError

    def roll_back(self) -> None:
        """Undo what is open, if anything is."""
        raise NotImplementedError

    def flush(self) -> None:
        """Send to the database what the connection still holds back."""

    # ---- the transaction of an item

    def begin(self) -> None:
        """The transaction of the next item."""
        self.open()
        try:
            self.run(f"SAVEPOINT {_SAVEPOINT}", {})
        except Exception as error:
            if _is_gone(error):
                raise TransactionError(
                    f"{self!r} commits each statement by itself, so that no item's rows can be in one transaction (make it "
                    "without "
                    f'isolation_level="AUTOCOMMIT")'
                ) from error
            raise

    def still_going(self) -> bool:
        """Whether the transaction is the one that was begun. It is to be committed or rolled back next."""
        self.flush()
        try:
            self.run(f"RELEASE SAVEPOINT {_SAVEPOINT}", {})
        except Exception as error:
            if _is_gone(error):
                return False
            raise
        return True

    def make_table(self, name: str) -> None:
        """Our table, if it is not there. Commits."""
        self.open()
        if not self.run(_IS_THERE[self.dialect], {"table": name})[1]:
            if self.dialect == "postgresql":    # two that make it at once would meet in the catalogue
                self.run("SELECT pg_advisory_xact_lock(hashtext(:table))", {"table": name})
            self.run(f"CREATE TABLE IF NOT EXISTS {name} ({_COLUMNS.format(**_TYPES[self.dialect])})", {})
        self.commit()


class _Sqlite(Database):
    connection: sqlite3.Connection
    dialect = "sqlite"

    @property
    def _mode(self) -> object:
        """True: nothing is ever open but what SQL begins. False: something always is. Before CPython 3.12 there is neither."""
        return getattr(self.connection, "autocommit", None)

    def busy(self) -> str | None:
        # With autocommit=False a transaction is open at all times, and nobody can tell whether there is something in it.
        return "a transaction is open on it" if self.connection.in_transaction and self._mode is not False else None

    def run(self, statement: str, values: dict[str, Any]) -> tuple[int, Sequence[tuple[Any, ...]]]:
        cursor = self.connection.cursor()
        cursor.row_factory = None
        try:
            cursor.execute(statement, values)
            return cursor.rowcount, cursor.fetchall()
        finally:
            cursor.close()

    def open(self) -> None:
        if not self.connection.in_transaction:
            self.run(f"BEGIN {self.connection.isolation_level or ''}", {})

    def commit(self) -> None:
        if self._mode is True:
            self._end("COMMIT")
        else:
            self.connection.commit()

    def roll_back(self) -> None:
        if self._mode is True:
            self._end("ROLLBACK")
        else:
            self.connection.rollback()

    def _end(self, statement: str) -> None:
        if self.connection.in_transaction:
            self.run(statement, {})


class _Psycopg(Database):
    connection: psycopg.Connection[Any]
    dialect = "postgresql"

    def busy(self) -> str | None:
        return None if self._is_idle() else "a transaction is open on it"

    def _is_idle(self) -> bool:
        return int(self.connection.info.transaction_status) == _IDLE

    def run(self, statement: str, values: dict[str, Any]) -> tuple[int, Sequence[tuple[Any, ...]]]:
        import psycopg
        from psycopg.rows import tuple_row

        # Not the connection's own kind of cursor, which may take values in another way.
        with psycopg.Cursor(self.connection, row_factory=tuple_row) as cursor:
            cursor.execute(re.sub(r":(\w+)", r"%(\1)s", statement).encode(), values)
            return cursor.rowcount, cursor.fetchall() if cursor.description else ()

    def open(self) -> None:
        if self.connection.autocommit and self._is_idle():
            self.run("BEGIN", {})       # else the first statement begins one

    def commit(self) -> None:
        self.connection.commit()

    def roll_back(self) -> None:
        self.connection.rollback()


class _Alchemy(Database):
    """SQLAlchemy's Connection."""

    connection: engine.Connection | orm.Session

    def __init__(self, connection: engine.Connection | orm.Session, dialect: str) -> None:
        super().__init__(connection)
        if dialect not in _TYPES:
            raise TransactionError(
                f"{self!r} speaks to {dialect}, and a loop's transaction can be in SQLite or PostgreSQL alone (elsewhere an "
                f"item's rows may come twice after a crash: tell them apart by items.idempotency_key())"
            )
        self.dialect = dialect

    def core(self) -> engine.Connection:
        """The Connection that statements go through."""
        return cast("engine.Connection", self.connection)

    def busy(self) -> str | None:
        return "a transaction is open on it" if self.connection.in_transaction() else None

    def run(self, statement: str, values: dict[str, Any]) -> tuple[int, Sequence[tuple[Any, ...]]]:
        from sqlalchemy import text

        result: Any = self.core().execute(text(statement), values)
        return result.rowcount, [tuple(row) for row in result] if result.returns_rows else ()

    def open(self) -> None:
        if not self.connection.in_transaction():
            self.connection.begin()
        made: Any = self.core().connection.driver_connection
        # sqlite3 itself begins a transaction at the first INSERT: too late for a savepoint, or a CREATE TABLE.
        if self.dialect == "sqlite" and not made.in_transaction:
            self.core().exec_driver_sql("BEGIN")

    def commit(self) -> None:
        if self.connection.in_transaction():    # a Session with autobegin=False refuses else
            self.connection.commit()

    def roll_back(self) -> None:
        self.connection.rollback()


class _Session(_Alchemy):
    """SQLAlchemy's Session, of one engine."""

    connection: orm.Session

    def core(self) -> engine.Connection:
        return self.connection.connection()

    def busy(self) -> str | None:
        unflushed = self.connection.new or self.connection.dirty or self.connection.deleted
        return super().busy() or ("it holds objects that are not flushed" if unflushed else None)

    def flush(self) -> None:
        self.connection.flush()


# ---- which kind a connection is of


def adapted(connection: object) -> Database:
    """The connection as a transaction uses it. Raises TypeError, TransactionError."""
    # Whoever has a connection of a library has imported it.
    modules = sys.modules
    if "sqlite3" in modules and isinstance(connection, modules["sqlite3"].Connection):
        return _Sqlite(connection)
    if "psycopg" in modules and isinstance(connection, modules["psycopg"].Connection):
        return _Psycopg(connection)
    if "sqlalchemy.orm" in modules:
        found: Any = modules["sqlalchemy.orm"]
        if isinstance(connection, found.scoped_session):
            connection = connection()
        if isinstance(connection, found.Session):
            return _Session(connection, _engine_of(connection).dialect.name)
    if "sqlalchemy" in modules and isinstance(connection, modules["sqlalchemy"].Connection):
        return _Alchemy(connection, connection.dialect.name)
    raise TypeError(
        f"a transaction is one of a sqlite3 or psycopg connection, or of a Connection or Session of SQLAlchemy, and not of a "
        f"{type(connection).__module__}.{type(connection).__qualname__}"
    )


def _engine_of(session: Any) -> Any:
    """The one engine that a session has. Raises TransactionError."""
    given = session.binds if hasattr(session, "binds") else session._Session__binds
    bind = session.bind
    if given or bind is None or not hasattr(bind, "connect"):
        raise TransactionError(
            "the Session has not one engine for all that it does, so that its commit is not one transaction (make it with "
            "Session(engine))"
        )
    return bind


def _is_gone(error: Exception) -> bool:
    """Whether an error says that the savepoint, or the transaction that it was in, is not there."""
    cause = getattr(error, "orig", error)       # SQLAlchemy's have the driver's
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state in _GONE_STATES or "no such savepoint" in str(cause)
