"""The results of a map whose items were done out of order, or twice: each is stored with the index of its item."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final

from resumable.runs.reports import Results, View
from resumable.values.dead_letter import DeadLetter

# In a run's description:
MAPPED: Final = "mapped"    # it is a map's, and which items it has
PAIRS: Final = "pairs"      # from which result on they are pairs of index and value
AGAIN: Final = "again"      # what is done again; of a map's results with the same index the last one counts
TAKEN: Final = "taken"      # from which run it has its first results, and how many


def results_of(view: View, earlier: Callable[[int], View]) -> Results:
    """The results of a run, while it has not all of an earlier one's yet those of that."""
    meta = view.meta
    first = meta.get(PAIRS)
    if first is None:
        return Results(view)
    found = MappedResults(view, first, twice=AGAIN in meta)
    number, count = meta.get(TAKEN) or (0, 0)
    return found if found.saved >= count else results_of(earlier(number), earlier)


class MappedResults(Results):
    """Results in the order of the items, wherever they are stored."""

    def __init__(self, view: View, first: int, *, twice: bool) -> None:
        """`first`: the number of the first pair; those before stand at their place. `twice`: an item may have several."""
        super().__init__(view)
        self._first = first
        self._twice = twice
        self._order: array[int] | None = None

    @property
    def saved(self) -> int:
        """How many were saved, also of an item that was done again."""
        return self._length

    def __len__(self) -> int:
        return len(self._ordered()) if self._twice else self._length

    def as_saved(self, but: Collection[int] = ()) -> Iterator[Any]:
        """In the order in which they were saved, without those of these items."""
        numbers = sorted(self._ordered()) if self._twice else range(self._length)
        pairs = map(self._pair, numbers)
        return (value for index, value in pairs if index not in but)

    def _result(self, at: int) -> Any:
        return self._pair(self._ordered()[at])[1]

    def _ordered(self) -> array[int]:
        """The numbers of the results in the order of the items, of each item the last."""
        if self._order is None:
            # Once, and eight bytes for each: a list of what was met would be seven times that.
            places = min(self._first, self._length)     # these need not be read for it
            indices = array("q", range(places))
            indices.extend(self._pair(number)[0] for number in range(places, self._length))
            order = array("q", sorted(range(self._length), key=indices.__getitem__))
            if self._twice:
                ends = (at + 1 == len(order) or indices[order[at]] != indices[order[at + 1]] for at in range(len(order)))
                order = array("q", (number for number, is_last in zip(order, ends, strict=True) if is_last))
            self._order = order
        return self._order

    def __iter__(self) -> Iterator[Any]:
        if self._twice:
            yield from super().__iter__()
            return
        ahead: dict[int, int] = {}      # index: number
        at = 0
        for number in range(self._length):
            index, value = self._pair(number)
            if index != at:
                ahead[index] = number
                continue
            yield value
            at += 1
            while at in ahead:
                yield self._pair(ahead.pop(at))[1]
                at += 1
        for index in sorted(ahead):     # of a map that is not done
            yield self._pair(ahead[index])[1]

    def _pair(self, number: int) -> tuple[int, Any]:
        found = super()._result(number)
        if number < self._first:
            return number, found
        return (found.index, found) if isinstance(found, DeadLetter) else found
