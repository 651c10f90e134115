"""A job in the driver's hands: what calling it made, how it is closed, and how an async one is driven."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from resumable._fastlog import Checkpoint, take_checkpoint, take_unyielded
from resumable.errors import AsyncJobError, NotAJobError, RunningLoopError
from resumable.runs.identity import Identity
from resumable.runs.live import LiveRun


def make_generator(
    job: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any], run: LiveRun
) -> Generator[Any, Any, Any]:
    made = job(*args, **given, state=run.state())
    if inspect.isgenerator(made) or isinstance(made, Generator):
        return made
    if inspect.iscoroutine(made):
        made.close()
        raise _is_async(run.identity)
    if inspect.isasyncgen(made):
        raise _is_async(run.identity)
    raise NotAJobError(
        f"{run.identity.job} made {type(made).__name__}, not a generator: a job yields checkpoint(state) "
        f"(is a `yield` missing, or hidden behind a decorator?)", job=run.identity.job,
    )


def refuse_async(identity: Identity) -> None:
    if inspect.iscoroutinefunction(identity.function) or inspect.isasyncgenfunction(identity.function):
        raise _is_async(identity)


def _is_async(identity: Identity) -> AsyncJobError:
    return AsyncJobError(f"{identity.job} is async: use `await driver.arun(...)`", job=identity.job)


def not_async(made: object, job: str) -> AsyncJobError | NotAJobError:
    if inspect.isgenerator(made):
        return is_plain(job)
    return NotAJobError(
        f"{job} made {type(made).__name__}: arun takes async generators and coroutine functions", job=job
    )


def is_plain(job: str) -> AsyncJobError:
    return AsyncJobError(f"{job} is a plain generator: use `driver.run(...)`", job=job)


def refuse_inside_loop() -> None:
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
def closing(generator: Generator[Any, Any, Any]) -> Iterator[Generator[Any, Any, Any]]:
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


async def drive_async(job: AsyncGenerator[Any, Any], run: LiveRun) -> None:
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
