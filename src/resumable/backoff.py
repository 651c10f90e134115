"""How long to wait before an item that failed is tried again.

`constant`, `linear` and `exponential` make what `backoff=` takes: a function of the number of attempts that have failed, from
1 on, to seconds. Any other such function will do. Whoever asked for a pause by `Retry-After` is waited for: `retry_after`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from resumable import clock

Backoff = Callable[[int], float]

LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds that `Retry-After` is obeyed for at most."""

_LONGEST_HEADER: Final = 64     # characters; an HTTP-date has 29


def constant(seconds: float) -> Backoff:
    """The same pause after each attempt. Raises TypeError, ValueError."""
    return _Linear(_seconds("seconds", seconds), 0.0, seconds)


def linear(first: float, *, step: float, longest: float = 300.0) -> Backoff:
    """`first` seconds, then `step` seconds more after each attempt, up to `longest`. Raises TypeError, ValueError."""
    return _Linear(_seconds("first", first), _seconds("step", step), _longest(first, longest))


def exponential(
    first: float, factor: float = 2.0, *, longest: float = 300.0, jitter: bool = True, seed: int | None = None
) -> Backoff:
    """`first` seconds, then `factor` times as many after each attempt, up to `longest`.

    jitter: wait for a random part of that, anything from 0 to all of it, so that many who failed together do not come back
        together: "full jitter" in Marc Brooker's "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015).
    seed: draw the same parts in each process, for tests. The program's own random numbers are never touched.

    Raises TypeError, ValueError.
    """
    if _seconds("factor", factor) < 1:
        raise ValueError(f"factor is at least 1, not {factor!r}")
    return _Exponential(_seconds("first", first), factor, _longest(first, longest), random.Random(seed) if jitter else None)


def retry_after(error: BaseException) -> float | None:
    """The seconds that whoever raised this asked to be left alone for: 0 to an hour; None if he did not ask.

    Asked for by `error.retry_after` (seconds, a datetime, or a header's text), or by the header `Retry-After` (seconds or an
    HTTP-date) in `error.response.headers` or `error.headers`: requests, httpx, urllib and aiohttp keep it there.
    """
    for asked in (_get(error, "retry_after"), _header(_get(error, "response")), _header(error)):
        seconds = _meant(asked)
        if seconds is not None:
            return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
    return None


@dataclass(frozen=True, slots=True)
class _Linear:
    first: float
    step: float
    longest: float

    def __call__(self, attempt: int) -> float:
        return min(self.first + self.step * (attempt - 1), self.longest)


@dataclass(frozen=True, slots=True)
class _Exponential:
    first: float
    factor: float
    longest: float
    drawn: random.Random | None = field(repr=False)

    def __call__(self, attempt: int) -> float:
        try:
            seconds = min(self.first * self.factor ** (attempt - 1), self.longest)
        except OverflowError:
            seconds = self.longest if self.first else 0.0
        return seconds if self.drawn is None else self.drawn.uniform(0.0, seconds)


def _seconds(what: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{what} is a number, not {value!r}")
    if not 0 <= value < math.inf:
        raise ValueError(f"{what} is finite and at least 0, not {value!r}")
    return value


def _longest(first: float, longest: float) -> float:
    if _seconds("longest", longest) < first:
        raise ValueError(f"longest is at least the first pause of {first!r} seconds, not {longest!r}")
    return longest


# ---- what an exception carries: the user's objects, and what a server sent


def _get(holder: object, name: str) -> Any:
    try:
        return getattr(holder, name, None)
    except Exception:  # noqa: BLE001 - a property of the user's own: then the exception carries nothing there
        return None


def _header(holder: object) -> Any:
    headers = _get(holder, "headers")
    for name in ("Retry-After", "retry-after"):     # only a plain dict tells them apart
        try:
            found = headers.get(name)
        except Exception:  # noqa: BLE001 - as above; also None, and what has no headers
            return None
        if found is not None:
            return found
    return None


def _meant(asked: object) -> float | None:
    """Seconds from now; None for what means no time."""
    if isinstance(asked, bytes):
        asked = asked.decode("latin-1")
    if isinstance(asked, str):
        asked = _parsed(asked.strip())
    if isinstance(asked, datetime):
        return (asked if asked.tzinfo is not None else asked.replace(tzinfo=UTC)).timestamp() - clock.time_ns() / 1e9
    if not isinstance(asked, int | float) or isinstance(asked, bool) or (isinstance(asked, float) and math.isnan(asked)):
        return None
    return float(min(asked, LONGEST_RETRY_AFTER))   # before it is a float: an int may be larger than any


def _parsed(text: str) -> float | datetime | None:
    if len(text) > _LONGEST_HEADER:
        return None
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
