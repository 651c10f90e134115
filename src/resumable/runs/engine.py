"""What a Driver runs on, loaded at its first use: the directory it has open, and how a call becomes a run or a report."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import Any

from resumable._fastlog import drive, set_saver, step
from resumable.runs import reports
from resumable.runs.batch import batch, current_batch
from resumable.runs.forget import forget
from resumable.runs.identity import Identity, identify, name_of
from resumable.runs.jobs import closing, drive_async, is_plain, make_generator, not_async, refuse_async, refuse_inside_loop
from resumable.runs.live import LiveRun, open_run
from resumable.runs.mapped import results_of
from resumable.runs.opening import Answer
from resumable.runs.preempt import DEFAULT, preemptible, watch
from resumable.runs.resources import Resources, check_marks
from resumable.runs.settings import Request, Settings
from resumable.storage.home import MEMORY, Home, open_home
from resumable.values.codec import Codec
from resumable.values.registry import Registry

Handle = str | Callable[..., Any]
Job = Callable[..., Any]

_saving_to: ContextVar[LiveRun | None] = ContextVar("the run that an awaited checkpoint saves to", default=None)
set_saver(_saving_to)
_Given = Resources | nullcontext[dict[str, Any]]
_NONE: _Given = nullcontext({})


class Engine:
    """One Driver's use of a state directory, in one process."""

    def __init__(self, path: str, options: dict[str, Any], registry: Registry) -> None:
        """`options` are the Driver's own keywords, checked; `registry` has its reconnectors."""
        options = dict(options)
        preempt = options.pop("preempt")
        self._signals = DEFAULT if preempt is True else tuple(preempt or ())
        self._factories = options.pop("resources")
        self._settings = Settings(codec=Codec(options.pop("codec"), registry), **options)
        self._path = path
        self._home: Home | None = None
        self._turn = threading.Lock()

    @property
    def home(self) -> Home:
        """The directory, opened when it is first needed: a call that is refused leaves nothing. Raises StorageError."""
        with self._turn:
            if self._home is None:
                self._home = open_home(None if self._path == MEMORY else Path(self._path))
            return self._home

    def close(self) -> None:
        """Sync and give the directory back."""
        with self._turn:
            if self._home is not None:
                self._home.close()

    # ---- running

    def run(self, job: Job, args: tuple[Any, ...], call: dict[str, Any], unknown: dict[str, Any]) -> Any:
        """`Driver.run`."""
        refuse_inside_loop()
        identity, request = self._prepare(job, args, call, unknown)
        refuse_async(identity)
        opened = open_run(self.home, identity, self._settings, request)
        if isinstance(opened, Answer):
            return opened.value
        with self._entered(opened) as run:
            with self._resources(run) as given:
                generator = make_generator(job, args, given, run)
                with closing(generator):
                    value = drive(generator, run.write, run)
            run.finish(value)
        return value

    def begin(self, identity: Identity, call: dict[str, Any], about: dict[str, Any]) -> LiveRun | Answer:
        """A run whose steps the caller takes, and which he ends: `finish`, `end_with` or `leave`, then `forget`."""
        opened = open_run(self.home, identity, self._settings, replace(self._request(call), about=about))
        if isinstance(opened, LiveRun):
            watch(opened, self._signals)
        return opened

    @property
    def registry(self) -> Registry:
        """What the driver knows of live resources."""
        return self.codec.registry

    @property
    def codec(self) -> Codec:
        """How the driver's runs encode."""
        return self._settings.codec

    def interleave(self, jobs: Sequence[Job]) -> list[Any]:
        """`Driver.interleave`."""
        refuse_inside_loop()
        if not isinstance(jobs, Sequence):
            raise TypeError(f"interleave takes a sequence of jobs, [job, ...], not {type(jobs).__name__}")
        values: dict[int, Any] = {}
        with ExitStack() as stack:
            going: dict[int, tuple[Any, LiveRun, _Given]] = {}
            for place, job in enumerate(jobs):
                identity, request = self._prepare(job, (), {}, {})
                refuse_async(identity)
                opened = open_run(self.home, identity, self._settings, request)
                if isinstance(opened, Answer):
                    values[place] = opened.value
                    continue
                run = stack.enter_context(self._entered(opened))
                resources = self._resources(run)
                given = stack.enter_context(resources)
                run.blamed = False
                going[place] = stack.enter_context(closing(make_generator(job, (), given, run))), run, resources
            while going:
                for place, (generator, run, resources) in list(going.items()):
                    run.blamed = True
                    more, value = step(generator, run.write, run)
                    if not more:
                        resources.__exit__(None, None, None)    # those of the others stay open
                        run.finish(value)
                        values[place] = value
                        del going[place]
                    run.blamed = False
        return [values[place] for place in range(len(jobs))]

    async def arun(self, job: Job, args: tuple[Any, ...], call: dict[str, Any], unknown: dict[str, Any]) -> Any:
        """`Driver.arun`."""
        identity, request = self._prepare(job, args, call, unknown)
        if inspect.isgeneratorfunction(identity.function):
            raise is_plain(identity.job)
        opened = open_run(self.home, identity, self._settings, request)
        if isinstance(opened, Answer):
            return opened.value
        with self._entered(opened) as run:
            async with self._resources(run) as given:
                made = job(*args, **given, state=await run.state_in_loop())
                value = None
                token = _saving_to.set(run)
                try:
                    if inspect.isasyncgen(made):
                        await drive_async(made, run)
                    elif inspect.iscoroutine(made):
                        value = await made
                    else:
                        raise not_async(made, identity.job)
                finally:
                    _saving_to.reset(token)
            run.finish(value)
        return value

    def batch(self, name: str) -> AbstractContextManager[None]:
        """`Driver.batch`."""
        return batch(self.home, name)

    def _prepare(
        self, job: Job, args: tuple[Any, ...], call: dict[str, Any], unknown: dict[str, Any]
    ) -> tuple[Identity, Request]:
        """The run that is meant and what is asked of it. `call` holds the keywords of `run` that are not at their default."""
        options = dict(call)
        name = options.pop("name", None)
        request = self._request(options)
        registry = self._settings.codec.registry
        identity = identify(job, args, unknown, name=name, registry=registry, given=set(call))
        if identity.marked:
            check_marks(identity, self._factories)
        return identity, request

    def _request(self, call: dict[str, Any]) -> Request:
        """What is asked of a run by these keywords."""
        request = Request(**call, batch=current_batch.get())
        if request.fresh and request.once:
            raise ValueError("fresh=True begins another run and once=True avoids one: give one of them")
        if request.on_change not in ("error", "continue", "restart"):
            raise ValueError(f'on_change is "error", "continue" or "restart", not {request.on_change!r}')
        if request.version is not None:
            if not isinstance(request.version, int) or isinstance(request.version, bool):
                raise TypeError(f"version is an int of 0 or more, or None, not {request.version!r}")
            if request.version < 0:
                raise ValueError(f"version is 0 or more, not {request.version}")
        if request.migrate and request.version is None:
            raise ValueError("migrate= needs version=, the version that the job's states have now")
        return request

    @contextmanager
    def _entered(self, run: LiveRun) -> Iterator[LiveRun]:
        # Around the run: a signal that ends the process must not come between the run and what it keeps of a failure.
        with preemptible(run, self._signals) if self._signals else nullcontext(), run:
            yield run

    def _resources(self, run: LiveRun) -> _Given:
        """What the job's marked parameters are given, as keywords, for as long as it runs."""
        return Resources(run.identity, self._factories, run.inject) if run.identity.marked else _NONE

    # ---- reports

    def runs(self) -> list[reports.RunInfo]:
        """`Driver.runs`."""
        return reports.every_run(self.home, self._settings.codec)

    def view(self, handle: Handle, number: int | None) -> reports.View:
        """The run that a report is asked for. Raises RunNotFoundError."""
        return reports.find(self.home, self._names(handle)[0], number, self._settings.codec)

    def state(self, handle: Handle, at: int | None, number: int | None) -> Any:
        """`Driver.state`."""
        return reports.state_at(self.view(handle, number), at)

    def last_state(self, name: str) -> Any:
        """The state of the newest run's last checkpoint as its job would get it, None if it has none."""
        view = self.view(name, None)
        entry = view.last_state()
        return None if entry is None else self.codec.decode(*view.encoded(entry))

    def history(self, handle: Handle, number: int | None) -> list[reports.StateRecord]:
        """`Driver.history`."""
        return reports.history(self.view(handle, number))

    def results(self, handle: Handle, number: int | None) -> reports.Results:
        """`Driver.results`."""
        return results_of(self.view(handle, number), lambda earlier: self.view(handle, earlier))

    def clear(self, handle: Handle) -> int:
        """`Driver.clear`."""
        return sum(forget(self.home, name) for name in self._names(handle))

    def _names(self, handle: Handle) -> list[str]:
        label, whole = name_of(handle)
        codec = self._settings.codec
        if whole and (isinstance(handle, str) or reports.has(self.home, label, codec)):
            return [label]
        return reports.names_of_job(self.home, label, codec) or [label]
