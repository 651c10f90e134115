"""Connections of psycopg, psycopg2 and asyncpg, against a real server with passwords."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import psycopg2.extras
import pytest
from holding import CANARY, resume, resume_in_loop, save
from killing import assert_done, files_with, run_with_kills
from psycopg.rows import class_row, dict_row
from psycopg.types.json import set_json_loads
from servers import Server

from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Encoded
from resumable.values.registry import GLOBAL

KILLS = 4


@pytest.fixture
def server(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The environment holds its password."""
    monkeypatch.setenv("SHOP_PASSWORD", postgres_server.password)
    return postgres_server


@pytest.fixture(params=[psycopg, psycopg2], ids=["psycopg", "psycopg2"])
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextmanager
def resumed(encoded: Encoded) -> Iterator[Any]:
    with closing(resume(encoded)) as back:
        yield back


def value(connection: Any, query: str) -> Any:
    """The only value of the only row; the transaction is ended."""
    with connection.cursor() as cursor:
        cursor.execute(query)
        (row,) = cursor.fetchall()
    connection.rollback()
    return row[0]


# ---- psycopg and psycopg2


def test_a_connection_comes_back(library: Any, server: Server) -> None:
    """A connection that came by a URL works again, and the stored state has no password."""
    with closing(library.connect(server.url)) as connection:
        encoded = save(connection)
        assert CANARY.encode() not in encoded.data
        with resumed(encoded) as back:
            assert type(back) is type(connection)
            assert value(back, "SELECT current_user") == "keeper"
            assert value(back, "SELECT pg_backend_pid()") != value(connection, "SELECT pg_backend_pid()")


def test_parameters_are_kept(library: Any, server: Server) -> None:
    """Options, application name, timeouts and TLS mode of a connection come back."""
    options = {"options": "-c search_path=a,b -c geqo=off", "application_name": "nightly", "sslmode": "disable"}
    with closing(library.connect(server.url, connect_timeout=7, **options)) as connection:
        expected = connection.info.dsn_parameters if library is psycopg2 else connection.info.get_parameters()
        with resumed(save(connection)) as back:
            assert (back.info.dsn_parameters if library is psycopg2 else back.info.get_parameters()) == expected
            assert value(back, "SHOW search_path") == "a,b"
            assert value(back, "SHOW application_name") == "nightly"


def test_what_set_changed_is_kept(library: Any, server: Server) -> None:
    """search_path, role, time zone, limits and client encoding, set by SET, come back, so rows go into the same tables."""
    with closing(library.connect(server.url)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE IF EXISTS clerk")
            cursor.execute("CREATE ROLE clerk")
            cursor.execute("SET search_path = 'x y', public; SET statement_timeout = '90s'; SET work_mem = '5MB'")
            cursor.execute("SET TimeZone = 'Asia/Tokyo'; SET client_encoding = 'LATIN1'; SET password_encryption = 'md5'")
            cursor.execute("SET ROLE clerk")
        connection.commit()
        names = ("search_path", "statement_timeout", "work_mem", "TimeZone", "role", "password_encryption", "client_encoding")
        expected = {name: value(connection, f"SHOW {name}") for name in names}
        with resumed(save(connection)) as back:
            assert {name: value(back, f"SHOW {name}") for name in names} == expected
            assert value(back, "SELECT 'é'") == "é"
            with closing(resume(save(back))) as again:
                assert {name: value(again, f"SHOW {name}") for name in names} == expected


def test_modes_are_kept(library: Any, server: Server) -> None:
    """Autocommit, isolation level, read-only and deferrable come back, and are no open transaction."""
    read_only = "read_only" if library is psycopg else "readonly"
    for modes in (
        {"autocommit": True},
        {"isolation_level": 4 if library is psycopg else 3, read_only: True, "deferrable": True},
        {read_only: False, "deferrable": False, "isolation_level": 1},
    ):
        with closing(library.connect(server.url)) as connection:
            for name, mode in modes.items():
                setattr(connection, name, mode)
            with resumed(save(connection)) as back:
                names = ("autocommit", "isolation_level", read_only, "deferrable")
                assert [getattr(back, name) for name in names] == [getattr(connection, name) for name in names]
                assert value(back, "SHOW transaction_isolation") == value(connection, "SHOW transaction_isolation")
                assert back.info.transaction_status == 0


def test_saving_leaves_a_connection_as_it_was(library: Any, server: Server) -> None:
    """Saving begins no transaction, and the same session can be used and saved again."""
    with closing(library.connect(server.url)) as connection:
        pid = value(connection, "SELECT pg_backend_pid()")
        for _ in range(3):
            save(connection)
            assert connection.info.transaction_status == 0
        assert value(connection, "SELECT pg_backend_pid()") == pid


def begin(cursor: Any) -> None:
    cursor.execute("SELECT 1")


def fail(cursor: Any) -> None:
    with pytest.raises((psycopg.Error, psycopg2.Error)):
        cursor.execute("SELECT nothing")


def committed(query: str) -> Callable[[Any], None]:
    def do(cursor: Any) -> None:
        cursor.execute(query)
        cursor.connection.commit()

    return do


def close(cursor: Any) -> None:
    cursor.connection.close()


def lose(cursor: Any) -> None:
    cursor.connection.autocommit = True
    with pytest.raises((psycopg.Error, psycopg2.Error)):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def lose_unseen(cursor: Any) -> None:
    with psycopg.connect(SERVER_URL[0], autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (cursor.connection.info.backend_pid,))


SERVER_URL: list[str] = []  # for the one that ends another's session
REFUSED: dict[str, tuple[Callable[[Any], None], str]] = {
    "open transaction": (begin, r"open transaction \(commit\(\)"),
    "failed transaction": (fail, "failed.*rollback"),
    "temporary table": (committed("CREATE TEMP TABLE mine (n int)"), "temporary table 'mine'.*drop it"),
    "listening": (committed("LISTEN news"), "listens to 'news'.*UNLISTEN"),
    "closed": (close, "closed"),
    "session ended by the server": (lose, "connect again"),
    "session ended unseen": (lose_unseen, "connect again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_session_that_cannot_come_back_is_refused(library: Any, server: Server, name: str) -> None:
    """A connection with something that ends with its session is refused, with what to do."""
    break_it, message = REFUSED[name]
    SERVER_URL[:] = [server.url]
    with closing(library.connect(server.url)) as connection:
        cursor = connection.cursor()
        break_it(cursor)
        with pytest.raises(LiveResourceError, match=message) as caught:
            save(connection)
        assert caught.value.path == 'state["a"][0].held[0]'
        cursor.close()


def test_an_open_transaction_stays_open(library: Any, server: Server) -> None:
    """Work that was not committed is untouched by the refusal, and can be committed and saved after it."""
    with closing(library.connect(server.url)) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        with pytest.raises(LiveResourceError, match="commit"):
            save(connection)
        connection.commit()
        with resumed(save(connection)) as back:
            assert value(back, "SELECT n FROM kept") == 1


def test_a_prepared_transaction_is_refused(library: Any, server: Server) -> None:
    """A transaction that is prepared, which only its connection can end here, is refused."""
    with closing(library.connect(server.url)) as connection:
        connection.tpc_begin(connection.xid(1, "shop", "one"))
        connection.tpc_prepare()
        with pytest.raises(LiveResourceError, match=r"prepared transaction \(tpc_commit"):
            save(connection)
        connection.tpc_rollback()
        save(connection)


def test_a_cursor_is_refused(library: Any, server: Server) -> None:
    """A cursor is refused by name, with what to keep instead."""
    with closing(library.connect(server.url)) as connection, connection.cursor() as cursor:
        with pytest.raises(LiveResourceError, match="keep the connection and the rows"):
            save(cursor)


def test_a_server_that_is_gone_is_named(library: Any, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that cannot be reached is a ReconnectError that shows where it was and no password."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with closing(library.connect(server.url)) as connection:
        encoded = save(connection)
    monkeypatch.setenv("SHOP_PASSWORD", "another")
    with pytest.raises(ReconnectError, match="authentication failed") as caught:
        resume(encoded)
    assert str(server.port) in str(caught.value)
    assert "another" not in str(caught.value)


def test_arguments_are_compared_by_place(library: Any, server: Server) -> None:
    """What counts of a connection as an argument is server, database and user, without the password."""
    with closing(library.connect(server.url)) as connection:
        handler = GLOBAL.lookup(type(connection))
        assert handler is not None
        assert handler.identity(connection) == {
            "host": server.host, "port": server.port, "dbname": "postgres", "user": "keeper",
        }  # fmt: skip


# ---- passwords


def test_a_password_that_nothing_holds_is_refused(library: Any, postgres_server: Server) -> None:
    """A connection whose password cannot be had again is refused by the name of the secret."""
    with closing(library.connect(postgres_server.url)) as connection:
        with pytest.raises(SecretError, match="password is a secret") as caught:
            save(connection)
        assert CANARY not in str(caught.value)


def escaped(password: str) -> str:
    return password.replace("\\", "\\\\").replace(":", "\\:")


@pytest.mark.parametrize("mode", [0o600, 0o640])
def test_a_password_file_is_enough(
    library: Any, postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """A password that libpq finds in .pgpass is not stored; a file that libpq ignores does not count."""
    passfile = tmp_path / ".pgpass"
    where = f"{postgres_server.host}:{postgres_server.port}:*:keeper"
    passfile.write_text(f"# mine\nelsewhere:*:*:*:wrong\n{where}:{escaped(postgres_server.password)}\n", "utf-8")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    place = {"host": postgres_server.host, "port": postgres_server.port, "user": "keeper", "dbname": "postgres"}
    with closing(library.connect(**place)) as connection:
        passfile.chmod(mode)
        if mode == 0o640:
            with pytest.raises(SecretError):
                save(connection)
            return
        encoded = save(connection)
    assert CANARY.encode() not in encoded.data
    assert b"SecretRef" not in encoded.data
    with resumed(encoded) as back:
        assert value(back, "SELECT 1") == 1


def test_a_service_file_is_enough(
    library: Any, postgres_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection made by a service of the service file comes back by it, its password not stored."""
    file = tmp_path / "services"
    place = f"host={postgres_server.host}\nport={postgres_server.port}\nuser=keeper\ndbname=postgres\n"
    file.write_text(f"[shop]\n{place}password={postgres_server.password}\n", "utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with closing(library.connect("service=shop")) as connection:
        encoded = save(connection)
    assert CANARY.encode() not in encoded.data
    with resumed(encoded) as back:
        assert value(back, "SELECT 1") == 1


# ---- psycopg alone


@dataclass
class Row:
    n: int


class MyConnection(psycopg.Connection[Any]):
    pass


class MyCursor(psycopg.ClientCursor[Any]):
    pass


def test_what_psycopg_adds_is_kept(server: Server) -> None:
    """Class, row and cursor factory, and the settings of prepared statements come back."""
    with MyConnection.connect(server.url, prepare_threshold=None, cursor_factory=MyCursor) as connection:
        connection.row_factory, connection.prepared_max = dict_row, 7
        with resumed(save(connection)) as back:
            assert (type(back), back.cursor_factory, back.row_factory) == (MyConnection, MyCursor, dict_row)
            assert (back.prepare_threshold, back.prepared_max) == (None, 7)
            assert back.execute("SELECT 1 AS n").fetchone() == {"n": 1}
        connection.row_factory = class_row(Row)
        with resumed(save(connection)) as back:
            assert back.execute("SELECT 1 AS n").fetchone() == Row(1)


def test_converters_of_one_connection_are_refused(server: Server) -> None:
    """Converters that were registered for one connection, and would be lost, are refused with advice."""
    with psycopg.connect(server.url) as connection:
        save(connection)
        set_json_loads(lambda text: text, connection)
        with pytest.raises(LiveResourceError, match=r"psycopg\.adapters"):
            save(connection)


def test_a_pipeline_is_refused(server: Server) -> None:
    """A connection in pipeline mode, whose results are not there yet, is refused."""
    with psycopg.connect(server.url, autocommit=True) as connection, connection.pipeline():
        with pytest.raises(LiveResourceError, match="leave the pipeline"):
            save(connection)


def test_an_async_connection_comes_back(server: Server) -> None:
    """An AsyncConnection comes back in a loop, with its modes and settings; a host by its name."""

    async def main() -> None:
        url = server.url.replace("127.0.0.1", "localhost")
        connection = await psycopg.AsyncConnection.connect(url, row_factory=dict_row)
        async with connection:
            await connection.set_autocommit(True)
            await connection.execute("SET search_path = elsewhere")
            encoded = save(connection)
            assert CANARY.encode() not in encoded.data
            assert b"hostaddr" not in encoded.data
            async with await resume_in_loop(encoded) as back:
                assert (type(back), back.autocommit) == (psycopg.AsyncConnection, True)
                rows = await (await back.execute("SHOW search_path")).fetchall()
                assert rows == [{"search_path": "elsewhere"}]
        with pytest.raises(LiveResourceError, match="closed"):
            save(connection)

    asyncio.run(main())


def test_a_failing_restore_leaks_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a setting cannot be made again, the new connection is closed before the error."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS passing")
        connection.execute("CREATE ROLE passing")
        connection.execute("SET ROLE passing")
        connection.execute("SET application_name = 'leaking'")
        encoded = save(connection)
        connection.execute("RESET ROLE")
        connection.execute("DROP ROLE passing")
        with pytest.raises(ReconnectError, match=r"role.*could not be made"):
            resume(encoded)
        asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaking'"
        patience = time.monotonic() + 10
        while connection.execute(asked).fetchone() != (1,):     # a connection is closed here before the server has ended its part
            assert time.monotonic() < patience
            connection.execute("SELECT pg_sleep(0.01)")


# ---- psycopg2 alone


class OldConnection(psycopg2.extras.DictConnection):
    pass


def test_what_psycopg2_adds_is_kept(server: Server) -> None:
    """Class, cursor factory and a client encoding come back."""
    with closing(psycopg2.connect(server.url, connection_factory=OldConnection)) as connection:
        connection.cursor_factory = psycopg2.extras.RealDictCursor
        connection.set_client_encoding("LATIN1")
        with resumed(save(connection)) as back:
            assert (type(back), back.cursor_factory) == (OldConnection, psycopg2.extras.RealDictCursor)
            assert back.encoding == "LATIN1"
            with back.cursor() as cursor:
                cursor.execute("SELECT 'é' AS n")
                assert cursor.fetchone() == {"n": "é"}


def test_converters_of_one_psycopg2_connection_are_refused(server: Server) -> None:
    """Converters that were registered for one connection, and would be lost, are refused with advice."""
    with closing(psycopg2.connect(server.url)) as connection:
        psycopg2.extras.register_default_json(connection, loads=lambda text: text)
        with pytest.raises(LiveResourceError, match="without a connection"):
            save(connection)


# ---- asyncpg


def in_loop(check: Callable[[Any], Awaitable[None]], url: str, **settings: Any) -> None:
    async def main() -> None:
        async with connected(url, **settings) as connection:
            await check(connection)

    asyncio.run(main())


@asynccontextmanager
async def connected(url: str, **settings: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, **settings)
    try:
        yield connection
    finally:
        await connection.close()


class MyRecord(asyncpg.Record):
    pass


class MyAsyncpg(asyncpg.Connection):
    pass


def test_an_asyncpg_connection_comes_back(server: Server) -> None:
    """An asyncpg connection comes back with its classes, settings and limits, and the stored state has no password."""

    async def check(connection: Any) -> None:
        await connection.execute("SET TimeZone = 'Asia/Tokyo'")
        encoded = save(connection)
        assert CANARY.encode() not in encoded.data
        back = await resume_in_loop(encoded)
        try:
            assert type(back) is MyAsyncpg
            assert type(await back.fetchrow("SELECT 1")) is MyRecord
            assert back._config == connection._config
            for name, expected in (("TimeZone", "Asia/Tokyo"), ("search_path", "a, b"), ("application_name", "nightly")):
                assert await back.fetchval(f"SHOW {name}") == expected
        finally:
            await back.close()

    settings = {"search_path": "a, b", "application_name": "nightly"}
    in_loop(
        check, server.url, connection_class=MyAsyncpg, record_class=MyRecord, command_timeout=11, statement_cache_size=3,
        server_settings=settings,
    )  # fmt: skip


async def a_transaction(connection: Any) -> None:
    await connection.transaction().start()


async def a_listener(connection: Any) -> None:
    await connection.add_listener("news", print)


async def a_close(connection: Any) -> None:
    await connection.close()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [(a_transaction, "open transaction .commit"), (a_listener, "listeners .remove"), (a_close, "closed .keep")],
)
def test_asyncpg_sessions_that_cannot_come_back_are_refused(server: Server, break_it: Any, message: str) -> None:
    """An open transaction, listeners and a closed connection are refused, with what to do."""

    async def check(connection: Any) -> None:
        await break_it(connection)
        with pytest.raises(LiveResourceError, match=message):
            save(connection)

    in_loop(check, server.url)


def test_asyncpg_parts_are_refused(server: Server) -> None:
    """A pool, a connection of a pool and a prepared statement are refused, with what to keep."""

    async def main() -> None:
        async with asyncpg.create_pool(server.url, min_size=1) as pool, pool.acquire() as connection:
            statement = await connection.prepare("SELECT 1")
            for part in (pool, connection, statement):
                with pytest.raises(LiveResourceError, match="keep"):
                    save(part)

    asyncio.run(main())


def test_asyncpg_needs_its_password_and_a_loop(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An asyncpg connection is refused without its password in the environment, and comes back under `arun` alone."""

    async def check(connection: Any) -> None:
        with pytest.raises(SecretError):
            save(connection)
        monkeypatch.setenv("PGPASSWORD", postgres_server.password)
        with pytest.raises(ReconnectError, match="arun"):
            resume(save(connection))

    in_loop(check, postgres_server.url)


def give_password() -> str:
    return GIVEN[0]


GIVEN: list[str] = []


def test_a_password_that_is_called_for_comes_back(postgres_server: Server) -> None:
    """A function that gives asyncpg its password is kept by reference, and the password is not stored."""

    async def check(connection: Any) -> None:
        encoded = save(connection)
        assert CANARY.encode() not in encoded.data
        back = await resume_in_loop(encoded)
        assert await back.fetchval("SELECT 1") == 1
        await back.close()

    GIVEN[:] = [postgres_server.password]
    bare = f"postgresql://keeper@{postgres_server.host}:{postgres_server.port}/postgres"
    in_loop(check, bare, password=give_password)


# ---- jobs that are killed


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["into_psycopg", "into_psycopg_async", "into_psycopg2", "into_asyncpg_async"])
def test_a_job_is_killed_again_and_again(server: Server, tmp_path: Path, seed: int, kind: str) -> None:
    """A killed job goes on with its connection: every row is there, at most one a kill is twice, no password is stored."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS items")
        connection.execute("CREATE TABLE items (n int)")
        run_with_kills(kind, tmp_path, server.url, KILLS, random.Random(seed))
        assert_done((n for (n,) in connection.execute("SELECT n FROM items")), KILLS)
    assert files_with(CANARY, tmp_path) == []
