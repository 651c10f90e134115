"""The Driver: runs jobs in one state directory, and tells what is in it."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, Never, TypeVar, TypeVarTuple, cast, overload

from resumable._fastlog import Checkpoint, drive, fork_count, set_saver, step, take_checkpoint, take_unyielded
from resumable.errors import AsyncJobError, DriverClosedError, NotAJobError, RunLockedError, RunningLoopError
from resumable.runs import reports
from resumable.runs.batch import batch, current_batch
from resumable.runs.failure import Failure
from resumable.runs.forget import forget
from resumable.runs.identity import Identity, identify, name_of
from resumable.runs.live import LiveRun, open_run
from resumable.runs.opening import Answer
from resumable.runs.preempt import DEFAULT, Preemption
from resumable.runs.settings import Durability, Migrations, OnChange, Request, Settings
from resumable.storage.home import MEMORY, Home, open_home
from resumable.values.codec import Codec

R = TypeVar("R")
S = TypeVar("S")
Ts = TypeVarTuple("Ts")
Handle = str | Callable[..., Any]

_saving_to: ContextVar[LiveRun | None] = ContextVar("the run that an awaited checkpoint saves to", default=None)
set_saver(_saving_to)


class Driver:
    """Runs jobs and keeps their checkpoints in one state directory.

    path: the directory; by default `RESUMABLE_HOME`, read at first use, else `.resumable` in the working directory.
        `":memory:"` keeps everything in this process, for tests. Nothing is created before the first run or report.
    durability: "process" (default): an acknowledged checkpoint survives kill -9 at any instant; a power cut takes at most the
        last `sync_every` seconds. "disk": a checkpoint is on disk before the job goes on; nothing acknowledged is lost.
    sync_every: seconds after which, at the latest, everything is on disk.
    save_every: save each N-th checkpoint only; up to N items are repeated after a crash.
    keep_states: how many last states of a run stay readable; None for all (then the disk bounds the loop's speed).
    keep_runs: how many runs of one name stay readable.
    codec: "auto", or "plain": nothing is ever pickled or unpickled, for directories that others can write.
    rng: save the global generators of `random` and NumPy with each checkpoint, and restore them on resume.
    preempt: True (SIGTERM and SIGUSR1) or a sequence of signals: on one, stop at the next checkpoint with exit code 75.
    failure_locals: keep the locals of the job's frame with a failure.

    A Driver is thread-safe and a context manager. Several on one directory, in one process or many, share it.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: Durability = "process", sync_every: float = 1.0,
        save_every: int = 1, keep_states: int | None = 1000, keep_runs: int = 20, codec: Literal["auto", "plain"] = "auto",
        rng: bool = False, preempt: bool | Sequence[int] | None = None, failure_locals: bool = True,
    ) -> None:
        if durability not in ("process", "disk"):
            raise ValueError(f'durability is "process" or "disk", not {durability!r}')
        if not sync_every > 0:
            raise ValueError(f"sync_every is a number of seconds above 0, not {sync_every!r}")
        counts = {"save_every": save_every, "keep_states": 1 if keep_states is None else keep_states, "keep_runs": keep_runs}
        for what, count in counts.items():
            if count < 1:
                raise ValueError(f"{what} is at least 1" + (", or None for all" if what == "keep_states" else ""))
        self._path = path
        self._settings = Settings(
            Codec(codec), durability, float(sync_every), save_every, keep_states, keep_runs, rng, failure_locals
        )
        signals = DEFAULT if preempt is True else tuple(preempt or ())
        self._preemption = Preemption(signals) if signals else None
        self._home: Home | None = None
        self._forks = fork_count()
        self._turn = threading.Lock()
        self._closed = False

    # ---- opening and closing

    @property
    def path(self) -> str:
        """The state directory."""
        if self._path == MEMORY:
            return MEMORY
        return os.path.abspath(self._path or os.environ.get("RESUMABLE_HOME") or ".resumable")

    def _open(self) -> Home:
        if self._forks != fork_count():
            # A forked child has a parent's driver in its hands: it opens the directory for itself.
            self._turn, self._home, self._forks = threading.Lock(), None, fork_count()
        with self._turn:
            if self._closed:
                raise DriverClosedError(f"the driver on {self.path} is closed (make another)", directory=self.path)
            if self._home is None:
                where = self.path
                self._home = open_home(None if where == MEMORY else Path(where))
            return self._home

    def sync(self) -> None:
        """Return when everything acknowledged so far, by all runs of this process in this directory, is on disk."""
        self._open().writer.flush_all()

    def close(self) -> None:
        """Sync and give the directory back. Closing twice is fine; a closed driver raises DriverClosedError."""
        if self._forks != fork_count():
            # What a forked child has of it is the parent's; another thread of the parent may have held the lock.
            self._home, self._closed, self._turn, self._forks = None, True, threading.Lock(), fork_count()
        with self._turn:
            home, self._home = self._home, None
            self._closed = True
        if home is not None:
            home.close()

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Driver({self.path!r})"

    # ---- running

    def run(
        self, job: Callable[[*Ts], Generator[Checkpoint[Any], None, R]], *args: *Ts, name: str | None = None,
        fresh: bool = False, once: bool = False, on_change: OnChange = "error", version: int | None = None,
        migrate: Migrations | None = None, **unknown: Never,
    ) -> R:
        """Run the job to its end, from its last checkpoint if it was started before; gives back what the job returns.

        name: the run's identity; by default the job's module and name plus a digest of everything bound to it.
        fresh: begin another run; the unfinished one stays readable as abandoned.
        once: give back a finished run's value instead of running again.
        on_change: what if the arguments are not those the run was started with: "error", "continue", "restart".
        version, migrate: the states' version; `migrate[v]` makes a state of version v + 1 from one of version v.

        Raises what the job raises, with a note on how to go on; NotAJobError, StateParameterError, AsyncJobError,
        NotACheckpointError, UnsavableStateError, RunLockedError, ChangedArgumentsError, VersionError, UnstableArgumentError,
        DriverKeywordError, ForkedError, StorageError and its kinds; Preempted.
        """
        _refuse_inside_loop()
        identity, request = self._prepare(job, args, name, fresh, once, on_change, version, migrate, unknown)
        _refuse_async(identity)
        opened = open_run(self._open(), identity, self._settings, request)
        if isinstance(opened, Answer):
            return cast(R, opened.value)
        with self._entered(opened) as run:
            generator = _make_generator(job, args, run)
            with _closing(generator):
                value = drive(generator, run.write, run)
            run.finish(value)
        return cast(R, value)

    def interleave(self, jobs: Sequence[Callable[[], Generator[Checkpoint[Any], None, R]]]) -> list[R]:
        """Run several jobs in this thread, one checkpoint each in turn; gives back what they return, in order.

        Bind arguments with functools.partial. An exception of one stops all; each goes on from its own last checkpoint.
        """
        _refuse_inside_loop()
        home = self._open()
        values: dict[int, Any] = {}
        with ExitStack() as stack:
            going: dict[int, tuple[Any, LiveRun]] = {}
            for place, job in enumerate(jobs):
                identity, request = self._prepare(job, (), None, False, False, "error", None, None, {})
                _refuse_async(identity)
                opened = open_run(home, identity, self._settings, request)
                if isinstance(opened, Answer):
                    values[place] = opened.value
                    continue
                run = stack.enter_context(self._entered(opened))
                run.blamed = False
                going[place] = stack.enter_context(_closing(_make_generator(job, (), run))), run
            while going:
                for place, (generator, run) in list(going.items()):
                    run.blamed = True
                    more, value = step(generator, run.write, run)
                    if not more:
                        run.finish(value)
                    run.blamed = False
                    if not more:
                        values[place] = value
                        del going[place]
        return [values[place] for place in range(len(jobs))]

    @overload
    async def arun(
        self, job: Callable[[*Ts], AsyncGenerator[Checkpoint[Any], None]], *args: *Ts, name: str | None = None,
        fresh: bool = False, once: bool = False, on_change: OnChange = "error", version: int | None = None,
        migrate: Migrations | None = None, **unknown: Never,
    ) -> None: ...
    @overload
    async def arun(
        self, job: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts, name: str | None = None, fresh: bool = False,
        once: bool = False, on_change: OnChange = "error", version: int | None = None, migrate: Migrations | None = None,
        **unknown: Never,
    ) -> R: ...
    async def arun(  # type: ignore[misc] # mypy does not see that *args: Any takes every *args: *Ts
        self, job: Callable[..., Any], *args: Any, name: str | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", version: int | None = None, migrate: Migrations | None = None, **unknown: Any,
    ) -> Any:
        """`run` for async generators that yield checkpoints (they return None) and coroutines that await them.

        A coroutine's child tasks may await checkpoints too: each saves the state it was given.
        """
        identity, request = self._prepare(job, args, name, fresh, once, on_change, version, migrate, unknown)
        if inspect.isgeneratorfunction(identity.function):
            raise _is_plain(identity.job)
        opened = open_run(self._open(), identity, self._settings, request)
        if isinstance(opened, Answer):
            return opened.value
        with self._entered(opened) as run:
            made = job(*args, state=run.state())
            value = None
            token = _saving_to.set(run)
            try:
                if inspect.isasyncgen(made):
                    await _drive_async(made, run)
                elif inspect.iscoroutine(made):
                    value = await made
                else:
                    raise _not_async(made, identity.job)
            finally:
                _saving_to.reset(token)
            run.finish(value)
        return value

    def batch(self, name: str) -> AbstractContextManager[None]:
        """Runs that finish inside the block are not run again, and give back their value, until the block has ended well.

        For a script of several jobs: after a crash in the second, the first is not repeated. Raises RunLockedError.
        """
        return batch(self._open(), name)

    def _prepare(
        self, job: Callable[..., Any], args: tuple[Any, ...], name: str | None, fresh: bool, once: bool, on_change: OnChange,
        version: int | None, migrate: Migrations | None, unknown: dict[str, Any],
    ) -> tuple[Identity, Request]:
        if fresh and once:
            raise ValueError("fresh=True begins another run and once=True avoids one: give one of them")
        if on_change not in ("error", "continue", "restart"):
            raise ValueError(f'on_change is "error", "continue" or "restart", not {on_change!r}')
        if migrate and version is None:
            raise ValueError("migrate= needs version=, the version that the job's states have now")
        call = {"name": name, "fresh": fresh, "once": once, "version": version, "migrate": migrate}
        given = {keyword for keyword, value in call.items() if value not in (None, False)}
        given |= {"on_change"} if on_change != "error" else set()
        registry = self._settings.codec.registry
        identity = identify(job, args, unknown, name=name, registry=registry, given=given)
        return identity, Request(fresh, once, on_change, version, migrate, current_batch.get())

    @contextmanager
    def _entered(self, run: LiveRun) -> Iterator[LiveRun]:
        with run:
            if self._preemption is None:
                yield run
                return
            self._preemption.add(run)
            try:
                yield run
            finally:
                self._preemption.remove(run)

    # ---- reports

    def runs(self) -> list[reports.RunInfo]:
        """All runs in the directory, the one begun last first."""
        return reports.every_run(self._open(), self._settings.codec)

    def info(self, name: Handle, *, run: int | None = None) -> reports.RunInfo:
        """One run, by name or by the job itself; `run` picks an older one by number. Raises RunNotFoundError."""
        return self._view(name, run).info()

    def state(self, name: Handle, at: int | None = None, *, run: int | None = None) -> Any:
        """The state of the last checkpoint, or of checkpoint `at`. Raises StateGoneError outside the window."""
        return reports.state_at(self._view(name, run), at)

    def history(self, name: Handle, *, run: int | None = None) -> list[reports.StateRecord]:
        """The checkpoints that are kept, ascending."""
        return reports.history(self._view(name, run))

    def results(self, name: Handle, *, run: int | None = None) -> reports.Results:
        """What `checkpoint(..., result=...)` appended, in order, read as it is asked for."""
        return reports.Results(self._view(name, run))

    def failure(self, name: Handle, *, run: int | None = None) -> Failure | None:
        """How the run last failed, or None."""
        return self._view(name, run).failure()

    def clear(self, name: Handle) -> int:
        """Forget every run of this name; gives back how many there were. Raises RunLockedError while one is running."""
        home = self._open()
        return sum(forget(home, each) for each in self._names(home, name))

    def _names(self, home: Home, handle: Handle) -> list[str]:
        label, whole = name_of(handle)
        if whole and (isinstance(handle, str) or reports.has(home, label)):
            return [label]
        return reports.names_of_job(home, label, self._settings.codec) or [label]

    def _view(self, handle: Handle, number: int | None) -> reports.View:
        home = self._open()
        return reports.find(home, self._names(home, handle)[0], number, self._settings.codec)


# ---- the job


def _make_generator(job: Callable[..., Any], args: tuple[Any, ...], run: LiveRun) -> Generator[Any, Any, Any]:
    made = job(*args, state=run.state())
    if inspect.isgenerator(made) or isinstance(made, Generator):
        return made
    if inspect.iscoroutine(made):
        made.close()
        raise _is_async(run.identity)
    if inspect.isasyncgen(made):
        raise _is_async(run.identity)
    raise NotAJobError(
        f"{run.identity.job} made a {type(made).__name__}, not a generator: a job yields checkpoint(state) "
        f"(is a `yield` missing, or hidden behind a decorator?)", job=run.identity.job,
    )


def _refuse_async(identity: Identity) -> None:
    if inspect.iscoroutinefunction(identity.function) or inspect.isasyncgenfunction(identity.function):
        raise _is_async(identity)


def _is_async(identity: Identity) -> AsyncJobError:
    return AsyncJobError(f"{identity.job} is async: use `await driver.arun(...)`", job=identity.job)


def _not_async(made: object, job: str) -> AsyncJobError | NotAJobError:
    if inspect.isgenerator(made):
        return _is_plain(job)
    return NotAJobError(
        f"{job} made a {type(made).__name__}: arun takes async generators and coroutine functions", job=job
    )


def _is_plain(job: str) -> AsyncJobError:
    return AsyncJobError(f"{job} is a plain generator: use `driver.run(...)`", job=job)


def _refuse_inside_loop() -> None:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:     # then no loop can be running, and a program without one need not load it
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RunningLoopError(
        "driver.run would block the event loop that runs here: use `await driver.arun(...)` for an async job, or "
        "`await asyncio.to_thread(driver.run, job, ...)` for a plain one"
    )


@contextmanager
def _closing(generator: Generator[Any, Any, Any]) -> Iterator[Generator[Any, Any, Any]]:
    try:
        yield generator
    except BaseException as error:
        # Whatever stopped it, its `finally` blocks run now, not when the collector comes by.
        try:
            generator.close()
        except RuntimeError as refusal:
            _note_yield(error, refusal)
        raise


def _note_yield(error: BaseException, refusal: RuntimeError) -> None:
    """A job that yields while it is closed must not hide what stopped it; any other exception of its own comes out."""
    trace = refusal.__traceback__
    if trace is None or trace.tb_next is not None:
        raise refusal
    take_unyielded()        # it is said here
    error.add_note("resumable: the job yields while it is being closed (in a `finally` block?): that is not saved")


async def _drive_async(job: AsyncGenerator[Any, Any], run: LiveRun) -> None:
    try:
        async for made in job:
            if type(made) is not Checkpoint:
                run.refuse(made)
            elif not take_checkpoint(run.write, made):
                await run.save_in_loop(made)
    except BaseException as error:
        try:
            await job.aclose()
        except RuntimeError as refusal:
            _note_yield(error, refusal)
        raise


__all__ = ["Driver", "RunLockedError"]
