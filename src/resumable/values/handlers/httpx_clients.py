"""httpx.Client and AsyncClient: what they were set to is kept, connections are made when they are needed.

Kept: base URL, headers, parameters, cookies, timeout, limits, redirects, HTTP versions, retries, basic and digest login,
proxies and mounts, TLS rules (see tls.py), hooks and encodings that are functions of a module, the class, attributes of a
subclass. Proxies that came from the environment are read from it again. Secrets have to be in the environment; cookies
count as secrets, so where a server sets some, call `client.cookies.clear()` before the checkpoint, or register_reconnector.

Not kept: open connections, answers half read. A client always comes back unopened: `with client:` works, and plain
use too. Refused: a closed client, transports and logins of other classes, hooks that are lambdas or methods.

Cost: about 100 µs, 0.6 ms with proxies of the environment, once for each client 10 ms for its authorities; 20 ms on resume.
"""

from __future__ import annotations

import base64
from typing import Any, Final

import httpx

from resumable.values import secrets
from resumable.values.handlers.http_parts import by_key, by_name, describe_cookie, in_pairs, rebuild_cookie
from resumable.values.registry import Handler, alive

_PUBLIC: Final = ("follow_redirects", "max_redirects", "trust_env")
_OWN: Final = frozenset({
    "_base_url", "_auth", "_params", "_headers", "_cookies", "_timeout", "follow_redirects", "max_redirects",
    "_event_hooks", "_trust_env", "_default_encoding", "_state", "_transport", "_mounts",
})  # fmt: skip
_POOL: Final = ("http1", "http2", "retries", "local_address", "uds", "socket_options")
_LIMITS: Final = ("max_connections", "max_keepalive_connections", "keepalive_expiry")
_ENVIRONMENT: Final = "environment"


def extract(client: httpx.Client | httpx.AsyncClient) -> dict[str, Any]:
    """What a client was set to. Raises LiveResourceError for what cannot be seen."""
    if client.is_closed:
        raise alive(client, "it is closed (keep what it was made from, and make a new one)")
    extra = {name: value for name, value in vars(client).items() if name not in _OWN}
    if not vars(client).keys() >= _OWN or (extra and type(client) is _base(client)):
        raise alive(client, f"httpx {httpx.__version__} holds its settings in another way (use register_reconnector)")
    inside: Any = client
    encoding = inside._default_encoding
    return {
        "class": type(client),
        "settings": {name: getattr(client, name) for name in _PUBLIC},
        "base_url": str(client.base_url),
        "headers": _headers(client),
        "params": by_key(client.params.multi_items()),
        "jar": [describe_cookie(cookie) for cookie in client.cookies.jar],
        "timeout": client.timeout.as_dict(),
        "auth": _describe_auth(client),
        "hooks": {when: [by_name(client, hook, "hook") for hook in hooks] for when, hooks in client.event_hooks.items()},
        "encoding": encoding if isinstance(encoding, str) else by_name(client, encoding, "default_encoding"),
        "transport": _describe_transport(client, inside._transport),
        "mounts": _describe_mounts(client),
        "extra": extra,
    }


def identify(client: httpx.Client | httpx.AsyncClient) -> dict[str, Any]:
    """Where it leads and what it sends, without what is secret."""
    shown = {"base_url": str(client.base_url), "headers": _headers(client), "params": by_key(client.params.multi_items())}
    shown = secrets.mask_value(shown)
    return {**shown, **{name: getattr(client, name) for name in _PUBLIC}}


def reconnect(description: dict[str, Any]) -> Any:
    """An equal client; nothing is connected yet."""
    cls = description["class"]
    base: Any = httpx.AsyncClient if issubclass(cls, httpx.AsyncClient) else httpx.Client
    client: Any = cls.__new__(cls)
    base.__init__(
        client,
        base_url=description["base_url"],
        params=in_pairs(description["params"]),
        timeout=httpx.Timeout(**description["timeout"]),
        auth=_rebuild_auth(description["auth"]),
        event_hooks=description["hooks"],
        default_encoding=description["encoding"],
        transport=_rebuild_transport(base, description["transport"]),
        mounts=_rebuild_mounts(base, description),
        **description["settings"],
    )
    client.headers.clear()  # the library puts in its own
    client.headers.update(in_pairs(description["headers"]))
    for kept in description["jar"]:
        client.cookies.jar.set_cookie(rebuild_cookie(kept))
    vars(client).update(description["extra"])
    return client


def _base(client: Any) -> type[Any]:
    return httpx.AsyncClient if isinstance(client, httpx.AsyncClient) else httpx.Client


def _headers(client: Any) -> dict[str, list[str]]:
    encoding = client.headers.encoding
    return by_key((name.decode(encoding), value.decode(encoding)) for name, value in client.headers.raw)


# ---- logins


def _describe_auth(client: Any) -> dict[str, Any] | None:
    auth = client.auth
    if auth is None:
        return None
    if type(auth) is httpx.BasicAuth and "_auth_header" in vars(auth):
        username, password = _decode_basic(auth._auth_header)
    elif type(auth) is httpx.DigestAuth and {"_username", "_password"} <= vars(auth).keys():
        username, password = auth._username.decode(), auth._password.decode()
    else:
        raise alive(client, "its auth object may hold a secret that cannot be seen (register_reconnector for the client)")
    return {"class": type(auth), "username": username, "password": password}


def _rebuild_auth(kept: dict[str, Any] | None) -> Any:
    return None if kept is None else kept["class"](kept["username"], kept["password"])


def _decode_basic(header: str) -> tuple[str, str]:
    username, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    return username, password


# ---- transports


def _describe_transport(client: Any, transport: Any) -> dict[str, Any]:
    import httpcore

    pool: Any = getattr(transport, "_pool", None)
    direct = httpcore.ConnectionPool, httpcore.AsyncConnectionPool
    proxied = httpcore.HTTPProxy, httpcore.AsyncHTTPProxy, httpcore.SOCKSProxy, httpcore.AsyncSOCKSProxy
    if type(transport) not in (httpx.HTTPTransport, httpx.AsyncHTTPTransport) or type(pool) not in (*direct, *proxied):
        kind = type(transport).__qualname__
        raise alive(client, f"its transport {kind} may hold anything (register_reconnector for the client)")
    try:
        return {
            "context": pool._ssl_context,
            "options": {name: getattr(pool, f"_{name}") for name in _POOL},
            "limits": {name: getattr(pool, f"_{name}") for name in _LIMITS},
            "proxy": _describe_proxy(pool) if type(pool) in proxied else None,
        }
    except AttributeError as error:
        version = httpcore.__version__
        raise alive(client, f"httpcore {version} holds its settings in another way (use register_reconnector)") from error


def _describe_proxy(pool: Any) -> dict[str, Any]:
    url = pool._proxy_url
    host = url.host.decode()
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in getattr(pool, "_proxy_headers", ())]
    username = password = None
    login = getattr(pool, "_proxy_auth", None)  # of a SOCKS proxy
    if login:
        username, password = (part.decode() for part in login)
    elif headers and headers[0][0] == "Proxy-Authorization" and headers[0][1].startswith("Basic "):
        username, password = _decode_basic(headers.pop(0)[1])
    return {
        "url": f"{url.scheme.decode()}://{f'[{host}]' if ':' in host else host}{f':{url.port}' if url.port else ''}",
        "username": username,
        "password": password,
        "headers": by_key(headers),
        "context": getattr(pool, "_proxy_ssl_context", None),
    }


def _rebuild_transport(base: Any, kept: dict[str, Any]) -> Any:
    proxy = kept["proxy"]
    if proxy is not None:
        login = None if proxy["username"] is None else (proxy["username"], proxy["password"])
        proxy = httpx.Proxy(proxy["url"], ssl_context=proxy["context"], auth=login, headers=in_pairs(proxy["headers"]))
    cls = httpx.HTTPTransport if base is httpx.Client else httpx.AsyncHTTPTransport
    return cls(verify=kept["context"], limits=httpx.Limits(**kept["limits"]), proxy=proxy, **kept["options"])


def _describe_mounts(client: Any) -> Any:
    """Transports by pattern; or that they are the proxies which the environment names, whose passwords stay there."""
    mounts = {
        pattern.pattern: None if transport is None else _describe_transport(client, transport)
        for pattern, transport in client._mounts.items()
    }
    if not mounts or not client.trust_env:
        return mounts
    fresh: Any = _base(client)(verify=False)
    named = {
        pattern.pattern: None if transport is None else _describe_transport(client, transport)
        for pattern, transport in fresh._mounts.items()
    }
    same = mounts.keys() == named.keys() and all(
        (kept and kept["proxy"]) == (other and other["proxy"])
        for kept, other in zip(mounts.values(), named.values(), strict=True)
    )
    return _ENVIRONMENT if same else mounts


def _rebuild_mounts(base: Any, description: dict[str, Any]) -> dict[str, Any]:
    if description["mounts"] != _ENVIRONMENT:
        return {
            pattern: None if kept is None else _rebuild_transport(base, kept)
            for pattern, kept in description["mounts"].items()
        }
    kept = description["transport"]
    options = {name: kept["options"][name] for name in ("http1", "http2")}
    fresh = base(verify=kept["context"], limits=httpx.Limits(**kept["limits"]), **options)
    return {pattern.pattern: transport for pattern, transport in fresh._mounts.items()}


HANDLERS: Final = {key: Handler(key, extract, reconnect, identify) for key in ("httpx:Client", "httpx:AsyncClient")}
