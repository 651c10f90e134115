"""A function for each item, as `Driver.map` and its kin run it: what is handed out, and what becomes of it.

A mark says how many items were handed out, and which of them are not done: all below that number are, but for those. They are as
many as are in flight, so a mark is small and a resume takes no look at what is done, in whatever order that was.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import suppress
from types import CodeType
from typing import Any

from resumable._fastlog import LoopIterator
from resumable.errors import BrokenExecutorError, Preempted, UnsavableStateError, WorkerStartError
from resumable.runs.mapped import PAIRS
from resumable.values.dead_letter import DeadLetter
from resumable.work.crew import Crew, Tasks
from resumable.work.map_loop import MapLoop, of_item
from resumable.work.policy import Policy, letter, stops
from resumable.work.workers import Outcome

_MOST_DELAYED = 64      # items that wait for their next attempt while others are asked for
_AGAIN = object()
_NEVER = float("inf")
_NOT_THE_ITEMS = (BrokenExecutorError, WorkerStartError, UnsavableStateError)     # no policy can help


class Flight:
    """The items of a map that are under way. Decides; whoever calls the function is a Crew."""

    def __init__(self, loop: MapLoop, policy: Policy, *, ordered: bool) -> None:
        """`ordered`: one item after the other, and so are the results, unless an earlier life has begun otherwise."""
        self.loop = loop
        self.heard: deque[Outcome] = deque()        # to be settled
        self.number: int | None = None              # of the run; None if it was finished before
        self._policy = policy
        self._ordered = ordered
        self._items: dict[int, Any] = {}            # handed out and not done
        self._tries: dict[int, int] = {}            # how often they have failed
        self._ready: deque[int] = deque()           # to be handed out again: now,
        self._later: list[tuple[float, int]] = []   # and then
        self._handed = 0
        self._redoing = False                       # items that were done are to be done once more
        self._source: Iterator[Any] = iter(())
        self._next_sample: float = _NEVER

    # ---- beginning and ending

    def open(self) -> None:
        """Take the run, and see how far it is."""
        self.loop.open()
        run = self.loop.run
        if run is None:
            return
        self.number = run.number
        self._handed = self.loop.marks.done
        self._redoing = bool(self.loop.to_do_again)
        self._tries = self.loop.pending()
        self._items = dict(self.loop.kept)
        self._ready.extend(sorted(self._items))
        self._ordered = self._ordered and run.described(PAIRS) is None
        if not self._ordered and run.described(PAIRS) is None:
            try:
                run.describe(PAIRS, run.write.results)
            except BaseException as error:
                self.loop.stop(error)
                raise

    @property
    def to_do(self) -> set[int]:
        """The items that are not done, of those that were ever handed out."""
        return {*self._items, *self.loop.to_do_again}

    @property
    def is_simple(self) -> bool:
        """Whether each item from here on is the next one."""
        return self._ordered and not self._items

    def start(self) -> None:
        """Ask for the items that are left."""
        if self.loop.run is not None:
            self.loop.count(self._handed - len(self._items))
        self._source = self.loop.start(self)

    def sample_from(self, index: int) -> None:
        """Show the loop the item at this index, and then those that it asks for."""
        self._next_sample = index

    def finish(self) -> None:
        """All items are done."""
        self.loop.finish()

    def note(self, error: BaseException) -> None:
        """Keep what is done although the map is being left; items that have failed, too, are for the next call."""
        while self.heard:
            index, value, failure = self.heard.popleft()
            if failure is None:
                try:
                    self._keep(index, value)
                except UnsavableStateError as trouble:
                    error.add_note(f"resumable: {trouble}")
                except Preempted:
                    pass    # it is kept, and this is the end anyway

    # ---- handing out

    def take(self) -> tuple[int, Any] | None:
        """An item to be handed out now, None if there is none."""
        if self._ready:
            index = self._ready.popleft()
        elif self._later and self._later[0][0] <= time.monotonic():
            _, index = heapq.heappop(self._later)
        elif self._later and (self._ordered or len(self._later) >= _MOST_DELAYED):
            return None
        elif self._redoing and (found := self.loop.take_again()) is not None:
            index, self._items[index] = found
        else:
            try:
                item = next(self._source)
            except StopIteration:
                self._source = iter(())
                return None
            index, self._handed = self._handed, self._handed + 1
            self._items[index] = item
            if index >= self._next_sample:
                self._next_sample = self.loop.sample(index, item)
        return index, self._items[index]

    def over(self, crew: Crew | Tasks) -> bool:
        """Whether nothing is under way."""
        return not crew.busy and not self._later

    def pause(self, crew: Crew | Tasks) -> float | None:
        """Seconds until an item is to be handed out again, None if only the crew has something to say."""
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later and crew.room else None

    # ---- what has come of them

    def settled(self) -> list[Any]:
        """Save what was heard; gives back the results among it."""
        found = []
        while self.heard:
            index, value, error = self.heard.popleft()
            if error is not None:
                value, delay = self._judged(index, error)
                if value is _AGAIN:
                    heapq.heappush(self._later, (time.monotonic() + delay, index))
                    continue
            self._keep(index, value)
            found.append(value)
        return found

    def insist(self, fn: Callable[[Any], Any], item: object, error: Exception) -> Any:
        """The result of the item at hand, which has failed, after all: of another attempt, or what stands for it."""
        index = self.loop.marks.done
        self._items = {index: item}
        while True:
            value, delay = self._judged(index, error)
            if value is not _AGAIN:
                break
            time.sleep(delay)
            try:
                value = fn(item)
                break
            except Exception as another:  # noqa: BLE001 - judged above
                error = another
        self._items, self._tries = {}, {}
        self.loop.set_pending({})
        return value

    def _judged(self, index: int, error: BaseException) -> tuple[Any, float]:
        """What stands for the result of an item that failed, or _AGAIN and after how many seconds. Raises the error, noted."""
        if isinstance(error, UnsavableStateError):
            error = of_item(error, index)
        if not self._policy or stops(error) or isinstance(error, _NOT_THE_ITEMS):
            raise self._noted(index, error)
        assert isinstance(error, Exception)
        attempt = self._tries.get(index, 0) + 1
        answer = self._policy.decide(self._items[index], error, attempt)
        if answer == "skip":
            return None, 0
        if answer == "dead_letter":
            return letter(index, self._items[index], error, attempt), 0
        self._tries[index] = attempt
        self.loop.save_attempts(max(self._handed, self.loop.marks.done), self._pending())
        if answer == "fail":
            raise self._noted(index, error)
        return _AGAIN, self._policy.delay(attempt, error)

    def _noted(self, index: int, error: BaseException) -> BaseException:
        with suppress(Exception):       # a class may have its own add_note
            error.add_note(f"resumable: that was item {index} of map {self.loop.name!r}")
        return error

    def _pending(self, but: int | None = None) -> dict[int, int]:
        return {index: self._tries.get(index, 0) for index in self._items if index != but}

    def _keep(self, index: int, value: object) -> None:
        """Save a result, with the mark of its item."""
        loop = self.loop
        assert loop.run is not None
        loop.set_pending(self._pending(but=index))
        is_letter = type(value) is DeadLetter and value.index == index
        loop.marks.result = value if self._ordered or is_letter else (index, value)
        loop.count(self._handed - len(self._items) + 1)
        before = loop.run.seq
        try:
            loop.save(self._handed)
        except UnsavableStateError as error:
            loop.marks.left()
            raise of_item(error, index) from error
        finally:
            if loop.run.seq != before:      # also with an exception: the record is published
                del self._items[index]
                self._tries.pop(index, None)


def call_in_order(flight: Flight, fn: Callable[[Any], Any]) -> None:
    """Call the function on each item, here: what costs least."""
    marks = flight.loop.marks
    for item in LoopIterator(flight.loop, marks):
        try:
            value = fn(item)
        except Exception as error:  # noqa: BLE001 - for the policy to judge
            value = flight.insist(fn, item, error)
        marks.result = value


def results(flight: Flight, crew: Crew) -> Iterator[Any]:
    """Have the crew call the function on the items; gives out the results that this life has, each when it is saved."""
    now = True
    try:
        flight.start()
        while True:
            while crew.room and (job := flight.take()) is not None:
                crew.submit(*job)
            if flight.over(crew):
                break
            flight.heard.extend(crew.wait(flight.pause(crew)))
            yield from flight.settled()
        flight.finish()
        now = False
    except BaseException as error:
        try:
            at_once = stops(error) and not isinstance(error, GeneratorExit)
            _drain(flight, crew, error, now=at_once)
            now = at_once       # only now: Ctrl-C may have come meanwhile
        finally:
            flight.loop.stop(None if isinstance(error, GeneratorExit) else error)
        raise
    finally:
        crew.stop(now=now)


def _drain(flight: Flight, crew: Crew, error: BaseException, *, now: bool) -> None:
    """Keep what is done, and what comes of the items that somebody has begun with, unless the map is to stop now."""
    flight.note(error)
    crew.recall()
    while crew.busy:
        flight.heard.extend(crew.wait(0 if now else None))
        if not flight.heard:
            break
        flight.note(error)


async def results_in_loop(flight: Flight, tasks: Tasks) -> AsyncGenerator[Any, None]:
    """`results` with tasks in the running event loop."""
    try:
        flight.start()
        while True:
            while tasks.room and (job := flight.take()) is not None:
                tasks.submit(*job)
            if flight.over(tasks):
                break
            flight.heard.extend(await tasks.wait(flight.pause(tasks)))
            for value in flight.settled():
                yield value
        flight.finish()
    except BaseException as error:
        left = isinstance(error, GeneratorExit)
        try:
            flight.note(error)
            if stops(error) and not left:
                tasks.cancel()
            while tasks.busy:
                flight.heard.extend(await tasks.wait(None))
                flight.note(error)
        finally:
            tasks.cancel()
            flight.loop.stop(None if left else error)
        raise


def in_a_loop_of_its_own(values: AsyncGenerator[Any, None]) -> Iterator[Any]:
    """An async generator's values for plain code; its event loop rests in between."""
    end = object()

    async def another() -> Any:
        return await anext(values, end)

    with asyncio.Runner() as runner:
        try:
            while (value := runner.run(another())) is not end:
                yield value
        finally:
            runner.run(values.aclose())


def code_of(fn: Any) -> CodeType:
    """Where to look for the locals of a failure."""
    code = getattr(function_of(fn), "__code__", None)
    return code if isinstance(code, CodeType) else call_in_order.__code__


def function_of(fn: Any) -> Any:
    """The function in a partial, or behind an object that can be called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if hasattr(fn, "__code__") else getattr(type(fn), "__call__", fn)  # noqa: B004 - it is what is wanted
