"""Connected TCP sockets, for those who ask for it: `register_reconnector(socket.socket)`.

A socket is connected again to the same peer; what the server knew of the old connection is gone, so a protocol has to
be taken up from its greeting. Kept of it: family, peer, timeout, TCP_NODELAY, SO_KEEPALIVE. Listening, unconnected,
datagram and TLS sockets are refused. Not kept: bytes that arrived and were not read, other options, a source address.

Cost: about 10 µs; on resume what connecting takes.
"""

from __future__ import annotations

import socket
from typing import Any, Final

from resumable.values.registry import Handler, alive

_OPT_IN: Final = (
    "the other side forgets a connection that ends (keep the address and connect when the job starts, or say "
    "register_reconnector(socket.socket) if a new connection can take the old one's place)"
)
_CONNECT_TIMEOUT: Final = 10.0  # seconds, for a socket that does not block or waits forever


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


HANDLERS: Final = {
    "socket:socket": Handler("socket:socket", extract_socket, reconnect_socket, identify_socket, _OPT_IN),
    "ssl:SSLSocket": Handler("ssl:SSLSocket", refuse_tls, refuse_tls),
}
