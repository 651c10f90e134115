"""What is kept of an exception that ended a run."""

from __future__ import annotations

import base64
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resumable import _fastlog, clock
from resumable.runs.failure import Failure, freeze
from resumable.values.excerpt import NotKept

KB_64 = 64 * 1024
SECRET = "hunter2-hunter2"


def raised(job: Callable[..., object], *args: object) -> Exception:
    try:
        job(*args)
    except Exception as error:  # noqa: BLE001 - whatever the test raises
        return error
    raise AssertionError("the job did not fail")


def failure_of(error: BaseException, *, job_code: types.CodeType | None = None, keep_locals: bool = True) -> Failure:
    """Freeze, write and read as a run does."""
    frozen = freeze(error, job_code=job_code, keep_locals=keep_locals)
    stored: Any = _fastlog.decode_plain(_fastlog.encode_plain(frozen))
    return Failure.thaw(stored, run="totals", number=3, seq=7)


def job_with(value: object) -> object:
    local = value
    raise ValueError(f"local is a {type(local).__name__}")


def local_of(value: object) -> Any:
    return failure_of(raised(job_with, value), job_code=job_with.__code__).locals["local"]


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


class Endless:
    def __repr__(self) -> str:
        return f"Endless({self!r})"


class Huge:
    def __repr__(self) -> str:
        return "x" * 10**7


class NoMessage(Exception):
    def __str__(self) -> str:
        raise OSError("no")


@dataclass
class Login:
    user: str
    password: str


def test_a_failure_tells_type_message_traceback_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was raised, where and when come back from storage as they were."""
    monkeypatch.setattr(clock, "time_ns", lambda: 1_500_000_000)
    failure = failure_of(raised(job_with, 1))
    assert (failure.run, failure.number, failure.seq, failure.time.timestamp()) == ("totals", 3, 7, 1.5)
    assert (failure.type, failure.message) == ("ValueError", "local is a int")
    assert failure.traceback.startswith("Traceback (most recent call last):")
    assert "in job_with" in failure.traceback


def test_the_traceback_holds_the_chain_and_the_notes() -> None:
    """Causes, contexts and notes are part of the traceback."""

    def job() -> None:
        try:
            raise KeyError("the cause")
        except KeyError as error:
            error.add_note("a note")
            raise ValueError("the effect") from error

    text = failure_of(raised(job)).traceback
    assert "KeyError: 'the cause'" in text
    assert "a note" in text
    assert "ValueError: the effect" in text


def test_locals_are_those_of_the_jobs_innermost_frame() -> None:
    """Frames called by the job and frames that call it are left out; the innermost of a recursive job counts."""

    def helper() -> None:
        whose = "helper"
        raise ValueError(whose)

    def job(depth: int) -> Iterator[int]:
        whose = f"job {depth}"
        if depth:
            yield from job(depth - 1)
        helper()
        yield len(whose)

    error = raised(lambda: next(job(2)))
    assert failure_of(error, job_code=job.__code__).locals["whose"] == "job 0"
    assert failure_of(error, job_code=None).locals["whose"] == "helper"
    assert failure_of(error, job_code=job.__code__, keep_locals=False).locals == {}


def test_frames_of_the_package_are_not_the_jobs() -> None:
    """When the job's frame is not in the traceback, the innermost frame outside the package counts."""
    inside: dict[str, Any] = {"__name__": "resumable.runs.driver"}
    exec("def ours(call):\n    whose = 'ours'\n    call()\ndef fail(call=None):\n    raise ValueError", inside)

    def outside() -> None:
        whose = "outside"
        inside["fail"](whose)

    assert failure_of(raised(inside["ours"], outside)).locals["whose"] == "outside"
    assert failure_of(ValueError("never raised")).locals == {}


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
)


@given(plain.filter(lambda value: not any(mark in repr(value).lower() for mark in "=:")))
def test_plain_locals_come_back_exactly(value: object) -> None:
    """Small plain data is kept as a value, with its types."""
    kept = local_of(value)
    assert repr(kept) == repr(value)


def test_other_locals_come_back_as_text() -> None:
    """What is no plain data, or too much of it, is shown with its type."""
    assert local_of([1, {2}]) == [1, {2}]
    assert local_of(range) == NotKept("type", "<class 'range'>")
    assert local_of(Login("u", "p" * 9)).shown == "Login(user='u', password='***')"
    large = local_of(list(range(10**6)))
    assert large.type_name == "list"
    assert large.shown.startswith("[0, 1, 2, ")


@pytest.mark.parametrize(
    "value",
    [
        Raising(ValueError("no")),
        [Raising(MemoryError())],
        {"a": Raising(RecursionError())},
        Endless(),
        Huge(),
        "ä" * 10**6,
        b"\0" * 10**6,
        [["€" * 1000] * 1000] * 1000,
        "\ud800" * 10**5,
        10**5000,
        {Huge(): Huge()},
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_local_is_freezing_it_neither_fails_nor_grows(value: object) -> None:
    """Reprs that raise, recurse or are huge end in at most 64 KB."""
    kept = local_of(value)
    assert isinstance(kept, NotKept)
    assert 0 < len(kept.shown.encode()) <= KB_64


def test_a_list_that_holds_itself_is_shown() -> None:
    """A cycle ends."""
    items: list[object] = [1]
    items.append(items)
    assert local_of(items).shown.startswith("[1, [1, [1, ")


def test_large_locals_cost_little() -> None:
    """The cost of freezing is bounded by what is kept, not by what there is: no second for ten million items."""
    items = [["x"] * 1000] * 10_000
    before = time.process_time()
    local_of({"deep": [items, items], "flat": [0] * 10**7})
    assert time.process_time() - before < 1


def test_all_locals_together_are_bounded() -> None:
    """A frame with many large locals makes a record of little more than a megabyte."""
    names = [f"local_{number}" for number in range(100)]
    scope: dict[str, Any] = {}
    exec(f"def job():\n    {' = '.join(names)} = 'x' * 60_000\n    raise ValueError", scope)
    frozen = freeze(raised(scope["job"]), job_code=scope["job"].__code__, keep_locals=True)
    assert len(_fastlog.encode_plain(frozen)) < 1.3 * 2**20
    shown = Failure.thaw(frozen, run="", number=1, seq=0).locals
    assert list(shown) == names
    assert shown["local_0"] == "x" * 60_000
    assert isinstance(shown["local_99"], NotKept)


def test_secrets_are_masked_everywhere() -> None:
    """By the local's name, by a key, inside texts, in the message and the traceback."""

    def job() -> None:
        password = SECRET
        headers = {"Authorization": f"Bearer {SECRET}"}
        url = f"postgres://me:{SECRET}@host/db"
        login = [Login("me", password)]
        data = bytearray(f"password={SECRET}".encode())
        long = f"api_key={SECRET} " * 10**5
        raise ValueError(f"cannot open {url}: {len(headers)} {len(login)} {len(data)} {len(long)} api_key={SECRET}")

    frozen = freeze(raised(job), job_code=job.__code__, keep_locals=True)
    assert set(frozen["locals"]) == {"password", "headers", "url", "login", "data", "long"}  # type: ignore[call-overload]
    assert SECRET not in repr(frozen)
    assert SECRET[:8] not in repr(frozen)


@pytest.mark.parametrize("length", [10**5, 10**7])
def test_long_messages_keep_head_and_tail(length: int) -> None:
    """Message and traceback are cut in the middle to 64 KB."""
    failure = failure_of(ValueError("first " + "ä" * length + " last"))
    for text in failure.message, failure.traceback:
        assert len(text.encode()) <= KB_64
        assert "first ä" in text
        assert text.rstrip().endswith("ä last")
        assert "bytes in all" in text


def test_a_message_that_cannot_be_had_is_said_so() -> None:
    """An exception whose __str__ raises is frozen all the same."""
    assert failure_of(NoMessage()).message == "<no message: its __str__ raises OSError>"


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
def test_what_stops_the_process_is_let_through(stop: BaseException) -> None:
    """Ctrl-C while a local is looked at ends freezing."""
    error = raised(job_with, [Raising(stop)])
    with pytest.raises(type(stop)):
        freeze(error, job_code=job_with.__code__, keep_locals=True)


def test_known_secrets_are_masked_under_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret of the environment is masked in message, notes, causes, groups, and every kind of local."""
    monkeypatch.setenv("APP_SECRET", SECRET)

    class Shown:
        def __repr__(self) -> str:
            return f"<at {SECRET}>"

    def job() -> None:
        values = [SECRET, [SECRET.encode()], {SECRET: 1}, Shown(), Login(SECRET, "")]
        text, many, pairs, shown, login = values  # noqa: RUF059 - looked at as locals
        try:
            raise KeyError(SECRET)
        except KeyError as cause:
            error = ExceptionGroup("all", [ValueError(f"no {SECRET}"), OSError(quote(SECRET))])
            error.add_note(base64.b64encode(f"me:{SECRET}".encode()).decode())
            raise error from cause

    frozen = freeze(raised(job), job_code=job.__code__, keep_locals=True)
    assert SECRET not in repr(frozen)
    assert base64.b64encode(SECRET.encode()).decode()[2:10] not in repr(frozen)
    assert "KeyError: '***'" in str(frozen["traceback"])


@pytest.mark.parametrize("around", [0, 10**5])
def test_long_messages_keep_no_piece_of_a_secret(around: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the middle of a message is left out, no half of a known secret is left at the edge."""
    secret = "".join(chr(0x4E00 + n) for n in range(1000))
    monkeypatch.setenv("APP_SECRET", secret)
    failure = failure_of(ValueError("x" * around + secret * 2000 + "x" * around))
    for text in failure.message, failure.traceback:
        assert not set(text) & set(secret)
        assert len(text.encode()) <= KB_64
