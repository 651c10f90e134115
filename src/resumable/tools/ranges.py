"""Sets of numbers that mostly follow each other."""

from __future__ import annotations


class Ranges:
    """A set of numbers, kept as ranges."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int]] = []

    def add(self, number: int) -> None:
        if self._found and self._found[-1][0] <= number <= self._found[-1][1] + 1:
            first, last = self._found[-1]
            self._found[-1] = (first, max(last, number))
        else:
            self._found.append((number, number))

    def merged(self) -> tuple[tuple[int, int], ...]:
        """The ranges, ascending, none touching another."""
        merged: list[tuple[int, int]] = []
        for first, last in sorted(self._found):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return tuple(merged)

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in self._found)
