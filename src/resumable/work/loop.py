"""A loop as a run: its checkpoints say how many items are done, and what the loop wants to have kept with them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from types import CodeType
from typing import TYPE_CHECKING, Any

from resumable._fastlog import NOTHING, Checkpoint, LoopIterator, Marks, NewItems, checkpoint, take_checkpoint
from resumable.errors import ResumableError, RunNameError, UnmarkedItemsWarning
from resumable.runs.mapped import AGAIN
from resumable.runs.opening import Answer
from resumable.runs.preempt import forget
from resumable.runs.warn import warn_user
from resumable.values.excerpt import show
from resumable.work import keyed, parts
from resumable.work.again import Again, Request
from resumable.work.consumers import is_a_for
from resumable.work.failing import ATTEMPTS, Failing, forget_attempts
from resumable.work.keyed import Key
from resumable.work.parts import Part, Parts, State
from resumable.work.policy import Policy
from resumable.work.position import AnyItems, Position, Restart
from resumable.work.samples import FIRST_LATER, Samples
from resumable.work.watch import Watch

if TYPE_CHECKING:
    from resumable.runs.engine import Engine
    from resumable.runs.identity import Identity
    from resumable.runs.live import LiveRun

ABOUT = "items"


def loop_job(state: Any = None) -> None:
    """The job of a loop's run: the loop's body is wherever its `for` stands."""


def _state_of(saved: Any) -> State:
    return saved if isinstance(saved, tuple) else (saved or 0, None, {})


class Loop:
    """One run of a loop, driven by the LoopIterator that a `for` holds; whoever drops that has left the loop."""

    out_of_turn = False     # whether items are done in another order than they come in, so that what happens belongs to none
    about = ABOUT       # where the run's description has the samples, and so tells what kind of run it is

    def __init__(
        self, engine: Engine, identity: Identity, iterable: AnyItems, call: dict[str, Any], *, policy: Policy | None = None,
        whole: bool = False, key: Key | None = None,
    ) -> None:
        """`call`: the keywords that are not at their default. `whole`: the run is over when `end` or `fail` is called. `key` says
        which item one is."""
        self.marks = Marks()
        self.failing = Failing(policy or Policy(), engine.codec)
        self.run: LiveRun | None = None
        self.resumed = False        # an earlier life began it
        self.finished = False       # gone through to its end
        self.name = identity.name
        self.watch = Watch(identity.name, iterable)
        self._engine, self._identity, self._iterable, self._call = engine, identity, iterable, call
        self._position = Position(iterable, identity.name, engine.registry, call.get("on_change", "error"))
        self.state: State = (0, None, {})       # where it went on from
        self._whole = self.marks.holds_item = whole
        self._key = key
        self._parts = Parts(self.marks)
        self._again = Again(Request(), None)
        self._source: Iterator[Any] | None = None
        self._begun = False

    @property
    def index(self) -> int:
        """The index of the item at hand, of a batch that of its first item."""
        if isinstance(self._source, NewItems):
            return self._source.at_hand
        return self._again.index if self.marks.redoing else self.marks.done

    @property
    def mark_of_item(self) -> int | bytes:
        """What the item at hand is known by in each life."""
        return self._source.hash_at_hand() if isinstance(self._source, NewItems) else self.index

    @property
    def keys_at_hand(self) -> bytes:
        """Of the items at hand, as dead letters have them; nothing without `key=`."""
        return self._source.keys_at_hand() if isinstance(self._source, NewItems) else b""

    # ---- beginning

    def take(self, *, save_every: int = 1) -> Answer | None:
        """Take the run; or its value, if it is finished and there is nothing to do. `save_every`: if the driver's is 1."""
        known = self._position.look() if self._key is None else self._position.samples
        about = {self.about: tuple(known), **keyed.description(self._key)}
        opened = self._engine.begin(self._identity, self._call, about)
        if isinstance(opened, Answer):
            self._source = iter(())
            return opened
        if save_every > 1:
            opened.write.save_every = save_every
        self.run = opened
        return None

    def open(self) -> Iterator[Any]:
        """Go to where the run was, and give back the items that are left. A finished one leaves nothing to do."""
        if self.out_of_turn:
            return self._taken_open()
        if self._source is not None and self.run is not None:
            for part in parts.followers():      # they came after `items.state`
                self.join(part)
        try:
            source = self._taken_open()
        except BaseException:
            parts.turn_away({})
            raise
        if self.run is None:
            parts.turn_away(self.state[2])
        return source

    def _taken_open(self) -> Iterator[Any]:
        if self._source is None and self.run is None and self.take() is not None:
            self._set_state(_state_of(self._engine.last_state(self.name)))
            self.marks.go_on(None, self.state[0], False)
        if self._source is None:
            self._source = self._opened()
        return self._source

    def join(self, part: Part) -> None:
        """From here on the part is marked with the items."""
        self._parts.join(part, self)
        self.marks.slowly = self._is_slow()

    def _opened(self) -> Iterator[Any]:
        assert self.run is not None
        self.run.blamed = False     # what is wrong with the call is no failure of the run
        try:
            known = self.run.described(self.about)
            if known is None:
                what = f"run {self.name!r} is one of a job, not of a loop (give the loop another name)"
                raise RunNameError(what, name=self.name)
            request = Request(*self.run.described(AGAIN) or ())
            state = self.run.state()
            if state is None:
                state = request.first_state(self._engine.codec)
            self.resumed = state is not None
            done = self._taken_up(_state_of(state))
            self._parts.check_opened(self)
            self._again = Again(request, self.marks.parts.get(AGAIN))
            with self.watch.leaving_out():
                source = self._compared(self.run, Samples(*known), done)
        except Restart:
            return self._restarted()
        except BaseException as error:
            self.fail(error)
            raise
        self.run.blamed = True
        self.marks.go_on(self.run.write, done, True)
        self.marks.redoing = not self.out_of_turn and bool(self._again.left)
        self.marks.slowly = self._is_slow()
        return source

    def _is_slow(self) -> bool:
        return self._parts.are_slow or self.marks.redoing or ATTEMPTS in self.marks.parts

    def _restarted(self) -> Iterator[Any]:
        joined, self._parts = self._parts, Parts(self.marks)
        self.fail(None)
        joined.wait_again()
        self._call = {**self._call, "on_change": "error", "fresh": True}
        self._source = None
        return self.open()

    def _taken_up(self, state: State) -> int:
        """Take the state over, and let join what waits for this loop; gives back how many items are done."""
        self._set_state(state)
        attempts = state[2].get(ATTEMPTS)
        for part in parts.taken(followers=not self.out_of_turn):
            better = self._parts.join(part, self)
            if better is not None:
                state = better
                self._set_state(state)
        if attempts is not None:
            self.marks.parts.setdefault(ATTEMPTS, attempts)     # saved between marks, so that a part may not know of them
        self.failing.watch(self.marks)
        return state[0]

    def _set_state(self, state: State) -> None:
        self.state = state
        _, self.marks.values, saved = state
        self.marks.parts.clear()
        self.marks.parts.update(saved)
        self.marks.saved()

    def _compared(self, run: LiveRun, recorded: Samples, done: int) -> Iterator[Any]:
        """The source behind the items that are done. Raises ChangedItemsError, Restart."""
        if not keyed.fits(run, self._key):
            raise Restart if self._call.get("on_change") == "restart" else keyed.misfit(self.name, self._key)
        if self._key is not None:
            return keyed.new_items(run, self._iterable, self._key, done, self.marks, self._engine.registry)
        recorded = self._position.compare(recorded, done)
        source = iter(()) if isinstance(self._iterable, AsyncIterable) else self._behind(self._iterable, recorded, done)
        if tuple(self._position.samples) != run.described(self.about):
            run.describe(self.about, tuple(self._position.samples))
        return source

    def _behind(self, items: Iterable[Any], recorded: Samples, done: int) -> Iterator[Any]:
        return self._position.behind(items, recorded, done, self._again)

    async def open_in_loop(self) -> AsyncIterator[Any]:
        """What `begin` gives where the items come from an asynchronous source: behind those that are done."""
        assert isinstance(self._iterable, AsyncIterable)
        if self.run is None:
            return aiter(self._iterable)
        if isinstance(self._source, NewItems):
            return keyed.NewInLoop(aiter(self._iterable), self._source)
        self.run.blamed = False
        try:
            with self.watch.leaving_out():
                source = await self._position.behind_in_loop(self.marks.done, self._again)
        except Restart:
            self._source = self._restarted()
            source = aiter(self._iterable)
        self.run.blamed = True
        return source

    # ---- what the iterator asks for

    def start(self, iterator: LoopIterator) -> Iterator[Any]:
        """The items that are to be done; called for the first one. What it raises leaves no run behind."""
        self.claim()
        try:
            source = self.begin(iterator, is_a_for(iterator, sys._getframe(1), self.body))
            self.watch.begin(self.run, self.marks)
            return source
        except BaseException as error:
            self.stop(error)
            raise

    def claim(self) -> None:
        """The items are gone through from here on. Raises ResumableError if they are already; whoever does that goes on."""
        if self._begun:
            raise ResumableError(
                f"the items of {self.name!r} are gone through once: call driver.items again for another loop", run=self.name
            )
        self._begun = True

    @property
    def body(self) -> CodeType:
        """The code in which the `for` must stand."""
        assert self._identity.body is not None
        return self._identity.body

    def begin(self, iterator: LoopIterator, known: bool) -> Iterator[Any]:
        """`start`, where it is known whether a `for` goes over the items."""
        source = self.open()
        if self.run is None:
            return source
        parts.started(self)
        self._parts.check_started(self, known)
        if not known:
            self.marks.go_on(self.run.write, self.marks.done, False)
            warn_user(
                f"what goes over the items of {self.name!r} does not say when one is done, so none is marked: write "
                f"`for item in items:` itself, or `for batch in items.batches(n):`", UnmarkedItemsWarning,
            )
        if self._key is None:
            self._position.sample_from(iterator)
        return source

    def sample(self, index: int, item: object) -> int:
        """See an item of which a digest is kept; gives back the index of the next one."""
        assert self.run is not None
        if self._position.sample(index, item):
            self.run.describe(self.about, tuple(self._position.samples))
        return max(FIRST_LATER, 4 * index)

    def save(self, done: int) -> None:
        """Save that so many items are done, and all that belongs to the last of them."""
        assert self.run is not None
        made = self._made(done)
        if not take_checkpoint(self.run.write, made):
            self.run.save(made)
        self._marked()

    async def save_in_loop(self, done: int) -> None:
        """`save` where other tasks go on while the disk is waited for."""
        assert self.run is not None
        made = self._made(done)
        if not take_checkpoint(self.run.write, made):
            await self.run.save_in_loop(made)
        self._marked()

    def _made(self, done: int) -> Checkpoint[Any]:
        self.failing.saving = True
        if ATTEMPTS in self.marks.parts:
            forget_attempts(self)
        if self.marks.redoing:
            self.marks.parts[AGAIN] = self._again.next_place()
        self._parts.mark(done)
        state, result = self.marks.state(done), self.marks.result
        return checkpoint(state) if result is NOTHING else checkpoint(state, result=result)

    def _marked(self) -> None:
        self.marks.saved()
        self._parts.marked()
        if self.marks.redoing:
            self._again.done()
        self.failing.saving = False
        self.marks.slowly = self._is_slow()
        if self.marks.due:
            self.watch.marked()

    def save_now(self, done: int) -> None:
        """`save` whatever `save_every` says."""
        assert self.run is not None
        self.run.save_now(self._made(done))
        self._marked()

    def take_back(self) -> None:
        """An attempt at the item at hand has failed: what takes part in the marks drops what it did."""
        self._parts.again()

    def redo(self, size: int) -> list[Any] | None:
        """Items that were done, and are done once more, up to `size` of them; None if there are none left."""
        assert self.run is not None
        items = self._again.take(size, self._iterable)
        if items is None:
            self.run.describe(AGAIN, tuple(self._again.over()))
            self.marks.parts.pop(AGAIN, None)
            self.marks.redoing = False
            self.marks.saved()
            self.marks.slowly = self._is_slow()
        return items

    def finish(self) -> None:
        """The items are at an end."""
        if self._whole:
            self.watch.leave(through=True)
        elif self.marks.marking:
            self.end(self.marks.done)
        else:
            self.finished = True
            self.fail(None)

    def stop(self, error: BaseException | None) -> None:
        """The `for` was left, with this exception or without one; no matter if it was before."""
        if error is not None and self.run is not None and self.marks.at_hand:
            self.run.item = self.index, show(self.marks.item) if self.marks.holds_item else None
            self.failing.leave(self, error)
        self.marks.left()
        if not self._whole:
            self.fail(error)
        self.watch.leave()

    def __del__(self) -> None:
        self.fail(None)     # its state was asked for, and it was never gone through

    # ---- ending

    def end(self, value: object) -> None:
        """The run is finished, with this value."""
        run = self.run
        if run is None:
            return
        self.finished = True
        try:
            if run.write.save_every > 1 and self.marks.marking:
                run.save_now(checkpoint(self.marks.state(self.marks.done)))     # that dead letters can be done again from here
            self._parts.leave()
            run.finish(value)
            self.watch.complete = True
        except BaseException as error:
            run.end_with(error)
            raise
        finally:
            self._over(run)

    def fail(self, error: BaseException | None) -> None:
        """The run is left as it is, by an exception or without one; no matter if it was before."""
        run = self.run
        if run is None:
            return
        try:
            self.marks.catch_up()
            self._parts.leave()
        finally:
            try:
                if error is None:
                    run.leave()
                else:
                    run.end_with(error)
            finally:
                self._over(run, error)

    def _over(self, run: LiveRun, error: BaseException | None = None) -> None:
        self.run = None
        forget(run)
        self.watch.end(error)
