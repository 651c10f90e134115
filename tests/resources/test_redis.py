"""redis.Redis, redis.asyncio.Redis and their pools, against a real server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
from holding import CANARY, Holder, resume, resume_in_loop, save
from killing import assert_done, files_with, run_with_kills
from redis.backoff import ConstantBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec
from resumable.values.registry import GLOBAL


class MyRedis(redis.Redis):
    def hello(self) -> str:
        return "hello"


class Prepared(redis.Redis):
    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key


class MyPool(redis.ConnectionPool):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)


@pytest.fixture
def password(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's, which the environment holds too."""
    found = urlsplit(redis_url).password
    assert found is not None
    monkeypatch.setenv("REDIS_PASSWORD", found)
    return found


@pytest.fixture
def client(redis_url: str, password: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


def test_a_client_comes_back_connected(client: redis.Redis) -> None:
    """A resumed client, logged in again, sees what the first one wrote, and can be saved and resumed again."""
    client.set("a", 1)
    first = save(client)
    with resume(first) as back:
        assert back.get("a") == b"1"
        second = save(back)
        assert second.data == first.data
        with resume(second) as again:
            assert again.get("a") == b"1"


def test_a_user_of_the_access_control_list_comes_back(redis_acl_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with a user name is that user again, with a password of its own."""
    monkeypatch.setenv("WORKER_PASSWORD", urlsplit(redis_acl_url).password or "")
    with redis.Redis.from_url(redis_acl_url) as client:
        encoded = save(client)
        assert CANARY.encode() not in encoded.data
        with resume(encoded) as back:
            assert back.acl_whoami() in ("worker", b"worker")  # text or bytes by the version of the library


def test_an_async_client_comes_back_connected(redis_url: str, password: str) -> None:
    """A resumed asyncio client, logged in again, sees what the first one wrote."""

    async def main() -> None:
        async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
            await client.set("a", "é")
            encoded = save(client)
        async with await resume_in_loop(encoded) as back:
            assert await back.get("a") == "é"
            assert save(back).data == encoded.data

    asyncio.run(main())


@pytest.mark.parametrize("protocol", [2, 3])
def test_settings_of_a_client_are_kept(redis_url: str, password: str, protocol: int) -> None:
    """Database, decoding, timeouts, retries, protocol, name and size of the pool are those of the first client."""
    settings: dict[str, Any] = {
        "db": 3, "decode_responses": True, "socket_timeout": 7.5, "health_check_interval": 9, "client_name": "me",
        "retry": Retry(ConstantBackoff(0.5), 4, (redis.TimeoutError,)), "max_connections": 5, "protocol": protocol,
    }  # fmt: skip
    where = urlsplit(redis_url)
    with redis.Redis(where.hostname or "", where.port or 0, password=password, **settings) as client:
        encoded = save(client)
    with resume(encoded) as back:
        kept = back.connection_pool.connection_kwargs
        assert {name: kept[name] for name in settings if name in kept} == {
            name: value for name, value in settings.items() if name in kept
        }
        assert back.connection_pool.max_connections == 5
        assert back.client_getname() == "me"
        assert back.client_info()["db"] == 3
        assert client.response_callbacks == back.response_callbacks


KINDS: dict[str, Callable[[], Any]] = {
    "socket": lambda: redis.Redis(unix_socket_path="/run/redis.sock", db=2),
    "tls": lambda: redis.Redis(ssl=True, ssl_ca_certs="/ca.pem", ssl_check_hostname=False, ssl_min_version=None),
    "url": lambda: redis.Redis.from_url("rediss://me@host:1234/5?socket_timeout=2"),
    "blocking pool": lambda: redis.Redis.from_pool(redis.BlockingConnectionPool(max_connections=3, timeout=11)),
    "cache": lambda: redis.Redis(protocol=3, cache_config=CacheConfig(max_size=77)),
    "own class": MyRedis,
    "async": redis.asyncio.Redis,
    "async socket": lambda: redis.asyncio.Redis(unix_socket_path="/run/redis.sock"),
    "async tls": lambda: redis.asyncio.Redis(ssl=True, ssl_cert_reqs="none"),
    "async single": lambda: redis.asyncio.Redis(single_connection_client=True),
    "async blocking pool": lambda: redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool(timeout=12)),
}


def shape(client: Any) -> tuple[Any, ...]:
    pool = client.connection_pool
    settings = {name: it for name, it in pool.connection_kwargs.items() if type(it) in (str, int, float, bool)}
    cache = getattr(pool, "cache", None)
    return (
        type(client), type(pool), pool.connection_class, pool.max_connections, settings, getattr(pool, "timeout", None),
        client.auto_close_connection_pool, getattr(client, "single_connection_client", None),
        cache and cache.config.get_max_size(),
    )  # fmt: skip


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_kind_of_client_comes_back_as_it_was(make: Callable[[], Any]) -> None:
    """Classes of client, pool and connection, and all settings, are the same after a resume, with no server asked."""
    client = make()
    encoded = save(client)
    back = resume(encoded)
    assert shape(back) == shape(client)
    assert save(back).data == encoded.data


def test_clients_that_shared_a_pool_share_one_again(redis_url: str, password: str) -> None:
    """One pool behind two clients comes back as one, which neither of them closes."""
    with redis.ConnectionPool.from_url(redis_url) as pool:
        one, two = redis.Redis(connection_pool=pool), redis.Redis(connection_pool=pool)
        encoded = Codec().encode({"one": one, "two": Holder(two), "pool": pool})
    back = Codec().decode(*encoded)
    with back["pool"]:
        assert back["one"].connection_pool is back["two"].held.connection_pool is back["pool"]
        assert not back["one"].auto_close_connection_pool
        assert back["one"].ping()


def test_a_client_with_a_single_connection(redis_url: str, password: str) -> None:
    """A client that keeps to one connection has one again."""
    with redis.Redis.from_url(redis_url, single_connection_client=True) as client, resume(save(client)) as back:
        assert back.connection is not None
        assert back.client_id() == back.client_id() != client.client_id()


def test_a_server_under_maintenance(client: redis.Redis) -> None:
    """A client that was sent elsewhere for a while, with other timeouts, comes back to the server it was made for."""
    settings = client.connection_pool.connection_kwargs
    settings |= {"host": "elsewhere", "socket_timeout": 99}
    settings |= {"orig_host_address": "127.0.0.1", "orig_socket_timeout": 5}
    with resume(save(client)) as back:
        assert back.ping()
        assert back.connection_pool.connection_kwargs["socket_timeout"] == 5


def twice(response: Any, **_: Any) -> int:
    return 2 * int(response)


def test_callbacks_for_responses_are_kept(client: redis.Redis) -> None:
    """A callback that was set for a command is set again."""
    client.set("n", 21)
    client.set_response_callback("GET", twice)
    with resume(save(client)) as back:
        assert back.get("n") == 42


def test_a_closed_client_connects_again(client: redis.Redis) -> None:
    """A closed client comes back as redis has it: it connects when it is used."""
    client.close()
    with resume(save(client)) as back:
        assert back.ping()


# ---- secrets


def test_no_password_of_a_redis_client_is_stored(client: redis.Redis, password: str) -> None:
    """LEAK redis.Redis: the password, which dill writes in clear, is not in the saved bytes, in no tier."""
    for extra in (None, lambda: 1):
        encoded = Codec().encode([client, extra])
        assert password.encode() not in encoded.data
        with Codec().decode(*encoded)[0] as back:
            assert back.connection_pool.connection_kwargs["password"] == password


SECRETS = {
    "password": lambda: redis.Redis(password=CANARY),
    "url": lambda: redis.Redis.from_url(f"redis://me:{CANARY}@host"),
    "query": lambda: redis.Redis.from_url(f"unix:///run/redis.sock?password={CANARY}"),
    "key of TLS": lambda: redis.Redis(ssl=True, ssl_password=CANARY),
    "async": lambda: redis.asyncio.Redis(password=CANARY),
}


@pytest.mark.parametrize("make", SECRETS.values(), ids=SECRETS)
def test_a_password_that_the_environment_does_not_hold_is_refused(make: Callable[[], Any]) -> None:
    """A password that could only be stored in clear is an error that names it and does not show it."""
    with pytest.raises(SecretError, match="password") as caught:
        save(make())
    assert CANARY not in str(caught.value)


def test_the_identity_of_a_client_has_no_secret(redis_url: str, password: str) -> None:
    """For a job's arguments a client is its server, database and user, whatever the password and the timeouts are."""
    handler = GLOBAL.lookup(redis.Redis)
    assert handler is not None

    def identity(**settings: Any) -> Any:
        return handler.identity(redis.Redis("host", 1, username="me", **settings))

    assert identity(password=CANARY) == identity(password="other", socket_timeout=3)
    assert identity() != identity(db=1)
    assert CANARY not in repr(identity(password=CANARY))


# ---- what is refused

REFUSED: dict[str, tuple[Callable[[redis.Redis], Any], str]] = {
    "pipeline": (lambda client: client.pipeline(), "execute it"),
    "subscriptions": (lambda client: client.pubsub(), "subscribe when the job starts"),
    "monitor": (lambda client: client.monitor(), "keep the client"),
    "lock": (lambda client: client.lock("a"), "lock's name"),
    "sentinel": (lambda client: redis.Sentinel([("host", 1)]), "keep the addresses"),
    "client by sentinel": (lambda client: redis.Sentinel([("host", 1)]).master_for("m"), "keep the addresses"),
    "connection": (lambda client: redis.Connection(), "register_reconnector"),
    "credential provider": (
        lambda client: redis.Redis(credential_provider=redis.UsernamePasswordCredentialProvider("me", CANARY)),
        "username and password",
    ),
    "bare credentials": (lambda client: redis.UsernamePasswordCredentialProvider("me", CANARY), "register_reconnector"),
    "class with __init__": (lambda client: Prepared("k"), "register_reconnector for Prepared"),
    "pool with __init__": (lambda client: redis.Redis(connection_pool=MyPool()), "register_reconnector for MyPool"),
    "async pipeline": (lambda client: redis.asyncio.Redis().pipeline(), "execute it"),
    "async subscriptions": (lambda client: redis.asyncio.Redis().pubsub(), "subscribe when the job starts"),
    "async lock": (lambda client: redis.asyncio.Redis().lock("a"), "lock's name"),
}


@pytest.mark.parametrize(("make", "advice"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_come_back_is_refused_with_advice(
    client: redis.Redis, make: Callable[[redis.Redis], Any], advice: str
) -> None:
    """What belongs to one connection, or hides a login, is refused with what to do instead."""
    with pytest.raises(LiveResourceError, match=advice) as caught:
        save(make(client))
    assert CANARY not in str(caught.value)


# ---- whole runs


def test_a_server_that_is_gone_is_named(redis_url: str, password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has to connect at once and cannot is a ReconnectError without the password, and nothing leaks."""
    monkeypatch.setattr("resumable.values.rebuild._FIRST_PAUSE", 0.001)
    with redis.Redis.from_url(redis_url, single_connection_client=True) as client:
        client.connection_pool.connection_kwargs["port"] = 1
        encoded = save(client)
    with pytest.raises(ReconnectError, match="Connection refused") as caught:
        resume(encoded)
    assert password not in str(caught.value)


def test_no_password_is_in_the_state_directory(client: redis.Redis, password: str, tmp_path: Path) -> None:
    """After a run that took a client as argument and held it in its state, no file holds the password."""

    def job(given: redis.Redis, state: Any = None) -> Iterator[Any]:
        for done in range(5):
            given.rpush("items", done)
            yield checkpoint({"done": done, "held": given})

    with Driver(tmp_path) as driver:
        driver.run(job, client, name="job")
    assert client.llen("items") == 5
    assert not files_with(password, tmp_path)
    assert files_with("127.0.0.1", tmp_path)  # what was looked through is what was stored


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["into_redis", "into_redis_async"])
def test_a_client_survives_kills(
    client: redis.Redis, redis_url: str, tmp_path: Path, seed: int, kind: str, password: str
) -> None:
    """A job that holds a client and is killed again and again does every item, one more at most for each kill."""
    run_with_kills(kind, tmp_path, redis_url, 5, random.Random(seed))
    with closing(client):
        assert_done(map(int, client.lrange("items", 0, -1)), 5)
    assert not files_with(password, tmp_path)
