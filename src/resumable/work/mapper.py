"""The Driver's ways to call a function for each item."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from resumable.runs import driver

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from resumable.backoff import Backoff
    from resumable.runs.progress import Progress
    from resumable.runs.settings import OnChange
    from resumable.work.maps import Map
    from resumable.work.policy import OnError

T = TypeVar("T")
R = TypeVar("R")


class Mapper(driver.Driver):
    """What a Driver is to `map`."""

    @overload
    def map(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], *, name: str,
        executor: None = None, concurrency: int | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", max_attempts: int | None = None, on_error: OnError | None = None,
        backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Sequence[R]: ...
    @overload
    def map(
        self, fn: Callable[[T], R], items: Iterable[T], *, name: str,
        executor: int | Executor | None = None, concurrency: int | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", max_attempts: int | None = None, on_error: OnError | None = None,
        backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Sequence[R]: ...
    def map(
        self, fn: Callable[[Any], Any], items: Iterable[Any], *, name: str,
        executor: int | Executor | None = None, concurrency: int | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", max_attempts: int | None = None, on_error: OnError | None = None,
        backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Sequence[Any]:
        """Call the function on each item, to the end; gives back the results in the order of the items, read when asked for.

        fn: a function of one item, or an async one. Its results are saved, each with its item's mark: what has been done is
            not done again after a crash, which repeats at most the items that were in flight.
        items: as for `items`; never asked for more than there is room for.
        name: the run's name; `driver.results(name)` has the results, too.
        executor: None, one item after the other, here; a number of processes of our own, one item each: a worker that dies is
            replaced and its item is done again; or an executor of your own, which stays open. What goes to processes must be
            such that it can be saved, and the main script such that it can be imported.
        concurrency: how many items are in flight at most: of an async function (16), or in an executor of your own (twice as
            many as it has workers).
        fresh, once, on_change: as for `items`.
        max_attempts: tries of an item, over all lives, before it becomes a DeadLetter, which stands for its result; None: the
            first exception stops the map, once what is in flight has been done and saved.
        on_error: `on_error(item, exc, attempt)` answers "retry", "skip" (the result is None), "dead_letter" or "fail".
        backoff: seconds before an attempt, by the number of those that have failed: see `resumable.backoff`.
        progress, verbose: as for `items`.

        Raises what the function raises, with a note on the item; UnsavableStateError for a result or an item that cannot be
        saved or sent; WorkerDiedError, WorkerStartError, WorkerError, BrokenExecutorError; RunningLoopError for an async
        function inside an event loop: there, `await driver.amap(...)`; and what `items` raises.
        """
        made = self._map(
            fn, items, name, executor=executor, concurrency=concurrency, fresh=fresh, once=once, on_change=on_change,
            max_attempts=max_attempts, on_error=on_error, backoff=backoff, progress=progress, verbose=verbose,
        )
        return made.run()

    @overload
    def map_unordered(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], *, name: str,
        executor: None = None, concurrency: int | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", max_attempts: int | None = None, on_error: OnError | None = None,
        backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Iterator[R]: ...
    @overload
    def map_unordered(
        self, fn: Callable[[T], R], items: Iterable[T], *, name: str,
        executor: int | Executor | None = None, concurrency: int | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", max_attempts: int | None = None, on_error: OnError | None = None,
        backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Iterator[R]: ...
    def map_unordered(
        self, fn: Callable[[Any], Any], items: Iterable[Any], *, name: str,
        executor: int | Executor | None = None, concurrency: int | None = None, fresh: bool = False, once: bool = False,
        on_change: OnChange = "error", max_attempts: int | None = None, on_error: OnError | None = None,
        backoff: Backoff | None = None, progress: Progress = None, verbose: bool = False,
    ) -> Iterator[Any]:
        """`map` that gives out each result as it comes, once it is saved; a resume gives out those of earlier lives first.

        Nothing happens before the first is asked for, and no more items are begun than are asked for and in flight, so `items`
        may be infinite. Whoever leaves the iterator leaves the map; the next call goes on. What an item was is for the
        function to say: `return item, value`.
        """
        made = self._map(
            fn, items, name, executor=executor, concurrency=concurrency, fresh=fresh, once=once, on_change=on_change,
            max_attempts=max_attempts, on_error=on_error, backoff=backoff, progress=progress, verbose=verbose,
        )
        return made.values()

    async def amap(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], *, name: str,
        concurrency: int | None = None, fresh: bool = False, once: bool = False, on_change: OnChange = "error",
        max_attempts: int | None = None, on_error: OnError | None = None, backoff: Backoff | None = None,
        progress: Progress = None, verbose: bool = False,
    ) -> Sequence[R]:
        """`map` of an async function in the running event loop. Cancelled, it cancels what is in flight, and keeps the rest."""
        made = self._map(
            fn, items, name, concurrency=concurrency, fresh=fresh, once=once, on_change=on_change,
            max_attempts=max_attempts, on_error=on_error, backoff=backoff, progress=progress, verbose=verbose,
        )
        made.refuse_plain()
        return await made.run_in_loop()

    def amap_unordered(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], *, name: str,
        concurrency: int | None = None, fresh: bool = False, once: bool = False, on_change: OnChange = "error",
        max_attempts: int | None = None, on_error: OnError | None = None, backoff: Backoff | None = None,
        progress: Progress = None, verbose: bool = False,
    ) -> AsyncIterator[R]:
        """`map_unordered` of an async function, in the running event loop: `async for result in driver.amap_unordered(...)`."""
        made = self._map(
            fn, items, name, concurrency=concurrency, fresh=fresh, once=once, on_change=on_change,
            max_attempts=max_attempts, on_error=on_error, backoff=backoff, progress=progress, verbose=verbose,
        )
        made.refuse_plain()
        return made.values_in_loop()

    def _map(
        self, fn: Callable[[Any], Any], items: Iterable[Any], name: str, *, executor: Any = None,
        concurrency: int | None = None, fresh: bool = False, once: bool = False, on_change: OnChange = "error",
        max_attempts: int | None = None, on_error: OnError | None = None, backoff: Backoff | None = None,
        progress: Progress = None, verbose: bool = False,
    ) -> Map:
        # Here, so that importing the package stays light.
        from resumable.work.maps import Map
        from resumable.work.policy import Policy

        call = driver.given(fresh=fresh, once=once, on_change=on_change)
        policy = Policy(max_attempts, on_error, backoff)
        return Map(self._open(), fn, items, name, call, policy, executor, concurrency, progress, verbose)
