"""Secrets: found by the name they go under and in URLs; kept as references in descriptions, masked in texts.

One idea of what a secret is serves both. A *key* names a secret when it contains a word like `password` or `api_key`
(`is_secret_key`); a *text* holds one as the password of a URL, after such a key and `=` or `:`, or after `Bearer`.
Secrets under names that say nothing are not found; counts such as `max_tokens` are not taken for one.

- `seal` and `unseal`: the description of a live resource. A secret that an environment variable holds too is stored as
  `SecretRef("env:NAME")` and read from there on resume; any other is a SecretError.
- `mask_text` and `mask_value`: what is kept about failures and arguments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, unquote

from resumable.errors import SecretError

MASK: Final = "***"
_DEEPEST: Final = 50  # levels that are shown of a masked value

_NAMES: Final = (
    r"(?:passw(?:or)?d|passphrase|pwd|secret|credential|authorization|cookie|token(?!s|i[sz]|_?(?:count|limit|type))"
    r"|(?:api|access|private|secret|signing|encryption)[_-]?key(?![_-]?id))"
)
_SECRET_KEY: Final = re.compile(_NAMES, re.IGNORECASE)
_IN_TEXT: Final = (
    # The password of a URL: up to the last @ before the path, as some hold an unquoted @ themselves.
    re.compile(r"(?<=://)[^\s/:@\"']*:(?P<secret>[^\s/\"']+)@"),
    # A cookie header: everything after the colon.
    re.compile(r"\b(?:set-)?cookie[\"']?\s*[:=]\s*[\"']?(?P<secret>[^\r\n\"'{}\[\]]+)", re.IGNORECASE),
    # key=value, key: value, "key": "value"; a quoted value up to its quote, a scheme such as Bearer kept in sight.
    re.compile(
        rf"{_NAMES}[\w.-]{{0,40}}[\"']?\s*(?:=>|[=:])\s*(?:b?(?P<quote>[\"']))?(?:(?:Bearer|Basic|Token|Digest)\s+)?"
        r"(?P<secret>(?(quote)(?:(?!(?P=quote)).)+|[^\s,;&\"')}\]]+))",
        re.IGNORECASE,
    ),
    # Bearer and Basic anywhere, when what follows looks like no word.
    re.compile(r"\b(?i:bearer|basic)\s+(?=\S*(?:\d|[a-z][A-Z]|=))(?P<secret>[\w.~+/=-]{8,})"),
)
_SCHEME: Final = re.compile(r"(?:Bearer|Basic|Token|Digest|ApiKey)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Stands for a secret in a stored description: where it is found, and the text around it."""

    name: str  # "env:NAME"
    before: str = ""
    after: str = ""
    quoted: bool = False  # percent-encoded in a URL
    binary: bool = False

    def resolve(self) -> str | bytes:
        """The text with the secret in it. Raises LookupError when the environment variable is gone."""
        variable = self.name.removeprefix("env:")
        secret = os.environ.get(variable)
        if secret is None:
            raise LookupError(f"the environment variable {variable} is not set")
        text = f"{self.before}{quote(secret, safe='') if self.quoted else secret}{self.after}"
        return text.encode() if self.binary else text


@lru_cache(4096)
def is_secret_key(key: str) -> bool:
    """Whether a value under this name is a secret."""
    return _SECRET_KEY.search(key) is not None


# ---- descriptions of live resources


def seal(description: Any, type_key: str = "") -> Any:
    """A description fit to be stored: every secret in its plain containers replaced by a SecretRef.

    `type_key` says what it describes, as "module:name". Raises SecretError (fields key, type_name) for a secret that no
    environment variable holds.
    """
    if type(description) in _LOOKED_INTO and not _is_suspect(description):
        return description
    type_name = type_key.replace(":", ".")

    def refuse(key: str) -> SecretError:
        reason = (
            f"its {key} is a secret (put the same value into an environment variable, from which it is read again on "
            f"resume, or describe the {type_name or 'resource'} without it by register_reconnector)"
        )
        return SecretError(reason, type_name=type_name, key=key, reason=reason)

    return _seal(description, "", False, refuse)


def unseal(description: Any) -> Any:
    """The description with every SecretRef resolved. Raises LookupError naming a variable that is not set."""
    if type(description) is SecretRef:
        return description.resolve()
    return _rebuilt(description, lambda key, value: unseal(value))


def _seal(value: Any, key: str, secret: bool, refuse: Callable[[str], SecretError]) -> Any:
    kind = type(value)
    if kind is str:
        if secret:
            return _reference(value, key, refuse)
        return _seal_text(value, key, refuse)
    if kind in _CONTAINERS:

        def inner(part: Any, item: Any) -> Any:
            named = type(part) is str
            below = (f"{key}.{part}" if key else part) if named else key
            return _seal(item, below, secret or (named and is_secret_key(part)), refuse)

        return _rebuilt(value, inner)
    if not secret or value is None or kind is bool:
        return value
    if kind is bytes:
        found = _reference(value.decode("latin-1"), key, refuse)
        return SecretRef(found.name, found.before, found.after, found.quoted, True) if found else value
    raise refuse(key)


def _seal_text(text: str, key: str, refuse: Callable[[str], SecretError]) -> str | SecretRef:
    spans = _secrets_in(text)
    if not spans:
        return text
    start, end = spans[0]
    found = _holder(text[start:end])
    if len(spans) > 1 or found is None:
        raise refuse(key or "text")
    variable, quoted = found
    return SecretRef(f"env:{variable}", text[:start], text[end:], quoted)


def _reference(secret: str, key: str, refuse: Callable[[str], SecretError]) -> Any:
    """A SecretRef for the whole text, or for what stands behind `Bearer` and the like; empty texts are no secret."""
    if not secret:
        return secret
    for start in {0, len(scheme[0]) if (scheme := _SCHEME.match(secret)) else 0}:
        found = _holder(secret[start:])
        if found is not None:
            return SecretRef(f"env:{found[0]}", before=secret[:start])
    raise refuse(key)


def _holder(secret: str) -> tuple[str, bool] | None:
    """The environment variable that holds a secret, and whether the secret is its percent-encoded form.

    A short value can equal a variable by chance (a password "1" and SHLVL), so then only a variable that is named
    like a secret counts.
    """
    plain = unquote(secret)
    names = sorted(os.environ, key=lambda name: (not is_secret_key(name), name))
    for name in names:
        value = os.environ[name]
        if value in (secret, plain) and (len(value) >= 8 or is_secret_key(name)):
            return name, value != secret
    return None


# ---- failures, arguments, messages


def mask_text(text: str) -> str:
    """The text with passwords in URLs, values after secret keys, and bearer tokens replaced by `***`."""
    if not _is_suspect(text):
        return text
    pieces: list[str] = []
    at = 0
    for start, end in _secrets_in(text):
        pieces += text[at:start], MASK
        at = end
    return "".join([*pieces, text[at:]])


def mask_value(value: Any) -> Any:
    """A copy with secrets masked: under secret keys of dicts, and inside texts, however deep in plain containers.

    Containers inside themselves, or below 50 levels, become "...". Other objects come back as they are:
    `mask_text` their repr.
    """
    return _mask(value, ())


def _mask(value: Any, above: tuple[int, ...]) -> Any:
    kind = type(value)
    if kind is str:
        return mask_text(value)
    if kind is bytes:
        text = value.decode("latin-1")
        return value if (masked := mask_text(text)) == text else masked.encode("latin-1")
    if kind is SecretRef:
        return value.name
    if kind not in _CONTAINERS:
        return value
    if id(value) in above or len(above) >= _DEEPEST:
        return "..."
    inside = (*above, id(value))

    def inner(key: Any, item: Any) -> Any:
        hidden = type(key) is str and is_secret_key(key) and item is not None and type(item) not in (bool, SecretRef)
        return MASK if hidden else _mask(item, inside)

    return _rebuilt(value, inner)


# ---- shared


def _secrets_in(text: str) -> list[tuple[int, int]]:
    """Where secrets stand in a text, in order, overlapping ones as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(match.span("secret") for pattern in _IN_TEXT for match in pattern.finditer(text)):
        if merged and start < merged[-1][1]:
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return merged


def _is_suspect(value: Any) -> bool:
    """Whether a text or container is worth looking for secrets: False for most, and then at little cost."""
    kind = type(value)
    if kind is str:
        return "=" in value or ":" in value or "earer" in value or "asic" in value
    if kind is dict:
        for key, item in value.items():  # a loop, as `any` costs twice as much for a few items
            if type(key) is str and is_secret_key(key):
                return True
            if type(item) in _LOOKED_INTO and _is_suspect(item):
                return True
        return False
    return any(type(item) in _LOOKED_INTO and _is_suspect(item) for item in value)


_CONTAINERS: Final = frozenset({dict, list, tuple, set, frozenset})
_LOOKED_INTO: Final = _CONTAINERS | {str}


def _rebuilt(value: Any, inner: Callable[[Any, Any], Any]) -> Any:
    """A plain container with `inner(key, item)` in each item's place; the key is None but in a dict."""
    kind = type(value)
    if kind is dict:
        return {key: inner(key, item) for key, item in value.items()}
    return kind(inner(None, item) for item in value) if kind in _CONTAINERS else value
