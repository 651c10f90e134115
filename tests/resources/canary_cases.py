"""A resource of every built-in type, with a secret wherever one of its type can have it."""

from __future__ import annotations

import asyncio
import bz2
import contextlib
import gzip
import logging
import logging.handlers
import lzma
import random
import smtplib
import socket
import sqlite3
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import resumable


@dataclass
class Scene:
    """What a case may use. secret: to be put where a resource of its kind has secrets."""

    request: pytest.FixtureRequest
    path: Path
    stack: contextlib.ExitStack
    secret: str

    @property
    def quoted(self) -> str:
        return quote(self.secret, safe="")

    def file(self, name: str, text: str = "text\n" * 20) -> Path:
        path = self.path / name
        path.write_text(text)
        return path


@dataclass
class Case:
    """make: scene -> resource, or a coroutine that gives it. secret: whether it holds one. refused: always.

    close: the method that ends it; None where the scene does that.
    """

    make: Callable[[Scene], Any]
    secret: bool = False
    in_loop: bool = False
    refused: bool = False
    close: str | None = "close"


def a_connected_socket(scene: Scene) -> socket.socket:
    here, there = socket.socketpair()
    scene.stack.callback(there.close)
    return here


def a_tls_socket(scene: Scene) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    plain = socket.socket()
    return context.wrap_socket(plain, server_hostname="host", do_handshake_on_connect=False)


def a_requests_session(scene: Scene) -> Any:
    import requests

    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {scene.secret}"
    session.auth = ("me", scene.secret)
    session.cookies.set("session", scene.secret, domain="host")
    session.proxies["http"] = f"http://me:{scene.quoted}@proxy:3128"
    session.params = {"api_key": scene.secret}
    return session


def a_mail_connection(kind: str) -> Callable[[Scene], Any]:
    """Logged in at a real server, which takes any password."""

    def make(scene: Scene) -> Any:
        from aiosmtpd.controller import Controller
        from aiosmtpd.lmtp import LMTP
        from aiosmtpd.smtp import AuthResult
        from certificates import make_certificate

        class LmtpController(Controller):
            def factory(self) -> Any:
                return LMTP(self.handler, **self.SMTP_kwargs)

        authority, server_side = make_certificate(scene.path)
        tls = {"context": ssl.create_default_context(cafile=authority)} if kind == "SMTP_SSL" else {}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        controller = (LmtpController if kind == "LMTP" else Controller)(
            object(), "127.0.0.1", port, authenticator=lambda *_: AuthResult(success=True), auth_require_tls=False,
            ssl_context=server_side if tls else None,
        )
        controller.start()
        scene.stack.callback(controller.stop)
        mail = getattr(smtplib, kind)("127.0.0.1", port, **tls)
        mail.login("me", scene.secret)
        return mail

    return make


def an_httpx_client(name: str) -> Callable[[Scene], Any]:
    def make(scene: Scene) -> Any:
        import httpx

        headers, cookies = {"Authorization": f"Bearer {scene.secret}"}, {"session": scene.secret}
        url = f"http://me:{scene.quoted}@host"
        return getattr(httpx, name)(auth=("me", scene.secret), headers=headers, cookies=cookies, base_url=url)

    return make


async def an_aiohttp_session(scene: Scene) -> Any:
    import aiohttp

    headers, cookies = {"X-Api-Key": scene.secret}, {"session": scene.secret}
    return aiohttp.ClientSession(headers=headers, cookies=cookies)


def an_aiohttp_connector(name: str, *args: Any) -> Callable[[Scene], Any]:
    async def make(scene: Scene) -> Any:
        return getattr(import_module("aiohttp"), name)(*args)

    return make


def of_postgres(library: str, kind: str = "") -> Callable[[Scene], Any]:
    """As a user who has the secret for a password; what connects may be a coroutine function."""

    def make(scene: Scene) -> Any:
        import psycopg

        server = scene.request.getfixturevalue("postgres_server")
        with contextlib.closing(psycopg.connect(server.url, autocommit=True)) as owner:
            if not owner.execute("SELECT 1 FROM pg_roles WHERE rolname = 'canary'").fetchall():
                owner.execute(f"CREATE ROLE canary LOGIN PASSWORD '{scene.secret}'")
        module = import_module(library)
        connect = getattr(module, kind).connect if kind else module.connect
        return connect(f"postgresql://canary:{scene.quoted}@127.0.0.1:{server.port}/postgres")

    return make


def of_alchemy(make: Callable[[Any], Any], driver: str = "psycopg2") -> Callable[[Scene], Any]:
    """What is made of a URL of SQLAlchemy; it never connects."""

    def of_url(scene: Scene) -> Any:
        import sqlalchemy

        return make(sqlalchemy.make_url(f"postgresql+{driver}://me:{scene.quoted}@127.0.0.1:1/shop"))

    return of_url


def an_engine(url: Any) -> Any:
    return import_module("sqlalchemy").create_engine(url)


def an_async_engine(url: Any) -> Any:
    return import_module("sqlalchemy.ext.asyncio").create_async_engine(url)


def of_orm(name: str) -> Callable[[Any], Any]:
    return lambda url: getattr(import_module("sqlalchemy.orm"), name)(an_engine(url))


def of_async_orm(name: str) -> Callable[[Any], Any]:
    return lambda url: getattr(import_module("sqlalchemy.ext.asyncio"), name)(an_async_engine(url))


def a_scoped_session(url: Any) -> Any:
    return import_module("sqlalchemy.orm").scoped_session(of_orm("sessionmaker")(url))


def of_redis(module: str, name: str) -> Callable[[Scene], Any]:
    return lambda scene: getattr(import_module(module), name)(
        host="127.0.0.1", port=1, username="me", password=scene.secret
    )


def a_redis_pool(module: str, name: str) -> Callable[[Scene], Any]:
    return lambda scene: getattr(import_module(module), name).from_url(f"redis://me:{scene.quoted}@127.0.0.1:1/0")


def of_mongo(name: str, *path: str) -> Callable[[Scene], Any]:
    def make(scene: Scene) -> Any:
        import pymongo

        client = getattr(pymongo, name)(f"mongodb://me:{scene.quoted}@127.0.0.1:1/shop", connect=False)
        if name == "MongoClient":
            scene.stack.callback(client.close)
        for part in path:
            client = client[part]
        return client

    return make


def of_aws(kind: str, scene: Scene) -> Any:
    import boto3

    session = boto3.Session("AKIAHAND", scene.secret, region_name="us-east-1")
    return session if kind == "session" else getattr(session, kind)("s3")


def of_torch(make: Callable[[Any], Any]) -> Callable[[Scene], Any]:
    return lambda scene: make(pytest.importorskip("torch"))


FILES = {
    "_io:TextIOWrapper": Case(lambda scene: scene.file("a").open()),
    "_io:BufferedReader": Case(lambda scene: scene.file("a").open("rb")),
    "_io:BufferedWriter": Case(lambda scene: scene.file("a").open("wb")),
    "_io:BufferedRandom": Case(lambda scene: scene.file("a").open("r+b")),
    "_io:FileIO": Case(lambda scene: scene.file("a").open("rb", buffering=0)),
    "gzip:GzipFile": Case(lambda scene: gzip.GzipFile(scene.path / "a.gz", "wb")),
    "bz2:BZ2File": Case(lambda scene: bz2.BZ2File(scene.path / "a.bz2", "wb")),
    "lzma:LZMAFile": Case(lambda scene: lzma.open(scene.path / "a.xz", "wb")),  # noqa: SIM115 - the case's end closes it
    "resumable.values.handlers.csv_files:CsvWriter": Case(
        lambda scene: resumable.csv_writer(scene.path / "a.csv", header=["token", "n"])
    ),
    "resumable.values.handlers.csv_files:CsvReader": Case(lambda scene: resumable.csv_reader(scene.file("a.csv"))),
}

LOCKS = {
    "_thread:lock": Case(lambda scene: threading.Lock()),
    "_thread:RLock": Case(lambda scene: threading.RLock()),
    "threading:_RLock": Case(lambda scene: threading._PyRLock()),  # type: ignore[attr-defined]
    "threading:Event": Case(lambda scene: threading.Event()),
    "threading:Condition": Case(lambda scene: threading.Condition()),
    "threading:Semaphore": Case(lambda scene: threading.Semaphore()),
    "threading:BoundedSemaphore": Case(lambda scene: threading.BoundedSemaphore()),
    "threading:Barrier": Case(lambda scene: threading.Barrier(2)),
    "asyncio.locks:Lock": Case(lambda scene: asyncio.Lock(), in_loop=True),
    "asyncio.locks:Event": Case(lambda scene: asyncio.Event(), in_loop=True),
    "asyncio.locks:Condition": Case(lambda scene: asyncio.Condition(), in_loop=True),
    "asyncio.locks:Semaphore": Case(lambda scene: asyncio.Semaphore(), in_loop=True),
    "asyncio.locks:BoundedSemaphore": Case(lambda scene: asyncio.BoundedSemaphore(), in_loop=True),
    "asyncio.locks:Barrier": Case(lambda scene: asyncio.Barrier(2), in_loop=True),
}

LOGS = {
    "logging:Handler": Case(lambda scene: logging.Handler(), refused=True),
    "logging:NullHandler": Case(lambda scene: logging.NullHandler()),
    "logging:StreamHandler": Case(lambda scene: logging.StreamHandler(sys.stderr)),
    "logging:FileHandler": Case(lambda scene: logging.FileHandler(scene.path / "a.log")),
    "logging.handlers:WatchedFileHandler": Case(lambda scene: logging.handlers.WatchedFileHandler(scene.path / "a.log")),
    "logging.handlers:RotatingFileHandler": Case(lambda scene: logging.handlers.RotatingFileHandler(scene.path / "a.log")),
    "logging.handlers:TimedRotatingFileHandler": Case(
        lambda scene: logging.handlers.TimedRotatingFileHandler(scene.path / "a.log")
    ),
    "logging.handlers:SocketHandler": Case(lambda scene: logging.handlers.SocketHandler("host", 1)),
    "logging.handlers:DatagramHandler": Case(lambda scene: logging.handlers.DatagramHandler("host", 1)),
    "logging.handlers:SysLogHandler": Case(lambda scene: logging.handlers.SysLogHandler(("127.0.0.1", 514))),
    "logging.handlers:HTTPHandler": Case(
        lambda scene: logging.handlers.HTTPHandler("host", "/log", secure=True, credentials=("me", scene.secret)), secret=True
    ),
    "logging.handlers:SMTPHandler": Case(
        lambda scene: logging.handlers.SMTPHandler("host", "a@x", ["b@x"], "s", credentials=("me", scene.secret)), secret=True
    ),
    "logging.handlers:MemoryHandler": Case(
        lambda scene: logging.handlers.MemoryHandler(3, target=logging.handlers.HTTPHandler(
            "host", "/log", secure=True, credentials=("me", scene.secret))), secret=True
    ),
}

NETWORK = {
    "socket:socket": Case(a_connected_socket, refused=True),
    "ssl:SSLSocket": Case(a_tls_socket, refused=True),
    "ssl:SSLContext": Case(lambda scene: ssl.create_default_context()),
    "smtplib:SMTP": Case(a_mail_connection("SMTP"), secret=True),
    "smtplib:SMTP_SSL": Case(a_mail_connection("SMTP_SSL"), secret=True),
    "smtplib:LMTP": Case(a_mail_connection("LMTP"), secret=True),
    "httpx:Client": Case(an_httpx_client("Client"), secret=True),
    "httpx:AsyncClient": Case(an_httpx_client("AsyncClient"), secret=True, in_loop=True),
    "aiohttp.client:ClientSession": Case(an_aiohttp_session, secret=True, in_loop=True),
    "aiohttp.connector:BaseConnector": Case(an_aiohttp_connector("BaseConnector"), in_loop=True, refused=True),
    "aiohttp.connector:TCPConnector": Case(an_aiohttp_connector("TCPConnector"), in_loop=True),
    "aiohttp.connector:UnixConnector": Case(an_aiohttp_connector("UnixConnector", "/run/a"), in_loop=True),
    "requests.sessions:Session": Case(a_requests_session, secret=True),
}

DATABASES = {
    "sqlite3:Connection": Case(lambda scene: sqlite3.connect(scene.path / "a.db")),
    "psycopg:Connection": Case(of_postgres("psycopg"), secret=True),
    "psycopg:AsyncConnection": Case(of_postgres("psycopg", "AsyncConnection"), secret=True, in_loop=True),
    "psycopg2.extensions:connection": Case(of_postgres("psycopg2"), secret=True),
    "asyncpg.connection:Connection": Case(of_postgres("asyncpg"), secret=True, in_loop=True),
    "sqlalchemy.engine.url:URL": Case(of_alchemy(lambda url: url), secret=True, close=None),
    "sqlalchemy.engine.base:Engine": Case(of_alchemy(an_engine), secret=True, close="dispose"),
    "sqlalchemy.orm.session:Session": Case(of_alchemy(of_orm("Session")), secret=True),
    "sqlalchemy.orm.session:sessionmaker": Case(of_alchemy(of_orm("sessionmaker")), secret=True, close=None),
    "sqlalchemy.orm.scoping:scoped_session": Case(of_alchemy(a_scoped_session), secret=True, close="remove"),
    "sqlalchemy.ext.asyncio.engine:AsyncEngine": Case(
        of_alchemy(an_async_engine, "asyncpg"), secret=True, in_loop=True, close="dispose"
    ),
    "sqlalchemy.ext.asyncio.session:AsyncSession": Case(
        of_alchemy(of_async_orm("AsyncSession"), "asyncpg"), secret=True, in_loop=True
    ),
    "sqlalchemy.ext.asyncio.session:async_sessionmaker": Case(
        of_alchemy(of_async_orm("async_sessionmaker"), "asyncpg"), secret=True, in_loop=True, close=None
    ),
    "redis.client:Redis": Case(of_redis("redis", "Redis"), secret=True),
    "redis.asyncio.client:Redis": Case(of_redis("redis.asyncio", "Redis"), secret=True, in_loop=True),
    "redis.connection:ConnectionPool": Case(a_redis_pool("redis", "ConnectionPool"), secret=True),
    "redis.connection:BlockingConnectionPool": Case(a_redis_pool("redis", "BlockingConnectionPool"), secret=True),
    "redis.asyncio.connection:ConnectionPool": Case(
        a_redis_pool("redis.asyncio", "ConnectionPool"), secret=True, in_loop=True, close="disconnect"
    ),
    "redis.asyncio.connection:BlockingConnectionPool": Case(
        a_redis_pool("redis.asyncio", "BlockingConnectionPool"), secret=True, in_loop=True, close="disconnect"
    ),
    "pymongo.synchronous.mongo_client:MongoClient": Case(of_mongo("MongoClient"), secret=True),
    "pymongo.synchronous.database:Database": Case(of_mongo("MongoClient", "shop"), secret=True, close=None),
    "pymongo.synchronous.collection:Collection": Case(of_mongo("MongoClient", "shop", "items"), secret=True, close=None),
    "pymongo.asynchronous.mongo_client:AsyncMongoClient": Case(of_mongo("AsyncMongoClient"), secret=True, in_loop=True),
    "pymongo.asynchronous.database:AsyncDatabase": Case(
        of_mongo("AsyncMongoClient", "shop"), secret=True, in_loop=True, close=None
    ),
    "pymongo.asynchronous.collection:AsyncCollection": Case(
        of_mongo("AsyncMongoClient", "shop", "items"), secret=True, in_loop=True, close=None
    ),
    "botocore.client:BaseClient": Case(partial(of_aws, "client"), secret=True),
    "boto3.resources.base:ServiceResource": Case(partial(of_aws, "resource"), secret=True, close=None),
    "boto3.session:Session": Case(partial(of_aws, "session"), secret=True, close=None),
}
# Their names in older versions, under which the same classes are covered.
OLDER = {
    f"pymongo.{name}": DATABASES[f"pymongo.synchronous.{name}"]
    for name in ("mongo_client:MongoClient", "database:Database", "collection:Collection")
}

MODELS = {
    "random:Random": Case(lambda scene: random.Random(1)),
    "random:SystemRandom": Case(lambda scene: random.SystemRandom()),
    "torch:Tensor": Case(of_torch(lambda torch: torch.ones(3))),
    "torch.nn.parameter:Parameter": Case(of_torch(lambda torch: torch.nn.Parameter(torch.ones(3)))),
    "torch.storage:UntypedStorage": Case(of_torch(lambda torch: torch.ones(3).untyped_storage())),
    "torch.storage:TypedStorage": Case(of_torch(lambda torch: torch.storage.TypedStorage(3, _internal=True))),
    "torch.optim.optimizer:Optimizer": Case(of_torch(lambda torch: torch.optim.SGD(torch.nn.Linear(2, 2).parameters()))),
    "torch._C:Generator": Case(of_torch(lambda torch: torch.Generator())),
}

CASES: dict[str, Case] = {**FILES, **LOCKS, **LOGS, **NETWORK, **DATABASES, **OLDER, **MODELS}
