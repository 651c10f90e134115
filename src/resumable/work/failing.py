"""Items that fail: attempts are counted in the loop's state, and what the policy says is done.

A `for` body cannot be entered again from outside. So an exception that leaves the loop is counted, and goes on to the caller;
one inside `with items.attempt():` may be swallowed, and the `for` then gets the same item once more.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from resumable._fastlog import NOTHING, Marks, checkpoint
from resumable.errors import ResumableError
from resumable.work.parts import OpenLoop
from resumable.work.policy import Answer, Policy, letter, stops

if TYPE_CHECKING:
    from resumable.values.codec import Codec

ATTEMPTS: Final = "attempts"    # in what is saved with a mark: how many attempts have failed, by what the item is known by
_STEP: Final = 0.05             # seconds after which a pause looks for a signal that stops the run


class Loop(OpenLoop, Protocol):
    """What is needed of the loop."""

    failing: Failing

    @property
    def index(self) -> int:
        """Of the item at hand."""

    @property
    def mark_of_item(self) -> int | bytes:
        """What it is known by in each life."""

    @property
    def keys_at_hand(self) -> bytes:
        """What a loop with keys knows the items at hand by; else nothing."""

    def save_now(self, done: int) -> None:
        """Save a mark."""

    def take_back(self) -> None:
        """Let the loop's parts drop what the attempt did."""


class Failing:
    """What one loop does about items that fail."""

    def __init__(self, policy: Policy, codec: Codec) -> None:
        self.policy = policy
        self.decided = False    # about the item at hand, of which an attempt has failed
        self.saving = False     # its mark, which is no attempt any more: what takes part may have it already
        self._codec = codec
        self._before: tuple[int, bytes, list[bytearray]] | None = None      # what the loop carried when it was given out

    def watch(self, marks: Marks) -> None:
        """Hear of each item that is given out, if there is anything to decide about it."""
        if self.policy:
            marks.holds_item, marks.given = True, self._given
        else:
            marks.parts.pop(ATTEMPTS, None)

    def _given(self, marks: Marks) -> None:
        self.decided = False
        if marks.values is not None:
            tier, data, buffers = self._codec.encode(marks.values)
            self._before = tier, data, [bytearray(buffer) for buffer in buffers]

    def begin(self, loop: Loop) -> None:
        """An attempt begins. Raises ResumableError where none can."""
        if not loop.marks.at_hand:
            raise ResumableError(f"no item of loop {loop.name!r} is at hand (call attempt in the loop's body)", run=loop.name)
        if not loop.marks.marking:
            raise ResumableError(f"no item of loop {loop.name!r} is marked, so none can be tried again", run=loop.name)
        self.check_undecided(loop)

    def check_undecided(self, loop: Loop) -> None:
        """Raises ResumableError behind an attempt that has failed: its item is not done."""
        if self.decided:
            raise ResumableError(
                f"the attempt at item {loop.index} of loop {loop.name!r} has failed, so nothing may follow it in the body (put "
                f"the whole body into one `with items.attempt():`)", run=loop.name,
            )

    def judge(self, loop: Loop, error: BaseException | None) -> float | None:
        """What becomes of an attempt that ended like this: the seconds to wait, or None if the exception goes on."""
        if not self.policy or not isinstance(error, Exception) or stops(error):
            return None
        answer = self._answer(loop, error)
        if answer == "retry":
            loop.marks.again = True
            return self.policy.delay(_attempts(loop), error)
        return None if answer == "fail" else 0.0

    def leave(self, loop: Loop, error: BaseException | None) -> None:
        """The loop is left by an exception, perhaps with an item at hand."""
        marks = loop.marks
        if not self.policy or self.decided or self.saving or not (marks.at_hand and marks.marking):
            return
        if not isinstance(error, Exception) or stops(error):
            return
        where = f"item {loop.index} of loop {loop.name!r}"
        try:
            answer = self._answer(loop, error)
            attempts = _attempts(loop)
            if answer in ("skip", "dead_letter"):
                loop.save_now(marks.done_next())
                marks.count()
        except Exception as trouble:  # noqa: BLE001 - on_error is the user's; the item's own exception goes on, and names it
            error.add_note(f"resumable: deciding about {where} met {type(trouble).__name__}: {trouble}")
            return
        notes = {
            "skip": f"{where} is left out, as on_error says: the next call goes on behind it",
            "dead_letter": f"{where} is a dead letter now (driver.dead_letters({loop.name!r})): the next call goes on behind it",
            "retry": f"attempt {attempts} at {where} failed, and a `for` body cannot be entered again from outside: the next "
            f"call tries again; so does the loop itself with its body in `with items.attempt():`, and driver.map",
        }
        if answer in notes:
            error.add_note(f"resumable: {notes[answer]}")

    def _answer(self, loop: Loop, error: Exception) -> Answer:
        """Decide, with everything undone that the attempt did to the loop; an item that stays at hand has its attempt saved."""
        index, attempt, item = loop.index, _attempts(loop) + 1, loop.marks.item
        self.decided = True
        self._take_back(loop)
        answer: Answer = "fail"
        try:
            answer = self.policy.decide(item, error, attempt)
        finally:
            if answer in ("retry", "fail"):
                _keep(loop, attempt)
        if answer == "dead_letter":
            loop.marks.result = letter(index, item, error, attempt, loop.marks.at_hand, loop.keys_at_hand)
        return answer

    def _take_back(self, loop: Loop) -> None:
        marks = loop.marks
        marks.result = NOTHING
        if marks.values is not None and self._before is not None:
            values: dict[str, Any] = self._codec.decode(*self._before)
            marks.values.clear()
            marks.values.update(values)
        loop.take_back()


def _attempts(loop: Loop) -> int:
    """How many attempts at the item at hand have failed and been saved."""
    tried: dict[int | bytes, int] = loop.marks.parts.get(ATTEMPTS, {})
    return tried.get(loop.mark_of_item, 0)


def forget_attempts(loop: Loop) -> None:
    """The item at hand is done. With keys another one, behind it in the last life, may have attempts that count."""
    tried = {**loop.marks.parts.pop(ATTEMPTS, {})}
    tried.pop(loop.mark_of_item, None)
    if tried:
        loop.marks.parts[ATTEMPTS] = tried


def _keep(loop: Loop, attempts: int) -> None:
    """Save the attempts at once, between two marks, with what the last mark has."""
    assert loop.run is not None
    marks = loop.marks
    marks.parts[ATTEMPTS] = {**marks.parts.get(ATTEMPTS, {}), loop.mark_of_item: attempts}
    marks.plainly, marks.slowly = False, True
    loop.run.save_now(checkpoint(marks.state(marks.done)))


def _check_signal(loop: Loop) -> None:
    """Raises Preempted if a signal has asked the run to stop; the attempts are saved by then."""
    if loop.run is not None and loop.run.stop_signal:
        loop.run.save(checkpoint(loop.marks.state(loop.marks.done)))


class Attempt:
    """One attempt at the item at hand: `with items.attempt():` around a loop's body, `async with` in a coroutine."""

    __slots__ = ("_loop",)

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._loop.failing.begin(self._loop)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        seconds = self._loop.failing.judge(self._loop, error)
        until = time.monotonic() + (seconds or 0.0)
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _STEP))
            _check_signal(self._loop)
        return seconds is not None

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        import asyncio

        seconds = self._loop.failing.judge(self._loop, error)
        until = time.monotonic() + (seconds or 0.0)
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _STEP))
            _check_signal(self._loop)
        return seconds is not None
