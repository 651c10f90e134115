"""requests.Session, against a real local server."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
from holding import CANARY, resume, save
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from resumable.errors import LiveResourceError, SecretError
from resumable.values.codec import Codec


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


def test_an_unknown_auth_object_is_refused(session: requests.Session) -> None:
    """An auth object of one's own may hold anything under any name, so it is refused."""
    session.auth = TokenAuth(CANARY)
    with pytest.raises(LiveResourceError, match="register_reconnector") as caught:
        save(session)
    assert CANARY not in str(caught.value)
    assert CANARY.encode() in pickle.dumps(session)  # what would have been stored otherwise


def test_a_resumed_session_works(session: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server gets the same headers and login from the resumed session."""
    seen: list[dict[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name: self.headers[name] for name in ("Authorization", "X-Mine", "Cookie")})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("APP_SECRET", CANARY)
    session.auth, session.trust_env = ("me", CANARY), False
    session.headers["X-Mine"] = "yes"
    session.cookies.set("c", CANARY)
    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        threading.Thread(target=http.serve_forever).start()
        for one in (session, resume(save(session))):
            one.get(f"http://127.0.0.1:{http.server_port}/")
            one.close()
        http.shutdown()
    assert seen[0] == seen[1]
    assert seen[0]["X-Mine"] == "yes"
