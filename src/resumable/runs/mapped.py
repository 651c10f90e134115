"""The results of a map whose items were done out of order: each is stored with the index of its item."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

from resumable.runs.reports import Results, View
from resumable.values.dead_letter import DeadLetter

PAIRS = "pairs"
"""Where the description of such a run says from which result on they are pairs of index and value."""


class MappedResults(Results):
    """Results in the order of the items, wherever they are stored."""

    def __init__(self, view: View, first: int) -> None:
        """`first`: the number of the first pair; those before stand at their place."""
        super().__init__(view)
        self._first = first
        self._order: array[int] | None = None

    def as_saved(self) -> Iterator[Any]:
        """In the order in which they were saved."""
        return (self._pair(number)[1] for number in range(len(self)))

    def _result(self, at: int) -> Any:
        if self._order is None:
            # Once, and eight bytes for each: a list of what was met would be seven times that.
            indices = array("q", (self._pair(number)[0] for number in range(len(self))))
            self._order = array("q", sorted(range(len(self)), key=indices.__getitem__))
        return self._pair(self._order[at])[1]

    def __iter__(self) -> Iterator[Any]:
        ahead: dict[int, int] = {}      # index: number
        at = 0
        for number in range(len(self)):
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
