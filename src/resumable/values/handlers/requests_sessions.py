"""requests.Session: what it was set to is kept, and its pooled connections are made when they are needed.

Kept: headers, auth, cookies, proxies, parameters, verification, adapters, attributes of a subclass. Secrets among it
have to be in the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    import requests


def extract_session(session: requests.Session) -> dict[str, Any]:
    """What a session was set to. Raises LiveResourceError for an auth object that is neither basic nor digest."""
    import requests

    settings = {name: getattr(session, name) for name in ("params", "stream", "verify", "cert", "max_redirects")}
    settings |= {"trust_env": session.trust_env, "proxies": dict(session.proxies), "hooks": dict(session.hooks)}
    return {
        "class": type(session),
        "settings": settings,
        "headers": dict(session.headers),
        "auth": _extract_auth(session, session.auth),
        # Not under a name such as cookies: domain and path are no secrets, the value is.
        "jar": [{**vars(cookie), "value": None, "cookie": cookie.value} for cookie in session.cookies],
        "adapters": [(prefix, type(it), _adapter_state(session, it)) for prefix, it in session.adapters.items()],
        "extra": {name: value for name, value in vars(session).items() if name not in requests.Session.__attrs__},
    }


def reconnect_session(description: dict[str, Any]) -> requests.Session:
    import requests

    session: requests.Session = description["class"].__new__(description["class"])
    requests.Session.__init__(session)
    vars(session).update(description["settings"] | description["extra"])
    session.headers = requests.structures.CaseInsensitiveDict(description["headers"])
    session.auth = _rebuild_auth(description["auth"])
    for kept in description["jar"]:
        cookie = requests.cookies.create_cookie(kept["name"], kept["cookie"])
        vars(cookie).update({name: value for name, value in kept.items() if name not in ("value", "cookie")})
        session.cookies.set_cookie(cookie)
    session.adapters.clear()
    for prefix, cls, state in description["adapters"]:
        adapter = cls.__new__(cls)
        adapter.__setstate__(state)
        session.mount(prefix, adapter)
    return session


def _extract_auth(session: requests.Session, auth: Any) -> dict[str, Any] | None:
    from requests.auth import HTTPBasicAuth, HTTPDigestAuth, HTTPProxyAuth

    if auth is None:
        return None
    if type(auth) is tuple:
        return {"class": None, "username": auth[0], "password": auth[1]}
    if type(auth) in (HTTPBasicAuth, HTTPDigestAuth, HTTPProxyAuth):
        return {"class": type(auth), "username": auth.username, "password": auth.password}
    raise alive(session, "its auth object may hold a secret that cannot be seen (register_reconnector for the session)")


def _rebuild_auth(kept: dict[str, Any] | None) -> Any:
    if kept is None:
        return None
    login = kept["username"], kept["password"]
    return login if kept["class"] is None else kept["class"](*login)


def _adapter_state(session: requests.Session, adapter: Any) -> dict[str, Any]:
    from requests.adapters import HTTPAdapter

    if not isinstance(adapter, HTTPAdapter):
        raise alive(
            session, f"its adapter {type(adapter).__qualname__} is not an HTTPAdapter (use register_reconnector)"
        )
    return dict(adapter.__getstate__())


HANDLERS: Final = {
    "requests.sessions:Session": Handler("requests.sessions:Session", extract_session, reconnect_session),
}
