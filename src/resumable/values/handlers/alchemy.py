"""SQLAlchemy engines: made again from their URL and settings; connections are made when they are needed.

Kept: URL, connect_args, the pool's class and settings, options of the dialect (isolation_level, json_serializer ...),
execution options, echo, hide_parameters, the size of the cache of statements; engines derived by execution_options()
share their pool again. The file of an SQLite database has to be there again: it is not made anew, empty. AsyncEngine: the
same. URL: its parts. Sessions are in alchemy_sessions.py.

How: connect_args and the options of a dialect are told by no attribute, so a second engine is made from the URL alone, once,
and what is different is kept. It never connects.

Refused: databases in memory, `creator=`, `pool=` and `module=`, listeners for this engine alone (listen on the class
`sqlalchemy.Engine`, or give the engine by Driver(resources=...)), connections, transactions, results, pools.

Not kept: plugins of the URL, connections checked out. Passwords, also those in the query or in connect_args, have to be in
the environment. Cost: about 170 µs, a URL 50 µs; the first time 2 ms.
"""

from __future__ import annotations

import os
import weakref
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine

# Where an object has what was given to create_engine: name there -> attribute.
_OF_POOL: Final = {
    "pool_recycle": "_recycle",
    "pool_pre_ping": "_pre_ping",
    "echo_pool": "echo",
    "pool_logging_name": "_orig_logging_name",
}
_OF_QUEUE: Final = {"max_overflow": "_max_overflow", "pool_timeout": "_timeout"}
_OF_DIALECT: Final = {
    "isolation_level": "_on_connect_isolation_level",
    "max_identifier_length": "_user_defined_max_identifier_length",
}
_NO_OPTION: Final = ("dbapi", "compiler_linting")  # arguments of a dialect that create_engine gives itself

_NO_EVENT: Final = ("local", "parent")  # the two halves of what a derived engine listens with
_OF_OPTIONS: Final = "sqlalchemy.engine.default"

# For each engine the one that was made from its URL alone.
_plain: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def own_listeners(target: Any, plain: Any) -> bool:
    """Whether something listens to this object alone: those of its class listen to a plain one too."""
    names = [name for name in dir(target.dispatch) if not name.startswith("_") and name not in _NO_EVENT]
    return any(_count(target, name) != _count(plain, name) for name in names)


def _count(target: Any, name: str) -> int:
    """How many listen, but for those that do an engine's isolation_level: they come with its execution options."""
    return sum(listener.__module__ != _OF_OPTIONS for listener in getattr(target.dispatch, name))


# ---- URL


def extract_url(url: URL) -> dict[str, Any]:
    """Its parts."""
    parts = {name: getattr(url, name) for name in ("drivername", "username", "password", "host", "port", "database")}
    return {**parts, "query": dict(url.query)}


def reconnect_url(description: dict[str, Any]) -> URL:
    from sqlalchemy import URL

    return URL.create(**description)


def identify_url(url: URL) -> dict[str, Any]:
    """Which database and user."""
    return {name: getattr(url, name) for name in ("drivername", "username", "host", "port", "database")}


# ---- engines


def extract_engine(engine: Any) -> dict[str, Any]:
    """What it takes to make an equal engine. Raises LiveResourceError."""
    try:
        if hasattr(engine, "_proxied"):  # made by execution_options() of another one
            return _describe_derived(engine)
        return _describe(engine)
    except (AttributeError, ValueError) as error:
        import sqlalchemy

        reason = f"its settings cannot be read on SQLAlchemy {sqlalchemy.__version__}: {error} (register_reconnector for it)"
        raise alive(engine, reason) from error


def identify_engine(engine: Engine) -> dict[str, Any]:
    """Which database and user."""
    return identify_url(engine.url)


def reconnect_engine(description: dict[str, Any]) -> Engine:
    """An equal engine, not connected yet. Raises FileNotFoundError for an SQLite database that is gone."""
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    if "derived_from" in description:
        derived: Engine = description["derived_from"].execution_options(**description["execution_options"])
        return derived
    file = description["file"]
    if file is not None and not os.path.exists(file):
        raise FileNotFoundError(f"the database {file} is not there any more")
    url = reconnect_url(description["url"])
    if description["is_async"]:
        return create_async_engine(url, **description["settings"]).sync_engine
    return create_engine(url, **description["settings"])


def _describe_derived(engine: Any) -> dict[str, Any]:
    if own_listeners(engine, engine._proxied):
        raise alive(engine, _LISTENERS)
    return {"derived_from": engine._proxied, "execution_options": dict(engine.get_execution_options())}


_LISTENERS: Final = (
    "it has listeners of its own (listen on the class sqlalchemy.Engine, give the engine by Driver(resources=...), or use "
    "register_reconnector)"
)


def _describe(engine: Any) -> dict[str, Any]:
    pool, dialect = engine.pool, engine.dialect
    _check_class(engine, pool)
    plain = _plain.get(engine)
    if plain is None:
        plain = _plain[engine] = _from_url_alone(engine)
    if any(own_listeners(*pair) for pair in ((engine, plain), (pool, plain.pool), (dialect, plain.dialect))):
        raise alive(engine, _LISTENERS)
    arguments, parameters = _connect_arguments(engine)
    _, usual = _connect_arguments(plain)
    url, file = extract_url(engine.url), None
    if dialect.name == "sqlite":
        file = _file(engine, arguments[0])
        if not parameters.get("uri"):
            url["database"] = arguments[0]  # absolute, as it was when the engine was made
    cache = engine._compiled_cache
    return {
        "url": url,
        "file": file,
        "is_async": dialect.is_async,
        "settings": {
            "connect_args": _given(parameters, usual, dialect),
            **_of_pool(pool),
            **_of_dialect(dialect, plain.dialect),
            **({"logging_name": engine.logging_name} if "logging_name" in vars(engine) else {}),
            "echo": engine.echo,
            "hide_parameters": engine.hide_parameters,
            "query_cache_size": 0 if cache is None else cache.capacity,
            "execution_options": dict(engine.get_execution_options()),
        },
    }


def _check_class(engine: Any, pool: Any) -> None:
    """Refuse what create_engine would not make again."""
    from sqlalchemy import Engine

    if type(engine) is not Engine:
        raise alive(engine, "it is of a class of its own (register_reconnector for that class)")
    if not type(pool).__init__.__module__.startswith("sqlalchemy."):
        raise alive(engine, f"its pool {type(pool).__qualname__} has __init__ of its own (register_reconnector for the engine)")


def _from_url_alone(engine: Any) -> Any:
    from sqlalchemy import create_engine
    from sqlalchemy.ext.asyncio import create_async_engine

    make: Any = create_async_engine if engine.dialect.is_async else create_engine
    plain = make(engine.url, poolclass=type(engine.pool))
    plain = plain.sync_engine if engine.dialect.is_async else plain
    usual, found = plain.dialect.dbapi, engine.dialect.dbapi
    # Of an async dialect it is no module but an object around one, for each engine another.
    same = usual is found or (type(usual) is type(found) is not ModuleType)
    if type(plain.dialect) is not type(engine.dialect) or not same:
        raise alive(engine, "it was made with a module or dialect of its own (register_reconnector for it)")
    return plain


def _connect_arguments(engine: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the driver is called with. It stands in the function with which create_engine had the pool connect."""
    connect = engine.pool._creator
    code = getattr(connect, "__code__", None)
    if getattr(connect, "__module__", None) != "sqlalchemy.engine.create" or code is None:
        raise alive(engine, "it was made with creator= or pool= (give it by Driver(resources=...), or register_reconnector)")
    cells = dict(zip(code.co_freevars, connect.__closure__, strict=True))
    try:
        arguments, parameters = cells["cargs_tup"].cell_contents, cells["cparams"].cell_contents
    except KeyError as error:
        raise AttributeError(f"no {error} where it connects") from error
    return tuple(arguments), dict(parameters)


def _given(parameters: dict[str, Any], usual: dict[str, Any], dialect: Any) -> dict[str, Any]:
    """The parameters that do not come of the URL, nor are parts of the dialect, such as its converters."""
    parts = {id(part) for part in vars(dialect).values()}
    return {
        name: value
        for name, value in parameters.items()
        if name not in usual or (value != usual[name] and id(value) not in parts)
    }


def _of_pool(pool: Any) -> dict[str, Any]:
    from sqlalchemy.pool import QueuePool, SingletonThreadPool

    names = _OF_POOL | (_OF_QUEUE if isinstance(pool, QueuePool) else {})
    settings = {name: getattr(pool, attribute) for name, attribute in names.items()}
    settings["poolclass"] = type(pool)
    # "rollback" or "commit"; None is as good as the name for none.
    style = pool._reset_on_return.name.removeprefix("reset_")
    settings["pool_reset_on_return"] = None if style == "none" else style
    if isinstance(pool, QueuePool):
        settings |= {"pool_size": pool.size(), "pool_use_lifo": pool._pool.use_lifo}
    if isinstance(pool, SingletonThreadPool):
        settings["pool_size"] = pool.size
    return settings


def _of_dialect(dialect: Any, plain: Any) -> dict[str, Any]:
    """Options that are others than a dialect has that nobody gave any."""
    from sqlalchemy.util import get_cls_kwargs

    settings = {}
    for name in get_cls_kwargs(type(dialect)):
        places = (_OF_DIALECT[name],) if name in _OF_DIALECT else (name, f"_{name}")
        place = next((place for place in places if place in vars(plain)), None)
        if place is not None and name not in _NO_OPTION and (value := getattr(dialect, place)) != getattr(plain, place):
            settings[name] = value
    return settings


def _file(engine: Any, argument: str) -> str | None:
    """The file of an SQLite database, when it is there already. Raises LiveResourceError for one in memory."""
    path = argument
    if argument.startswith("file:"):
        path, _, query = argument.removeprefix("file:").partition("?")
        path = "" if "mode=memory" in query else unquote(path)
    if path in ("", ":memory:"):
        reason = "its database is in memory (use a file, or keep a connection of sqlite3, which comes back with its rows)"
        raise alive(engine, reason)
    return os.path.abspath(path) if os.path.exists(path) else None


# ---- AsyncEngine


def extract_async_engine(engine: AsyncEngine) -> dict[str, Any]:
    """The engine below it, which is described by itself."""
    return {"class": type(engine), "engine": engine.sync_engine}


def identify_async_engine(engine: AsyncEngine) -> dict[str, Any]:
    """Which database and user."""
    return identify_url(engine.url)


def reconnect_async_engine(description: dict[str, Any]) -> Any:
    return description["class"](description["engine"])


HANDLERS: Final = {
    "sqlalchemy.engine.url:URL": Handler("sqlalchemy.engine.url:URL", extract_url, reconnect_url, identify_url),
    "sqlalchemy.engine.base:Engine": Handler(
        "sqlalchemy.engine.base:Engine", extract_engine, reconnect_engine, identify_engine
    ),
    "sqlalchemy.ext.asyncio.engine:AsyncEngine": Handler(
        "sqlalchemy.ext.asyncio.engine:AsyncEngine", extract_async_engine, reconnect_async_engine, identify_async_engine
    ),
}
