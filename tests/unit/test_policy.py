"""What is decided about an item that failed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resumable.backoff import LONGEST_RETRY_AFTER, constant
from resumable.errors import DriverClosedError, ForkedError, ItemAnswerError, Preempted, StorageError
from resumable.work.policy import Policy, letter, stops


def answers(policy: Policy, count: int = 4) -> list[str]:
    return [policy.decide("item", ValueError("x"), attempt) for attempt in range(1, count + 1)]


def answering(*given: str) -> Any:
    return lambda item, error, attempt: given[attempt - 1]


def test_without_on_error() -> None:
    """Nothing given, an exception stops the loop; with a number it is tried that often, then it is a dead letter."""
    assert answers(Policy(), 1) == ["fail"]
    assert answers(Policy(max_attempts=3)) == ["retry", "retry", "dead_letter", "dead_letter"]
    assert answers(Policy(max_attempts=1), 1) == ["dead_letter"]
    assert not Policy()
    assert Policy(max_attempts=1)


def test_with_on_error() -> None:
    """What `on_error` answers is done; "retry" beyond `max_attempts` is a dead letter."""
    given = ("retry", "skip", "fail", "dead_letter")
    assert answers(Policy(on_error=answering(*given))) == list(given)
    assert answers(Policy(2, answering("retry", "retry")), 2) == ["retry", "dead_letter"]
    assert answers(Policy(1, answering("skip", "fail", "retry")), 3) == ["skip", "fail", "dead_letter"]


def test_on_error_sees_the_item() -> None:
    """`on_error` is called with the item, its exception, and the number of the attempt from 1 on."""
    seen = []
    error = ValueError("x")
    Policy(on_error=lambda *given: seen.append(given) or "skip").decide("item", error, 1)  # type: ignore[func-returns-value]
    assert seen == [("item", error, 1)]


@pytest.mark.parametrize("answer", [None, "again", "RETRY", True, ["retry"], b"skip"])
def test_no_answer(answer: Any) -> None:
    """Anything that is no answer is an error that shows it, chained to the item's."""
    error = ValueError("x")
    with pytest.raises(ItemAnswerError, match="on_error answers") as caught:
        Policy(on_error=lambda *_: answer).decide("item", error, 1)
    assert caught.value.answer == answer
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt, SystemExit])
def test_an_on_error_that_raises(kind: type[BaseException]) -> None:
    """What `on_error` raises goes on, chained to the item's exception, if it is not that itself."""
    error = ValueError("x")

    def broken(item: Any, exc: Exception, attempt: int) -> Any:
        raise kind("mine")

    with pytest.raises(kind) as caught:
        Policy(on_error=broken).decide("item", error, 1)
    assert caught.value.__context__ is error

    def handing_on(item: Any, exc: Exception, attempt: int) -> Any:
        raise exc

    with pytest.raises(ValueError, match="x") as again:
        Policy(on_error=handing_on).decide("item", error, 1)
    assert again.value is error
    assert error.__context__ is None


STOPS = [
    KeyboardInterrupt(), SystemExit(1), GeneratorExit(), asyncio.CancelledError(), Preempted(), StorageError("disk"),
    DriverClosedError(), ForkedError(), ExceptionGroup("tasks", [ValueError(), StorageError("disk")]),
    BaseExceptionGroup("tasks", [KeyboardInterrupt()]),
]


@pytest.mark.parametrize("error", STOPS, ids=lambda error: type(error).__name__)
def test_what_always_stops(error: BaseException) -> None:
    """Ctrl-C, exits, cancellation, and whatever keeps items from being saved, are no item's failure."""
    assert stops(error)


@pytest.mark.parametrize("error", [ValueError(), OSError(), MemoryError(), ExceptionGroup("tasks", [ValueError()])])
def test_what_is_an_items_failure(error: BaseException) -> None:
    """Every other exception is for the policy."""
    assert not stops(error)


def test_the_delay() -> None:
    """The pause is the backoff's, or longer if the exception asks for that."""
    asking = ValueError()
    asking.retry_after = 9      # type: ignore[attr-defined]
    assert Policy(3).delay(1, ValueError()) == 0
    assert Policy(3).delay(1, asking) == 9
    assert Policy(3, backoff=constant(5)).delay(1, ValueError()) == 5
    assert Policy(3, backoff=constant(5)).delay(1, asking) == 9
    assert Policy(3, backoff=constant(LONGEST_RETRY_AFTER * 2)).delay(1, asking) == LONGEST_RETRY_AFTER * 2
    assert Policy(3, backoff=lambda attempt: attempt * 2).delay(4, ValueError()) == 8


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), None, "1"])
def test_no_delay(seconds: Any) -> None:
    """A backoff of the user's own that gives no time is an error."""
    with pytest.raises((TypeError, ValueError), match="backoff gives"):
        Policy(3, backoff=lambda attempt: seconds).delay(1, ValueError())


async def answering_late(item: Any, error: Exception, attempt: int) -> str:
    return "skip"


WRONG: list[dict[str, Any]] = [
    {"max_attempts": 0}, {"max_attempts": -1}, {"max_attempts": 1.0}, {"max_attempts": True}, {"on_error": "skip"},
    {"on_error": answering_late}, {"max_attempts": 2, "backoff": 1.0}, {"backoff": constant(1)},
]


@pytest.mark.parametrize("given", WRONG, ids=" ".join)
def test_wrong_policies(given: dict[str, Any]) -> None:
    """What is no policy is refused when it is given."""
    with pytest.raises((TypeError, ValueError), match=next(reversed(given))):
        Policy(**given)


def test_a_letter_says_what_happened() -> None:
    """A dead letter has the exception's type, message and traceback, with secrets masked."""
    try:
        raise ConnectionError("cannot reach postgres://me:hunter2hunter2@db/x")
    except ConnectionError as error:
        found = letter(4, "item", error, 3)
    assert (found.index, found.item, found.type, found.attempts) == (4, "item", "ConnectionError", 3)
    assert found.message == "cannot reach postgres://me:***@db/x"
    assert "test_policy.py" in found.traceback
    assert "hunter2hunter2" not in found.traceback
    assert found.time.tzinfo is not None
