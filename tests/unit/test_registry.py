"""The reconnect registry: lookup, refusals, secrets on the way through."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import csv
import dbm.dumb
import ftplib
import http.client
import io
import logging.handlers
import mmap
import multiprocessing
import multiprocessing.pool
import multiprocessing.shared_memory
import os
import queue
import select
import selectors
import shelve
import socketserver
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import urllib.request
import weakref
import xmlrpc.client
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable.errors import LiveResourceError, ReconnectError, SecretError, UnsavableStateError
from resumable.values import registry as module
from resumable.values.codec import Codec
from resumable.values.handlers import BUILT_IN
from resumable.values.handlers.refused import REFUSED
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


def test_a_stand_in_cannot_wait(registry: Registry) -> None:
    """A coroutine function with eager=False is refused when it is registered: no use of a stand-in could await it."""

    async def reconnect(description: Any) -> Any: ...

    with pytest.raises(TypeError, match="eager=False give a function"):
        registry.register(Thing, describe, reconnect, eager=False)
    assert registry.lookup(Thing) is None


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


async def an_async_generator() -> AsyncIterator[int]:
    yield 1


@contextlib.contextmanager
def a_context() -> Iterator[int]:
    yield 1


class MyThread(threading.Thread):
    pass


def a_process() -> Any:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process


def a_traceback() -> Any:
    try:
        raise ValueError
    except ValueError as error:
        return error.__traceback__


def in_an_archive(tmp_path: Path) -> Any:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", "b")
    return zipfile.ZipFile(tmp_path / "a.zip")


def a_member(tmp_path: Path) -> Any:
    with in_an_archive(tmp_path) as archive:
        return archive.open("a")


def a_tar_member(tmp_path: Path) -> Any:
    (tmp_path / "b").write_text("b")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "b", "b")
    with tarfile.open(tmp_path / "a.tar") as archive:
        return archive.extractfile("b")


def a_map(tmp_path: Path) -> Any:
    (tmp_path / "m").write_bytes(b"x")
    with open(tmp_path / "m", "rb") as file:
        return mmap.mmap(file.fileno(), 1, access=mmap.ACCESS_READ)


def a_pool_result(tmp_path: Path) -> Any:
    with multiprocessing.pool.ThreadPool(1) as pool:
        result = pool.apply_async(len, ([],))
        result.wait()
        pool.close()
        pool.join()
    return result


def a_pool(tmp_path: Path) -> Any:
    pool = multiprocessing.pool.ThreadPool(1)
    pool.close()
    pool.join()
    return pool


def a_shared_memory(tmp_path: Path) -> Any:
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=1)
    memory.unlink()
    return memory


def a_database(tmp_path: Path) -> Any:
    with contextlib.closing(dbm.dumb.open(str(tmp_path / "db"), "n")) as database:
        return database


def without_path(make: Callable[[], Any]) -> Callable[[Path], Any]:
    return lambda tmp_path: make()


GHOSTS: dict[str, Callable[[Path], Any]] = {
    "thread": without_path(MyThread),
    "timer": lambda tmp_path: threading.Timer(1, print),
    "process": without_path(multiprocessing.Process),
    "subprocess": without_path(a_process),
    "pool": a_pool,
    "pool result": a_pool_result,
    "executor": lambda tmp_path: concurrent.futures.ThreadPoolExecutor(1),
    "process executor": lambda tmp_path: concurrent.futures.ProcessPoolExecutor(1),
    "future": without_path(concurrent.futures.Future),
    "server": lambda tmp_path: socketserver.TCPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler),
    "log listener": lambda tmp_path: logging.handlers.QueueListener(queue.SimpleQueue()),
    "multiprocessing lock": without_path(multiprocessing.Lock),
    "multiprocessing event": without_path(multiprocessing.Event),
    "multiprocessing value": lambda tmp_path: multiprocessing.Value("i"),
    "shared memory": a_shared_memory,
    "local": without_path(threading.local),
    "queue": without_path(queue.Queue),
    "simple queue": without_path(queue.SimpleQueue),
    "multiprocessing queue": without_path(multiprocessing.SimpleQueue),
    "pipe": lambda tmp_path: multiprocessing.Pipe()[0],
    "generator": without_path(a_generator),
    "async generator": without_path(an_async_generator),
    "context manager": without_path(a_context),
    "frame": without_path(sys._getframe),
    "traceback": without_path(a_traceback),
    "context": without_path(contextvars.copy_context),
    "directory listing": os.scandir,
    "asyncio queue": without_path(asyncio.Queue),
    "event loop": without_path(asyncio.new_event_loop),
    "selector": without_path(selectors.DefaultSelector),
    "poll": without_path(select.poll),
    "temporary directory": lambda tmp_path: tempfile.TemporaryDirectory(ignore_cleanup_errors=True),
    "named temporary file": without_path(tempfile.NamedTemporaryFile),
    "spooled file": without_path(tempfile.SpooledTemporaryFile),
    "zip": in_an_archive,
    "zip member": a_member,
    "zip path": lambda tmp_path: zipfile.Path(in_an_archive(tmp_path)),
    "tar": lambda tmp_path: tarfile.TarFile(tmp_path / "a.tar", "w"),
    "tar member": a_tar_member,
    "shelf": lambda tmp_path: shelve.Shelf({}),
    "dumb database": a_database,
    "csv writer": lambda tmp_path: csv.writer(io.StringIO()),
    "csv reader": lambda tmp_path: csv.reader([]),
    "csv dict reader": lambda tmp_path: csv.DictReader([]),
    "csv dict writer": lambda tmp_path: csv.DictWriter(io.StringIO(), ["a"]),
    "weak reference": lambda tmp_path: weakref.ref(Thing),
    "weak proxy": lambda tmp_path: weakref.proxy(Thing),
    "weak method": lambda tmp_path: weakref.WeakMethod(Thing({}).__init__),
    "weak dictionary": without_path(weakref.WeakValueDictionary),
    "weak set": without_path(weakref.WeakSet),
    "finalizer": lambda tmp_path: weakref.finalize(Thing, int),
    "memory map": a_map,
    "memory view": lambda tmp_path: memoryview(b"x"),
    "SSL context of a server": lambda tmp_path: ssl.create_default_context(ssl.Purpose.CLIENT_AUTH),
    "FTP": without_path(ftplib.FTP),
    "HTTP connection": lambda tmp_path: http.client.HTTPConnection("host"),
    "XML-RPC": lambda tmp_path: xmlrpc.client.ServerProxy("http://me:hunter2@host"),
    "passwords of urllib": without_path(urllib.request.HTTPPasswordMgr),
}


@pytest.mark.parametrize("make", GHOSTS.values(), ids=GHOSTS)
@pytest.mark.parametrize("extra", [[], [lambda: 1]], ids=["pickle", "dill"])
def test_ghosts_are_refused_with_advice(make: Callable[[Path], Any], extra: list[Any], tmp_path: Path) -> None:
    """What would come back as a ghost is refused in every tier, with its place and what to keep instead."""
    ghost = make(tmp_path)
    try:
        with pytest.raises(LiveResourceError) as caught:
            Codec().encode([*extra, {"held": ghost}])
        assert caught.value.path == f'state[{len(extra)}]["held"]'
        assert "keep" in caught.value.reason
        assert "hunter2" not in str(caught.value)
    finally:
        for end in ("cleanup", "server_close", "shutdown", "close"):
            if hasattr(type(ghost), end):
                getattr(ghost, end)()
                break


def test_a_coroutine_is_refused() -> None:
    """A coroutine and the tasks of an event loop are refused."""

    async def main() -> None:
        coroutine = a_coroutine()
        for live in (coroutine, asyncio.current_task(), asyncio.get_running_loop()):
            with pytest.raises(LiveResourceError, match="keep"):
                Codec().encode([live])
        await coroutine

    asyncio.run(main())


LEAKS = [name for name, reason in REFUSED.items() if "login" in reason and ":".join(name.rpartition(".")[::2]) not in BUILT_IN]


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
