"""The reconnect registry: lookup, refusals, secrets on the way through."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import csv
import gzip
import io
import multiprocessing
import queue
import smtplib
import subprocess
import sys
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resumable.errors import LiveResourceError, ReconnectError, SecretError, UnsavableStateError
from resumable.values import registry as module
from resumable.values.codec import Codec
from resumable.values.registry import Handler, Registry, key_of, register_reconnector


class Base:
    pass


class Child(Base):
    pass


class Thing:
    def __init__(self, settings: Any) -> None:
        self.settings = settings


def describe(thing: Thing) -> Any:
    return thing.settings


@pytest.fixture
def registry() -> Registry:
    return Registry()


def reconnector(registry: Registry, cls: type[Any]) -> Handler:
    handler = registry.lookup(cls)
    assert handler is not None
    return handler


# ---- lookup


def test_the_exact_type_comes_first(registry: Registry) -> None:
    """A subclass is covered by its base's handler until it has one of its own."""
    assert registry.lookup(Child) is None
    registry.register(Base, describe, Thing)
    assert reconnector(registry, Child).key == key_of(Base)
    registry.register(Child, describe, Thing)
    assert reconnector(registry, Child).key == key_of(Child)
    assert reconnector(registry, Base).key == key_of(Base)


def test_a_later_registration_wins(registry: Registry) -> None:
    """Registering a type again takes the place of the earlier handler, also for subclasses met before."""
    registry.register(Base, describe, Thing)
    assert reconnector(registry, Child).reconnect is Thing
    registry.register(Base, describe, Child)
    assert reconnector(registry, Child).reconnect is Child


def test_a_child_registry_asks_its_parent(registry: Registry) -> None:
    """A registry of one's own is asked first; what its parent learns later it knows too."""
    child = Registry(registry)
    assert child.lookup(Base) is None
    registry.register(Base, describe, Thing)
    assert reconnector(child, Base).reconnect is Thing
    child.register(Base, describe, Child)
    assert reconnector(child, Base).reconnect is Child
    assert reconnector(registry, Base).reconnect is Thing


def test_a_handler_is_found_by_its_stored_name(registry: Registry) -> None:
    """Resuming finds the handler by the name in the state: own, parent's or built in, none for unknown names."""
    registry.register(Thing, describe, Thing)
    key = reconnector(registry, Thing).key
    assert key == f"{__name__}:Thing"
    found = Registry(registry).handler_named(key)
    assert found is not None
    assert found.reconnect is Thing
    assert registry.handler_named("_io:FileIO") is not None
    assert registry.handler_named("nowhere:Nothing") is None


def test_classes_made_in_a_loop_do_not_pile_up(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry's memory of types is bounded."""
    monkeypatch.setattr(module, "_MOST_TYPES", 10)
    gone = weakref.ref(made := type("Made", (), {}))
    registry.lookup(made)
    del made
    for _ in range(11):
        registry.lookup(type("Made", (), {}))
    assert len(registry.unhandled) <= 10
    for _ in range(2):
        __import__("gc").collect()
    assert gone() is None


@pytest.mark.parametrize("arguments", [(1, describe, Thing), (Thing, None, Thing), (Thing, describe, "x")])
def test_bad_registrations_are_refused_at_once(registry: Registry, arguments: Any) -> None:
    """What is no class or cannot be called is a TypeError when it is registered, not when a state is saved."""
    with pytest.raises(TypeError, match=r"class|callable"):
        registry.register(*arguments)


def test_the_public_name_takes_both_forms() -> None:
    """register_reconnector works with keywords and with positions, on the global registry."""
    register_reconnector(Child, extract=describe, reconnect=Thing)
    register_reconnector(Child, describe, Child)
    try:
        assert reconnector(module.GLOBAL, Child).reconnect is Child
    finally:
        module.GLOBAL._handlers.pop(Child)
        module.GLOBAL._forget()


def test_identity_is_the_description_unless_told(registry: Registry) -> None:
    """Arguments are compared by `identify` where a handler has it, else by `extract`."""
    thing = Thing({"a": 1})
    assert Handler("m:Thing", describe, Thing).identity(thing) == {"a": 1}
    assert Handler("m:Thing", describe, Thing, lambda it: "b").identity(thing) == "b"


# ---- what is refused


def a_generator() -> Iterator[int]:
    yield 1


async def a_coroutine() -> None:
    pass


@contextlib.contextmanager
def a_context() -> Iterator[int]:
    yield 1


class MyThread(threading.Thread):
    pass


GHOSTS: dict[str, Callable[[], Any]] = {
    "local": threading.local,
    "thread": MyThread,
    "process": multiprocessing.Process,
    "multiprocessing lock": multiprocessing.Lock,
    "generator": a_generator,
    "context manager": a_context,
    "frame": sys._getframe,
    "future": concurrent.futures.Future,
    "executor": lambda: concurrent.futures.ThreadPoolExecutor(1),
    "queue": queue.Queue,
    "simple queue": queue.SimpleQueue,
    "asyncio queue": asyncio.Queue,
    "temporary directory": lambda: tempfile.TemporaryDirectory(ignore_cleanup_errors=True),
    "spooled file": tempfile.SpooledTemporaryFile,
    "zip": lambda: zipfile.ZipFile(io.BytesIO(), "w"),
    "gzip": lambda: gzip.GzipFile(fileobj=io.BytesIO(), mode="wb"),
    "csv writer": lambda: csv.writer(io.StringIO()),
    "csv reader": lambda: csv.reader([]),
    "csv dict reader": lambda: csv.DictReader([]),
    "weak reference": lambda: weakref.ref(Thing),
    "weak dictionary": weakref.WeakValueDictionary,
    "smtp": smtplib.SMTP,
}


@pytest.mark.parametrize("make", GHOSTS.values(), ids=GHOSTS)
@pytest.mark.parametrize("extra", [[], [lambda: 1]], ids=["pickle", "dill"])
def test_ghosts_are_refused_with_advice(make: Callable[[], Any], extra: list[Any]) -> None:
    """What would come back as a ghost is refused in every tier, with its place and what to keep instead."""
    ghost = make()
    with pytest.raises(LiveResourceError) as caught:
        Codec().encode([*extra, {"held": ghost}])
    assert caught.value.path == f'state[{len(extra)}]["held"]'
    assert "keep" in caught.value.reason
    if hasattr(ghost, "cleanup"):
        ghost.cleanup()
    elif hasattr(ghost, "close"):
        ghost.close()


def test_a_coroutine_is_refused() -> None:
    """A coroutine and the tasks of an event loop are refused."""

    async def main() -> None:
        coroutine = a_coroutine()
        for live in (coroutine, asyncio.current_task(), asyncio.get_running_loop()):
            with pytest.raises(LiveResourceError, match="keep"):
                Codec().encode([live])
        await coroutine

    asyncio.run(main())


def test_a_running_process_is_refused() -> None:
    """subprocess.Popen, of which dill would make a ghost, is refused."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        with pytest.raises(LiveResourceError, match="keep the work"):
            Codec().encode({"p": process})


def test_a_named_temporary_file_is_refused() -> None:
    """A file that goes away when it is closed is refused."""
    with tempfile.NamedTemporaryFile() as file:
        with pytest.raises(LiveResourceError, match="keep its path"):
            Codec().encode({"f": file})


LEAKS = [
    "redis.client.Redis", "redis.asyncio.client.Redis", "pymongo.synchronous.mongo_client.MongoClient",
    "sqlalchemy.engine.base.Engine", "sqlalchemy.orm.session.Session", "botocore.client.BaseClient", "httpx.Client",
    "aiohttp.client.ClientSession",
]  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_clients_that_would_be_pickled_with_their_password_are_refused(name: str) -> None:
    """Clients that pickle or dill write with the login in clear are refused by name, subclasses with them."""
    where, _, cls = name.rpartition(".")
    client = type(cls, (), {"__module__": where, "password": "hunter2"})
    for made in (client, type("Mine", (client,), {})):
        with pytest.raises(LiveResourceError, match="register_reconnector") as caught:
            Codec().encode([made()])
        assert "hunter2" not in str(caught.value)


class Resumable(threading.Thread):
    """Says itself how it is pickled."""

    def __reduce__(self) -> Any:
        return Resumable, ()


def test_a_subclass_with_its_own_pickling_is_believed() -> None:
    """A class that defines its pickling is saved by it, whatever its base is."""
    codec = Codec()
    assert type(codec.decode(*codec.encode([Resumable()]))[0]) is Resumable


def test_a_registration_lifts_a_refusal(registry: Registry) -> None:
    """register_reconnector covers a type that is refused otherwise."""
    registry.register(queue.Queue, lambda full: full.maxsize, queue.Queue)
    codec = Codec(registry=registry)
    assert codec.decode(*codec.encode([queue.Queue(3)]))[0].maxsize == 3


# ---- describing and rebuilding


def test_a_secret_in_a_description_is_refused_by_name(registry: Registry) -> None:
    """A description with a secret that no environment variable holds is never stored."""
    registry.register(Thing, describe, Thing)
    with pytest.raises(SecretError) as caught:
        Codec(registry=registry).encode({"db": Thing({"login": {"password": "hunter2"}})})
    assert (caught.value.path, caught.value.key) == ('state["db"]', "login.password")
    assert "hunter2" not in str(caught.value)
    assert "environment" in str(caught.value)


def test_a_secret_of_the_environment_is_stored_by_name(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret that an environment variable holds is read from there on resume, also with another value then."""
    monkeypatch.setenv("DB_PASSWORD", "hunter2")
    registry.register(Thing, describe, Thing)
    codec = Codec(registry=registry)
    encoded = codec.encode(Thing({"password": "hunter2"}))
    assert b"hunter2" not in encoded.data
    assert codec.decode(*encoded).settings == {"password": "hunter2"}
    monkeypatch.setenv("DB_PASSWORD", "rotated")
    assert codec.decode(*encoded).settings == {"password": "rotated"}
    monkeypatch.delenv("DB_PASSWORD")
    with pytest.raises(ReconnectError, match="DB_PASSWORD is not set"):
        codec.decode(*encoded)


def test_a_failing_extract_is_an_unsavable_state(registry: Registry) -> None:
    """What an extract raises is the cause of an error with the place, secrets masked."""

    def fail(thing: Thing) -> Any:
        raise OSError("cannot ask db://me:hunter2@host")

    registry.register(Thing, fail, Thing)
    with pytest.raises(UnsavableStateError, match=r'state\["t"\].*OSError: cannot ask db://me:\*\*\*@host') as caught:
        Codec(registry=registry).encode({"t": Thing(1)})
    assert isinstance(caught.value.__cause__, OSError)


def test_an_extract_may_refuse(registry: Registry) -> None:
    """A LiveResourceError that a user's own extract raises is given on with the place added."""

    def refuse(thing: Thing) -> Any:
        raise LiveResourceError("not while it is busy (wait for it)")

    registry.register(Thing, refuse, Thing)
    with pytest.raises(LiveResourceError, match=r'^state\["t"\] .*: not while it is busy') as caught:
        Codec(registry=registry).encode({"t": Thing(1)})
    assert caught.value.path == 'state["t"]'
    assert caught.value.__cause__ is None


def test_a_missing_handler_on_resume_says_what_to_do(registry: Registry) -> None:
    """A state whose handler is not registered in the new process is a ReconnectError."""
    registry.register(Thing, describe, Thing)
    encoded = Codec(registry=registry).encode(Thing(1))
    with pytest.raises(ReconnectError, match="register it before"):
        Codec(registry=Registry()).decode(*encoded)
