"""requests.Session, against a real local server."""

from __future__ import annotations

import pickle
import random
import ssl
from collections.abc import Iterator
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import pytest
import requests
from holding import CANARY, resume, save
from http_server import web_server
from killing import assert_done, files_with, run_with_kills
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth
from urllib3 import Retry

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, SecretError
from resumable.values.codec import Codec
from resumable.values.fingerprint import digest
from resumable.values.registry import GLOBAL


class MySession(requests.Session):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base


class TokenAuth(AuthBase):
    def __init__(self, hidden: str) -> None:
        self.hidden = hidden


def a_hook(response: Any, **_: Any) -> Any:
    return response


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_a_session_comes_back_as_it_was_set(session: requests.Session) -> None:
    """Headers, proxies, parameters, verification, hooks and adapters of a session come back."""
    session.headers["User-Agent"] = "me"
    session.proxies["http"] = "http://proxy:3128"
    session.params, session.verify, session.cert = {"q": 1}, "/ca.pem", ("/a", "/b")
    session.max_redirects, session.trust_env, session.stream = 3, False, True
    session.hooks["response"].append(a_hook)
    session.mount("https://slow/", HTTPAdapter(max_retries=7, pool_maxsize=3))
    back = resume(save(session))
    for name in ("headers", "proxies", "params", "verify", "cert", "max_redirects", "trust_env", "stream", "hooks"):
        assert getattr(back, name) == getattr(session, name)
    assert type(back.headers) is type(session.headers)
    assert list(back.adapters) == list(session.adapters)
    assert back.adapters["https://slow/"].max_retries.total == 7
    back.close()


def test_a_subclass_keeps_its_class_and_attributes() -> None:
    """A session of one's own class is of that class again, with its attributes."""
    with MySession("https://host") as session, resume(save(session)) as back:
        assert (type(back), back.base) == (MySession, "https://host")


SECRETS: dict[str, Any] = {
    "authorization header": lambda it: it.headers.update({"Authorization": f"Bearer {CANARY}"}),
    "key header": lambda it: it.headers.update({"X-Api-Key": CANARY}),
    "auth pair": lambda it: setattr(it, "auth", ("me", CANARY)),
    "basic auth": lambda it: setattr(it, "auth", HTTPBasicAuth("me", CANARY)),
    "digest auth": lambda it: setattr(it, "auth", HTTPDigestAuth("me", CANARY)),
    "cookie": lambda it: it.cookies.set("session", CANARY, domain="host", path="/"),
    "proxy": lambda it: it.proxies.update({"http": f"http://me:{CANARY}@proxy"}),
    "parameter": lambda it: it.params.update({"api_key": CANARY}),
    "attribute": lambda it: setattr(it, "token", CANARY),
}


@pytest.mark.parametrize("hide", SECRETS.values(), ids=SECRETS)
def test_no_secret_of_a_session_is_stored(session: requests.Session, hide: Any) -> None:
    """A secret in a session, which pickle writes in clear, is refused by name."""
    hide(session)
    with pytest.raises(SecretError) as caught:
        save(session)
    assert CANARY not in str(caught.value)
    assert caught.value.key


@pytest.mark.parametrize("hide", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("extra", [None, lambda: 1], ids=["pickle", "dill"])
def test_secrets_of_the_environment_come_back(
    session: requests.Session, hide: Any, extra: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose secrets the environment holds is stored without them and comes back with them."""
    monkeypatch.setenv("APP_SECRET", CANARY)
    hide(session)
    encoded = Codec().encode([session, extra])
    assert CANARY.encode() not in encoded.data
    back = Codec().decode(*encoded)[0]
    for name in ("headers", "auth", "params", "proxies"):
        assert getattr(back, name) == getattr(session, name)
    assert [vars(cookie) for cookie in back.cookies] == [vars(cookie) for cookie in session.cookies]
    assert getattr(back, "token", None) == getattr(session, "token", None)
    back.close()


def test_a_header_named_in_bytes_is_no_way_around(session: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret header given as bytes is refused like one given as text, or comes back from the environment."""
    session.headers[b"Authorization"] = b"Bearer " + CANARY.encode()
    with pytest.raises(SecretError):
        save(session)
    monkeypatch.setenv("APP_SECRET", CANARY)
    encoded = save(session)
    assert CANARY.encode() not in encoded.data
    with resume(encoded) as back:
        assert back.headers["authorization"] == b"Bearer " + CANARY.encode()


class PatientAdapter(HTTPAdapter):
    def __init__(self, patience: float, context: ssl.SSLContext) -> None:
        self.patience, self.context = patience, context
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, ssl_context=self.context)


def test_an_adapter_of_a_subclass_keeps_its_attributes(session: requests.Session) -> None:
    """An adapter's own attributes, a TLS context among them, come back, which pickling drops."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    session.mount("https://", PatientAdapter(2.5, context))
    with resume(save(resume(save(session)))) as back:
        adapter = back.adapters["https://"]
        assert (type(adapter), adapter.patience) == (PatientAdapter, 2.5)
        assert adapter.poolmanager.connection_pool_kw["ssl_context"].minimum_version == ssl.TLSVersion.TLSv1_3


def test_retries_come_back_whole(session: requests.Session) -> None:
    """A Retry comes back with what it counts and waits."""
    session.mount("https://", HTTPAdapter(max_retries=Retry(3, backoff_factor=0.5, status_forcelist=[503], read=2)))
    with resume(save(session)) as back:
        before, after = (vars(it.adapters["https://"].max_retries) for it in (session, back))
        assert before == after


def test_what_may_hold_anything_is_refused(session: requests.Session) -> None:
    """Hooks that are lambdas, pools set from outside and jars with rules of their own are refused with what to do."""
    session.hooks["response"] = [lambda response, **_: response]
    with pytest.raises(LiveResourceError, match="top of a module"):
        save(session)
    session.hooks["response"] = []
    adapter = HTTPAdapter()
    adapter.init_poolmanager(1, 1, ssl_context=ssl.create_default_context())
    session.mount("https://", adapter)
    with pytest.raises(LiveResourceError, match="ssl_context from outside"):
        save(session)
    session.mount("https://", HTTPAdapter())
    session.cookies.set_policy(DefaultCookiePolicy(blocked_domains=["ads.example"]))
    with pytest.raises(LiveResourceError, match="rules of its own"):
        save(session)


def test_what_of_a_session_counts_as_an_argument() -> None:
    """Plain headers and parameters tell sessions apart; secrets and cookies do not."""

    def digested(**settings: Any) -> bytes:
        with requests.Session() as session:
            for name, value in settings.items():
                getattr(session, name).update(value)
            return digest(session, path="args[0]", registry=GLOBAL)

    assert digested() == digested(cookies={"a": "b"}) != digested(headers={"X-Mine": "1"})
    assert digested(headers={"X-Api-Key": "1"}) == digested(headers={"X-Api-Key": "2"})


@pytest.mark.parametrize("in_environment", [True, False])
def test_no_login_of_a_session_reaches_the_disk(
    session: requests.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_environment: bool
) -> None:
    """Through a Driver, a session's secret header is in no file: kept by its variable's name, or the job is refused."""
    session.headers["Authorization"] = f"Bearer {CANARY}"

    def job(state: Any = None) -> Iterator[Any]:
        yield checkpoint(session)

    with Driver(tmp_path) as driver:
        if in_environment:
            monkeypatch.setenv("APP_SECRET", CANARY)
            driver.run(job)
        else:
            with pytest.raises(SecretError, match="Authorization"):
                driver.run(job)
    assert files_with(CANARY, tmp_path) == []


@pytest.mark.crash
def test_a_session_of_a_killed_job_asks_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job with a session in its state, killed 5 times, makes each request, the one in flight at most twice."""
    monkeypatch.setenv("APP_SECRET", CANARY)
    with web_server() as server:
        run_with_kills("with_requests", tmp_path, server.url, 5, random.Random("requests"))
    assert_done(server.items(), 5)
    assert {headers["Authorization"] for headers in server.headers} == {f"Bearer {CANARY}"}
    assert files_with(CANARY, tmp_path) == []


def test_an_unknown_auth_object_is_refused(session: requests.Session) -> None:
    """An auth object of one's own may hold anything under any name, so it is refused."""
    session.auth = TokenAuth(CANARY)
    with pytest.raises(LiveResourceError, match="register_reconnector") as caught:
        save(session)
    assert CANARY not in str(caught.value)
    assert CANARY.encode() in pickle.dumps(session)  # what would have been stored otherwise


def test_a_resumed_session_works(session: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server gets the same headers and login from the resumed session."""
    monkeypatch.setenv("APP_SECRET", CANARY)
    session.auth, session.trust_env = ("me", CANARY), False
    session.headers["X-Mine"] = "yes"
    session.cookies.set("c", CANARY)
    with web_server() as server:
        for one in (session, resume(save(session))):
            one.get(server.url)
            one.close()
    assert server.headers[0] == server.headers[1]
    assert server.headers[0]["X-Mine"] == "yes"
