"""Secrets: kept as references in descriptions, masked in texts. What one looks like is told by secret_patterns.py.

- `seal` and `unseal`: the description of a live resource. A secret that a registered resolver knows, or that an environment
  variable holds too, is stored as a `SecretRef` and had again on resume; any other is a SecretError.
- `mask_text` and `mask_value`: what is kept about failures and arguments. They mask what looks like a secret, and the
  secrets that this process has met, wherever they stand (known_secrets.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

from resumable.errors import ResumableError, SecretError
from resumable.values import known_secrets
from resumable.values.containers import CONTAINERS, KINDS, name_of, rebuilt, rebuilt_like
from resumable.values.known_secrets import MASK
from resumable.values.secret_patterns import SCHEME, is_secret_key, is_suspect, is_url_key, secrets_in, tells_secret, url_password

_DEEPEST: Final = 50  # levels that are shown of a masked value
_RESOLVER_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_ENVIRONMENT: Final = "env"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Stands for a secret in a stored description; `reconnect` gets the secret itself.

    name: where the secret is found on resume: "env:NAME" is the environment variable NAME, "env:NAME#password" the
    password in the URL that NAME holds; other schemes are those of `register_secret_resolver`. The other fields are for
    secrets in the midst of a text: what stands around them, and how they are written there.
    """

    name: str
    before: str = ""
    after: str = ""
    quoted: bool = False  # percent-encoded in a URL
    binary: bool = False

    def __post_init__(self) -> None:
        scheme, colon, name = self.name.partition(":")
        if not (_RESOLVER_SCHEME.fullmatch(scheme) and colon and name):
            # What was given may be the secret itself, so it is not shown.
            raise ValueError('a SecretRef takes "scheme:name", such as "env:DB_PASSWORD", not the secret')

    def resolve(self) -> str | bytes:
        """The text with the secret in it. Raises LookupError when there is none, RuntimeError when asking for it fails."""
        scheme, _, name = self.name.partition(":")
        secret = _from_environment(name) if scheme == _ENVIRONMENT else _from_resolver(scheme, name)
        known_secrets.remember(secret)
        text = f"{self.before}{quote(secret, safe='') if self.quoted else secret}{self.after}"
        return text.encode() if self.binary else text


class _Resolver(NamedTuple):
    find: Callable[[str, str], str | None]
    resolve: Callable[[str], str]


_resolvers: Final[dict[str, _Resolver]] = {}


def register_secret_resolver(
    scheme: str, *, find: Callable[[str, str], str | None], resolve: Callable[[str], str]
) -> None:
    """Keep secrets of live resources as references to a place of your own: a vault, a keyring, a file.

    find(secret, key) is asked for each secret in a description; key says where it stood there ("login.password"). It
    returns the name under which the secret can be had again, which is stored as "scheme:name", or None. It is called at
    every checkpoint, so it is to be quick. resolve(name) gives the secret on resume; if it raises LookupError there is none,
    after anything else it is asked again, as for a rebuild that fails.

    Resolvers are asked before the environment, in the order of their registration; registering a scheme again replaces
    it. Raises TypeError, ValueError.
    """
    if not isinstance(scheme, str) or not _RESOLVER_SCHEME.fullmatch(scheme) or scheme == _ENVIRONMENT:
        raise ValueError(f'a scheme is a word in lower case, such as "vault", and not "env": {scheme!r}')
    if not callable(find) or not callable(resolve):
        raise TypeError(f"find and resolve of the secret resolver {scheme!r} must be callable")
    _resolvers[scheme] = _Resolver(find, resolve)


def _from_environment(name: str) -> str:
    variable, _, part = name.partition("#")
    value = os.environ.get(variable)
    if value is None:
        raise LookupError(f"the environment variable {variable} is not set")
    if not part:
        return value
    password = url_password(value)
    if password is None:
        raise LookupError(f"the environment variable {variable} holds no URL with a password")
    return unquote(password)


def _from_resolver(scheme: str, name: str) -> str:
    resolver = _resolvers.get(scheme)
    if resolver is None:
        raise LookupError(
            f'no secret resolver is registered for "{scheme}:{name}" (call register_secret_resolver("{scheme}", ...) before '
            f"the run is resumed)"
        )
    try:
        secret = resolver.resolve(name)
    except Exception as error:
        kind = LookupError if isinstance(error, LookupError) else RuntimeError
        reason = mask_text(f"{type(error).__name__}: {error}")
        raise kind(f'the secret resolver could not give "{scheme}:{name}": {reason}') from error
    if type(secret) is not str:
        raise TypeError(f'the secret resolver for "{scheme}:{name}" gave a {type(secret).__name__}, not a str')
    return secret


# ---- descriptions of live resources


def seal(description: Any, type_key: str = "", is_resource: Callable[[Any], bool] = lambda value: False) -> Any:
    """A description fit to be stored: every secret in its containers replaced by a SecretRef.

    `type_key` says what it describes, as "module:name"; what `is_resource` is described on its own. Raises SecretError (fields
    key, type_name) for a secret that cannot be had again, or that stands in an attribute of some other object.
    """
    if not _is_suspect(description):
        return description
    return _Sealer(type_key.replace(":", "."), is_resource).seal(description, "", False)


def unseal(description: Any) -> Any:
    """The description with every SecretRef resolved. Raises LookupError or RuntimeError, which name it."""
    if type(description) is SecretRef:
        return description.resolve()
    return rebuilt_like(description, lambda key, value: unseal(value)) if isinstance(description, KINDS) else description


class _Sealer:
    def __init__(self, type_name: str, is_resource: Callable[[Any], bool]) -> None:
        self._type_name = type_name
        self._is_resource = is_resource
        self._inside: set[int] = set()  # objects whose attributes are being looked at

    def seal(self, value: Any, key: str, secret: bool) -> Any:
        if isinstance(value, str):
            return self._whole(value, key) if secret else self._text(value, key or "text")
        if isinstance(value, bytes):
            return self._bytes(value, key, secret)
        if type(value) is SecretRef:
            scheme = value.name.partition(":")[0]
            if scheme != _ENVIRONMENT and scheme not in _resolvers:
                raise self._error(key, f'no secret resolver is registered for "{scheme}:" (call register_secret_resolver first)')
            return value
        if isinstance(value, KINDS):

            def inner(part: Any, item: Any) -> Any:
                name = name_of(part)
                if tells_secret(name):
                    self._remember(name, secrets_in(name))
                    raise self._refusal(key or "key")
                return self.seal(item, f"{key}.{name}".lstrip(".") if name else key, secret or is_secret_key(name))

            return rebuilt_like(value, inner)
        if secret and value is not None and type(value) is not bool:
            raise self._refusal(key)
        if type(value) not in _PLAIN and not self._is_resource(value):
            self._look_into(value, key)
        return value

    def _look_into(self, value: Any, key: str) -> None:
        """Refuse an object with a secret among its attributes: there is nowhere to put a reference."""
        attributes = getattr(value, "__dict__", None)
        if isinstance(value, _NAMED) or not isinstance(attributes, dict) or id(value) in self._inside:
            return
        self._inside.add(id(value))
        for name, item in attributes.items():
            path = f"{key}.{name}".lstrip(".")
            sealed = self.seal(item, path, is_secret_key(name_of(name)))
            if sealed is not item and sealed != item:
                raise self._refusal(path)
        self._inside.remove(id(value))

    def _bytes(self, value: bytes, key: str, secret: bool) -> Any:
        # Other bytes are data, the beginning of a file, say: to find "password=" there would mean nothing.
        if not secret and not is_url_key(key):
            return value
        try:
            text = value.decode()
        except UnicodeDecodeError:
            if secret:
                raise self._refusal(key) from None
            return value
        found = self._whole(text, key) if secret else self._text(text, key or "text")
        return SecretRef(found.name, found.before, found.after, found.quoted, True) if type(found) is SecretRef else value

    def _whole(self, secret: str, key: str) -> str | SecretRef:
        """A SecretRef for the whole text, or for what stands behind `Bearer` and the like; empty texts are no secret."""
        if not secret:
            return secret
        scheme = SCHEME.match(secret)
        starts = [0, len(scheme[0])] if scheme is not None else [0]
        for start in starts:
            found = self._holder(secret[start:], key)
            if found is not None:
                return SecretRef(found[0], before=secret[:start])
        known_secrets.remember(secret[starts[-1] :])
        raise self._refusal(key)

    def _text(self, text: str, key: str) -> str | SecretRef:
        spans = secrets_in(text) if is_suspect(text) else []
        if not spans:
            return text
        for start, end in _ends(text, *spans[0]):
            found = self._holder(text[start:end], key)
            if found is not None and not secrets_in(text[end:]):
                return SecretRef(found[0], text[:start], text[end:], found[1])
        self._remember(text, spans)
        raise self._refusal(key)

    def _remember(self, text: str, spans: list[tuple[int, int]]) -> None:
        for start, end in spans:
            known_secrets.remember(text[start:end])

    def _holder(self, secret: str, key: str) -> tuple[str, bool] | None:
        """Who has a secret, as "scheme:name", and whether what was given is its percent-encoded form.

        A short value can equal an environment variable by chance (a password "1" and SHLVL), so then only a variable that is
        named like a secret counts.
        """
        plain = unquote(secret)
        found = self._resolver_of(secret, plain, key)
        if found is None:
            named = sorted(known_secrets.from_environment())
            others = [(name, os.environ.get(name, "")) for name in sorted(os.environ)]
            long_ones = [(name, value) for name, value in others if len(value) >= known_secrets.SHORTEST]
            found = next(
                ((f"{_ENVIRONMENT}:{name}", value != secret) for name, value in named + long_ones if value in (secret, plain)),
                None,
            )
        if found is not None:
            known_secrets.remember(plain if found[1] else secret)
        return found

    def _resolver_of(self, secret: str, plain: str, key: str) -> tuple[str, bool] | None:
        for scheme, resolver in _resolvers.items():
            for text in dict.fromkeys((secret, plain)):
                try:
                    name = resolver.find(text, key)
                except ResumableError:
                    raise
                except Exception as error:
                    known_secrets.remember(text)
                    reason = mask_text(f"{type(error).__name__}: {error}").replace(text, MASK)
                    raise self._error(key, f'asking the secret resolver for "{scheme}:" raised {reason}') from error
                if name is None:
                    continue
                if type(name) is not str or not name or text in name:
                    raise self._error(key, f'the secret resolver for "{scheme}:" gave the secret itself, or no name')
                return f"{scheme}:{name}", text != secret
        return None

    def _refusal(self, key: str) -> SecretError:
        return self._error(
            key,
            f"its {key} is a secret (put the same value into an environment variable, from which it is read again on "
            f"resume, or give a register_secret_resolver that knows it, or describe the {self._type_name or 'resource'} "
            f"without it by register_reconnector)",
        )

    def _error(self, key: str, reason: str) -> SecretError:
        return SecretError(reason, type_name=self._type_name, key=key, reason=reason)


def _ends(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where an unquoted secret may end: as found, at the next space, or with the text, as it may hold any other sign."""
    yield start, end
    for more in (re.compile(r"[^\s;&]*"), re.compile(r"\S*"), re.compile(r".*", re.DOTALL)):
        found = more.match(text, end)
        if found is not None and found.end() > end:
            yield start, found.end()


# ---- failures, arguments, messages


def mask_text(text: str) -> str:
    """The text with passwords in URLs, values after secret keys, bearer tokens and known secrets replaced by `***`."""
    return _masked(text, known_secrets.masker())


def mask_beginning(text: Any, limit: int, show: Callable[[Any], str] = str) -> str:
    """What `show` makes of a str or bytes, masked, of which only the first `limit` characters are wanted.

    It may be huge, so it is cut before it is masked; further on, and what the cut may have made a piece of a secret is left out.
    """
    if len(text) <= limit:
        return mask_text(show(text))[:limit]
    spare = known_secrets.longest()
    masked = mask_text(show(text[: 2 * limit + spare]))
    return masked[: max(0, min(limit, len(masked) - spare))]


def mask_value(value: Any) -> Any:
    """A copy with secrets masked: under secret keys of dicts, and inside texts, however deep in plain containers.

    Containers inside themselves, or below 50 levels, become "...". Other objects come back as they are:
    `mask_text` their repr.
    """
    return _mask(value, (), known_secrets.masker())


def _masked(text: str, known: Callable[[str], str]) -> str:
    text = known(text)
    if not is_suspect(text):
        return text
    pieces: list[str] = []
    at = 0
    for start, end in secrets_in(text):
        pieces += text[at:start], MASK
        at = end
    return "".join([*pieces, text[at:]])


def _mask(value: Any, above: tuple[int, ...], known: Callable[[str], str]) -> Any:
    kind = type(value)
    if kind is str:
        return _masked(value, known)
    if kind is bytes:
        text = value.decode("latin-1")
        return value if (masked := _masked(text, known)) == text else masked.encode("latin-1")
    if kind is SecretRef:
        return value.name
    if kind not in CONTAINERS:
        return value
    if id(value) in above or len(above) >= _DEEPEST:
        return "..."
    inside = (*above, id(value))

    def inner(key: Any, item: Any) -> Any:
        hidden = is_secret_key(name_of(key)) and item is not None and type(item) not in (bool, SecretRef)
        return MASK if hidden else _mask(item, inside, known)

    masked = rebuilt(value, inner)
    if kind is dict:
        return {_mask(key, inside, known): item for key, item in masked.items()}
    return masked


# ---- shared


def _is_suspect(value: Any) -> bool:
    """Whether a text or container is worth looking for secrets: False for most, and then at little cost."""
    kind = type(value)
    if kind is str:
        return is_suspect(value)
    if kind is dict:
        for key, item in value.items():  # a loop, as `any` costs twice as much for a few items
            if is_secret_key(name_of(key)) or tells_secret(name_of(key)) or (type(item) is bytes and is_url_key(name_of(key))):
                return True
            if type(item) not in _PLAIN and _is_suspect(item):
                return True
        return False
    if kind not in CONTAINERS:
        return kind not in _PLAIN and not isinstance(value, _NAMED)
    if len(value) == 2 and kind in (tuple, list) and is_secret_key(name_of(value[0])):
        return True  # perhaps one of many pairs
    return any(type(item) not in _PLAIN and _is_suspect(item) for item in value)


_PLAIN: Final = frozenset({type(None), bool, int, float, complex, bytes, range, slice})
_NAMED: Final = (type, FunctionType, BuiltinFunctionType, ModuleType, Enum)  # stored by name
