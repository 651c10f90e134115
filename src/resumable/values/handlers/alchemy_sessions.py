"""SQLAlchemy sessions and what makes them: made again over the same engines, with the same options, empty.

Kept: engine (as described in alchemy.py, shared with all that used it), engines by class, the class, autoflush,
expire_on_commit, twophase, info and other options and attributes. AsyncSession, sessionmaker, async_sessionmaker and
scoped_session: the same.

Refused: an open transaction, which a read begins too (commit() or rollback() before the checkpoint, after the last
access to an object); objects that were added, changed or deleted and not flushed; engines by table; listeners for one
session or sessionmaker; sessions bound to a connection; classes with an `__init__` of their own.

Not kept: the objects in a session. Keep their keys, and get() them again. A session of a sessionmaker comes back as of the
class that the sessionmaker was given; a scoped_session makes its sessions anew.

Cost: about 90 µs beside the engine's.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from resumable.values.handlers.alchemy import identify_url, own_listeners
from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

_OPTIONS: Final = ("autoflush", "expire_on_commit", "twophase", "autobegin", "enable_baked_queries", "join_transaction_mode")
_NO_EXTRA: Final = {"dispatch", "_flushing"}


def importable_class(cls: type[Any]) -> type[Any]:
    """The class itself, or for one that a sessionmaker made for itself the class that it was given."""
    named = getattr(sys.modules.get(cls.__module__), cls.__qualname__, None)
    # A local class is no sessionmaker's: those have an empty body and one base, whose name they bear.
    made = named is not cls and len(cls.__bases__) == 1 and cls.__bases__[0].__name__ == cls.__name__
    return cls.__bases__[0] if made else cls


# ---- Session


def extract_session(session: Session) -> dict[str, Any]:
    """A session's options. Raises LiveResourceError for one with work that is not committed."""
    from sqlalchemy.orm import Session

    cls = importable_class(type(session))
    if not cls.__init__.__module__.startswith(("sqlalchemy.", "sqlmodel.")):
        raise alive(session, f"its class has __init__ of its own (register_reconnector for {cls.__qualname__})")
    if session.new or session.dirty or session.deleted:
        raise alive(session, "it has objects that are not flushed (commit() or rollback() before the checkpoint)")
    if session.in_transaction():
        reason = "it has an open transaction, which a read begins too (commit() or rollback() before the checkpoint, and read "
        raise alive(session, f"{reason}no attribute of an object after it)")
    plain = Session()
    if own_listeners(session, plain):
        raise alive(session, "it has listeners of its own (listen on the class sqlalchemy.orm.Session, or register_reconnector)")
    usual = vars(plain)
    return {
        "class": cls,
        "bind": session.bind,
        "binds": _binds(session),
        "options": {name: getattr(session, name) for name in _OPTIONS},
        # Whether close() is the end of it: in the library's words.
        "close_resets_only": session._close_state.name == "CLOSE_IS_RESET",
        "query_cls": session._query_cls,
        "extra": {name: it for name, it in vars(session).items() if name not in usual and name not in _NO_EXTRA},
    }


def identify_session(session: Session) -> dict[str, Any] | None:
    """Which database and user."""
    return None if session.bind is None else identify_url(session.bind.engine.url)


def reconnect_session(description: dict[str, Any]) -> Session:
    """An equal session, without objects."""
    session: Session = description["class"](bind=description["bind"], **_arguments(description))
    vars(session).update(description["extra"])
    return session


def _arguments(description: dict[str, Any]) -> dict[str, Any]:
    return {
        **description["options"],
        "binds": description["binds"],
        "close_resets_only": description["close_resets_only"],
        "query_cls": description["query_cls"],
    }


def _binds(session: Any) -> dict[type[Any], Any]:
    """Engines by class; beside a class the library lists its tables, which it finds by itself again."""
    from sqlalchemy import inspect

    given = session.binds if hasattr(session, "binds") else session._Session__binds
    binds = {key: bind for key, bind in given.items() if isinstance(key, type)}
    mappers: list[Any] = [inspect(cls, raiseerr=False) for cls in binds]
    known = {table for mapper in mappers if mapper is not None for table in mapper.tables}
    if not known.issuperset(key for key in given if not isinstance(key, type)):
        raise alive(session, "it has engines by table (bind them to the mapped classes, or register_reconnector)")
    return binds


# ---- AsyncSession


def extract_async_session(session: Any) -> dict[str, Any]:
    """The options of the session below it. Raises LiveResourceError."""
    inner = extract_session(session.sync_session)
    if inner["binds"]:
        raise alive(session, "it has engines by class (give it one engine, or register_reconnector)")
    return {**inner, "class": importable_class(type(session)), "sync_session_class": inner["class"], "bind": session.bind}


def identify_async_session(session: Any) -> dict[str, Any] | None:
    """Which database and user."""
    return identify_session(session.sync_session)


def reconnect_async_session(description: dict[str, Any]) -> Any:
    """An equal session, without objects."""
    arguments = {**_arguments(description), "binds": None, "sync_session_class": description["sync_session_class"]}
    session = description["class"](bind=description["bind"], **arguments)
    vars(session.sync_session).update(description["extra"])
    return session


# ---- sessionmaker, async_sessionmaker, scoped_session


def extract_maker(maker: Any) -> dict[str, Any]:
    """What its sessions are made with. Raises LiveResourceError."""
    cls = importable_class(maker.class_)
    if own_listeners(*(getattr(made, "sync_session", made) for made in (maker.class_(), cls()))):
        raise alive(maker, "it has listeners of its own (listen on the class sqlalchemy.orm.Session, or register_reconnector)")
    return {"class": type(maker), "class_": cls, "settings": dict(maker.kw)}


def identify_maker(maker: Any) -> dict[str, Any] | None:
    """Which database and user."""
    bind = maker.kw.get("bind")
    return None if bind is None else identify_url(bind.engine.url if hasattr(bind, "engine") else bind.url)


def reconnect_maker(description: dict[str, Any]) -> Any:
    return description["class"](class_=description["class_"], **description["settings"])


def extract_scoped(scoped: Any) -> dict[str, Any]:
    """What makes its sessions. Raises LiveResourceError when the current one has work that is not committed."""
    if scoped.registry.has():
        extract_session(scoped.registry())
    # The library's own registry of one session a thread has no such function.
    return {"factory": scoped.session_factory, "scopefunc": getattr(scoped.registry, "scopefunc", None)}


def reconnect_scoped(description: dict[str, Any]) -> Any:
    from sqlalchemy.orm import scoped_session

    return scoped_session(description["factory"], description["scopefunc"])


def identify_scoped(scoped: Any) -> dict[str, Any] | None:
    """Which database and user."""
    return identify_session(scoped.session_factory())


HANDLERS: Final = {
    key: Handler(key, extract, reconnect, identify)
    for key, extract, reconnect, identify in (
        ("sqlalchemy.orm.session:Session", extract_session, reconnect_session, identify_session),
        ("sqlalchemy.ext.asyncio.session:AsyncSession", extract_async_session, reconnect_async_session, identify_async_session),
        ("sqlalchemy.orm.session:sessionmaker", extract_maker, reconnect_maker, identify_maker),
        ("sqlalchemy.ext.asyncio.session:async_sessionmaker", extract_maker, reconnect_maker, identify_maker),
        ("sqlalchemy.orm.scoping:scoped_session", extract_scoped, reconnect_scoped, identify_scoped),
    )
}
