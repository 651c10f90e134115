"""Values as shown in messages and kept with failures."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable import _fastlog
from resumable.values.excerpt import excerpt, show


class Point(NamedTuple):
    x: float
    y: float


@dataclasses.dataclass
class Config:
    rate: float
    names: list[str]
    secret_key: str = ""


class Loud:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


def cycle() -> list[object]:
    items: list[object] = [1]
    items.append({"again": items})
    return items


PLAIN: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers(),
        st.text(alphabet="abc \u1234") | st.binary(max_size=3).filter(lambda data: not set(b"=:") & set(data)),
        st.lists(PLAIN, max_size=3) | st.lists(PLAIN, max_size=3).map(tuple) | st.sets(st.integers(), max_size=1),
        st.dictionaries(st.text(alphabet="abc"), PLAIN, max_size=3),
        st.builds(slice, st.integers(), st.none()) | st.builds(range, st.integers()),
    )
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, (2,)]}, "{'a': [1, (2,)]}"),
        ({"password": "hunter2", "url": "http://u:hunter2@h/"}, "{'password': '***', 'url': 'http://u:***@h/'}"),
        (Point(1, 2), "Point(x=1, y=2)"),
        (Config(1, ["a"], "x"), "Config(rate=1, names=['a'], secret_key='***')"),
        (collections.OrderedDict(a=1), "OrderedDict({'a': 1})"),
        (Loud(ValueError("no")), "<Loud, whose repr raises ValueError>"),
        ([Loud(RecursionError())], "[<Loud, whose repr raises RecursionError>]"),
        ([10**5000], "[<int of 16,610 bits>]"),
        (
            [range(10**5000), slice(1, 10**5000)],
            "[range(...), slice(1, <int of 16,610 bits>, None)]",
        ),
    ],
)
def test_show_says_what_repr_would_without_secrets(value: object, shown: str) -> None:
    """Plain data, records and objects are shown in a line; nothing that a repr raises gets out."""
    assert show(value) == shown


@pytest.mark.parametrize(
    "value",
    [list(range(10**6)), "x" * 10**7, [["x" * 1000] * 1000] * 1000, cycle(), Config(1, ["a"] * 10**6), {"k" * 500: 1}],
)
def test_show_is_short(value: object) -> None:
    """However large a value is, at most `limit` characters of it are shown."""
    assert 40 < len(show(value)) <= 120
    assert len(show(value, 20)) <= 20


def test_show_lets_the_end_of_the_process_through() -> None:
    """KeyboardInterrupt inside a repr is not swallowed."""
    with pytest.raises(KeyboardInterrupt):
        show([Loud(KeyboardInterrupt())])


@given(PLAIN)
def test_an_excerpt_that_fits_is_the_value_itself(value: Any) -> None:
    """Plain data within the budget comes back exactly, types included, and is no larger than it was said to be."""
    copy, exact, size = excerpt(value, 10**6)
    assert exact
    assert repr(copy) == repr(value)
    assert len(_fastlog.encode_plain(copy)) <= size


def test_an_excerpt_that_does_not_fit_says_so() -> None:
    """One item too many and the copy is no longer the value."""
    assert excerpt([1] * 10, 200).exact
    assert not excerpt([1] * 1000, 200).exact
    assert not excerpt([object()], 200).exact


def test_a_known_secret_may_be_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local that is called like the value of a secret is shown, and a secret that is a dict's key is masked."""
    monkeypatch.setenv("MY_TOKEN", "response")
    assert excerpt([1], 100, name="response").copy == [1]
    assert show({"response": 1}) == "{'***': 1}"
