"""pymongo clients, databases and collections, against a server that speaks the wire protocol."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import gridfs
import pymongo
import pytest
from bson.codec_options import CodecOptions
from holding import CANARY, Holder, resume, resume_in_loop, save
from killing import assert_done, files_with, run_with_kills
from mongo_server import USER, Mongo, mongo_server
from pymongo.encryption_options import AutoEncryptionOpts
from pymongo.errors import OperationFailure
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest
from pymongo.server_api import ServerApi
from pymongo.write_concern import WriteConcern

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec
from resumable.values.registry import GLOBAL

PASSWORD = "c4nary-of-mongo"


class MyClient(pymongo.MongoClient):  # type: ignore[type-arg]
    pass


class Prepared(pymongo.MongoClient):  # type: ignore[type-arg]
    def __init__(self, key: str) -> None:
        super().__init__("host", connect=False)
        self.key = key


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mongo]:
    monkeypatch.setenv("MONGO_PASSWORD", PASSWORD)
    with mongo_server(PASSWORD) as server:
        yield server


@pytest.fixture
def client(server: Mongo) -> Iterator[pymongo.MongoClient[Any]]:
    with pymongo.MongoClient(server.uri) as client:
        yield client


def test_a_client_comes_back_connected(server: Mongo, client: pymongo.MongoClient[Any]) -> None:
    """A resumed client, logged in again, sees what the first one wrote, and can be saved and resumed again."""
    client["shop"]["items"].insert_one({"_id": 1})
    first = save(client)
    before = server.logins
    with resume(first) as back:
        assert list(back["shop"]["items"].find()) == [{"_id": 1}]
        assert server.logins > before
        with resume(save(back)) as again:
            assert described(again) == described(client)
            assert again.admin.command("ping")["ok"]


def test_the_server_lets_nobody_in_without_the_password(server: Mongo) -> None:
    """The server of these tests does check logins, so that a client that comes back without one is seen."""
    for uri in (server.uri.replace(PASSWORD, "wrong"), f"mongodb://{server.host}"):
        with pymongo.MongoClient(uri) as client, pytest.raises(OperationFailure):
            client.admin.command("ping")


def test_an_async_client_comes_back_connected(server: Mongo) -> None:
    """A resumed asyncio client, and a collection of it, see what the first one wrote."""

    async def main() -> None:
        async with pymongo.AsyncMongoClient(server.uri) as client:
            items = client["shop"]["items"]
            await items.insert_many([{"_id": n} for n in range(5)])
            encoded, first = save([client, items]), described(client)
        back, items = await resume_in_loop(encoded)
        async with back:
            assert items.database.client is back
            assert [it["_id"] async for it in items.find()] == [0, 1, 2, 3, 4]
            assert described(back) == first

    asyncio.run(main())


def described(resource: Any) -> Any:
    """What is stored of it."""
    handler = GLOBAL.lookup(type(resource))
    assert handler is not None
    return GLOBAL.describe(handler, resource)


def without_addresses(client: Any) -> str:
    """What a client says of its hosts and options, where some objects among them only tell their address."""
    return re.sub(r" at 0x\w+", "", repr(client))


KINDS: dict[str, Callable[[], pymongo.MongoClient[Any]]] = {
    "plain": lambda: pymongo.MongoClient(connect=False),
    "hosts": lambda: pymongo.MongoClient(["a", "b:27018"], replicaSet="rs", connect=False),
    "uri": lambda: pymongo.MongoClient("mongodb://a,b:1/shop?w=2&readPreference=nearest&appName=x", connect=False),
    "options": lambda: pymongo.MongoClient(
        "host", 1234, tz_aware=True, connect=False, maxPoolSize=7, socketTimeoutMS=900, uuidRepresentation="standard",
        read_preference=Nearest(), server_api=ServerApi("1"), readConcernLevel="majority", tzinfo=UTC,
    ),
    "tls": lambda: pymongo.MongoClient("host", tls=True, tlsAllowInvalidHostnames=True, connect=False),
    "own class": lambda: MyClient("host", connect=False),
}  # fmt: skip


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_client_comes_back_as_it_was(make: Callable[[], pymongo.MongoClient[Any]]) -> None:
    """Class, hosts and all options are the same after a resume, with no server asked."""
    with make() as client:
        with resume(save(client)) as back, resume(save(back)) as again:
            for one in (back, again):
                assert type(one) is type(client)
                assert without_addresses(one) == without_addresses(client)
                assert one.codec_options == client.codec_options


def test_databases_and_collections_come_back_with_their_options(client: pymongo.MongoClient[Any]) -> None:
    """A database or collection comes back by its name, with codec options, concerns and preference of its own."""
    options: dict[str, Any] = {
        "codec_options": CodecOptions(tz_aware=True), "write_concern": WriteConcern(w=0),
        "read_concern": ReadConcern("majority"), "read_preference": Nearest(max_staleness=120),
    }  # fmt: skip
    database = client.get_database("shop", **options)
    made: dict[str, Any] = {
        "plain": client["shop"]["items"],
        "of the database": database["items"],
        "its own": client["shop"].get_collection("items.old", **options),
        "database": database,
    }
    encoded = Codec().encode(made)
    back = Codec().decode(*encoded)
    with back["database"].client:
        for name, first in made.items():
            assert (type(back[name]), back[name].name) == (type(first), first.name)
            assert {it: getattr(back[name], it) for it in options} == {it: getattr(first, it) for it in options}
            assert described(first)["options"] == described(back[name])["options"]


def test_collections_that_shared_a_client_share_one_again(client: pymongo.MongoClient[Any]) -> None:
    """One client behind a database and two collections comes back as one."""
    database = client["shop"]
    encoded = Codec().encode([client, Holder(database["a"]), {"b": database["b"]}, client["other"]["c"]])
    one, a, b, c = Codec().decode(*encoded)
    with one:
        assert a.held.database is b["b"].database
        assert a.held.database.client is c.database.client is one


# ---- secrets


def test_no_password_of_a_mongo_client_is_stored(server: Mongo, client: pymongo.MongoClient[Any]) -> None:
    """LEAK MongoClient: the password, which dill writes in clear, is not in the saved bytes, in no tier."""
    with pymongo.MongoClient(server.host, username=USER, password=PASSWORD) as other:
        for made in (client, other, client["shop"]["items"]):
            for extra in (None, lambda: 1):
                encoded = Codec().encode([made, extra])
                assert PASSWORD.encode() not in encoded.data
                back = Codec().decode(*encoded)[0]
                with back if isinstance(back, pymongo.MongoClient) else back.database.client as again:
                    assert again.admin.command("ping")["ok"]


SECRETS: dict[str, Any] = {
    "uri": {"host": f"mongodb://me:{CANARY}@host"},
    "uri among hosts": {"host": ["other", f"mongodb://me:{CANARY}@host"]},
    "argument": {"host": "host", "username": "me", "password": CANARY},
    "key of TLS": {"host": "host", "tls": True, "tlsCertificateKeyFilePassword": CANARY},
    "token": {"host": f"mongodb://host/?authMechanism=MONGODB-X509&tlsCertificateKeyFilePassword={CANARY}&tls=true"},
}


@pytest.mark.parametrize("settings", SECRETS.values(), ids=SECRETS)
def test_a_secret_that_the_environment_does_not_hold_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    """A secret that could only be stored in clear is an error that says where it is and does not show it."""
    with pymongo.MongoClient(**settings, connect=False) as client, pytest.raises(SecretError) as caught:
        save(client)
    assert CANARY not in str(caught.value)


def test_a_percent_encoded_password_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that has to be quoted in the URI is found in the environment as it is, and quoted again."""
    monkeypatch.setenv("MONGO_PASSWORD", "p@ss/w:rd%")
    with pymongo.MongoClient("mongodb://me:p%40ss%2Fw%3Ard%25@host/shop", connect=False) as client:
        encoded = save(client)
    assert b"p%40ss" not in encoded.data
    with resume(encoded) as back:
        credentials = back.options.pool_options._credentials
        assert credentials.password == "p@ss/w:rd%"


def test_the_identity_of_a_client_has_no_secret() -> None:
    """For a job's arguments a client is its servers and user, a collection also its names, whatever password and options."""

    def identity(uri: str, **settings: Any) -> Any:
        with pymongo.MongoClient(uri, connect=False, **settings) as client:
            made: list[Any] = [client, client["shop"], client["shop"]["items"]]
            handlers = [GLOBAL.lookup(type(it)) for it in made]
            return [handler.identity(it) for handler, it in zip(handlers, made, strict=True) if handler is not None]

    first = identity(f"mongodb://me:{CANARY}@host/shop")
    assert len(first) == 3
    assert first == identity("mongodb://me:other@host/shop?maxPoolSize=3", socketTimeoutMS=5)
    assert first != identity("mongodb://you:other@host/shop")
    assert CANARY not in repr(first)


# ---- what is refused


def test_what_cannot_come_back_is_refused_with_advice(client: pymongo.MongoClient[Any]) -> None:
    """Sessions, cursors, files under way and classes made in a way of their own are refused with what to do instead."""
    items = client["shop"]["items"]
    items.insert_many([{"_id": n} for n in range(5)])
    with client.start_session() as session, items.find() as cursor, Prepared("k") as prepared:
        next(cursor)
        for held, advice in (
            (session, "commit or abort it"),
            (cursor, "last document's key"),
            (gridfs.GridFS(client["shop"]).new_file(_id=1), "the file's id"),
            (prepared, "register_reconnector for Prepared"),
        ):
            with pytest.raises(LiveResourceError, match=advice):
                save(held)
        assert len(list(cursor)) == 4  # a refused cursor goes on


def test_a_closed_client_is_refused(server: Mongo) -> None:
    """A closed client, which pymongo never opens again, is refused, and so is a collection of it."""
    client: pymongo.MongoClient[Any] = pymongo.MongoClient(server.uri)
    client.close()
    for held in (client, client["shop"]["items"]):
        with pytest.raises(LiveResourceError, match="closed"):
            save(held)


def test_keys_of_automatic_encryption_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encryption options, which hold master keys under names that say nothing, are refused."""
    with pymongo.MongoClient("host", connect=False) as client:
        options = AutoEncryptionOpts.__new__(AutoEncryptionOpts)  # pymongocrypt is not needed to refuse it
        client._init_kwargs["auto_encryption_opts"] = options
        with pytest.raises(LiveResourceError, match="auto_encryption_opts"):
            save(client)


def test_an_unknown_version_of_pymongo_is_refused(client: pymongo.MongoClient[Any]) -> None:
    """A client that does not tell its arguments in the way known here is refused, not revived with others."""
    del client._init_kwargs
    with pytest.raises(LiveResourceError, match="this version of pymongo"):
        save(client)


# ---- whole runs


def test_a_password_that_is_gone_is_named(client: pymongo.MongoClient[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A resume without the environment variable is a ReconnectError that names it."""
    encoded = save(client)
    monkeypatch.delenv("MONGO_PASSWORD")
    with pytest.raises(ReconnectError, match="MONGO_PASSWORD is not set") as caught:
        resume(encoded)
    assert PASSWORD not in str(caught.value)


def test_no_password_is_in_the_state_directory(server: Mongo, client: pymongo.MongoClient[Any], tmp_path: Path) -> None:
    """After a run that took a client as argument and held a collection in its state, no file holds the password."""

    def job(given: Any, state: Any = None) -> Iterator[Any]:
        for done in range(5):
            given["shop"]["items"].insert_one({"item": done})
            yield checkpoint({"done": done, "held": given["shop"]["items"]})

    with Driver(tmp_path) as driver:
        driver.run(job, client, name="job")
    assert len(server.collections["shop.items"]) == 5
    assert not files_with(PASSWORD, tmp_path)
    assert files_with("127.0.0.1", tmp_path)  # what was looked through is what was stored


@pytest.mark.crash
def test_a_collection_survives_kills(server: Mongo, tmp_path: Path, seed: int) -> None:
    """A job that holds a collection and is killed again and again does every item, one more at most for each kill."""
    run_with_kills("into_mongo", tmp_path, server.uri, 5, random.Random(seed))
    assert_done((it["item"] for it in server.collections["shop.items"]), 5)
    assert not files_with(PASSWORD, tmp_path)
