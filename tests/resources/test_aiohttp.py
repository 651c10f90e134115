"""aiohttp.ClientSession and its connectors, against a real local server."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from certificates import make_certificate
from holding import CANARY, resume, resume_in_loop, save
from http_server import WebServer, web_server
from killing import assert_done, files_with, run_with_kills
from yarl import URL

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec
from resumable.values.fingerprint import digest
from resumable.values.registry import GLOBAL

pytestmark = pytest.mark.filterwarnings("ignore:(BasicAuth is|The '(proxy_)?auth' parameter):DeprecationWarning")


def to_json(value: Any) -> str:
    return f"[{value}]"


async def strict(response: aiohttp.ClientResponse) -> None:
    response.raise_for_status()


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as seen:
        yield seen


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECRET", CANARY)


def described(resource: Any) -> Any:
    handler = GLOBAL.lookup(type(resource))
    assert handler is not None
    description = handler.extract(resource)
    if "connector" in description:
        description["connector"] = described(description["connector"])
    return description


SETTINGS: dict[str, Any] = {
    "base_url": "http://host/api/", "headers": [("X-Many", "1"), ("X-Many", "2")], "trust_env": True,
    "timeout": aiohttp.ClientTimeout(total=3, connect=1), "raise_for_status": strict, "auto_decompress": False,
    "json_serialize": to_json, "skip_auto_headers": ["User-Agent"], "proxy": "http://proxy:3128", "read_bufsize": 100,
    "requote_redirect_url": False,
}  # fmt: skip


def test_a_session_comes_back_as_it_was_set() -> None:
    """Settings of a session, its connector and its jar come back, and a second save describes the same."""

    async def main() -> None:
        connector = aiohttp.TCPConnector(
            limit=3, limit_per_host=2, keepalive_timeout=1, ttl_dns_cache=4, ssl=False, local_addr=("127.0.0.1", 0)
        )
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(**SETTINGS, connector=connector, cookie_jar=jar) as session:
            before = described(session)
            async with await resume_in_loop(save(session)) as back, await resume_in_loop(save(back)) as again:
                assert described(back) == described(again) == before
                assert (again.timeout, again.headers, again.trust_env) == (session.timeout, session.headers, True)
                assert again.connector is not None
                assert (again.connector.limit, again.connector.limit_per_host) == (3, 2)
                assert again.connector._cached_hosts._ttl == 4
                assert (again.json_serialize, again.raise_for_status) == (to_json, strict)

    asyncio.run(main())


def test_a_resumed_session_works(server: WebServer, secret: None) -> None:
    """The server gets the same requests from the resumed session, with login and cookies."""

    async def main() -> None:
        jar, basic = aiohttp.CookieJar(unsafe=True), aiohttp.BasicAuth("me", CANARY)
        async with aiohttp.ClientSession(server.url, auth=basic, cookies={"c": CANARY}, cookie_jar=jar) as session:
            await (await session.get("0")).read()
            encoded = save(session)
            async with await resume_in_loop(encoded) as back:
                await (await back.get("1")).read()
        assert CANARY.encode() not in encoded.data

    asyncio.run(main())
    assert server.paths == ["/0", "/1"]
    assert server.headers[0] == server.headers[1]
    assert server.headers[1]["Cookie"]
    assert server.headers[1]["Authorization"]


def test_a_cookie_goes_to_its_own_host_alone(secret: None) -> None:
    """A cookie for one host only, or for one path, is that again."""

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            session.cookie_jar.update_cookies({"one": CANARY}, URL("http://host.example/"))
            async with await resume_in_loop(save(session)) as back:
                for url in ("http://host.example/", "http://sub.host.example/", "http://other.example/"):
                    asked = URL(url)
                    assert back.cookie_jar.filter_cookies(asked) == session.cookie_jar.filter_cookies(asked)
                assert described(back) == described(session)

    asyncio.run(main())


def test_a_shared_connector_stays_shared() -> None:
    """Two sessions with one connector have one connector again."""

    async def main() -> None:
        async with aiohttp.TCPConnector() as connector:
            sessions = [aiohttp.ClientSession(connector=connector, connector_owner=False) for _ in range(2)]
            one, two = await Codec().decode_in_loop(*Codec().encode(sessions))
            assert one.connector is two.connector
            assert not one.connector_owner
            await one.connector.close()
            for session in (*sessions, one, two):
                await session.close()

    asyncio.run(main())


@pytest.mark.parametrize("verify", [True, False, "own", "fingerprint"])
def test_trust_in_a_server_comes_back_with_a_connector(tmp_path: Path, verify: Any) -> None:
    """ssl=True, ssl=False, a fingerprint and a context of one's own come back as what they were."""

    async def main() -> None:
        certificate, _ = make_certificate(tmp_path)
        own = {"own": ssl.create_default_context(cafile=str(certificate)), "fingerprint": aiohttp.Fingerprint(b"x" * 32)}
        async with aiohttp.TCPConnector(ssl=own.get(verify, verify)) as connector:
            async with await resume_in_loop(save(connector)) as back:
                if verify == "own":
                    assert back._ssl.get_ca_certs() == connector._ssl.get_ca_certs()
                elif verify == "fingerprint":
                    assert back._ssl.fingerprint == connector._ssl.fingerprint
                else:
                    assert back._ssl == connector._ssl

    asyncio.run(main())


def test_a_session_needs_a_loop() -> None:
    """Outside an event loop a session is a ReconnectError that says so, at once."""

    async def main() -> Any:
        async with aiohttp.ClientSession() as session:
            return save(session)

    with pytest.raises(ReconnectError, match="arun"):
        resume(asyncio.run(main()))


SECRETS: dict[str, Callable[[], dict[str, Any]]] = {
    "authorization header": lambda: {"headers": {"Authorization": f"Bearer {CANARY}"}},
    "key header": lambda: {"headers": {"X-Api-Key": CANARY}},
    "basic auth": lambda: {"auth": aiohttp.BasicAuth("me", CANARY)},
    "cookie": lambda: {"cookies": {"session": CANARY}},
    "proxy": lambda: {"proxy": f"http://me:{CANARY}@proxy"},
    "proxy auth": lambda: {"proxy": "http://proxy", "proxy_auth": aiohttp.BasicAuth("me", CANARY)},
    "base url": lambda: {"base_url": f"http://me:{CANARY}@host/"},
}


@pytest.mark.parametrize("make", SECRETS.values(), ids=SECRETS)
def test_no_secret_of_a_session_is_stored(
    make: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret is refused by name with nothing of it on disk; when the environment holds it, it comes back from there."""

    async def main() -> None:
        async with aiohttp.ClientSession(**make()) as session:

            async def job(state: Any = None) -> AsyncIterator[Any]:
                yield checkpoint(session)

            with Driver(tmp_path) as driver:
                with pytest.raises(SecretError) as caught:
                    await driver.arun(job)
                assert CANARY not in str(caught.value)
                assert caught.value.key
                monkeypatch.setenv("APP_SECRET", CANARY)
                await driver.arun(job)
                async with await resume_in_loop(save(session)) as back:
                    assert described(back) == described(session)

    asyncio.run(main())
    assert files_with(CANARY, tmp_path) == []


def test_what_of_a_session_counts_as_an_argument() -> None:
    """Base URL and plain headers tell sessions apart; secrets and cookies do not."""

    async def digested(**settings: Any) -> bytes:
        async with aiohttp.ClientSession(**settings) as session:
            return digest(session, path="args[0]", registry=GLOBAL)

    async def main() -> None:
        assert await digested() == await digested(cookies={"a": "b"}) != await digested(base_url="http://host")
        assert await digested() != await digested(headers={"X-Mine": "1"})
        assert await digested(headers={"X-Api-Key": "1"}) == await digested(headers={"X-Api-Key": "2"})

    asyncio.run(main())


def test_sessions_that_cannot_be_seen_through_are_refused() -> None:
    """Closed sessions, trace configs, lambdas and cookies that expire are refused with what to do."""

    async def main() -> None:
        refused: list[tuple[str, dict[str, Any]]] = [
            ("trace configs", {"trace_configs": [aiohttp.TraceConfig()]}),
            ("top of a module", {"json_serialize": lambda value: ""}),
            ("resolver", {"connector": aiohttp.TCPConnector(resolver=aiohttp.ThreadedResolver())}),
        ]
        for reason, settings in refused:
            async with aiohttp.ClientSession(**settings) as session:
                with pytest.raises(LiveResourceError, match=reason):
                    save(session)
        async with aiohttp.ClientSession() as session:
            session.cookie_jar.update_cookies(SimpleCookie("a=b; Max-Age=60"), URL("http://host.example/"))
            with pytest.raises(LiveResourceError, match="expires"):
                save(session)
        with pytest.raises(LiveResourceError, match="closed"):
            save(session)

    asyncio.run(main())


@pytest.mark.crash
def test_a_session_of_a_killed_job_asks_everything(server: WebServer, tmp_path: Path, secret: None) -> None:
    """A job under `arun` with a session in its state, killed 5 times, makes each request, the one in flight at most twice."""
    run_with_kills("with_aiohttp_async", tmp_path, server.url, 5, random.Random("aiohttp"))
    assert_done(server.items(), 5)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    assert files_with(CANARY, tmp_path) == []
