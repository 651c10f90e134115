"""One call of `Driver.map` or its kin: what it was given, checked, and the ways to run it."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from resumable.errors import AsyncJobError, RunningLoopError
from resumable.runs.identity import identify_loop
from resumable.runs.mapped import MappedResults
from resumable.work.crew import Crew, Inline, Pooled, Tasks
from resumable.work.loop import loop_job
from resumable.work.map_loop import MapLoop
from resumable.work.mapping import (
    Flight,
    call_in_order,
    code_of,
    function_of,
    in_a_loop_of_its_own,
    results,
    results_in_loop,
)
from resumable.work.workers import Processes

if TYPE_CHECKING:
    from resumable.runs.engine import Engine
    from resumable.runs.progress import Progress
    from resumable.runs.reports import Results
    from resumable.work.policy import Policy

_TASKS = 16     # of an async function that go on at once, if nobody says how many


class Map:
    """A function, its items, and who calls it."""

    def __init__(
        self, engine: Engine, fn: Callable[[Any], Any], items: Iterable[Any], name: str, call: dict[str, Any], policy: Policy,
        executor: int | Executor | None, concurrency: int | None, progress: Progress, verbose: bool,
    ) -> None:
        """`call`: the keywords of a run that are not at their default. Raises TypeError, ValueError, RunNameError."""
        if not callable(fn):
            raise TypeError(f"fn is a function of one item, not {fn!r}")
        if not isinstance(items, Iterable) and not hasattr(items, "__getitem__"):
            raise TypeError(f"a map's items can be gone through with `for`, and a {type(items).__name__} cannot")
        self.is_async = inspect.iscoroutinefunction(function_of(fn))
        _check_executor(executor, self.is_async)
        _check_concurrency(concurrency, executor, self.is_async)
        self._engine, self._fn, self._name, self._policy = engine, fn, name, policy
        self._executor, self._concurrency = executor, concurrency
        identity = identify_loop(loop_job, {}, name=name, registry=engine.registry, body=code_of(fn))
        self._loop = MapLoop(engine, identity, items, call)
        self._loop.watch.show(progress, verbose)

    # ---- in plain code

    def run(self) -> Results:
        """Run to the end."""
        if self.is_async:
            self._refuse_inside_loop("amap")
            return asyncio.run(self.run_in_loop())
        crew = self._crew()
        flight = self._opened(ordered=self._executor is None)
        if flight.is_simple:
            call_in_order(flight, self._fn)
        else:
            deque(results(flight, crew), maxlen=0)
        return self._results(flight)

    def values(self) -> Iterator[Any]:
        """The results as they come: those of earlier lives, then each when it is saved."""
        if self.is_async:
            self._refuse_inside_loop("amap_unordered")
            return in_a_loop_of_its_own(self.values_in_loop())
        return self._values(self._crew())

    def _values(self, crew: Crew) -> Iterator[Any]:
        flight = self._opened(ordered=self._executor is None)
        yield from self._stored(flight)
        yield from results(flight, crew)

    # ---- in an event loop

    async def run_in_loop(self) -> Results:
        """`run`, for an async function."""
        flight = self._opened(ordered=False)
        async for _ in results_in_loop(flight, self._tasks()):
            pass
        return self._results(flight)

    async def values_in_loop(self) -> AsyncGenerator[Any, None]:
        """`values`, for an async function."""
        flight = self._opened(ordered=False)
        for value in self._stored(flight):
            yield value
        async with aclosing(results_in_loop(flight, self._tasks())) as values:
            async for value in values:
                yield value

    def refuse_plain(self) -> None:
        """Raises AsyncJobError for a function that would hold up the event loop."""
        if not self.is_async:
            raise AsyncJobError(
                f"{_shown(self._fn)} is a plain function, which would block the event loop: use "
                f"`await asyncio.to_thread(driver.map, fn, items, ...)`", job=_shown(self._fn),
            )

    def _refuse_inside_loop(self, instead: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RunningLoopError(
            f"an async function cannot be mapped from inside the event loop that runs here: use "
            f"{'await' if instead == 'amap' else 'async for ... in'} driver.{instead}({_shown(self._fn)}, items, ...)"
        )

    # ---- parts

    def _crew(self) -> Crew:
        registry = self._engine.registry
        if self._executor is None:
            return Inline(self._fn)
        if isinstance(self._executor, int):
            return Processes(self._fn, self._executor, registry)
        return Pooled(self._fn, self._executor, self._concurrency, self._name, registry)

    def _tasks(self) -> Tasks:
        return Tasks(self._fn, self._concurrency or _TASKS)

    def _opened(self, *, ordered: bool) -> Flight:
        flight = Flight(self._loop, self._policy, ordered=ordered)
        flight.open()
        return flight

    def _results(self, flight: Flight) -> Results:
        return self._engine.results(self._name, flight.number)

    def _stored(self, flight: Flight) -> Iterator[Any]:
        """What the run has from earlier on, in the order of its saving. Whoever leaves meanwhile leaves the map."""
        found = self._results(flight)
        try:
            yield from found.as_saved(flight.to_do) if isinstance(found, MappedResults) else found
        except BaseException as error:
            flight.loop.stop(None if isinstance(error, GeneratorExit) else error)
            raise


def _check_executor(executor: object, is_async: bool) -> None:
    if executor is None:
        return
    if is_async:
        raise TypeError("executor= calls plain functions: an async one runs in an event loop, concurrency= at a time")
    if isinstance(executor, bool) or not isinstance(executor, int | Executor):
        raise TypeError(f"executor is a number of processes or a concurrent.futures.Executor, not {executor!r}")
    if isinstance(executor, int) and executor < 1:
        raise ValueError(f"executor is at least 1 process, not {executor}")


def _check_concurrency(concurrency: object, executor: object, is_async: bool) -> None:
    if concurrency is None:
        return
    if not isinstance(concurrency, int) or isinstance(concurrency, bool):
        raise TypeError(f"concurrency is an int, not {concurrency!r}")
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, not {concurrency}")
    if not is_async and not isinstance(executor, Executor):
        raise ValueError(
            "concurrency= is for async functions and executors of your own: without one there is one item at a time, and "
            "executor=n has one for each process"
        )


def _shown(fn: Any) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__qualname__)
