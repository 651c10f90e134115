"""Where a loop goes on: behind the items that are done, told by samples to be those that they were."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from resumable._fastlog import LoopIterator
from resumable.errors import ChangedItemsError
from resumable.values.registry import Registry
from resumable.work import samples
from resumable.work.again import Again
from resumable.work.samples import Samples

AnyItems = Iterable[Any] | AsyncIterable[Any]

_BEGUN = "resumable: an iterator that was begun cannot begin anew: give it again, with fresh=True"


class Restart(Exception):
    """The items are others, and the loop is to begin anew."""


class Position:
    """A loop's items, and what is known of them. `on_change`: what other items mean."""

    def __init__(self, items: AnyItems, name: str, registry: Registry, on_change: str) -> None:
        self.samples = Samples(None, {})
        self._items, self._name, self._registry, self._on_change = items, name, registry, on_change
        self._given = self.samples

    def look(self) -> Samples:
        """What can be told of the items before they are gone through."""
        self._given = samples.taken(self._items, self._registry)
        return self._given

    def compare(self, recorded: Samples, done: int) -> Samples:
        """Tell a sequence from what is recorded; gives back what counts. Raises ChangedItemsError, Restart."""
        if self._on_change == "continue":
            recorded = Samples(None, {})
        with self._judging():
            if isinstance(self._items, Sequence):
                samples.check_sequence(recorded, self._items, done, self._name, self._registry)
        self.samples = self._given if self._given.digests else recorded
        return recorded

    def behind(self, items: Iterable[Any], recorded: Samples, done: int, again: Again) -> Iterator[Any]:
        """The items that are left; those that are to be done again are kept on the way. Raises ChangedItemsError, Restart."""
        source = iter(items)
        if isinstance(items, Sequence) and hasattr(source, "__setstate__"):
            source.__setstate__(done)
            return source
        at, passed = 0, again.picked(source) if again.left else source
        with self._judging():
            for index in sorted(place for place in recorded.digests if place < done):
                samples.skip(passed, index - at, done, self._name)
                for item in islice(passed, 1):
                    samples.check(index, recorded.digests[index], item, self._name, self._registry)
                at = index + 1
            samples.skip(passed, done - at, done, self._name)
        return source

    async def behind_in_loop(self, done: int, again: Again) -> AsyncIterator[Any]:
        """The same for an asynchronous source."""
        assert isinstance(self._items, AsyncIterable)
        source = aiter(self._items)
        compared = {} if self._on_change == "continue" else self.samples.digests
        with self._judging():
            for index in range(done):
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    raise samples.changed(self._name, f"{done} were done, and now there are fewer", done) from None
                again.pass_by(index, item)
                if index in compared:
                    samples.check(index, compared[index], item, self._name, self._registry)
        return source

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Inside, other items begin the loop anew if that is what they mean, and they can be gone through from the start."""
        try:
            yield
        except ChangedItemsError as error:
            if self._on_change != "restart":
                raise
            if isinstance(self._items, Iterator | AsyncIterator):
                error.add_note(_BEGUN)
                raise
            raise Restart from None

    # ---- samples of what can only be gone through

    def sample_from(self, iterator: LoopIterator) -> None:
        """Have the iterator show the items of which a digest is to be kept."""
        if not isinstance(self._items, Sequence):
            later = [4 * place for place in self.samples.digests]
            iterator.sample_from(max(samples.FIRST_LATER, *later) if later else 0)

    def sample(self, index: int, item: object) -> bool:
        """Keep an item's digest; whether there was none."""
        if index in self.samples.digests:
            return False
        self.samples = self.samples.with_item(index, item, self._registry)
        return True
