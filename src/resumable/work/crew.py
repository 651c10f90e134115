"""Who calls a map's function: this thread, somebody else's executor, or tasks in an event loop; workers.py has processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from typing import Any, Protocol

from resumable.errors import BrokenExecutorError
from resumable.values.codec import Codec
from resumable.values.registry import Registry
from resumable.work.workers import Carried, Outcome


class Crew(Protocol):
    """Calls the function on the items that it is handed."""

    @property
    def room(self) -> bool:
        """Whether it takes another item now."""

    @property
    def busy(self) -> bool:
        """Whether it has items."""

    def submit(self, index: int, item: object) -> None:
        """Take an item, by its index."""

    def wait(self, timeout: float | None) -> list[Outcome]:
        """What has come of items, after at most so many seconds. Each outcome is told once."""

    def recall(self) -> None:
        """Forget the items that nobody has begun with."""

    def stop(self, *, now: bool) -> None:
        """No more items will come; `now`: nor is anybody waited for."""


class Inline:
    """Calls it here, one item after the other."""

    def __init__(self, fn: Callable[[Any], Any]) -> None:
        self._fn = fn
        self._next: tuple[int, Any] | None = None

    @property
    def room(self) -> bool:
        return self._next is None

    @property
    def busy(self) -> bool:
        return self._next is not None

    def submit(self, index: int, item: object) -> None:
        self._next = index, item

    def wait(self, timeout: float | None) -> list[Outcome]:
        if self._next is None:
            time.sleep(timeout or 0)
            return []
        (index, item), self._next = self._next, None
        try:
            return [Outcome(index, self._fn(item), None)]
        except Exception as error:  # noqa: BLE001 - for the policy to judge
            return [Outcome(index, None, error)]

    def recall(self) -> None:
        self._next = None

    def stop(self, *, now: bool) -> None:
        pass


class Pooled:
    """Has an executor call it, whose owner keeps it; at most `limit` items are in its hands."""

    def __init__(self, fn: Callable[[Any], Any], executor: Executor, limit: int | None, run: str, registry: Registry) -> None:
        self._executor, self._run = executor, run
        self._codec = Codec("auto", registry) if isinstance(executor, ProcessPoolExecutor) else None
        self._fn = fn if self._codec is None else Carried(fn, registry)
        # Twice as many as there are workers: none waits for this thread.
        self._limit = limit or 2 * (getattr(executor, "_max_workers", None) or os.cpu_count() or 1)
        self._futures: dict[Future[Any], int] = {}

    @property
    def room(self) -> bool:
        return len(self._futures) < self._limit

    @property
    def busy(self) -> bool:
        return bool(self._futures)

    def submit(self, index: int, item: object) -> None:
        try:
            self._futures[self._executor.submit(self._fn, item)] = index
        except BrokenExecutor as error:
            raise self._broken() from error

    def wait(self, timeout: float | None) -> list[Outcome]:
        if not self._futures:
            time.sleep(timeout or 0)
        done = wait(self._futures, timeout, FIRST_COMPLETED).done
        # Those of a broken executor last, so that what is done is saved before.
        return sorted((self._outcome(future) for future in done), key=lambda outcome: type(outcome.error) is BrokenExecutorError)

    def _outcome(self, future: Future[Any]) -> Outcome:
        index = self._futures.pop(future)
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            broken = self._broken()
            broken.__cause__ = error
            return Outcome(index, None, broken)
        if error is not None:
            return Outcome(index, None, error)
        return Outcome(index, future.result() if self._codec is None else self._codec.decode(*future.result()), None)

    def _broken(self) -> BrokenExecutorError:
        return BrokenExecutorError(
            f"the executor given to {self._run!r} is broken, a worker has died: results that it had given are saved (call again "
            f"with another executor to go on; an int, executor={self._limit // 2 or 1}, makes workers that are replaced)",
            run=self._run,
        )

    def recall(self) -> None:
        self._futures = {future: index for future, index in self._futures.items() if not future.cancel()}

    def stop(self, *, now: bool) -> None:
        self.recall()


class Tasks:
    """Awaits it in the running event loop, on at most `limit` items at once; as a Crew, but for what is awaited."""

    def __init__(self, fn: Callable[[Any], Awaitable[Any]], limit: int) -> None:
        self._fn, self._limit = fn, limit
        self._tasks: dict[asyncio.Future[Any], int] = {}

    @property
    def room(self) -> bool:
        return len(self._tasks) < self._limit

    @property
    def busy(self) -> bool:
        return bool(self._tasks)

    def submit(self, index: int, item: object) -> None:
        self._tasks[asyncio.ensure_future(self._fn(item))] = index

    async def wait(self, timeout: float | None) -> list[Outcome]:
        if not self._tasks:
            await asyncio.sleep(timeout or 0)
            return []
        done, _ = await asyncio.wait(self._tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return [self._outcome(task) for task in done]

    def _outcome(self, task: asyncio.Future[Any]) -> Outcome:
        index = self._tasks.pop(task)
        if task.cancelled():
            return Outcome(index, None, asyncio.CancelledError())
        error = task.exception()
        return Outcome(index, None if error is not None else task.result(), error)

    def cancel(self) -> None:
        """Break off what goes on."""
        for task in self._tasks:
            task.cancel()
