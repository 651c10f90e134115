"""Connected TCP sockets, and requests.Session.

A socket is connected again to the same peer; what the server knew of the old connection is gone, so a protocol has to
be taken up from its greeting. Kept of it: family, peer, timeout, TCP_NODELAY, SO_KEEPALIVE. Listening, unconnected,
datagram and TLS sockets are refused.

A session keeps what it was set to: headers, auth, cookies, proxies, parameters, verification, adapters, attributes of a
subclass. Its pooled connections are made when they are needed. Secrets among it have to be in the environment.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

from resumable.values.registry import Handler, alive

if TYPE_CHECKING:
    import requests

_CONNECT_TIMEOUT: Final = 10.0  # seconds, for a socket that does not block or waits forever


def handlers(top_level: str) -> dict[type[Any], Handler]:
    if top_level == "requests":
        import requests

        return {requests.Session: Handler(requests.Session, extract_session, reconnect_session)}
    if top_level == "ssl":
        import ssl

        return {ssl.SSLSocket: Handler(ssl.SSLSocket, refuse_tls, refuse_tls)}
    return {socket.socket: Handler(socket.socket, extract_socket, reconnect_socket, identify_socket)}


# ---- sockets


def extract_socket(sock: socket.socket) -> dict[str, Any]:
    """Where a connected TCP socket leads. Raises LiveResourceError."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise alive(sock, "only TCP sockets can be connected again (keep its address, or use register_reconnector)")
    try:
        peer = sock.getpeername()
        options = {
            "nodelay": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
            "keepalive": sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        }
    except OSError as error:
        reason = "it is not connected, or it listens (keep its address, and open it when the job starts)"
        raise alive(sock, reason) from error
    return {
        "class": type(sock),
        "family": int(sock.family),
        "proto": sock.proto,
        "peer": peer,
        "timeout": sock.gettimeout(),
        **options,
    }


def identify_socket(sock: socket.socket) -> Any:
    """Where it leads."""
    return extract_socket(sock)["peer"]


def reconnect_socket(description: dict[str, Any]) -> socket.socket:
    """A new connection to the same peer. Raises OSError."""
    sock: socket.socket = description["class"](description["family"], socket.SOCK_STREAM, description["proto"])
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, description["nodelay"])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, description["keepalive"])
        sock.settimeout(description["timeout"] or _CONNECT_TIMEOUT)
        sock.connect(description["peer"])
        sock.settimeout(description["timeout"])
    except BaseException:
        sock.close()
        raise
    return sock


def refuse_tls(sock: Any) -> Any:
    raise alive(sock, "its TLS context holds keys that are not saved (keep host and port, or use register_reconnector)")


# ---- sessions


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
