"""SQLAlchemy engines, URLs and sessions, against a real PostgreSQL and files of SQLite."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from holding import CANARY, resume, resume_in_loop, save
from killing import assert_done, files_with, run_with_kills
from servers import Server
from sqlalchemy import create_engine, event, orm, text
from sqlalchemy.ext import asyncio as async_alchemy
from sqlalchemy.pool import AssertionPool, NullPool, StaticPool

from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec, Encoded
from resumable.values.registry import GLOBAL

KILLS = 4


class Base(orm.DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "things"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)


class MySession(orm.Session):
    pass


class Prepared(orm.Session):
    def __init__(self, engine: Any) -> None:
        super().__init__(engine)


class MyAsyncSession(async_alchemy.AsyncSession):
    pass


def as_text(value: Any) -> str:
    return json.dumps(value)


@pytest.fixture
def server(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The environment holds its password."""
    monkeypatch.setenv("SHOP_PASSWORD", postgres_server.password)
    return postgres_server


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a database of SQLite with one table."""
    found = f"sqlite:///{tmp_path}/a.db"
    with making(found) as engine:
        Base.metadata.create_all(engine)
    return found


@pytest.fixture
def engine(url: str) -> Iterator[sqlalchemy.Engine]:
    with making(url) as engine:
        yield engine


@contextmanager
def making(*arguments: Any, **settings: Any) -> Iterator[sqlalchemy.Engine]:
    engine = create_engine(*arguments, **settings)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def resumed(encoded: Encoded) -> Iterator[sqlalchemy.Engine]:
    engine = resume(encoded)
    try:
        yield engine
    finally:
        engine.dispose()


def of(server: Server, driver: str) -> str:
    return server.url.replace("postgresql", f"postgresql+{driver}")


def seen(engine: sqlalchemy.Engine) -> dict[str, Any]:
    """What an engine's attributes tell of its settings."""
    pool = engine.pool
    queue = ("_timeout", "_max_overflow") if hasattr(pool, "_max_overflow") else ()
    names = ("_recycle", "_pre_ping", "_reset_on_return", "echo", "_orig_logging_name", *queue)
    return {
        "url": engine.url,
        "engine": (engine.echo, engine.hide_parameters, vars(engine).get("logging_name")),
        "options": dict(engine.get_execution_options()),
        "cache": getattr(engine._compiled_cache, "capacity", 0),
        "pool": (type(pool), pool.status() if queue else None, getattr(getattr(pool, "_pool", None), "use_lifo", None)),
        "pool settings": [getattr(pool, name) for name in names],
    }


# ---- engines


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_an_engine_comes_back(server: Server, driver: str) -> None:
    """An engine works again, used or not, and the stored state has no password and none of the library's own objects."""
    with making(of(server, driver)) as engine:
        for _ in range(2):
            encoded = save(engine)
            assert CANARY.encode() not in encoded.data
            assert b"AdaptersMap" not in encoded.data
            with resumed(encoded) as back, back.connect() as connection:
                assert connection.scalar(text("SELECT current_user")) == "keeper"
                assert back.url == engine.url
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))


SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "pool": {
        "pool_size": 3, "max_overflow": 4, "pool_timeout": 7, "pool_recycle": 60, "pool_pre_ping": True,
        "pool_use_lifo": True, "pool_reset_on_return": "commit", "pool_logging_name": "p",
    },
    "no pool": {"poolclass": NullPool, "pool_reset_on_return": None},
    "other pool": {"poolclass": AssertionPool},
    "engine": {"hide_parameters": True, "logging_name": "e", "query_cache_size": 7, "echo": False},
    "no cache": {"query_cache_size": 0},
    "options": {"execution_options": {"isolation_level": "AUTOCOMMIT", "schema_translate_map": {None: "a"}}},
}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_an_engine_are_kept(server: Server, settings: dict[str, Any]) -> None:
    """The pool's class and settings, execution options, echo and the statement cache come back."""
    with making(of(server, "psycopg"), **settings) as engine, resumed(save(engine)) as back:
        assert seen(back) == seen(engine)
        with resumed(save(back)) as again:
            assert seen(again) == seen(engine)


def test_settings_that_no_attribute_tells_are_kept(server: Server) -> None:
    """connect_args and options of the dialect come back: schema, isolation level and JSON as before."""
    connect_args = {"options": "-c search_path=elsewhere", "application_name": "nightly"}
    given: dict[str, Any] = {"isolation_level": "SERIALIZABLE", "json_serializer": as_text, "connect_args": connect_args}
    with making(of(server, "psycopg"), **given) as engine:
        for _ in range(2):
            with resumed(save(engine)) as back, back.connect() as connection:
                assert connection.scalar(text("SHOW search_path")) == "elsewhere"
                assert connection.scalar(text("SHOW application_name")) == "nightly"
                assert connection.get_isolation_level() == "SERIALIZABLE"
                assert back.dialect._json_serializer is as_text
            with engine.connect():
                pass  # what a dialect learns from its server is no option


def test_secrets_beside_the_url_are_found(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password in connect_args or in the query of a URL is kept by reference, or refused by name."""
    bare = f"postgresql+psycopg://keeper@{server.host}:{server.port}/postgres"
    with making(bare, connect_args={"password": server.password}) as engine:
        encoded = save(engine)
        assert CANARY.encode() not in encoded.data
        with resumed(encoded) as back, back.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1
    for given, settings in (
        (bare, {"connect_args": {"password": f"{CANARY}-2"}}),
        (f"{bare}?password={CANARY}-2", {}),
        (server.url.replace(CANARY, f"{CANARY}-2"), {}),
    ):
        with making(given, **settings) as engine:
            with pytest.raises(SecretError, match="password is a secret") as caught:
                save(engine)
            assert CANARY not in str(caught.value)


def test_engines_that_share_a_pool_share_one_again(engine: sqlalchemy.Engine) -> None:
    """An engine derived by execution_options() comes back derived from the same one."""
    derived = engine.execution_options(isolation_level="AUTOCOMMIT")
    codec = Codec()
    first, second = codec.decode(*codec.encode([derived, engine]))
    assert first.pool is second.pool
    assert first.get_execution_options() == {"isolation_level": "AUTOCOMMIT"}
    assert second.get_execution_options() == {}
    second.dispose()


def test_a_relative_file_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database of SQLite comes back by its absolute path; when it is gone, that is an error and none is made anew."""
    monkeypatch.chdir(tmp_path)
    with making("sqlite:///b.db") as engine:
        before = save(engine)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (n)"))
        encoded = save(engine)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for one in (before, encoded):
        with resumed(one) as back, back.connect() as connection:
            assert connection.execute(text("SELECT * FROM t")).all() == []
    (tmp_path / "b.db").unlink()
    with pytest.raises(ReconnectError, match="not there any more"):
        resume(encoded)
    assert not (tmp_path / "b.db").exists()
    assert not (elsewhere / "b.db").exists()


def a_listener(*_: Any) -> None:
    pass


def listen(target: Callable[[Any], Any], name: str) -> Callable[[Any], None]:
    return lambda engine: event.listen(target(engine), name, a_listener)


LISTENERS = {
    "engine": listen(lambda it: it, "before_cursor_execute"),
    "pool": listen(lambda it: it, "connect"),
    "dialect": listen(lambda it: it, "do_connect"),
    "derived": listen(lambda it: it, "commit"),
}


@pytest.mark.parametrize("name", LISTENERS)
def test_listeners_of_one_engine_are_refused(engine: sqlalchemy.Engine, name: str) -> None:
    """A listener to one engine, which would be lost without a word, is refused, also after a first save."""
    held = engine.execution_options(a=1) if name == "derived" else engine
    save(held)
    LISTENERS[name](held)
    with pytest.raises(LiveResourceError, match=r"listen on the class sqlalchemy\.Engine"):
        save(held)


def test_listeners_of_the_class_are_no_hindrance(engine: sqlalchemy.Engine) -> None:
    """Listeners of all engines are the program's, and are there again with it."""
    event.listen(sqlalchemy.Engine, "commit", a_listener)
    try:
        save(engine)
    finally:
        event.remove(sqlalchemy.Engine, "commit", a_listener)


def memory(engine: Any) -> Any:
    return create_engine("sqlite://")


def memory_by_uri(engine: Any) -> Any:
    return create_engine("sqlite:///file:shared?mode=memory&uri=true", poolclass=StaticPool)


def creator(engine: Any) -> Any:
    return create_engine("sqlite://", creator=engine.raw_connection, poolclass=NullPool)


def own_pool(engine: Any) -> Any:
    return create_engine("sqlite://", pool=StaticPool(engine.raw_connection))


def own_module(engine: Any) -> Any:
    import psycopg2

    other = type(psycopg2)("other")
    vars(other).update(vars(psycopg2))
    return create_engine("postgresql+psycopg2://", module=other)


HIDDEN = {memory: "in memory", memory_by_uri: "in memory", creator: "creator=", own_pool: "creator=", own_module: "module"}


@pytest.mark.parametrize("make", HIDDEN)
def test_engines_with_hidden_parts_are_refused(engine: sqlalchemy.Engine, make: Callable[[Any], Any]) -> None:
    """Databases in memory, and engines made with functions or modules of one's own, are refused with advice."""
    with pytest.raises(LiveResourceError, match=HIDDEN[make]) as caught:
        save(make(engine))
    assert "keep" in caught.value.reason or "register_reconnector" in caught.value.reason


def test_what_is_checked_out_is_refused(engine: sqlalchemy.Engine) -> None:
    """A connection, its transaction, a result and a pool are refused, with what to keep."""
    with engine.connect() as connection, connection.begin() as transaction:
        result = connection.execute(text("SELECT 1"))
        for held in (connection, transaction, result, engine.pool):
            with pytest.raises(LiveResourceError, match="keep the"):
                save(held)
        save(engine)


def test_a_changed_library_is_an_error(engine: sqlalchemy.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a version of the library keeps its settings elsewhere, that is said, and nothing is guessed."""
    monkeypatch.delattr(engine.pool, "_recycle")
    with pytest.raises(LiveResourceError, match=rf"SQLAlchemy {sqlalchemy.__version__}.*_recycle.*register_reconnector"):
        save(engine)


def test_a_url_comes_back(server: Server) -> None:
    """A URL, which pickle writes with its password, is kept without it and is equal again."""
    found = sqlalchemy.make_url(of(server, "psycopg") + "?connect_timeout=7&host=a&host=b")
    encoded = save(found)
    assert CANARY.encode() not in encoded.data
    back = resume(encoded)
    assert (type(back), back) == (type(found), found)


def test_arguments_are_compared_by_place(server: Server, engine: sqlalchemy.Engine) -> None:
    """What counts of an engine or session as an argument is the database and user, without the password."""
    made = create_engine(of(server, "psycopg"))
    maker = orm.sessionmaker(made)
    for held in (made, made.url, orm.Session(made), maker, orm.scoped_session(maker)):
        handler = GLOBAL.lookup(type(held))
        assert handler is not None
        assert handler.identity(held) == {
            "drivername": "postgresql+psycopg", "username": "keeper", "host": server.host, "port": server.port,
            "database": "postgres",
        }  # fmt: skip
    handler = GLOBAL.lookup(orm.Session)
    assert handler is not None
    assert handler.identity(orm.Session()) is None


# ---- sessions


def test_a_session_comes_back(engine: sqlalchemy.Engine) -> None:
    """A session comes back over the engine that others in the state hold, with class, options and attributes, and works."""
    with MySession(engine, autoflush=False, expire_on_commit=False, info={"a": 1}, close_resets_only=False) as session:
        session.add(Item(id=1))
        session.commit()
        session.purpose = "test"
        codec = Codec()
        back, other = codec.decode(*codec.encode([session, engine]))
        with back:
            assert type(back) is MySession
            assert back.bind is other
            assert (back.autoflush, back.expire_on_commit, back.info, back.purpose) == (False, False, {"a": 1}, "test")
            assert back._close_state is session._close_state
            assert back.get(Item, 1).id == 1
            assert not list(session.identity_map) or back is not session
        other.dispose()


def test_engines_by_class_are_kept(engine: sqlalchemy.Engine) -> None:
    """A session that finds its engine by the class of the object does so again; by table it is refused."""
    with orm.Session(binds={Item: engine}) as session, resume(save(session)) as back:
        back.add(Item(id=2))
        back.commit()
        assert back.get(Item, 2).id == 2
        engine_again = back.get_bind(Item)
        back.rollback()
        engine_again.dispose()
    with orm.Session(binds={Item.__table__: engine}) as session:
        with pytest.raises(LiveResourceError, match="by table"):
            save(session)


def add(session: orm.Session) -> None:
    session.add(Item(id=1))


def read(session: orm.Session) -> None:
    session.get(Item, 1)


def write(session: orm.Session) -> None:
    session.execute(text("DELETE FROM things"))


def change(session: orm.Session) -> None:
    session.add(Item(id=1))
    session.commit()
    session.get(Item, 1).id = 5


def remove(session: orm.Session) -> None:
    session.add(Item(id=1))
    session.commit()
    session.delete(session.get(Item, 1))


def hear(session: orm.Session) -> None:
    event.listen(session, "after_commit", a_listener)


BUSY = {add: "not flushed", read: "read begins", write: "open transaction", change: "not flushed", remove: "not flushed",
        hear: "listeners"}  # fmt: skip


@pytest.mark.parametrize("begin", BUSY)
def test_a_session_with_work_is_refused(engine: sqlalchemy.Engine, begin: Callable[[orm.Session], None]) -> None:
    """A session with pending objects, an open transaction or listeners of its own is refused, and untouched by that."""
    with orm.Session(engine) as session:
        save(session)
        begin(session)
        with pytest.raises(LiveResourceError, match=BUSY[begin]):
            save(session)
        session.commit()
        if begin is not hear:
            save(session)


def test_a_session_of_a_connection_or_a_class_of_its_own_is_refused(engine: sqlalchemy.Engine) -> None:
    """A session bound to a connection, or made in a way that is not known, is refused."""
    with engine.connect() as connection, orm.Session(connection) as session:
        with pytest.raises(LiveResourceError, match="keep the engine"):
            save(session)
    with Prepared(engine) as session:
        with pytest.raises(LiveResourceError, match="__init__ of its own"):
            save(session)


def test_makers_come_back(engine: sqlalchemy.Engine) -> None:
    """A sessionmaker, its sessions and a scoped_session come back over one engine."""
    maker = orm.sessionmaker(engine, class_=MySession, expire_on_commit=False)
    scoped = orm.scoped_session(maker, a_scope)
    codec = Codec()
    with maker() as session:
        back = codec.decode(*codec.encode({"maker": maker, "scoped": scoped, "session": session, "engine": engine}))
    assert back["scoped"].session_factory is back["maker"]
    assert type(back["session"]) is MySession
    assert back["scoped"].registry.scopefunc is a_scope
    for made in (back["maker"](), back["scoped"](), back["session"]):
        with made:
            assert isinstance(made, MySession)
            assert made.bind is back["engine"]
            assert made.expire_on_commit is False
            assert made.get(Item, 1) is None
    back["engine"].dispose()


def a_scope() -> str:
    return "one"


def test_busy_or_heard_makers_are_refused(engine: sqlalchemy.Engine) -> None:
    """A scoped_session whose session is busy, and a sessionmaker with listeners, are refused."""
    maker = orm.sessionmaker(engine)
    scoped = orm.scoped_session(maker)
    scoped.get(Item, 1)
    with pytest.raises(LiveResourceError, match="open transaction"):
        save(scoped)
    scoped.remove()
    save(scoped)
    event.listen(maker, "after_commit", a_listener)
    with pytest.raises(LiveResourceError, match="listeners"):
        save(maker)


# ---- asyncio


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_async_engines_and_sessions_come_back(server: Server, driver: str) -> None:
    """An AsyncEngine, its AsyncSession and async_sessionmaker come back over one engine, with no password stored."""

    async def main() -> None:
        engine = async_alchemy.create_async_engine(of(server, driver), pool_size=2, pool_pre_ping=True)
        maker = async_alchemy.async_sessionmaker(engine, class_=MyAsyncSession, expire_on_commit=False)
        async with maker() as session:
            assert await session.scalar(text("SELECT 1")) == 1
            with pytest.raises(LiveResourceError, match="open transaction"):
                save(session)
            await session.commit()
            codec = Codec()
            encoded = codec.encode({"engine": engine, "maker": maker, "session": session})
        assert CANARY.encode() not in encoded.data
        await engine.dispose()
        back = await codec.decode_in_loop(*encoded)
        assert seen(back["engine"].sync_engine) == seen(engine.sync_engine)
        for made in (back["session"], back["maker"]()):
            async with made:
                assert isinstance(made, MyAsyncSession)
                assert made.bind is back["engine"]
                assert made.sync_session.expire_on_commit is False
                assert await made.scalar(text("SELECT current_user")) == "keeper"
        await back["engine"].dispose()

    asyncio.run(main())


def test_what_is_checked_out_of_an_async_engine_is_refused(server: Server) -> None:
    """An AsyncConnection is refused, and the engine beside it comes back."""

    async def main() -> None:
        engine = async_alchemy.create_async_engine(of(server, "asyncpg"))
        async with engine.connect() as connection:
            with pytest.raises(LiveResourceError, match="keep the engine"):
                save(connection)
            back = await resume_in_loop(save(engine))
        await engine.dispose()
        async with back.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        await back.dispose()

    asyncio.run(main())


# ---- jobs that are killed


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["into_engine", "into_session", "into_engine_async"])
def test_a_job_is_killed_again_and_again(server: Server, tmp_path: Path, seed: int, kind: str) -> None:
    """A killed job goes on with its engine: every row is there, at most one a kill is twice, no password is stored."""
    url = of(server, "asyncpg" if kind.endswith("_async") else "psycopg")
    with making(of(server, "psycopg"), isolation_level="AUTOCOMMIT") as engine, engine.connect() as connection:
        connection.execute(text("DROP TABLE IF EXISTS items"))
        connection.execute(text("CREATE TABLE items (n int)"))
        run_with_kills(kind, tmp_path, url, KILLS, random.Random(seed))
        assert_done(connection.scalars(text("SELECT n FROM items")), KILLS)
    assert files_with(CANARY, tmp_path) == []
