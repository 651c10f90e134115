"""Secrets: found in descriptions and texts, stored by reference, masked."""

from __future__ import annotations

import base64
import json
import pickle
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus

import pytest

from resumable.errors import SecretError
from resumable.values import known_secrets, secrets
from resumable.values.secrets import (
    MASK,
    SecretRef,
    is_secret_key,
    mask_beginning,
    mask_text,
    mask_value,
    register_secret_resolver,
    seal,
    unseal,
)

CANARY = "hunter2-c4nary"


@pytest.fixture
def _in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECRET", CANARY)


@pytest.mark.parametrize(
    "key",
    ["password", "DB_PASSWORD", "passwd", "client_secret", "token", "accessToken", "api_key", "X-API-Key", "apikey",
     "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "private_key", "pwd", "credentials", "PGPASSWORD",
     "pass", "pw", "DB_PASS", "smtpPass", "userpass"],
)  # fmt: skip
def test_keys_that_name_secrets(key: str) -> None:
    """The usual names of secrets are known, in any case and with any prefix."""
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["max_tokens", "tokens", "tokenizer", "token_count", "key", "path", "author", "bypass", "timeout", "name", "low_pass",
     "passes"],
)  # fmt: skip
def test_keys_that_do_not(key: str) -> None:
    """Counts of tokens and ordinary names are not taken for secrets."""
    assert not is_secret_key(key)


HOLDING = [
    {"password": CANARY},
    {"headers": {"Authorization": f"Bearer {CANARY}"}},
    {"headers": {"X-Api-Key": CANARY}},
    {"cookies": [CANARY]},
    {"login": [("a", {"token": CANARY})]},
    {"url": f"postgresql://me:{CANARY}@host:5432/db?x=1"},
    {"url": f"redis://:{CANARY}@host/0"},
    {"dsn": f"host=h password={CANARY} dbname=d"},
    {"query": f"https://host/path?api_key={CANARY}&x=1"},
    {"password": CANARY.encode()},
    {"url": f"redis://:{CANARY}@host/0".encode()},
    {"headers": [("Accept", "*/*"), ("X-Api-Key", CANARY)]},
    {"headers": ((b"authorization", f"Bearer {CANARY}".encode()),)},
    {b"authorization": f"Bearer {CANARY}".encode()},
    {"url": f"mongodb+srv://me:{CANARY}@host/db"},
    {"broker": f"amqp://me:{CANARY}@host//"},
    {"odbc": f"DRIVER=x;SERVER=h;UID=me;PWD={CANARY};Encrypt=yes"},
    {"jdbc": f"jdbc:sqlserver://h;user=me;password={CANARY};"},
    {"jdbc": f"jdbc:oracle:thin:me/{CANARY}@host:1521/db"},
    {"azure": f"AccountName=me;AccountKey={CANARY};EndpointSuffix=x"},
    {"dsn": f"host=h password='{CANARY}' dbname=d"},
    f"mysql://me:{CANARY}@host",
    [(f"Bearer {CANARY}",)],
]


@pytest.mark.parametrize("description", HOLDING, ids=str)
@pytest.mark.usefixtures("_in_environment")
def test_sealed_descriptions_hold_no_secret_and_come_back(description: Any) -> None:
    """A secret that the environment holds is replaced wherever it stands, and is back after unsealing."""
    sealed = seal(description)
    assert CANARY not in repr(sealed)
    assert "SecretRef" in repr(sealed)
    assert unseal(sealed) == description


@pytest.mark.parametrize("description", HOLDING, ids=str)
def test_secrets_from_elsewhere_are_refused(description: Any) -> None:
    """A secret that no environment variable holds is an error that names the key and not the secret."""
    with pytest.raises(SecretError) as caught:
        seal(description, "db:Connection")
    assert CANARY not in str(caught.value)
    assert caught.value.key in str(caught.value)
    assert "db.Connection" in str(caught.value)


@pytest.mark.parametrize(
    "description",
    [
        {"path": "/a/b", "mode": "w", "n": 3, "head": b"password=x", "newline": None},
        {"password": None, "token": "", "cookie": False},
        {"url": "https://host:80/path?x=1"},
        {"max_tokens": 4096, "at": "12:30"},
        {"fieldnames": ["token", "count"], "columns": ("password", "name")},
        {"url": b"https://host/", "data": b"\xff=:", "header": b"\xff:="},
        [1, ("a", "b"), {"c"}],
        None,
        b"\x00",
    ],
    ids=str,
)
def test_descriptions_without_secrets_are_left_alone(description: Any) -> None:
    """What holds no secret is stored as it is."""
    assert seal(description) == description
    assert unseal(description) == description


def test_a_number_under_a_secret_key_is_a_secret() -> None:
    """A PIN is refused like any other password."""
    with pytest.raises(SecretError):
        seal({"password": 1234})


def test_short_values_do_not_match_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short password is only taken from a variable that is named like one."""
    monkeypatch.setenv("LEVEL", "1")
    with pytest.raises(SecretError):
        seal({"password": "1"})
    monkeypatch.setenv("LEVEL_PASSWORD", "1")
    assert seal({"password": "1"}) == {"password": SecretRef("env:LEVEL_PASSWORD")}


def test_quoted_passwords_in_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A percent-encoded password is found in the environment in its plain form, and quoted again."""
    monkeypatch.setenv("DB_PASSWORD", "p@ss/word")
    url = "postgresql://me:p%40ss%2Fword@host/db"
    sealed = seal({"url": url})
    assert "p%40ss" not in repr(sealed)
    assert unseal(sealed) == {"url": url}


@pytest.mark.usefixtures("_in_environment")
def test_two_secrets_in_one_text_are_refused() -> None:
    """A text with two secrets cannot be kept as one reference."""
    with pytest.raises(SecretError):
        seal({"dsn": f"password={CANARY} token={CANARY}"})


def test_a_missing_variable_is_named() -> None:
    """Unsealing without the variable says which one is missing."""
    with pytest.raises(LookupError, match="NOT_THERE"):
        unseal({"password": SecretRef("env:NOT_THERE")})


@pytest.mark.usefixtures("_in_environment")
@pytest.mark.parametrize("secret", ["a)b,c}d", "a&b;c", "a b c", "a/b"])
def test_signs_that_end_other_secrets(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unquoted secret in a DSN is found in the environment with whatever signs it holds."""
    monkeypatch.setenv("DB_PASSWORD", secret)
    dsn = f"host=h password={secret}"
    assert seal({"dsn": dsn}) == {"dsn": SecretRef("env:DB_PASSWORD", "host=h password=")}


def test_the_password_in_a_url_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A password that the environment has only inside a URL is read from there."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:p%40ss-c4nary@host/db")
    sealed = seal({"password": "p@ss-c4nary", "url": "postgresql://me:p%40ss-c4nary@host/db"})
    assert sealed["password"] == SecretRef("env:DATABASE_URL#password")
    assert "c4nary" not in repr(sealed)
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:r%40tated@host/db")
    assert unseal(sealed) == {"password": "r@tated", "url": "postgresql://me:r%40tated@host/db"}
    monkeypatch.setenv("DATABASE_URL", "postgresql://host/db")
    with pytest.raises(LookupError, match="DATABASE_URL holds no URL with a password"):
        unseal(sealed)


# ---- resolvers


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A resolver over a dict, which a test may change."""
    monkeypatch.setattr(secrets, "_resolvers", {})
    kept = {"db/main": CANARY}

    def find(secret: str, key: str) -> str | None:
        return next((path for path, value in kept.items() if value == secret and key), None)

    register_secret_resolver("vault", find=find, resolve=kept.__getitem__)
    return kept


@pytest.mark.parametrize("description", HOLDING, ids=str)
def test_a_resolver_takes_secrets(description: Any, vault: dict[str, str]) -> None:
    """A secret that a registered resolver knows is replaced wherever it stands, and asked for on resume."""
    sealed = seal(description)
    assert CANARY not in repr(sealed)
    assert "vault:db/main" in repr(sealed)
    assert unseal(sealed) == description
    vault["db/main"] = "rotated-rotated"
    assert "rotated-rotated" in repr(unseal(sealed))


def test_a_resolver_comes_before_the_environment(vault: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What both know is kept under the resolver's name; what it does not know is looked for in the environment."""
    monkeypatch.setenv("DB_PASSWORD", CANARY)
    assert seal({"password": CANARY}) == {"password": SecretRef("vault:db/main")}
    vault.clear()
    assert seal({"password": CANARY}) == {"password": SecretRef("env:DB_PASSWORD")}


def test_a_description_may_hold_a_reference(vault: dict[str, str]) -> None:
    """An extract may give a SecretRef itself, under any key; one of a scheme that nobody knows is refused when saved."""
    description = {"password": SecretRef("vault:db/main"), "other": [SecretRef("vault:db/main")]}
    assert seal(description) == description
    assert unseal(description) == {"password": CANARY, "other": [CANARY]}
    with pytest.raises(SecretError, match=r'no secret resolver is registered for "safe:".*register_secret_resolver'):
        seal({"login": {"password": SecretRef("safe:x")}}, "db:Connection")
    vault.clear()
    with pytest.raises(LookupError, match=r'could not give "vault:db/main": KeyError'):
        unseal(description)


def test_a_secret_is_no_reference() -> None:
    """A SecretRef made of the secret is refused, and the error does not show it."""
    with pytest.raises(ValueError, match="scheme:name") as caught:
        SecretRef(CANARY)
    assert CANARY not in str(caught.value)


def test_a_resolver_that_is_gone_is_named(vault: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Resuming without the resolver says which one to register."""
    sealed = seal({"password": CANARY})
    monkeypatch.setattr(secrets, "_resolvers", {})
    with pytest.raises(LookupError, match=r'register_secret_resolver\("vault", ...\) before the run is resumed'):
        unseal(sealed)


@pytest.mark.parametrize(
    ("find", "reason"),
    [
        (lambda secret, key: secret, "gave the secret itself"),
        (lambda secret, key: f"kv/{secret}", "gave the secret itself"),
        (lambda secret, key: "", "no name"),
        (lambda secret, key: 1, "no name"),
        (lambda secret, key: {}[secret], "raised KeyError"),
    ],
)
def test_a_find_that_fails_is_an_error_without_the_secret(find: Any, reason: str, vault: dict[str, str]) -> None:
    """A resolver that names a secret by itself, by nothing or not at all is a SecretError that keeps it to itself."""
    register_secret_resolver("vault", find=find, resolve=str)
    with pytest.raises(SecretError, match=reason) as caught:
        seal({"password": CANARY}, "db:Connection")
    assert CANARY not in str(caught.value)
    assert caught.value.key == "password"


def test_a_resolver_that_fails_is_named_without_secrets(vault: dict[str, str]) -> None:
    """What a resolve raises is told with the reference; what is no str is refused."""

    def fail(name: str) -> str:
        raise OSError(f"vault://me:{CANARY}@host is sealed")

    sealed = seal({"password": CANARY})
    register_secret_resolver("vault", find=lambda secret, key: None, resolve=fail)
    with pytest.raises(RuntimeError, match=r'"vault:db/main": OSError: vault://me:\*\*\*@host is sealed'):
        unseal(sealed)
    register_secret_resolver("vault", find=lambda secret, key: None, resolve=lambda name: b"")  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match="gave a bytes, not a str"):
        unseal(sealed)


@pytest.mark.parametrize(
    ("scheme", "find", "error"),
    [("env", str, ValueError), ("A b", str, ValueError), ("", str, ValueError), (1, str, ValueError), ("v", None, TypeError)],
)
def test_bad_resolvers_are_refused_at_once(scheme: Any, find: Any, error: type[Exception]) -> None:
    """A scheme that is no word, or `env`, and what cannot be called is an error when it is registered."""
    with pytest.raises(error):
        register_secret_resolver(scheme, find=find, resolve=str)


# ---- masking


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"postgresql://me:{CANARY}@host/db failed", f"postgresql://me:{MASK}@host/db failed"),
        ("redis://:p@ss@host/0", f"redis://:{MASK}@host/0"),
        (f"password={CANARY}, user=me", f"password={MASK}, user=me"),
        (f"{{'db_password': '{CANARY}', 'x': 1}}", f"{{'db_password': '{MASK}', 'x': 1}}"),
        (f'{{"api_key": "{CANARY} and more", "x": 1}}', f'{{"api_key": "{MASK}", "x": 1}}'),
        (f"Authorization: Bearer {CANARY}", f"Authorization: Bearer {MASK}"),
        (f"curl -H 'Authorization: Basic {CANARY}'", f"curl -H 'Authorization: Basic {MASK}'"),
        (f"sent Bearer {CANARY}.", f"sent Bearer {MASK}"),
        (f"Cookie: a={CANARY}; b=2\nnext", f"Cookie: {MASK}\nnext"),
        (f"Config(host='h', token='{CANARY}')", f"Config(host='h', token='{MASK}')"),
        (f"https://h/?access_token={CANARY}&x=1", f"https://h/?access_token={MASK}&x=1"),
        (f"{{'token': b'{CANARY}'}}", f"{{'token': b'{MASK}'}}"),
        (f"password={CANARY} secret={CANARY}", f"password={MASK} secret={MASK}"),
        (f"PWD={{{CANARY};x}};UID=me", f"PWD={MASK};UID=me"),
        (f"host=h password='{CANARY}\\'s' x=1", f"host=h password='{MASK}' x=1"),
        (f"postgres://me:a/{CANARY}@host/db?x=1", f"postgres://me:{MASK}@host/db?x=1"),
        (f"jdbc:oracle:thin:me/{CANARY}@host", f"jdbc:oracle:thin:me/{MASK}@host"),
        (f"AccountKey={CANARY};x", f"AccountKey={MASK};x"),
    ],
)  # fmt: skip
def test_secrets_in_texts_are_masked(text: str, masked: str) -> None:
    """The secret goes, what stands around it stays."""
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    ["", "no secret here", "https://host:80/a@b", "at 12:30: done", "max_tokens=4096", "a basic understanding of it",
     "tokens: 5, name=x", "ssh://git@host/repo", "KeyError: 'password'", "http://host:8080/x@y/z@w"],
)  # fmt: skip
def test_other_texts_stay(text: str) -> None:
    """A text without secrets is left as it is."""
    assert mask_text(text) == text


def test_values_are_masked_deep() -> None:
    """Dict keys and texts are masked however deep, in a copy."""
    value = {"config": [{"password": CANARY, "pin_token": 1234}, (f"token={CANARY}", f"token={CANARY}".encode())], 1: 2}
    masked = mask_value(value)
    assert masked == {
        "config": [{"password": MASK, "pin_token": MASK}, (f"token={MASK}", f"token={MASK}".encode())],
        1: 2,
    }
    assert value["config"][0]["password"] == CANARY  # type: ignore[index]


@pytest.mark.parametrize(
    "key", [CANARY, CANARY.encode(), ("me", CANARY), frozenset([CANARY]), f"url={CANARY}"], ids=lambda key: type(key).__name__
)
@pytest.mark.usefixtures("_in_environment")
def test_known_secrets_in_keys_are_masked(key: Any) -> None:
    """A dict's key is masked like any other value, of whatever type it is."""
    assert CANARY not in repr(mask_value({"of": {key: 1}}))


def test_a_key_that_tells_a_secret_is_masked_and_refused() -> None:
    """A password in a URL that is a dict's key is masked, and has no place in a description."""
    by_url = {f"redis://:{CANARY}@host/0": [1]}
    assert mask_value([by_url]) == [{f"redis://:{MASK}@host/0": [1]}]
    with pytest.raises(SecretError) as caught:
        seal({"pools": by_url}, "db:Pools")
    assert CANARY not in str(caught.value)
    assert caught.value.key == "pools"


def test_the_directory_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell's PWD and OLDPWD are not passwords, so the paths in a traceback stay readable."""
    monkeypatch.setenv("PWD", "/home/someone/project")
    monkeypatch.setenv("OLDPWD", "/home/someone")
    assert mask_text('File "/home/someone/project/job.py"') == 'File "/home/someone/project/job.py"'


def test_masking_ends() -> None:
    """Values inside themselves and values nested without end are masked without one."""
    ring: list[Any] = [{"password": CANARY}]
    ring.append(ring)
    assert mask_value(ring) == [{"password": MASK}, "..."]
    deep: Any = CANARY
    for _ in range(10_000):
        deep = [deep]
    assert "..." in repr(mask_value(deep))
    while isinstance(deep, list):
        deep = deep.pop()


def test_other_objects_are_left() -> None:
    """An object that is no plain data comes back as it is; so does None under a secret key."""
    thing = object()
    assert mask_value({"a": thing, "token": None, "secret": True}) == {"a": thing, "token": None, "secret": True}


def test_masking_long_texts_takes_linear_time() -> None:
    """A long text without secrets, or of nothing but their beginnings, is masked in a moment."""
    for piece in ("password", "://a:b", "x" * 50 + "=", "cookie", "'", "bearer "):
        mask_text(piece * 4000 + ":")


# ---- known secrets

SIGNS = 'p@ss/w\u00f6rd "c4nary"?>'  # has another form in a URL, in JSON, in a repr, and in both alphabets of base64
FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "repr": repr,
    "JSON": json.dumps,
    "percent": lambda secret: quote(secret, safe=""),
    "percent, but slashes": quote,
    "form": quote_plus,
    "bytes": lambda secret: repr(secret.encode()),
    "basic auth": lambda secret: base64.b64encode(f"me:{secret}".encode()).decode(),
    "base64 behind one": lambda secret: base64.b64encode(f"a{secret}xyz".encode()).decode(),
    "base64 for URLs": lambda secret: base64.urlsafe_b64encode(f"ab{secret}".encode()).decode(),
    "UTF-16": lambda secret: secret.encode("utf-16").decode("latin-1"),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_known_secrets_are_masked_in_every_form(form: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of the environment is masked wherever it stands, in the forms that it takes in messages."""
    text = f"the reply was <{form(SIGNS)}> and no more"
    assert MASK not in mask_text(text)
    monkeypatch.setenv("DB_PASSWORD", SIGNS)
    masked = mask_text(text)
    assert MASK in masked
    assert all(piece not in masked for piece in (form(SIGNS)[6:-4], "c4nary", "rd%20"))
    assert (masked[:15], masked[-13:]) == (text[:15], text[-13:])


@pytest.mark.parametrize("how", ["sealed", "refused", "resolved", "in a URL"])
def test_secrets_that_were_met_are_known(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sealed, refused or resolved is masked from then on, whatever it is called, with the environment or without."""
    if how == "refused":
        with pytest.raises(SecretError):
            seal({"headers": {"Authorization": f"Bearer {CANARY}"}})
    elif how == "in a URL":
        with pytest.raises(SecretError):
            seal({"url": f"redis://:{CANARY}@host"})
    else:
        monkeypatch.setenv("PLAIN_NAME", CANARY)
        assert CANARY in mask_text(f"it said {CANARY}")
        if how == "sealed":
            seal({"password": CANARY})
        else:
            SecretRef("env:PLAIN_NAME").resolve()
        monkeypatch.delenv("PLAIN_NAME")
    assert mask_text(f"it said {CANARY}") == f"it said {MASK}"
    assert mask_value({CANARY: [CANARY.encode(), {CANARY}], "n": 1}) == {MASK: [MASK.encode(), {MASK}], "n": 1}


def test_short_values_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of a few characters does not mask the words that hold it."""
    monkeypatch.setenv("MY_PASSWORD", "letter")
    assert mask_text("a newsletter was sent") == "a newsletter was sent"


def test_known_secrets_take_bounded_room() -> None:
    """Only the secrets that were met last are remembered, met again or for the first time, and none that is huge."""
    for times in range(2):
        known_secrets.remember(CANARY)
        for number in range(40):
            known_secrets.remember(f"secret number {times}-{number}.")
    assert len(known_secrets._met) < 80
    assert mask_text(CANARY) == mask_text("secret number 1-39.") == MASK
    assert mask_text("secret number 0-0.") == "secret number 0-0."
    known_secrets.remember("x" * 10**6)
    assert known_secrets.longest() < 1000


def test_a_cut_leaves_no_piece_of_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a huge text its beginning is shown, wherever the cut falls among secrets that end up shorter."""
    secret = "".join(chr(0x4E00 + n) for n in range(300))
    monkeypatch.setenv("DB_PASSWORD", secret)
    for limit in range(20, 100, 7):
        shown = mask_beginning(secret * 50, limit)
        assert shown == (MASK * 50)[: len(shown)]
    assert mask_beginning("x" * 10_000, 20) == "x" * 20


def test_masking_what_holds_nothing_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many known secrets as there can be, 64 KB are looked through in a few milliseconds."""
    for number in range(64):
        known_secrets.remember(f"hunter number {number}")
    text = "no secret in here " * 3600
    mask_text(text)
    before = time.process_time()
    mask_text(text)
    assert time.process_time() - before < 0.1


# ---- what is not plain


class Name(str):
    __slots__ = ()


class Headers(dict[str, str]):
    pass


class Login(NamedTuple):
    user: str
    password: str


@dataclass
class Settings:
    host: str
    password: str | None = None


class Slow:
    """Holds itself."""

    def __init__(self) -> None:
        self.me = self
        self.host = "db"


HIDING: list[Callable[[str], Any]] = [
    lambda secret: {"password": Name(secret)},
    lambda secret: Headers(token=secret),
    lambda secret: OrderedDict(a=1, api_key=secret),
    lambda secret: {"login": Headers(password=secret)},
    lambda secret: [Name(f"postgres://me:{secret}@db/x")],
    lambda secret: [Headers({"Authorization": f"Bearer {secret}"})],
    lambda secret: Login("me", secret),
]


@pytest.mark.parametrize("make", HIDING)
def test_subclasses_of_plain_types_are_looked_into(make: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in a subclass of str or of a container is refused, or referred to, as in the plain type."""
    monkeypatch.delenv("SERVICE_TOKEN", raising=False)
    with pytest.raises(SecretError):
        seal(make("c4nary-that-hides"))
    monkeypatch.setenv("SERVICE_TOKEN", "c4nary-that-hides")
    sealed = seal(make("c4nary-that-hides"))
    assert b"c4nary" not in pickle.dumps(sealed)
    assert unseal(sealed) == make("c4nary-that-hides")


@pytest.mark.parametrize("make", [lambda s: Settings("db", s), lambda s: {"at": [Settings("db", s)]}])
def test_attributes_that_hold_a_secret_are_refused(make: Callable[[str], Any]) -> None:
    """An object in a description with a secret among its attributes is refused, as it would be pickled with it."""
    with pytest.raises(SecretError, match="password"):
        seal(make("c4nary-that-hides"))


def test_other_objects_stay_as_they_are() -> None:
    """What holds no secret, is described on its own, or refers to itself, is kept as it is."""
    kept = [Settings("db"), Slow(), Headers(a="b"), Name("x"), Login, print, pytest]
    assert all(given is stored for given, stored in zip(kept, seal(kept), strict=True))
    resource = Settings("db", "described on its own")
    assert seal([resource], "m:n", lambda value: value is resource)[0] is resource
