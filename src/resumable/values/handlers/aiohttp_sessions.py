"""aiohttp.ClientSession and its connectors: what they were set to is kept, connections are made when they are needed.

Kept: base URL, headers, cookies without an expiry, timeout, limits, logins, proxy, TLS rules (see tls.py), functions that
are at the top of a module, and whether two sessions share a connector. Secrets have to be in the environment; cookies
count as secrets, so where a server sets some, call `session.cookie_jar.clear()` before the checkpoint.

Not kept: open connections, the cache of names. Both are made inside the running event loop, so they come back for jobs
under `arun` alone. Refused: closed ones, subclasses, trace configs, resolvers and cookie jars of one's own.

Cost: about 40 µs.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import cache
from http.cookies import Morsel
from typing import Any, Final

import aiohttp
from yarl import URL

from resumable.values import secrets
from resumable.values.handlers.http_parts import by_key, by_name, in_pairs
from resumable.values.registry import Handler, alive

_SECRET_LOGINS: Final = ("auth", "proxy_auth")
# Keywords of the constructors, and the attribute of each where it is not the keyword with a "_" before it.
_SESSION: Final = {
    "base_url": "", "headers": "_default_headers", "skip_auto_headers": "", "auth": "_default_auth", "json_serialize": "",
    "json_serialize_bytes": "", "request_class": "", "response_class": "", "ws_response_class": "", "version": "",
    "connector_owner": "", "raise_for_status": "", "timeout": "", "auto_decompress": "", "trust_env": "",
    "requote_redirect_url": "", "read_bufsize": "", "max_line_size": "", "max_field_size": "", "max_headers": "",
    "fallback_charset_resolver": "_resolve_charset", "middlewares": "", "proxy": "_default_proxy",
    "proxy_auth": "_default_proxy_auth",
}  # fmt: skip
_CONNECTOR: Final = {
    "keepalive_timeout": "", "force_close": "", "limit": "", "limit_per_host": "", "timeout_ceil_threshold": "",
    "use_dns_cache": "", "family": "", "ssl": "", "happy_eyeballs_delay": "", "interleave": "", "socket_factory": "",
    "path": "",
}  # fmt: skip
# Described in another way, or deprecated and of no effect on the Pythons of today.
_APART: Final = frozenset(
    {"self", "connector", "cookies", "cookie_jar", "trace_configs", "loop", "resolver", "ttl_dns_cache", "dns_cache_max_size",
     "local_addr", "verify_ssl", "fingerprint", "ssl_context", "read_timeout", "conn_timeout", "enable_cleanup_closed",
     "ssl_shutdown_timeout"}
)  # fmt: skip
_MORSEL: Final = ("domain", "path", "secure", "httponly", "samesite")
_CONNECTORS: Final = (aiohttp.TCPConnector, aiohttp.UnixConnector)


def extract_session(session: aiohttp.ClientSession) -> dict[str, Any]:
    """What a session was set to. Raises LiveResourceError."""
    if session.closed:
        raise alive(session, "it is closed (keep what it was made from, and make a new one)")
    if type(session) is not aiohttp.ClientSession:
        raise alive(session, "it is of a class of its own, which aiohttp advises against (use register_reconnector)")
    if session.trace_configs:
        raise alive(session, "it has trace configs, which cannot be seen through (use register_reconnector)")
    settings = _settings(session, aiohttp.ClientSession, _SESSION)
    for name in ("base_url", "proxy"):
        if name in settings:
            settings[name] = str(settings[name])
    if "headers" in settings:
        settings["headers"] = by_key(settings["headers"].items())
    for name in _SECRET_LOGINS:
        if name in settings:
            login, password, encoding = settings[name]
            settings[name] = {"login": login, "password": password, "encoding": encoding}
    for name in ("skip_auto_headers", "middlewares"):
        if name in settings:
            settings[name] = [_plain(session, item, name) for item in settings[name]]
    jar: Any = session.cookie_jar
    keeps_none = type(jar) is aiohttp.DummyCookieJar
    return {
        "settings": {name: _plain(session, value, name) for name, value in settings.items()},
        "connector": session.connector,
        "jar": None if keeps_none else _jar_settings(session, jar),
        "morsels": [] if keeps_none else [_describe_morsel(session, jar, morsel) for morsel in jar],
    }


def identify_session(session: aiohttp.ClientSession) -> dict[str, Any]:
    """Where it leads and what it sends, without what is secret."""
    settings = _settings(session, aiohttp.ClientSession, _SESSION)
    shown = {"base_url": str(settings.get("base_url", "")), "headers": by_key(session.headers.items())}
    masked: dict[str, Any] = secrets.mask_value(shown)
    return masked


def reconnect_session(description: dict[str, Any]) -> aiohttp.ClientSession:
    """An equal session in the running event loop; nothing is connected yet. Raises ValueError outside a loop."""
    _loop()
    settings = dict(description["settings"])
    if "headers" in settings:
        settings["headers"] = in_pairs(settings["headers"])
    for name in _SECRET_LOGINS:
        if name in settings:
            settings[name] = aiohttp.BasicAuth(**settings[name])
    kept = description["jar"]
    jar: Any = aiohttp.DummyCookieJar() if kept is None else aiohttp.CookieJar(**kept)
    for morsel in description["morsels"]:
        _put_back(jar, morsel)
    return aiohttp.ClientSession(connector=description["connector"], cookie_jar=jar, **settings)


def extract_connector(connector: aiohttp.BaseConnector) -> dict[str, Any]:
    """What a connector was set to. Raises LiveResourceError."""
    if type(connector) not in _CONNECTORS:
        raise alive(connector, "it is a connector of another class (register_reconnector for that class)")
    if connector.closed:
        raise alive(connector, "it is closed (keep what it was made from, and make a new one)")
    inside: Any = connector
    settings = _settings(connector, type(connector), _CONNECTOR)
    if settings.get("force_close"):
        settings.pop("keepalive_timeout", None)
    if type(connector) is aiohttp.TCPConnector:
        if not getattr(inside, "_resolver_owner", True) or type(inside._resolver) is not aiohttp.DefaultResolver:
            raise alive(connector, "it has a resolver of its own (register_reconnector for the session)")
        if inside._local_addr_infos:
            settings["local_addr"] = inside._local_addr_infos[0][4][:2]
        settings["ttl_dns_cache"] = inside._cached_hosts._ttl
    verified = settings.get("ssl")
    if isinstance(verified, aiohttp.Fingerprint):
        settings["ssl"] = {"fingerprint": verified.fingerprint}
    return {"class": type(connector), "settings": {k: _plain(connector, v, k) for k, v in settings.items()}}


def identify_connector(connector: aiohttp.BaseConnector) -> dict[str, Any]:
    """How many connections it makes."""
    return {"limit": connector.limit, "limit_per_host": connector.limit_per_host}


def reconnect_connector(description: dict[str, Any]) -> aiohttp.BaseConnector:
    """An equal connector in the running event loop. Raises ValueError outside a loop."""
    _loop()
    settings = dict(description["settings"])
    if isinstance(settings.get("ssl"), dict):
        settings["ssl"] = aiohttp.Fingerprint(settings["ssl"]["fingerprint"])
    connector: aiohttp.BaseConnector = description["class"](**settings)
    return connector


def _loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ValueError("aiohttp works inside an event loop only (run the job with `arun`)") from error


def _settings(owner: Any, cls: Any, table: dict[str, str]) -> dict[str, Any]:
    """The keywords that make an equal one, as far as they are not the default. Raises LiveResourceError."""
    found: dict[str, Any] = {}
    for keyword, default in _keywords(cls):
        value = getattr(owner, table.get(keyword) or f"_{keyword}", found)
        if value is found or (keyword not in table and value != default):
            version = aiohttp.__version__
            raise alive(owner, f"aiohttp {version} has a setting {keyword!r} that is not known here (use register_reconnector)")
        if value is not default and value != default:
            found[keyword] = value
    return found


@cache
def _keywords(cls: Any) -> list[tuple[str, Any]]:
    """A constructor's keywords that are settings, with their defaults."""
    named = {}
    for base in cls.__mro__[::-1]:  # an old connector hands some on by **kwargs
        for name, parameter in inspect.signature(base.__init__).parameters.items():
            if name not in _APART and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                named[name] = parameter.default
    return list(named.items())


def _plain(owner: Any, value: Any, what: str) -> Any:
    """Functions and classes only if they can be imported again; the rest as it is."""
    return by_name(owner, value, what) if inspect.isroutine(value) or isinstance(value, type) else value


# ---- cookies


def _jar_settings(session: Any, jar: Any) -> dict[str, Any]:
    if type(jar) is not aiohttp.CookieJar:
        raise alive(session, "it has a cookie jar of another class (register_reconnector for the session)")
    try:
        origins = sorted(map(str, jar._treat_as_secure_origin))
        return {"unsafe": jar._unsafe, "quote_cookie": jar._quote_cookie, "treat_as_secure_origin": origins}
    except AttributeError as error:
        reason = f"aiohttp {aiohttp.__version__} holds its settings in another way (use register_reconnector)"
        raise alive(session, reason) from error


def _describe_morsel(session: Any, jar: Any, morsel: Morsel[str]) -> dict[str, Any]:
    if morsel["max-age"] or morsel["expires"]:
        raise alive(session, f"its cookie {morsel.key} expires (cookie_jar.clear() before the checkpoint, or log in again)")
    # For a cookie that goes to no other host the jar has put in the domain itself.
    host_only = any(key[0] == morsel["domain"] and key[-1] == morsel.key for key in getattr(jar, "_host_only_cookies", ()))
    kept = {name: morsel[name] for name in _MORSEL}
    return {"name": morsel.key, "cookie": morsel.value, "host_only": host_only, **kept}


def _put_back(jar: Any, kept: dict[str, Any]) -> None:
    morsel: Morsel[str] = Morsel()
    morsel.set(kept["name"], kept["cookie"], kept["cookie"])
    for name in _MORSEL:
        morsel[name] = kept[name]
    if kept["host_only"]:
        morsel["domain"] = ""
    jar.update_cookies({kept["name"]: morsel}, URL(f"https://{kept['domain']}/") if kept["domain"] else URL())


HANDLERS: Final = {
    "aiohttp.client:ClientSession": Handler(
        "aiohttp.client:ClientSession", extract_session, reconnect_session, identify_session
    ),
    **{
        key: Handler(key, extract_connector, reconnect_connector, identify_connector)
        for key in ("aiohttp.connector:BaseConnector", "aiohttp.connector:TCPConnector", "aiohttp.connector:UnixConnector")
    },
}
