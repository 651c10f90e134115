"""requests.Session: what it was set to is kept, and its pooled connections are made when they are needed.

Kept: headers, auth, cookies, proxies, parameters, verification (paths as paths), hooks that are functions of a module,
adapters with their retries, attributes of subclasses. Secrets have to be in the environment; cookies count as secrets, so
where a server sets some, call `session.cookies.clear()` before the checkpoint, or use register_reconnector.

Not kept: open connections, answers half read, what .netrc and the environment say (it is read again). Refused: auth
objects and cookie jars of other classes, adapters that are none of HTTPAdapter's, hooks that are lambdas or methods.

Cost: about 80 µs.
"""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final

from resumable.values import secrets
from resumable.values.handlers.http_parts import by_name, describe_cookie, rebuild_cookie
from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    import requests

_MADE_ANEW: Final = frozenset({"poolmanager", "proxy_manager"})  # of an adapter, by its own code
_POOL_OPTIONS: Final = frozenset({"maxsize", "block", "strict"})


def extract_session(session: requests.Session) -> dict[str, Any]:
    """What a session was set to. Raises LiveResourceError for what cannot be seen through."""
    import requests

    settings = {name: getattr(session, name) for name in ("params", "stream", "verify", "cert", "max_redirects")}
    settings |= {"trust_env": session.trust_env, "proxies": dict(session.proxies)}
    jar = session.cookies
    if type(jar) is not requests.cookies.RequestsCookieJar or not _is_default(jar.get_policy()):
        raise alive(session, "its cookie jar has rules of its own (register_reconnector for the session)")
    hooks = {when: [by_name(session, it, "hook") for it in _listed(hook)] for when, hook in session.hooks.items()}
    return {
        "class": type(session),
        "settings": settings,
        "hooks": hooks,
        "headers": _headers(session),
        "auth": _extract_auth(session, session.auth),
        "jar": [describe_cookie(cookie) for cookie in jar],
        "adapters": [(prefix, type(it), _adapter_state(session, it)) for prefix, it in session.adapters.items()],
        "extra": {name: value for name, value in vars(session).items() if name not in requests.Session.__attrs__},
    }


def identify_session(session: requests.Session) -> dict[str, Any]:
    """What it sends, without what is secret."""
    shown: dict[str, Any] = secrets.mask_value({"headers": _headers(session), "params": session.params})
    return shown


def reconnect_session(description: dict[str, Any]) -> requests.Session:
    """An equal session; nothing is connected yet."""
    import requests

    session: requests.Session = description["class"].__new__(description["class"])
    requests.Session.__init__(session)
    vars(session).update(description["settings"] | description["extra"], hooks=description["hooks"])
    session.headers = requests.structures.CaseInsensitiveDict(description["headers"])
    session.auth = _rebuild_auth(description["auth"])
    for kept in description["jar"]:
        session.cookies.set_cookie(rebuild_cookie(kept))
    session.adapters.clear()
    for prefix, cls, state in description["adapters"]:
        adapter = cls.__new__(cls)
        vars(adapter).update(state["extra"])  # first, as the pool of a subclass may be made by them
        adapter.__setstate__(state["own"])
        session.mount(prefix, adapter)
    return session


def _headers(session: requests.Session) -> dict[str, Any]:
    """By names that are text, as the scan for secrets reads no others."""
    return {name.decode("latin-1") if isinstance(name, bytes) else str(name): it for name, it in session.headers.items()}


def _listed(hooks: Any) -> list[Any]:
    return list(hooks) if isinstance(hooks, (list, tuple)) else [hooks]


def _is_default(policy: Any) -> bool:
    """Whether it is as a session has it when nobody touches it; the times of the last cleaning do not count."""
    ours = DefaultCookiePolicy()
    return type(policy) is DefaultCookiePolicy and all(
        getattr(policy, name, None) == value for name, value in vars(ours).items() if name not in ("_now", "now")
    )


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
    own = dict(adapter.__getstate__())
    pool = getattr(getattr(adapter, "poolmanager", None), "connection_pool_kw", {})
    if type(adapter) is HTTPAdapter and not pool.keys() <= _POOL_OPTIONS:
        unknown = ", ".join(sorted(pool.keys() - _POOL_OPTIONS))
        raise alive(session, f"an adapter's pool was given {unknown} from outside (set it in a subclass of HTTPAdapter)")
    return {"own": own, "extra": {name: it for name, it in vars(adapter).items() if name not in {*own, *_MADE_ANEW}}}


HANDLERS: Final = {
    "requests.sessions:Session": Handler("requests.sessions:Session", extract_session, reconnect_session, identify_session),
}
