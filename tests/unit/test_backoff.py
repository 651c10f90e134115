"""Pauses between attempts: how long they are, and who may ask for longer ones."""

from __future__ import annotations

import math
import pickle
import random
import time
import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest

from resumable.backoff import LONGEST_RETRY_AFTER, Backoff, constant, exponential, linear, retry_after


def first(pauses: Backoff, count: int = 5) -> list[float]:
    return [pauses(attempt) for attempt in range(1, count + 1)]


def test_the_pauses() -> None:
    """Constant, linear and exponential pauses are what they say, up to the longest."""
    assert first(constant(2)) == [2] * 5
    assert first(linear(1, step=2, longest=6)) == [1, 3, 5, 6, 6]
    assert first(exponential(1, longest=9, jitter=False)) == [1, 2, 4, 8, 9]
    assert first(exponential(1, 3, jitter=False), 3) == [1, 3, 9]
    assert exponential(1, jitter=False)(10**6) == 300
    assert exponential(0, jitter=False)(10**6) == 0


def test_full_jitter() -> None:
    """With jitter each pause is any part of what it would be; a seed gives the same ones, the program's randoms stay."""
    random.seed(1)
    before = random.getstate()
    drawn = [exponential(8, longest=8, seed=seed)(1) for seed in range(1000)]
    assert 0 <= min(drawn) < 0.2
    assert 7.8 < max(drawn) <= 8
    assert 3.6 < sum(drawn) / len(drawn) < 4.4
    assert first(exponential(1, seed=7)) == first(exponential(1, seed=7))
    assert first(exponential(1)) != first(exponential(1))
    assert random.getstate() == before
    again = pickle.loads(pickle.dumps(exponential(1, seed=7)))
    assert first(again) == first(exponential(1, seed=7))


@pytest.mark.parametrize("wrong", [-1, math.inf, math.nan, "1", True, None])
def test_wrong_pauses(wrong: Any) -> None:
    """What is no time is refused when it is given, not after the first failure."""
    makers = [
        lambda: constant(wrong), lambda: linear(wrong, step=1), lambda: linear(1, step=wrong), lambda: exponential(wrong),
        lambda: exponential(1, wrong), lambda: exponential(1, longest=wrong),
    ]
    for make in makers:
        with pytest.raises((TypeError, ValueError), match=r"number|at least|finite"):
            make()


def test_a_longest_pause_below_the_first() -> None:
    """A longest pause that is below the first, and a factor below 1, are refused."""
    with pytest.raises(ValueError, match="at least the first"):
        linear(400, step=1)
    with pytest.raises(ValueError, match="at least 1"):
        exponential(1, 0.5)


class Asking(Exception):
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


class Falsy(SimpleNamespace):
    """A response of requests is false when its status is an error's."""

    def __bool__(self) -> bool:
        return False


def http_error(headers: dict[str, str]) -> urllib.error.HTTPError:
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return urllib.error.HTTPError("http://x", 503, "busy", message, None)


def responding(value: Any, name: str = "Retry-After") -> Asking:
    return Asking(response=Falsy(headers={name: value}))


ASKING = {
    "seconds": (Asking(retry_after=7.5), 7.5),
    "a header's text": (Asking(retry_after="7"), 7),
    "negative": (Asking(retry_after=-5), 0),
    "longest": (Asking(retry_after=10**400), LONGEST_RETRY_AFTER),
    "endless": (Asking(retry_after=math.inf), LONGEST_RETRY_AFTER),
    "response": (responding("12"), 12),
    "lower case": (responding("12", "retry-after"), 12),
    "bytes": (responding(b"12"), 12),
    "huge": (responding("9" * 64), LONGEST_RETRY_AFTER),
    "past": (responding("Wed, 21 Oct 2015 07:28:00 GMT"), 0),
    "urllib": (http_error({"retry-after": "3"}), 3),
    "headers": (Asking(headers={"Retry-After": "4"}), 4),
    "nothing": (Asking(), None),
    "no header": (responding(None), None),
    "no headers": (Asking(headers=None, response=None), None),
    "nonsense": (responding("soon"), None),
    "a long text": (responding("1" * 10**6), None),
    "fractions": (responding("1.5"), None),
    "not a number": (Asking(retry_after=math.nan), None),
    "a bool": (Asking(retry_after=True), None),
    "other digits": (responding("\u0661"), None),
    "no day": (responding("Wed, 99 Oct 2015 07:28:00 GMT"), None),
}


@pytest.mark.parametrize("case", ASKING)
def test_retry_after(case: str) -> None:
    """Who asks for a pause is waited for, an hour at most, never less than 0 seconds; nonsense asks for none."""
    error, seconds = ASKING[case]
    assert retry_after(error) == seconds


@pytest.mark.parametrize("how", ["http date", "datetime", "naive"])
def test_retry_after_a_date(how: str) -> None:
    """A date asks for the seconds that are left until then; one without a zone is in UTC."""
    then = datetime.now(UTC) + timedelta(seconds=90)
    asked = {"http date": format_datetime(then, usegmt=True), "datetime": then, "naive": then.replace(tzinfo=None)}[how]
    error = responding(asked) if how == "http date" else Asking(retry_after=asked)
    seconds = retry_after(error)
    assert seconds is not None
    assert 88 < seconds <= then.timestamp() - time.time() + 1


def test_an_exception_that_raises() -> None:
    """An exception whose attributes raise asks for nothing."""

    class Broken(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("not set")

        headers = property(lambda self: Headers())

    class Headers:
        def get(self, name: str) -> str:
            raise KeyError(name)

    assert retry_after(Broken()) is None
