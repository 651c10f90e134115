"""Secrets that this process has met: masked wherever they stand in a text, whatever name they go under.

Known are those that were sealed, refused or resolved with a live resource's description, and the values of environment
variables that are named like secrets, or passwords in those named like a URL. Of each the forms that it takes on the way
into a message are known too: percent-encoded, escaped by `repr` or JSON, in base64 (a Basic header has it behind the
user name), in UTF-16. Texts of less than 8 characters are not looked for: too many other texts have them inside.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote, quote_plus, unquote

from resumable.values.secret_patterns import is_secret_key, is_url_key, url_password

MASK: Final = "***"
SHORTEST: Final = 8
_LONGEST: Final = 16 * 1024
_MOST: Final = 64  # secrets that were met; those not met for the longest time are forgotten
_SHORTEST_FORM: Final = 8
_DIRECTORIES: Final = frozenset({"PWD", "OLDPWD"})  # set by the shell, and no passwords

_met: dict[str, None] = {}  # the one met last comes last
_turn: Final = threading.Lock()


def remember(secret: str) -> None:
    """Mask this text from now on."""
    if SHORTEST <= len(secret) <= _LONGEST:
        with _turn:
            _met.pop(secret, None)
            _met[secret] = None
            if len(_met) > _MOST:
                del _met[next(iter(_met))]


def masker() -> Callable[[str], str]:
    """A function that masks what is known now; for many texts in a row, as the environment is read only once."""
    forms: tuple[str, ...] | None = None

    def mask(text: str) -> str:
        nonlocal forms
        if len(text) < _SHORTEST_FORM:
            return text
        if forms is None:
            forms = _all_forms()
        for form in forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    return mask


def longest() -> int:
    """The length of the longest text that is masked: where a text is cut before it is masked, this much may be a piece of it."""
    return max(map(len, _all_forms()), default=0)


def from_environment() -> Iterator[tuple[str, str]]:
    """What the environment holds that is a secret by its name: how it is referred to, and the secret."""
    for name in os.environ:
        if name in _DIRECTORIES:
            continue
        if is_secret_key(name):
            yield name, os.environ.get(name, "")
        elif is_url_key(name):
            password = url_password(os.environ.get(name, ""))
            if password:
                yield f"{name}#password", unquote(password)


def _all_forms() -> tuple[str, ...]:
    with _turn:
        met = tuple(_met)
    return _forms((*met, *(secret for _, secret in from_environment())))


@lru_cache(4)
def _forms(secrets: tuple[str, ...]) -> tuple[str, ...]:
    """Every form of these secrets, the longest first, so that none is masked only in part."""
    found = {form for secret in secrets if SHORTEST <= len(secret) <= _LONGEST for form in _forms_of(secret)}
    return tuple(sorted((form for form in found if len(form) >= _SHORTEST_FORM), key=lambda form: (-len(form), form)))


def _forms_of(secret: str) -> Iterator[str]:
    data = secret.encode("utf-8", "surrogateescape")  # as the environment may hold any bytes
    yield secret
    yield repr(secret)[1:-1]
    yield json.dumps(secret)[1:-1]
    yield quote(data, safe="")
    yield quote(data)
    yield quote_plus(data)
    yield data.decode("latin-1")  # as bytes are looked at
    yield repr(data)[2:-1]
    yield secret.encode("utf-16-le", "surrogatepass").decode("latin-1")
    for before in range(3):  # behind 0, 1 or 2 bytes of a group of three; what shares a group with its neighbours is left out
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(before) + data).decode()
            yield whole[(0, 2, 3)[before] : (before + len(data)) * 8 // 6]
