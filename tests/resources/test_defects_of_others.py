"""What other checkpointers and serialisers get wrong about live and nested states, each as a property that holds here."""

from __future__ import annotations

import sqlite3
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
import redis
import requests
import sqlalchemy
from holding import CANARY
from sqlalchemy import orm

from resumable import Driver, SecretError, checkpoint

Point = namedtuple("Point", "x y")


class Crash(Exception):
    """Ends a life of the job."""


class Service:
    """A user's object with a connection in an attribute."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection


def come_back(state_dir: Path, make: Callable[[], Any], close: Callable[[Any], None] = lambda _: None) -> Any:
    """What a job finds in its state after a crash: `make()` is the state that it saved, `close` what it did on its way out."""
    found: list[Any] = []

    def job(state: Any = None) -> Iterator[Any]:
        if state is None:
            made = make()
            yield checkpoint(made)
            close(made)
            raise Crash
        found.append(state)

    with Driver(state_dir) as driver:
        with pytest.raises(Crash):
            driver.run(job, name="job")
        driver.run(job, name="job")
    return found[0]


# ---- safe-state


def test_a_file_opened_for_writing_keeps_what_was_written(tmp_path: Path) -> None:
    """A file opened "w" comes back with everything up to the checkpoint in it, not emptied."""

    def make() -> Any:
        file = (tmp_path / "out").open("w")
        file.write("before\n")
        return [file]

    def close(state: Any) -> None:
        state[0].write("after\n")
        state[0].close()

    (file,) = come_back(tmp_path / "state", make, close)
    with file:
        file.write("resumed\n")
    assert (tmp_path / "out").read_text() == "before\nresumed\n"


def test_a_database_in_memory_keeps_its_rows(tmp_path: Path) -> None:
    """A sqlite3 database in memory comes back with its tables and rows, not empty."""

    def make() -> Any:
        connection = sqlite3.connect(":memory:")
        connection.executescript("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1), (2)")
        return [connection]

    (connection,) = come_back(tmp_path / "state", make, lambda state: state[0].close())
    assert connection.execute("SELECT sum(n) FROM t").fetchone() == (3,)
    connection.close()


@pytest.mark.parametrize(
    "value",
    [Point(1, 2), OrderedDict(b=1, a=2), defaultdict(list, a=[1]), Counter("aab")],
    ids=lambda value: type(value).__name__,
)
def test_containers_keep_their_type(tmp_path: Path, value: Any) -> None:
    """Named tuples, ordered and default dicts and counters come back as what they are, beside a live resource too."""

    def make() -> Any:
        return [value, (tmp_path / "out").open("w")]

    back, file = come_back(tmp_path / "state", make, lambda state: state[1].close())
    file.close()
    assert type(back) is type(value)
    assert back == value
    assert getattr(back, "default_factory", None) is getattr(value, "default_factory", None)


def test_one_object_comes_back_as_one(tmp_path: Path) -> None:
    """What is one object in two places of a state is one object after resuming."""

    def make() -> Any:
        shared = [1]
        return {"a": shared, "b": (shared, Point(shared, None))}

    state = come_back(tmp_path / "state", make)
    assert state["a"] is state["b"][0] is state["b"][1].x


def test_a_list_inside_itself_comes_back(tmp_path: Path) -> None:
    """A state may contain itself."""

    def make() -> Any:
        state: list[Any] = [1]
        state.append(state)
        return state

    state = come_back(tmp_path / "state", make)
    assert state[1] is state
    assert state[0] == 1


def test_a_connection_in_an_attribute_comes_back(tmp_path: Path) -> None:
    """A live resource is found in the attributes of any object, not only in containers."""

    def make() -> Any:
        return {"service": Service(sqlite3.connect(tmp_path / "a.db"))}

    service = come_back(tmp_path / "state", make, lambda state: state["service"].connection.close())["service"]
    assert service.connection.execute("SELECT 1").fetchone() == (1,)
    service.connection.close()


# ---- secrets that serialisers write in clear


def a_requests_session() -> Any:
    session = requests.Session()
    session.auth = ("me", CANARY)
    return session


def a_mongo_client() -> Any:
    return pymongo.MongoClient("127.0.0.1", 1, username="me", password=CANARY, connect=False)


def a_redis_client() -> Any:
    return redis.Redis("127.0.0.1", 1, username="me", password=CANARY)


def an_engine() -> Any:
    return sqlalchemy.create_engine(f"postgresql+psycopg://me:{CANARY}@127.0.0.1:1/db")


def an_orm_session() -> Any:
    return orm.Session(an_engine())


# maker: (how it is closed, the password of one)
LEAKING: dict[Callable[[], Any], tuple[Callable[[Any], None], Callable[[Any], str]]] = {
    a_requests_session: (lambda session: session.close(), lambda session: session.auth[1]),
    a_mongo_client: (lambda client: client.close(), lambda client: client.options._options["password"]),
    a_redis_client: (lambda client: client.close(), lambda client: client.connection_pool.connection_kwargs["password"]),
    an_engine: (lambda engine: engine.dispose(), lambda engine: engine.url.password),
    an_orm_session: (lambda session: session.close(), lambda session: session.get_bind().url.password),
}


@pytest.mark.parametrize("make", LEAKING, ids=lambda make: make.__name__)
def test_a_password_is_stored_by_name_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any]
) -> None:
    """A client's password is not in the state directory: refused by name, or kept as the variable that holds it."""
    close, password = LEAKING[make]
    with pytest.raises(SecretError, match="environment") as caught:
        come_back(tmp_path / "refused", make, close)
    assert CANARY not in str(caught.value)
    monkeypatch.setenv("SERVICE_PASSWORD", CANARY)
    back = come_back(tmp_path / "kept", make, close)
    assert password(back) == CANARY
    close(back)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path
