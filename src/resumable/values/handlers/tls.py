"""ssl.SSLContext of a client, which mail and HTTP clients hold: made again with the same rules.

Kept: whom it trusts (the system's authorities and those of certifi by name, others as their certificates), whether host
names are checked, protocol versions, cipher list, flags and options, the file for key logs.

Not kept: what a context tells nobody, a client certificate (load_cert_chain), ALPN protocols and a message callback.
Where they count, the server refuses the new connection: register_reconnector for the client then, and make the context
from its files. Refused: contexts of servers, subclasses, and authorities in a directory, which cannot be listed.

Cost: about 50 µs; once in a process 25 ms, to know the system's authorities; 20 ms on resume, to load them.
"""

from __future__ import annotations

import hashlib
import ssl
import sys
import weakref
from typing import Any, Final

from resumable.values.registry import Handler, alive

_SETTINGS: Final = (  # check_hostname comes before verify_mode can become CERT_NONE
    "check_hostname", "verify_mode", "verify_flags", "options", "minimum_version", "maximum_version",
    "hostname_checks_common_name", "post_handshake_auth", "keylog_filename",
)  # fmt: skip
_CIPHERS: Final = "ciphers"

# Whom a context trusts, and how many certificates it had when that was found out: more can be loaded, none taken away.
_trusted: weakref.WeakKeyDictionary[ssl.SSLContext, tuple[dict[str, int], Any]] = weakref.WeakKeyDictionary()
_bundles: dict[str, str] = {}  # digests of well-known authorities, found out when they are first needed


def extract(context: ssl.SSLContext) -> dict[str, Any]:
    """The rules of a client's context. Raises LiveResourceError."""
    if type(context) is not ssl.SSLContext:
        raise alive(context, "it is a context of a class of its own (register_reconnector for that class)")
    if context.protocol is not ssl.PROTOCOL_TLS_CLIENT:
        raise alive(context, "only contexts of clients can be made again (keep the paths of its certificate and key)")
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
