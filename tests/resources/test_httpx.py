"""httpx.Client and AsyncClient, against a real local server."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import make_certificate
from holding import CANARY, resume, resume_in_loop, save
from http_server import WebServer, web_server
from killing import assert_done, files_with, run_with_kills

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, SecretError
from resumable.values.fingerprint import digest
from resumable.values.registry import GLOBAL


class MyClient(httpx.Client):
    tenant = ""


class MyAuth(httpx.Auth):
    pass


def a_hook(request: httpx.Request) -> None:
    request.headers["X-Mine"] = "hooked"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as seen:
        yield seen


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client() as client:
        yield client


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECRET", CANARY)


def described(client: Any) -> Any:
    handler = GLOBAL.lookup(type(client))
    assert handler is not None
    description = handler.extract(client)
    for transport in (description["transport"], *dict(description["mounts"]).values()):
        transport["context"] = None  # described apart
    return description


SETTINGS: dict[str, Any] = {
    "base_url": "http://host/api/", "headers": [("X-Many", "1"), ("X-Many", "2"), ("User-Agent", "me")],
    "params": {"q": ["1", "2"]}, "timeout": httpx.Timeout(3, connect=1), "follow_redirects": True, "max_redirects": 7,
    "limits": httpx.Limits(max_connections=3, max_keepalive_connections=None, keepalive_expiry=2), "trust_env": False,
    "default_encoding": "latin-1", "verify": False, "event_hooks": {"request": [a_hook], "response": []},
    "mounts": {"http://local": None},
}  # fmt: skip


@pytest.mark.parametrize("cls", [httpx.Client, httpx.AsyncClient])
def test_a_client_comes_back_as_it_was_set(cls: Any) -> None:
    """All settings of a client come back, and a second save describes the same."""
    client = cls(**SETTINGS | {"mounts": {}}, proxy="http://proxy:3128")
    client.cookies.set("c", "", domain="host")
    del client.headers["accept"]
    back = resume(save(resume(save(client))))
    assert type(back) is cls
    assert described(back) == described(client)
    assert back.headers.raw == client.headers.raw or sorted(back.headers.raw) == sorted(client.headers.raw)
    assert (back.timeout, back.params, back.base_url) == (client.timeout, client.params, client.base_url)


def test_trust_in_a_server_comes_back(tmp_path: Path) -> None:
    """verify=True, verify=False and a context of one's own come back as what they were."""
    certificate, _ = make_certificate(tmp_path)
    own = ssl.create_default_context(cafile=str(certificate))
    for verify in (True, False, own):
        with httpx.Client(verify=verify) as client, resume(save(client)) as back:
            before, after = (it._transport._pool._ssl_context for it in (client, back))
            assert (after.verify_mode, after.check_hostname) == (before.verify_mode, before.check_hostname)
            assert sorted(after.get_ca_certs(binary_form=True)) == sorted(before.get_ca_certs(binary_form=True))


@pytest.mark.parametrize("used", [True, False])
def test_a_resumed_client_works(server: WebServer, secret: None, used: bool) -> None:
    """An opened or unopened client asks the server the same as before, with its login and hooks; it can be entered."""
    hooks = {"request": [a_hook]}
    with httpx.Client(base_url=server.url, auth=("me", CANARY), event_hooks=hooks, cookies={"c": CANARY}) as client:
        client.get("0")
        encoded = save(client)
    assert CANARY.encode() not in encoded.data
    back = resume(encoded)
    if used:
        with back:
            back.get("1")
    else:
        back.get("1")
        back.close()
    assert server.paths == ["/0", "/1"]
    assert server.headers[0] == server.headers[1]
    assert server.headers[1]["X-Mine"] == "hooked"


def test_an_async_client_comes_back_in_its_loop(server: WebServer) -> None:
    """An AsyncClient is rebuilt for a job under `arun` and works in its event loop."""

    async def main() -> None:
        async with httpx.AsyncClient(base_url=server.url) as client:
            await client.get("0")
            encoded = save(client)
        async with await resume_in_loop(encoded) as back:
            assert (await back.get("1")).text == "/1"

    asyncio.run(main())


def test_a_subclass_of_a_client_keeps_its_attributes() -> None:
    """A client of one's own class is of that class again, with its attributes."""
    with MyClient() as client:
        client.tenant = "x"
        with resume(save(client)) as back:
            assert (type(back), back.tenant) == (MyClient, "x")


def test_proxies_of_the_environment_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that the environment names is not stored, its password neither, and on resume the new one is used."""
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{CANARY}@one:3128")
    with httpx.Client() as client:
        encoded = save(client)
    assert CANARY.encode() not in encoded.data
    assert b"one" not in encoded.data
    monkeypatch.setenv("HTTP_PROXY", "http://two:3128")
    with resume(encoded) as back:
        (transport,) = (it for it in back._mounts.values() if it is not None)
        assert transport._pool._proxy_url.host == b"two"


def test_a_proxy_with_a_login_is_used_again(server: WebServer, secret: None) -> None:
    """The login at a proxy is stored as a reference, and the proxy gets it again."""
    with httpx.Client(proxy=httpx.Proxy(server.url, auth=("me", CANARY))) as client:
        client.get("http://nowhere.example/")
        encoded = save(client)
    with resume(encoded) as back:
        back.get("http://nowhere.example/")
    assert server.headers[0] == server.headers[1]
    assert server.headers[1]["Proxy-Authorization"]


SECRETS: dict[str, dict[str, Any]] = {
    "authorization header": {"headers": {"Authorization": f"Bearer {CANARY}"}},
    "key header": {"headers": {"X-Api-Key": CANARY}},
    "basic auth": {"auth": ("me", CANARY)},
    "digest auth": {"auth": httpx.DigestAuth("me", CANARY)},
    "cookie": {"cookies": {"session": CANARY}},
    "proxy": {"proxy": f"http://me:{CANARY}@proxy"},
    "parameter": {"params": {"api_key": CANARY}},
    "base url": {"base_url": f"http://me:{CANARY}@host"},
}


@pytest.mark.parametrize("settings", SECRETS.values(), ids=SECRETS)
def test_no_secret_of_a_client_is_stored(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is refused by name with nothing of it on disk; when the environment holds it, it comes back from there."""
    with httpx.Client(**settings) as client:

        def job(state: Any = None) -> Iterator[Any]:
            yield checkpoint(client)

        with Driver(tmp_path) as driver:
            with pytest.raises(SecretError) as caught:
                driver.run(job)
            assert CANARY not in str(caught.value)
            assert caught.value.key
            monkeypatch.setenv("APP_SECRET", CANARY)
            driver.run(job)
            with resume(save(client)) as back:
                assert described(back) == described(client)
        assert files_with(CANARY, tmp_path) == []


def test_what_of_a_client_counts_as_an_argument() -> None:
    """Base URL and plain headers tell clients apart; secrets and cookies do not."""

    def digested(**settings: Any) -> bytes:
        with httpx.Client(**settings) as client:
            return digest(client, path="args[0]", registry=GLOBAL)

    assert digested() == digested(cookies={"a": "b"}) != digested(base_url="http://host")
    assert digested() != digested(headers={"X-Mine": "1"})
    assert digested(headers={"X-Api-Key": "1"}) == digested(headers={"X-Api-Key": "2"})


def test_clients_that_cannot_be_seen_through_are_refused(client: httpx.Client) -> None:
    """Closed clients, foreign transports and logins, and hooks that are lambdas are refused with what to do."""
    closed = httpx.Client()
    closed.close()
    with pytest.raises(LiveResourceError, match="closed"):
        save(closed)
    with httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as mocked:
        with pytest.raises(LiveResourceError, match="MockTransport"):
            save(mocked)
    for auth in (MyAuth(), lambda request: request):
        client.auth = auth
        with pytest.raises(LiveResourceError, match="auth object"):
            save(client)
    client.auth = None
    client.event_hooks = {"request": [lambda request: None]}
    with pytest.raises(LiveResourceError, match="top of a module"):
        save(client)


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["with_httpx", "with_httpx_async"])
def test_a_client_of_a_killed_job_asks_everything(server: WebServer, tmp_path: Path, secret: None, kind: str) -> None:
    """A job with a client in its state, killed 5 times, makes each request, the one in flight at most twice."""
    run_with_kills(kind, tmp_path, server.url, 5, random.Random(kind))
    assert_done(server.items(), 5)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    assert files_with(CANARY, tmp_path) == []
