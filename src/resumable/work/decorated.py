"""One call of a function that `@resumable.loop` stands above: what it is given, how it is run, and what is told of it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import aclosing, closing
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from resumable._fastlog import checkpoint, take_checkpoint
from resumable.errors import ResumableError, RunNameError, RunNotFoundError
from resumable.runs.driver import Driver, engine_of
from resumable.runs.engine import Handle
from resumable.runs.failure import Failure
from resumable.runs.identity import Identity, identify_loop
from resumable.runs.live import LiveRun
from resumable.runs.opening import Answer
from resumable.runs.preempt import forget
from resumable.runs.progress import ProgressInfo, tell
from resumable.storage.home import MEMORY
from resumable.values.dead_letter import DeadLetter
from resumable.work.items import Items, check_items
from resumable.work.loop import Loop
from resumable.work.policy import Policy
from resumable.work.requeue import dead_letters
from resumable.work.watch import ended

_manual: ContextVar[Manual | None] = ContextVar("the function that saves its own states", default=None)


class Manual:
    """A run whose states the function saves itself."""

    def __init__(self, run: LiveRun, verbose: bool) -> None:
        self._run, self._verbose = run, verbose
        try:
            if run.described("items") is not None:
                name = run.identity.name
                raise RunNameError(f"run {name!r} is one of a loop (give this function another name)", name=name)
            self.state: dict[str, Any] | None = run.state()
        except BaseException as error:
            run.blamed = False
            self.fail(error)
            raise
        lives = run.described("resumed") + 1
        self._tell("begins" if lives == 1 else f"goes on (run #{lives})")

    def save(self, state: dict[str, Any]) -> None:
        """Raises UnsavableStateError, StorageError, Preempted."""
        made = checkpoint(state)
        if not take_checkpoint(self._run.write, made):
            self._run.save(made)
        self.state = state

    def end(self, value: object) -> None:
        """The function has returned."""
        try:
            self._run.finish(value)
        except BaseException as error:
            self._run.end_with(error)
            raise
        finally:
            forget(self._run)
        self._tell("is complete")

    def fail(self, error: BaseException | None) -> None:
        """The function was left; without effect if it has ended."""
        try:
            if error is not None:
                self._run.end_with(error)
            else:
                self._run.leave()
        finally:
            forget(self._run)
        self._tell(f"{ended(error)}: what it saved last is in {self._run.where}")

    def _tell(self, what: str) -> None:
        if self._verbose:
            tell(f"{self._run.identity.name!r} {what}")


def current_manual(what: str) -> Manual:
    """That of the function at hand. Raises ResumableError."""
    manual = _manual.get()
    if manual is None:
        raise ResumableError(
            f"resumable.{what} is for functions under @resumable.loop(auto_iterate=False), in the thread or task that they were "
            f"called in (a job yields checkpoint(state) instead)"
        )
    return manual


class Call:
    """One call; a context manager around the function's running. `answer`: there is nothing to do, and that is the value."""

    answer: Answer | None

    def __init__(
        self, driver: Driver, function: Callable[..., Any], bound: inspect.BoundArguments, parameter: str,
        options: dict[str, Any],
    ) -> None:
        self.function = function
        self.store = options["store_results"]
        self._gives_up = options["max_attempts"] is not None or options["on_error"] is not None
        self._keep, self._manual = options["keep_on_success"], not options["auto_iterate"]
        self._engine = engine_of(driver)
        values = dict(bound.arguments)
        items = values.pop(parameter)
        call = dict(options["call"])
        if self._keep and not call.get("fresh"):
            call["once"] = True
        identity = identify_loop(
            function, values, name=options["name"], registry=self._engine.registry, body=inspect.unwrap(function).__code__
        )
        self.name = identity.name
        self._run: Loop | Manual | None = None
        if self._manual:
            self.answer = self._begin_manual(identity, call, options)
        else:
            check_items(items)
            policy = Policy(options["max_attempts"], options["on_error"], options["backoff"])
            loop = Loop(self._engine, identity, items, call, policy=policy, whole=True, key=options["key"])
            loop.watch.show(options["progress"], options["verbose"])
            self.answer = loop.take(save_every=options["save_every"])
            self._run, self.items = loop, Items(loop, items, records=self.store)
            bound.arguments[parameter] = self.items
        self._bound = bound
        self._yielded: list[Any] = []
        self._yielded_for = -1      # the index of the item that yielded those

    def _begin_manual(self, identity: Identity, call: dict[str, Any], options: dict[str, Any]) -> Answer | None:
        opened = self._engine.begin(identity, call, {})
        if isinstance(opened, Answer):
            return opened
        opened.write.save_every = options["save_every"]
        self._run = Manual(opened, options["verbose"])
        return None

    def made(self) -> Any:
        """What the function gives when it is called."""
        return self.function(*self._bound.args, **self._bound.kwargs)

    def given(self) -> Any:
        """What there is instead of running; a kill may have come before that was forgotten."""
        assert self.answer is not None
        if not self._keep:
            self._engine.clear(self.name)
        return self.answer.value

    def earlier(self) -> Iterator[Any]:
        """What a generator function has yielded in earlier lives."""
        if self.store:
            for yielded in self._engine.results(self.name, None):
                if not isinstance(yielded, DeadLetter):
                    yield from yielded

    def keep(self, value: object) -> None:
        """A generator function has yielded a value: it is one of the results of the item at hand, if there is one."""
        if self.items.is_at_hand:
            if self._yielded_for != self.items.index:
                self._yielded, self._yielded_for = [], self.items.index
                self.items.record(self._yielded)
            self._yielded.append(value)

    def end(self, value: object) -> None:
        """The function has returned."""
        assert self._run is not None
        self._run.end(value)
        if not self._keep and not (self._gives_up and dead_letters(self._engine, self.name, None)):
            self._engine.clear(self.name)

    def __enter__(self) -> Call:
        if isinstance(self._run, Manual):
            self._token = _manual.set(self._run)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(self._run, Manual):
            _manual.reset(self._token)
        if error is not None and self._run is not None:
            self._run.fail(error)


Begin = Callable[[], Call]


def kind_of(function: Callable[..., Any]) -> Callable[[Begin], Any]:
    """How a function of this kind is run."""
    if inspect.isasyncgenfunction(function):
        return _run_async_generator
    if inspect.iscoroutinefunction(function):
        return _run_coroutine
    return _run_generator if inspect.isgeneratorfunction(function) else _run_function


def _run_function(begin: Begin) -> Any:
    call = begin()
    if call.answer is not None:
        return call.given()
    with call:
        value = call.made()
        call.end(value)
    return value


async def _run_coroutine(begin: Begin) -> Any:
    call = begin()
    if call.answer is not None:
        return call.given()
    with call:
        value = await call.made()
        call.end(value)
    return value


def _run_generator(begin: Begin) -> Generator[Any, Any, Any]:
    call = begin()
    yield from call.earlier()
    if call.answer is not None:
        return call.given()
    with call:
        value = yield from _kept(call) if call.store else call.made()
        call.end(value)
    return value


def _kept(call: Call) -> Generator[Any, Any, Any]:
    generator, sent = call.made(), None
    with closing(generator):
        while True:
            try:
                yielded = generator.send(sent)
            except StopIteration as stop:
                return stop.value
            call.keep(yielded)
            sent = yield yielded


async def _run_async_generator(begin: Begin) -> AsyncGenerator[Any, None]:
    call = begin()
    for yielded in call.earlier():
        yield yielded
    if call.answer is not None:
        call.given()
        return
    with call:
        async with aclosing(call.made()) as generator:
            async for yielded in generator:
                if call.store:
                    call.keep(yielded)
                yield yielded
        call.end(None)


# ---- what is told of it


@dataclass(frozen=True, slots=True)
class LoopRecord:
    """What is kept of a decorated function's run.

    completed_indices: which items are done. total_items: how many there were when it was begun, None if that is not known.
    frozen_state: the function's locals when it last failed. run_count: how often it was called until now. dead_letters: of the
    items that were given up.
    """

    name: str
    status: str
    completed_indices: range
    total_items: int | None
    last_failure: Failure | None
    frozen_state: dict[str, object]
    run_count: int
    dead_letters: tuple[DeadLetter, ...]

    def progress(self) -> ProgressInfo:
        """How far it is; of how fast it goes, nothing is kept."""
        done = len(self.completed_indices)
        return ProgressInfo(self.name, done, self.total_items, done, 0.0)


def peek(driver: Driver, handle: Handle) -> LoopRecord | None:
    """Raises DamagedLogError, StorageError."""
    try:
        view = engine_of(driver).view(handle, None)
    except RunNotFoundError:
        return None
    meta, info, failure = view.meta, view.info(), view.failure()
    state = engine_of(driver).state(info.name, None, info.number) if info.seq else 0
    done = state[0] if isinstance(state, tuple) else state if isinstance(state, int) else 0
    known = meta.get("items")
    return LoopRecord(
        info.name, info.status, range(done), known[0] if known else None, failure,
        dict(failure.locals) if failure is not None else {}, info.resumed + 1,
        tuple(dead_letters(engine_of(driver), info.name, info.number)),
    )


def folder_of(driver: Driver, handle: Handle) -> Path | None:
    """The folder of the latest run."""
    try:
        where = engine_of(driver).view(handle, None).folder.where
    except RunNotFoundError:
        return None
    return Path(where) if driver.path != MEMORY else None
