"""What a secret looks like: the names it goes under, and where it stands in a URL, a DSN, a header or a message.

A *key* names a secret when it contains a word like `password` or `api_key`; a *text* holds one as the password of a URL,
after such a key and `=` or `:`, or after `Bearer`. Secrets under names that say nothing are not found; counts such as
`max_tokens` are not taken for one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_NAMES: Final = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|credential|authorization|cookie|token(?!s|i[sz]|_?(?:count|limit|type))"
    r"|(?:user|login|auth|admin|root|db|sql|smtp|mail|ftp|proxy|pg|redis|mongo)[_-]?pass(?![a-z])"
    r"|(?:api|access|account|private|secret|signing|encryption)[_-]?key(?![_-]?(?:id|name)))"
)
_SECRET_KEY: Final = re.compile(rf"^(?:pass|pw)$|{_NAMES}", re.IGNORECASE)
_URL_KEY: Final = re.compile(r"ur[il]|dsn|conn|header", re.IGNORECASE)
# The password of a URL: up to the last @ before the path, as some hold an unquoted @ themselves; else up to the first @,
# as others hold an unquoted slash, unless what comes is a port.
_IN_URL: Final = re.compile(
    r"(?<=://)[^\s/:@\"']*:(?P<secret>[^\s/\"']+(?=@)|(?!\d{1,5}/)[^\s\"'@/]{1,200}/[^\s\"'@]{0,200}(?=@))"
)
_IN_TEXT: Final = (
    _IN_URL,
    re.compile(r"\bjdbc:oracle:\w+:[^\s/@:]*/(?P<secret>[^\s@]+)@", re.IGNORECASE),
    # A cookie header: everything after the colon.
    re.compile(r"\b(?:set-)?cookie[\"']?\s*[:=]\s*[\"']?(?P<secret>[^\r\n\"'{}\[\]]+)", re.IGNORECASE),
    # key=value, key: value, "key": "value"; a quoted value up to its quote, one in braces (ODBC) up to theirs, a scheme
    # such as Bearer kept in sight.
    re.compile(
        rf"{_NAMES}[\w.-]{{0,40}}[\"']?\s*(?:=>|[=:])\s*(?:b?(?P<quote>[\"']))?(?:(?:Bearer|Basic|Token|Digest)\s+)?"
        r"(?P<secret>(?(quote)(?:\\.|(?!(?P=quote)).)+|(?:\{[^{}\r\n]{1,200}\}|[^\s,;&\"')}\]]+)))",
        re.IGNORECASE,
    ),
    # Bearer and Basic anywhere, when what follows looks like no word.
    re.compile(r"\b(?i:bearer|basic)\s+(?=\S*(?:\d|[a-z][A-Z]|=))(?P<secret>[\w.~+/=-]{8,})"),
)
SCHEME: Final = re.compile(r"(?:Bearer|Basic|Token|Digest|ApiKey)\s+", re.IGNORECASE)


@lru_cache(4096)
def is_secret_key(key: str) -> bool:
    """Whether a value under this name is a secret."""
    return _SECRET_KEY.search(key) is not None


@lru_cache(4096)
def is_url_key(key: str) -> bool:
    """Whether a value under this name may be a URL or a DSN, or headers, which hold a secret inside."""
    return _URL_KEY.search(key) is not None


@lru_cache(4096)
def tells_secret(key: str) -> bool:
    """Whether a name holds a secret itself, as a URL may that something is kept under."""
    return is_suspect(key) and bool(secrets_in(key))


def url_password(url: str) -> str | None:
    """The password in a URL, percent-encoded as it stands there."""
    found = _IN_URL.search(url)
    return found["secret"] if found is not None else None


def secrets_in(text: str) -> list[tuple[int, int]]:
    """Where secrets stand in a text, in order, overlapping ones as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(match.span("secret") for pattern in _IN_TEXT for match in pattern.finditer(text)):
        if merged and start < merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return merged


def is_suspect(text: str) -> bool:
    """Whether a text is worth looking for secrets: False for most, and then at little cost."""
    return "=" in text or ":" in text or "earer" in text or "asic" in text
