"""What becomes of an item that failed: it is tried again, left out, kept as a dead letter, or it stops the job."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from resumable.backoff import Backoff, retry_after
from resumable.errors import DriverClosedError, ForkedError, ItemAnswerError, StorageError
from resumable.runs.failure import freeze
from resumable.values.dead_letter import DeadLetter

Answer = Literal["retry", "skip", "dead_letter", "fail"]
OnError = Callable[[Any, Exception, int], Answer]

_ANSWERS: Final = ("retry", "skip", "dead_letter", "fail")
_STOPS: Final = (StorageError, DriverClosedError, ForkedError)      # no item is to blame, and none after it can be saved


def stops(error: BaseException) -> bool:
    """Whether it stops the job, whatever the policy says: Ctrl-C, exits, cancellation, and what keeps items from being saved."""
    if isinstance(error, ExceptionGroup):
        return error.subgroup(_STOPS) is not None
    return not isinstance(error, Exception) or isinstance(error, _STOPS)


class Policy:
    """Decides about failed items. One that was given nothing lets every exception stop the job."""

    def __init__(
        self, max_attempts: int | None = None, on_error: OnError | None = None, backoff: Backoff | None = None
    ) -> None:
        """As for `Driver.items`. Raises TypeError, ValueError."""
        if max_attempts is not None and (not isinstance(max_attempts, int) or isinstance(max_attempts, bool)):
            raise TypeError(f"max_attempts is an int or None, not {max_attempts!r}")
        if max_attempts is not None and max_attempts < 1:
            raise ValueError(f"max_attempts is at least 1, not {max_attempts}")
        for what, given, takes in (("on_error", on_error, "(item, exc, attempt)"), ("backoff", backoff, "(attempt)")):
            if given is not None and not callable(given):
                raise TypeError(f"{what} is a function of {takes}, not {given!r}")
            if inspect.iscoroutinefunction(given):
                raise TypeError(f"{what} is a plain function, and {given!r} is an async one")
        if backoff is not None and max_attempts is None and on_error is None:
            raise ValueError("backoff= needs max_attempts= or on_error=: without one of them nothing is tried again")
        self._max_attempts = max_attempts
        self._on_error = on_error
        self._backoff = backoff

    def __bool__(self) -> bool:
        """Whether there is anything to decide."""
        return self._max_attempts is not None or self._on_error is not None

    def decide(self, item: Any, error: Exception, attempt: int) -> Answer:
        """What becomes of the item, whose attempt number `attempt`, from 1 on, has raised `error`; never for what `stops`.

        Raises ItemAnswerError, and what `on_error` raises.
        """
        answer: Answer = "fail" if self._max_attempts is None else "retry"
        if self._on_error is not None:
            answer = self._asked(self._on_error, item, error, attempt)
        if answer == "retry" and self._max_attempts is not None and attempt >= self._max_attempts:
            return "dead_letter"
        return answer

    def delay(self, attempt: int, error: Exception) -> float:
        """Seconds to wait after that attempt: what `backoff` says, and no less than the exception asks for.

        Raises TypeError, ValueError if `backoff` says no time, and what it raises.
        """
        seconds = 0.0 if self._backoff is None else self._backoff(attempt)
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise TypeError(f"backoff gives a number of seconds, not {seconds!r}")
        if not 0 <= seconds < math.inf:
            raise ValueError(f"backoff gives seconds that are finite and at least 0, not {seconds!r}")
        return max(float(seconds), retry_after(error) or 0.0)

    def _asked(self, on_error: OnError, item: Any, error: Exception, attempt: int) -> Answer:
        try:
            answer = on_error(item, error, attempt)
        except BaseException as trouble:
            if trouble is not error and trouble.__context__ is None:
                trouble.__context__ = error     # as if it had come up while this one was handled, which it did
            raise
        if not isinstance(answer, str) or answer not in _ANSWERS:
            raise ItemAnswerError(
                f'on_error answers "retry", "skip", "dead_letter" or "fail", not {answer!r}', answer=answer
            ) from error
        return answer


def letter(index: int, item: Any, error: Exception, attempts: int, count: int = 1, keys: bytes = b"") -> DeadLetter:
    """The dead letter of an item, or a batch of `count`, whose last attempt has raised this."""
    frozen: Any = freeze(error, job_code=None, keep_locals=False)
    time = datetime.fromtimestamp(frozen["time"], UTC)
    return DeadLetter(index, item, frozen["type"], frozen["message"], frozen["traceback"], attempts, time, count, keys)
