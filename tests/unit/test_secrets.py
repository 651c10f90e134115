"""Secrets: found in descriptions and texts, stored by reference, masked."""

from __future__ import annotations

from typing import Any

import pytest

from resumable.errors import SecretError
from resumable.values.secrets import MASK, SecretRef, is_secret_key, mask_text, mask_value, seal, unseal

CANARY = "hunter2-c4nary"


@pytest.fixture
def _in_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECRET", CANARY)


@pytest.mark.parametrize(
    "key",
    ["password", "DB_PASSWORD", "passwd", "client_secret", "token", "accessToken", "api_key", "X-API-Key", "apikey",
     "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "private_key", "pwd", "credentials", "PGPASSWORD"],
)  # fmt: skip
def test_keys_that_name_secrets(key: str) -> None:
    """The usual names of secrets are known, in any case and with any prefix."""
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["max_tokens", "tokens", "tokenizer", "token_count", "key", "path", "author", "bypass", "timeout", "name"]
)
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
    ],
)  # fmt: skip
def test_secrets_in_texts_are_masked(text: str, masked: str) -> None:
    """The secret goes, what stands around it stays."""
    assert mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    ["", "no secret here", "https://host:80/a@b", "at 12:30: done", "max_tokens=4096", "a basic understanding of it",
     "tokens: 5, name=x", "ssh://git@host/repo", "KeyError: 'password'"],
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
