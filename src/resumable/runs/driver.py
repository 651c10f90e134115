"""The Driver: runs jobs in one state directory, and tells what is in it."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar, TypeVarTuple, cast, overload

from resumable._fastlog import Checkpoint, fork_count
from resumable.errors import DriverClosedError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from resumable.runs.engine import Engine, Handle
    from resumable.runs.failure import Failure
    from resumable.runs.reports import Results, RunInfo, StateRecord
    from resumable.runs.settings import Durability, Migrations, OnChange
    from resumable.values.registry import Reconnector, Registry

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


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
    resources: factories by name, for the parameters of jobs that are marked `= resource(name)`. One is called when such a
        run starts; it may be a coroutine function, and give a context manager. What it made is closed when the run ends.

    A Driver is thread-safe and a context manager. Several on one directory, in one process or many, share it.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, durability: Durability = "process", sync_every: float = 1.0,
        save_every: int = 1, keep_states: int | None = 1000, keep_runs: int = 20, codec: Literal["auto", "plain"] = "auto",
        rng: bool = False, preempt: bool | Sequence[int] | None = None, failure_locals: bool = True,
        resources: Mapping[str, Callable[[], Any]] | None = None,
    ) -> None:
        if path is not None and not os.fspath(path):
            raise ValueError("path is a directory, not empty (None stands for RESUMABLE_HOME, else .resumable)")
        if path is not None and not isinstance(os.fspath(path), str):
            raise TypeError(f"path is a str or a path of str, not {path!r}")
        if durability not in ("process", "disk"):
            raise ValueError(f'durability is "process" or "disk", not {durability!r}')
        if not _is_number(sync_every, int | float):
            raise TypeError(f"sync_every is a number of seconds, not {sync_every!r}")
        if not 0 < sync_every <= threading.TIMEOUT_MAX:
            raise ValueError(f"sync_every is a number of seconds above 0, not {sync_every!r}")
        counts = {"save_every": save_every, "keep_states": 1 if keep_states is None else keep_states, "keep_runs": keep_runs}
        for what, count in counts.items():
            or_all = ", or None for all" if what == "keep_states" else ""
            if not _is_number(count, int):
                raise TypeError(f"{what} is an int{or_all}, not {count!r}")
            if count < 1:
                raise ValueError(f"{what} is at least 1{or_all}")
        if codec not in ("auto", "plain"):
            raise ValueError(f'codec is "auto" or "plain", not {codec!r}')
        self._path = path
        self._options = {
            "durability": durability, "sync_every": float(sync_every), "save_every": save_every, "keep_states": keep_states,
            "keep_runs": keep_runs, "codec": codec, "rng": rng, "preempt": _signals(preempt), "failure_locals": failure_locals,
            "resources": _factories(resources),
        }
        self._resolved: str | None = None
        self._engine: Engine | None = None
        self._registry: Registry | None = None
        self._forks = fork_count()
        self._turn = threading.Lock()
        self._closed = False

    # ---- opening and closing

    @property
    def path(self) -> str:
        """The state directory, as it was at first use: whoever changes the working directory later keeps it."""
        if self._resolved is None:
            # Here, so that importing the package stays light.
            from resumable.storage.home import MEMORY

            path = self._path or os.environ.get("RESUMABLE_HOME") or ".resumable"
            self._resolved = MEMORY if self._path == MEMORY else os.path.abspath(path)
        return self._resolved

    def _open(self) -> Engine:
        # Here, so that importing the package stays light.
        from resumable.runs.engine import Engine

        registry = self._own_registry()
        with self._turn:
            if self._closed:
                raise DriverClosedError(f"the driver on {self.path} is closed (make another)", directory=self.path)
            if self._engine is None:
                self._engine = Engine(self.path, self._options, registry)
            return self._engine

    def _own_registry(self) -> Registry:
        # Here, so that importing the package stays light.
        from resumable.values.registry import GLOBAL, Registry

        if self._forks != fork_count():
            # A forked child has a parent's driver in its hands: it opens the directory for itself.
            self._turn, self._engine, self._forks = threading.Lock(), None, fork_count()
        with self._turn:
            if self._registry is None:
                self._registry = Registry(GLOBAL)
            return self._registry

    def sync(self) -> None:
        """Return when everything acknowledged so far, by all runs of this process in this directory, is on disk."""
        self._open().home.writer.flush_all()

    def close(self) -> None:
        """Sync and give the directory back. Closing twice is fine; a closed driver raises DriverClosedError."""
        if self._forks != fork_count():
            # What a forked child has of it is the parent's; another thread of the parent may have held the lock.
            self._engine, self._closed, self._turn, self._forks = None, True, threading.Lock(), fork_count()
        with self._turn:
            engine, self._engine = self._engine, None
            self._closed = True
        if engine is not None:
            engine.close()

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
        DriverKeywordError, UnknownResourceError, ResourceParameterError, ForkedError, StorageError and its kinds; Preempted.
        """
        call = given(name=name, fresh=fresh, once=once, on_change=on_change, version=version, migrate=migrate)
        return cast(R, self._open().run(job, args, call, unknown))

    def interleave(self, jobs: Sequence[Callable[[], Generator[Checkpoint[Any], None, R]]]) -> list[R]:
        """Run several jobs in this thread, one checkpoint each in turn; gives back what they return, in order.

        Bind arguments with functools.partial. An exception of one stops all; each goes on from its own last checkpoint.
        """
        return self._open().interleave(jobs)

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
        call = given(name=name, fresh=fresh, once=once, on_change=on_change, version=version, migrate=migrate)
        return await self._open().arun(job, args, call, unknown)

    def batch(self, name: str) -> AbstractContextManager[None]:
        """Runs that finish inside the block are not run again, and give back their value, until the block has ended well.

        For a script of several jobs: after a crash in the second, the first is not repeated. Raises RunLockedError.
        """
        return self._open().batch(name)

    # ---- live resources in states

    def register_reconnector(
        self, type: type[Any], extract: Callable[[Any], Any] | None = None, reconnect: Callable[[Any], Any] | None = None, *,
        identify: Callable[[Any], Any] | None = None, eager: bool = True, max_attempts: int = 5,
    ) -> None:
        """`resumable.register_reconnector` for this Driver alone: it comes before what is registered for all."""
        registry = self._own_registry()
        registry.register(type, extract, reconnect, identify=identify, eager=eager, max_attempts=max_attempts)

    def reconnectors(self) -> list[Reconnector]:
        """`resumable.reconnectors`, with what was registered with this Driver."""
        from resumable.values.registry import reconnectors

        return reconnectors(self._own_registry())

    # ---- reports

    def runs(self) -> list[RunInfo]:
        """All runs in the directory, the one begun last first."""
        return self._open().runs()

    def info(self, name: Handle, *, run: int | None = None) -> RunInfo:
        """One run, by name or by the job itself; `run` picks an older one by number. Raises RunNotFoundError."""
        return self._open().view(name, run).info()

    def state(self, name: Handle, at: int | None = None, *, run: int | None = None) -> Any:
        """The state of the last checkpoint, or of checkpoint `at`. Raises StateGoneError outside the window."""
        return self._open().state(name, at, run)

    def history(self, name: Handle, *, run: int | None = None) -> list[StateRecord]:
        """The checkpoints that are kept, ascending."""
        return self._open().history(name, run)

    def results(self, name: Handle, *, run: int | None = None) -> Results:
        """What `checkpoint(..., result=...)` appended, in order, read as it is asked for."""
        return self._open().results(name, run)

    def failure(self, name: Handle, *, run: int | None = None) -> Failure | None:
        """How the run last failed, or None."""
        return self._open().view(name, run).failure()

    def clear(self, name: Handle) -> int:
        """Forget every run of this name; gives back how many there were. Raises RunLockedError while one is running."""
        return self._open().clear(name)


def engine_of(driver: Driver) -> Engine:
    """What a driver runs on. Raises DriverClosedError."""
    return driver._open()


def _is_number(value: object, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _signals(preempt: object) -> bool | tuple[int, ...]:
    """`preempt`, if it is one. Raises TypeError, ValueError."""
    if preempt is None or isinstance(preempt, bool):
        return bool(preempt)
    if not isinstance(preempt, list | tuple | set | frozenset) or not all(_is_number(number, int) for number in preempt):
        raise TypeError(f"preempt is True or a sequence of signals, such as [signal.SIGTERM], not {preempt!r}")
    import signal

    for number in preempt:
        if number not in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            raise ValueError(f"preempt: no process can handle a signal {number!r}")
    return tuple(preempt)


def _factories(resources: object) -> dict[str, Callable[[], Any]]:
    """`resources`, if they are some. Raises TypeError."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources maps names to factories, {{'db': connect}}, and is no {type(resources).__name__}")
    for name, factory in resources.items():
        if not isinstance(name, str):
            raise TypeError(f"resources: a name is a str, not {name!r}")
        # Connections and context managers may be callable, and are no factories either.
        entered = any(hasattr(type(factory), method) for method in ("__enter__", "__aenter__"))
        if not callable(factory) or entered:
            raise TypeError(
                f"resources: {name!r} is a {type(factory).__name__}, not a factory (give what makes it: a function without "
                f"arguments, so that each run has its own)"
            )
    return dict(resources)


_DEFAULTS = {"name": None, "fresh": False, "once": False, "on_change": "error", "version": None, "migrate": None}


def given(**keywords: Any) -> dict[str, Any]:
    """The keywords of a call that are not at their default."""
    return {key: value for key, value in keywords.items() if value != _DEFAULTS[key]}
