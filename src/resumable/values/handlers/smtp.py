"""smtplib.SMTP, SMTP_SSL and LMTP: connected again, encrypted as before, logged in as before.

Kept: host, port, local name, timeout, source address, TLS with its context, user and password, debug level, the class,
attributes of a subclass. The password has to be in the environment. A connection that the server closed meanwhile, as it
does when idle, comes back live; one that was closed here, or never opened, comes back without a connection.

Not kept: what the server can do, which it is asked again. A mail half handed over by single commands (mail(), rcpt())
cannot be seen and begins anew: checkpoint between calls of sendmail() or send_message(). A login by auth() or by a client
certificate leaves no trace, so the server will ask for it: use login().

Cost: about 20 µs, with TLS 95 µs; on resume what connecting and logging in take.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import weakref
from typing import Any, Final

from resumable.values.registry import Handler, alive

_BASES: Final = (smtplib.SMTP_SSL, smtplib.LMTP, smtplib.SMTP)  # a class before its base
# What the library sets itself; anything else belongs to a subclass or to the user.
_OWN: Final = frozenset({
    "_host", "timeout", "esmtp_features", "command_encoding", "source_address", "_auth_challenge_count", "local_hostname",
    "sock", "file", "helo_resp", "ehlo_resp", "does_esmtp", "debuglevel", "user", "password", "keyfile", "certfile",
    "context", "ehlo_msg",
})  # fmt: skip

# Where a connection leads: a socket whose peer broke it off does not know any more.
_peers: weakref.WeakKeyDictionary[socket.socket, Any] = weakref.WeakKeyDictionary()


def extract(smtp: smtplib.SMTP) -> dict[str, Any]:
    """Where it leads and who logged in. Raises LiveResourceError."""
    host, port = _address(smtp)
    login = vars(smtp).get("user"), vars(smtp).get("password")
    implicit = isinstance(smtp, smtplib.SMTP_SSL)
    encrypted = isinstance(smtp.sock, ssl.SSLSocket)
    if implicit and (vars(smtp).get("certfile") or vars(smtp).get("keyfile")):
        raise alive(smtp, "it has a client certificate (register_reconnector for its class, and read the files there)")
    return {
        "class": type(smtp),
        "host": host,
        "port": port,
        "local_hostname": smtp.local_hostname,
        # The default is an object whose only name is in the module itself.
        "timeout": None if _is_default(smtp.timeout) else [smtp.timeout],
        "source_address": smtp.source_address,
        "starttls": encrypted and not implicit,
        "context": _context(smtp, encrypted, implicit),
        "debuglevel": smtp.debuglevel,
        "user": login[0] if host else None,
        "password": login[1] if host else None,
        "extra": {name: value for name, value in vars(smtp).items() if name not in _OWN},
    }


def identify(smtp: smtplib.SMTP) -> dict[str, Any]:
    """Which server, as whom."""
    host, port = _address(smtp)
    return {"host": host, "port": port, "user": vars(smtp).get("user"), "tls": isinstance(smtp.sock, ssl.SSLSocket)}


def reconnect(description: dict[str, Any]) -> smtplib.SMTP:
    """Connected, encrypted and logged in. Raises smtplib.SMTPException or OSError; PermissionError for a wrong login."""
    cls = description["class"]
    base: Any = next(base for base in _BASES if issubclass(cls, base))
    smtp: smtplib.SMTP = cls.__new__(cls)
    vars(smtp).update(description["extra"])
    smtp.set_debuglevel(description["debuglevel"])
    options: dict[str, Any] = {"local_hostname": description["local_hostname"], "source_address": description["source_address"]}
    if description["timeout"] is not None:
        options["timeout"] = description["timeout"][0]
    if base is smtplib.SMTP_SSL:
        options["context"] = description["context"]
    try:
        base.__init__(smtp, description["host"], description["port"], **options)
        if description["starttls"]:
            smtp.starttls(context=description["context"])
        if description["user"] is not None:
            _log_in(smtp, description["user"], description["password"])
    except BaseException:
        smtp.close()
        raise
    return smtp


def _log_in(smtp: smtplib.SMTP, user: str, password: str) -> None:
    try:
        smtp.login(user, password)
    except smtplib.SMTPAuthenticationError as error:
        if error.smtp_code < 500:
            raise
        # Not tried again: some servers lock an account after a few wrong passwords.
        raise PermissionError(f"the server refused the login of {user} ({error.smtp_code})") from error


def _address(smtp: smtplib.SMTP) -> tuple[str, int]:
    """Host and port of the connection; "" and 0 without one."""
    sock = getattr(smtp, "sock", None)
    if sock is None:
        return "", 0
    try:
        peer = _peers[sock] = sock.getpeername()
    except OSError as error:
        if sock not in _peers:
            reason = "its connection was broken off and does not know its server any more (close() it, or connect() again)"
            raise alive(smtp, reason) from error
        peer = _peers[sock]
    if isinstance(peer, str):  # LMTP through a socket in the file system
        return peer, 0
    name = sock.server_hostname if isinstance(sock, ssl.SSLSocket) else None
    # The name it was made with, when it has one: an address can belong to another server tomorrow.
    return _without_port(name or vars(smtp).get("_host") or peer[0]), peer[1]


def _without_port(host: str) -> str:
    return host.partition(":")[0] if host.count(":") == 1 else host  # smtplib takes "host:25" as well; more are IPv6


def _context(smtp: Any, encrypted: bool, implicit: bool) -> ssl.SSLContext | None:
    if implicit:
        return getattr(smtp, "context", None)
    return smtp.sock.context if encrypted else None


def _is_default(timeout: Any) -> bool:
    return not isinstance(timeout, (int, float, type(None)))


HANDLERS: Final = {
    key: Handler(key, extract, reconnect, identify) for key in ("smtplib:SMTP", "smtplib:SMTP_SSL", "smtplib:LMTP")
}
