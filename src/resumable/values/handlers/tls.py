"""ssl.SSLContext of a client, which mail and HTTP clients hold: made again with the same rules.

Kept: whom it trusts (the system's authorities and those of certifi by name, others as their certificates), whether host
names are checked, protocol versions, cipher list, flags and options, the file for key logs.

Not kept: ALPN protocols, which a context tells nobody; the HTTP clients set theirs for each connection. Refused: contexts
with a client certificate (load_cert_chain), whose key must not be stored and whose files are not known; contexts of
servers, subclasses, message callbacks, and authorities in a directory, which cannot be listed.

Cost: about 70 µs; once in a process 25 ms, to know the system's authorities; 20 ms on resume, to load them.
"""

from __future__ import annotations

import hashlib
import ssl
import sys
import weakref
from contextlib import suppress
from functools import cache
from typing import Any, Final

from resumable.values.registry import Handler, alive

_SETTINGS: Final = (  # check_hostname comes before verify_mode can become CERT_NONE
    "check_hostname", "verify_mode", "verify_flags", "options", "minimum_version", "maximum_version",
    "hostname_checks_common_name", "post_handshake_auth", "keylog_filename",
)  # fmt: skip
_CIPHERS: Final = "ciphers"
# Why a server without a certificate cannot answer, in TLS 1.2 and in TLS 1.3.
_HAS_NONE: Final = ("NO_SHARED_CIPHER", "UNSUPPORTED_PROTOCOL")

# Whom a context trusts, and how many certificates it had when that was found out: more can be loaded, none taken away.
_trusted: weakref.WeakKeyDictionary[ssl.SSLContext, tuple[dict[str, int], Any]] = weakref.WeakKeyDictionary()
_bundles: dict[str, str] = {}  # digests of well-known authorities, found out when they are first needed


def extract(context: ssl.SSLContext) -> dict[str, Any]:
    """The rules of a client's context. Raises LiveResourceError."""
    if type(context) is not ssl.SSLContext:
        raise alive(context, "it is a context of a class of its own (register_reconnector for that class)")
    if context.protocol is not ssl.PROTOCOL_TLS_CLIENT:
        raise alive(context, "only contexts of clients can be made again (keep the paths of its certificate and key)")
    if getattr(context, "_msg_callback", None) is not None:
        raise alive(context, "it has a message callback (register_reconnector for what holds the context)")
    if _has_certificate(context):
        raise alive(
            context,
            "it holds a client certificate, whose key is not saved (take the client from Driver(resources=...), or use "
            "register_reconnector for it and load the certificate from its files there)",
        )
    return {
        **{name: _plain(getattr(context, name)) for name in _SETTINGS},
        _CIPHERS: [cipher["name"] for cipher in context.get_ciphers()],
        "authorities": _authorities(context),
    }


def identify(context: ssl.SSLContext) -> dict[str, Any]:
    """Whom it trusts, and whether it checks."""
    return {"verify_mode": int(context.verify_mode), "authorities": _authorities(context)}


def reconnect(description: dict[str, Any]) -> ssl.SSLContext:
    """An equal context. Raises ValueError when this machine's OpenSSL makes another one of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities = description["authorities"]
    if authorities == "system":
        context.load_default_certs()
    elif authorities == "certifi":
        import certifi

        context.load_verify_locations(certifi.where())
    elif authorities:
        context.load_verify_locations(cadata=b"".join(authorities))
    for name in _SETTINGS:
        if getattr(context, name) != description[name]:
            setattr(context, name, description[name])
    if [cipher["name"] for cipher in context.get_ciphers()] != description[_CIPHERS]:
        # The suites of TLS 1.3 are not set by this call, and always there.
        context.set_ciphers(":".join(name for name in description[_CIPHERS] if not name.startswith("TLS_")))
    for name in _SETTINGS:
        if getattr(context, name) != description[name]:
            raise ValueError(f"{name} is {getattr(context, name)!r} in the new TLS context and was {description[name]!r}")
    return context


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


# ---- a client certificate: no attribute tells of one, so the context is asked to play the server


def _has_certificate(context: ssl.SSLContext) -> bool:
    """Whether it has a certificate to show. Asked each time, as one can be loaded at any time."""
    return any(_can_answer(server, greeting, context) for server, greeting in _greetings())


def _can_answer(server: ssl.SSLContext, greeting: bytes, context: ssl.SSLContext) -> bool:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    incoming.write(greeting)
    connection = server.wrap_bio(incoming, outgoing, server_side=True)
    connection.context = context  # as for a host name that has a certificate of its own: it takes those of the context
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return True  # it has shown one, and waits for the other side
    except ssl.SSLError as error:
        return error.reason not in _HAS_NONE
    return True


@cache
def _greetings() -> list[tuple[ssl.SSLContext, bytes]]:
    """Servers without a certificate, each with what a client says first that takes any: of TLS 1.2, where it must fit the
    context's ciphers, and of TLS 1.3, which has no certificates for some old keys."""
    return [_greeting(version) for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)]


def _greeting(version: ssl.TLSVersion) -> tuple[ssl.SSLContext, bytes]:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    for side in (server, client):
        side.set_ciphers("ALL:!aNULL:!PSK:!SRP:@SECLEVEL=0")
        side.minimum_version = side.maximum_version = version
    said = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), said).do_handshake()
    return server, said.read()


# ---- authorities


def _authorities(context: ssl.SSLContext) -> Any:
    """Whom it trusts: "system", "certifi", or the certificates."""
    counts = context.cert_store_stats()
    known = _trusted.get(context)
    if known is None or known[0] != counts:
        known = _trusted[context] = (counts, _look_up(context, counts))
    return known[1]


def _look_up(context: ssl.SSLContext, counts: dict[str, int]) -> Any:
    certificates = context.get_ca_certs(binary_form=True)
    digest = _digest(certificates)
    if digest == _bundle("system"):
        return "system"
    if "certifi" in sys.modules and digest == _bundle("certifi"):
        return "certifi"
    if counts["x509"] != len(certificates) or counts["crl"]:
        raise alive(context, "it trusts a certificate that is no authority, or has revocations (register_reconnector)")
    if not certificates and context.verify_mode is not ssl.CERT_NONE:
        raise alive(context, "its authorities cannot be listed (load them from a file, not from a directory)")
    return certificates


def _bundle(name: str) -> str:
    if name not in _bundles:
        if name == "system":
            context = ssl.create_default_context()
        else:
            import certifi

            context = ssl.create_default_context(cafile=certifi.where())
        _bundles[name] = _digest(context.get_ca_certs(binary_form=True))
    return _bundles[name]


def _digest(certificates: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(certificates))).hexdigest()


HANDLERS: Final = {"ssl:SSLContext": Handler("ssl:SSLContext", extract, reconnect, identify)}
