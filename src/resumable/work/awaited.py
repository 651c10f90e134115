"""`async for` over a loop's items, from a source of either kind."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterator
from typing import Any, Generic, TypeVar, cast

from resumable._fastlog import LoopIterator
from resumable.work.consumers import is_an_async_for
from resumable.work.loop import Loop
from resumable.work.position import AnyItems

T = TypeVar("T")


class AwaitedItems(Generic[T]):
    """What an `async for` holds; dropped, the loop was left. `size`: items come in lists of that many if it is above 0."""

    __slots__ = ("_from_async", "_iterator", "_loop", "_over", "_size", "_source")

    def __init__(self, loop: Loop, items: AnyItems, size: int = 0) -> None:
        self._loop, self._size = loop, size
        self._from_async = isinstance(items, AsyncIterable)
        self._iterator = LoopIterator(loop, loop.marks)     # nobody else holds it, so that it is dropped with this
        self._source: AsyncIterator[T] | Iterator[T] | None = None
        self._over = False

    def __aiter__(self) -> AwaitedItems[T]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T]:
        begun = self._source is not None or self._over
        return self._next(begun or is_an_async_for(self, sys._getframe(1), self._loop.body))

    async def _next(self, known: bool) -> T:
        if self._over:
            raise StopAsyncIteration
        marks = self._loop.marks
        if self._source is None:
            self._loop.claim()
        try:
            if self._source is None:
                self._source = await self._begun(known)
                self._iterator.waits_for(self._source)
            elif marks.again:
                return cast(T, self._iterator.give_again(not self._size))
            elif not self._iterator.finished():
                await self._loop.save_in_loop(marks.done_next())
                marks.count()
            items = self._loop.redo(max(self._size, 1)) if marks.redoing else None
            if items is None:
                items = await self._taken(self._source)
        except BaseException as error:
            self._over = True
            self._iterator.close(error)
            raise
        if not items:
            self._over = True
            self._iterator.close()
            raise StopAsyncIteration
        given: T = self._iterator.hand(items, not self._size)
        return given

    async def _begun(self, known: bool) -> AsyncIterator[T] | Iterator[T]:
        source: AsyncIterator[T] | Iterator[T] = self._loop.begin(self._iterator, known)
        if self._from_async:
            source = await self._loop.open_in_loop()
        self._loop.watch.begin(self._loop.run, self._loop.marks)
        return source

    async def _taken(self, source: AsyncIterator[T] | Iterator[T]) -> list[T]:
        """The next items, fewer at the end."""
        items: list[T] = []
        while len(items) < max(self._size, 1):
            try:
                items.append(await anext(source) if isinstance(source, AsyncIterator) else next(source))
            except (StopIteration, StopAsyncIteration):
                break
        return items
