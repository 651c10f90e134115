"""A loop as a run: its checkpoints say how many items are done, and what the loop wants to have kept with them."""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from resumable._fastlog import NOTHING, LoopIterator, Marks, checkpoint, take_checkpoint
from resumable.errors import ChangedItemsError, ResumableError, RunNameError, UnmarkedItemsWarning
from resumable.runs.opening import Answer
from resumable.runs.preempt import forget
from resumable.runs.warn import warn_user
from resumable.work import parts, samples
from resumable.work.consumers import is_a_for
from resumable.work.parts import Part, State
from resumable.work.samples import Samples

if TYPE_CHECKING:
    from resumable.runs.engine import Engine
    from resumable.runs.live import LiveRun

_ABOUT = "items"


class _Restart(Exception):
    """The items are others, and the loop is to begin anew."""


def loop_job(state: Any = None) -> None:
    """The job of a loop's run: the loop's body is wherever its `for` stands."""


class Loop:
    """One run of a loop, driven by the LoopIterator that a `for` holds; whoever drops that has left the loop."""

    def __init__(self, engine: Engine, iterable: Iterable[Any], name: str, call: dict[str, Any], code: types.CodeType) -> None:
        """`code`: the user's own, in which the `for` must stand. `call`: the keywords that are not at their default."""
        self.marks = Marks()
        self.run: LiveRun | None = None
        self.resumed = False        # an earlier life began it
        self.name = name
        self._engine, self._iterable, self._call, self._code = engine, iterable, call, code
        self._parts: list[Part] = []
        self._samples = Samples(None, {})
        self._source: Iterator[Any] | None = None
        self._begun = False

    # ---- beginning

    def open(self) -> Iterator[Any]:
        """Take the run, go to where it was, and give back the items that are left. A finished one leaves nothing to do."""
        if self._source is None:
            self._source = self._opened(self._call)
        return self._source

    def join(self, part: Part) -> None:
        """From here on the part is marked with the items."""
        self._join(part)
        self.marks.slowly = True

    def _join(self, part: Part) -> State | None:
        state = part.joined(self, self.marks.parts.get(part.key))
        self._parts.append(part)
        return state

    def _opened(self, call: dict[str, Any]) -> Iterator[Any]:
        given = samples.taken(self._iterable, self._engine.registry)
        opened = self._engine.begin(loop_job, self._code, self.name, call, {_ABOUT: tuple(given)})
        if isinstance(opened, Answer):
            return iter(())
        opened.blamed = False       # what is wrong with the call is no failure of the run
        try:
            known = opened.described(_ABOUT)
            if known is None:
                what = f"run {self.name!r} is one of a job, not of a loop (give the loop another name)"
                raise RunNameError(what, name=self.name)
            state = opened.state()
            self.run, self.resumed = opened, state is not None
            done = self._taken_up(state if isinstance(state, tuple) else (state or 0, None, {}))
            source = self._compared(opened, Samples(*known), given, done, call)
        except _Restart:
            joined, self._parts = self._parts, []
            self.stop(None)
            for part in joined:
                parts.wait(part)
            return self._opened({**call, "on_change": "error", "fresh": True})
        except BaseException as error:
            self.run = opened
            self.stop(error)
            raise
        opened.blamed = True
        self.marks.go_on(opened.write, done, True)
        return source

    def _taken_up(self, state: State) -> int:
        """Take the state over, and let join what waits for this loop; gives back how many items are done."""
        self._set_state(state)
        for part in parts.taken():
            better = self._join(part)
            if better is not None:
                state = better
                self._set_state(state)
        self.marks.slowly = bool(self._parts)
        return state[0]

    def _set_state(self, state: State) -> None:
        _, self.marks.values, saved = state
        self.marks.parts.clear()
        self.marks.parts.update(saved)
        self.marks.saved()

    def _compared(self, run: LiveRun, recorded: Samples, given: Samples, done: int, call: dict[str, Any]) -> Iterator[Any]:
        """The source behind the items that are done. Raises ChangedItemsError, Restart."""
        on_change = call.get("on_change", "error")
        if on_change == "continue":
            recorded = Samples(None, {})
        try:
            if isinstance(self._iterable, Sequence):
                samples.check_sequence(recorded, self._iterable, done, self.name, self._engine.registry)
            source = self._behind(recorded, done)
        except ChangedItemsError as error:
            if on_change != "restart":
                raise
            if iter(self._iterable) is self._iterable:
                error.add_note("resumable: an iterator that was begun cannot begin anew: give it again, with fresh=True")
                raise
            raise _Restart from None
        self._samples = given if given.digests else recorded
        if tuple(self._samples) != run.described(_ABOUT):
            run.describe(_ABOUT, tuple(self._samples))
        return source

    def _behind(self, recorded: Samples, done: int) -> Iterator[Any]:
        source = iter(self._iterable)
        if isinstance(self._iterable, Sequence) and hasattr(source, "__setstate__"):
            source.__setstate__(done)
            return source
        at = 0
        for index in sorted(place for place in recorded.digests if place < done):
            self._skip(source, index - at, done)
            for item in islice(source, 1):
                samples.check(index, recorded.digests[index], item, self.name, self._engine.registry)
            at = index + 1
        self._skip(source, done - at, done)
        return source

    def _skip(self, source: Iterator[Any], count: int, done: int) -> None:
        left = deque(enumerate(islice(source, count), 1), maxlen=1)
        if count and (not left or left[0][0] < count):
            raise samples.changed(self.name, f"{done} were done, and now there are fewer", done)

    # ---- what the iterator asks for

    def start(self, iterator: LoopIterator) -> Iterator[Any]:
        """The items that are to be done; called for the first one. What it raises leaves no run behind."""
        if self._begun:
            raise ResumableError(
                f"the items of {self.name!r} are gone through once: call driver.items again for another loop", run=self.name
            )
        self._begun = True
        try:
            return self._started(iterator, is_a_for(iterator, sys._getframe(1), self._code))
        except BaseException as error:
            self.stop(error)
            raise

    def _started(self, iterator: LoopIterator, known: bool) -> Iterator[Any]:
        source = self.open()
        if self.run is None:
            return source
        parts.started(self)
        if not known:
            self.marks.go_on(self.run.write, self.marks.done, False)
            warn_user(
                f"what goes over the items of {self.name!r} does not say when one is done, so none is marked: write "
                f"`for item in items:` itself, or `for batch in items.batches(n):`", UnmarkedItemsWarning,
            )
        if not isinstance(self._iterable, Sequence):
            later = [4 * place for place in self._samples.digests]
            iterator.sample_from(max(samples.FIRST_LATER, *later) if later else 0)
        return source

    def sample(self, index: int, item: object) -> int:
        """See an item of which a digest is kept; gives back the index of the next one."""
        assert self.run is not None
        if index not in self._samples.digests:
            self._samples = self._samples.with_item(index, item, self._engine.registry)
            self.run.describe(_ABOUT, tuple(self._samples))
        return max(samples.FIRST_LATER, 4 * index)

    def save(self, done: int) -> None:
        """Save that so many items are done, and all that belongs to the last of them."""
        assert self.run is not None
        for part in self._parts:
            self.marks.parts[part.key] = part.mark(done)
        state, result = self.marks.state(done), self.marks.result
        made = checkpoint(state) if result is NOTHING else checkpoint(state, result=result)
        if not take_checkpoint(self.run.write, made):
            self.run.save(made)
        self.marks.saved()
        for part in self._parts:
            part.marked()

    def finish(self) -> None:
        """The items are at an end."""
        run = self.run
        if run is None:
            return
        try:
            if self.marks.marking:
                self._leave_parts()
                run.finish(self.marks.done)
            else:
                run.leave()
        except BaseException as error:
            run.end_with(error)
            raise
        finally:
            self._over(run)

    def __del__(self) -> None:
        self.stop(None)     # its state was asked for, and it was never gone through

    def stop(self, error: BaseException | None) -> None:
        """The loop was left, with this exception or without one; no matter if it was before."""
        run = self.run
        if run is None:
            return
        try:
            self.marks.left()
            self.marks.catch_up()
            self._leave_parts()
            if error is None:
                run.leave()
            else:
                run.end_with(error)
        finally:
            self._over(run)

    def _leave_parts(self) -> None:
        while self._parts:
            self._parts.pop().left()

    def _over(self, run: LiveRun) -> None:
        self.run = None
        forget(run)
