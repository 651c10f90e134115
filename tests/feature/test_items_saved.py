"""What is saved with the mark of an item: its result, the loop's state, and when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver


class Stumble(Exception):
    """Stands for a crash of the body."""


@pytest.mark.parametrize("size", [5, 5_000, 200_000])
def test_results_of_any_size(driver: Driver, size: int) -> None:
    """Each item's result is kept, small and plain or large or pickled, and is there when the loop has failed and gone on."""
    kinds: list[Callable[[int], Any]] = [lambda n: Path(str(n)), lambda n: (n, b"x" * size), complex]
    wanted = [kinds[number % 3](number) for number in range(40)]

    def life(until: int) -> None:
        items = driver.items(range(40), name="loop")
        for number in items:
            if number == until:
                raise Stumble
            items.record(wanted[number])

    for until in (7, 23):
        with pytest.raises(Stumble):
            life(until)
        assert list(driver.results("loop")) == wanted[:until]
    life(-1)
    assert list(driver.results("loop")) == wanted


def test_results_beyond_the_journal(driver: Driver) -> None:
    """Results are kept in order when they outgrow every segment of the journal, though nothing waits for the log."""
    items = driver.items(range(60_000), name="loop")
    with items.state(total=0) as carried:
        for number in items:
            carried.total += number
            items.record(b"%d" % number * 60)
    assert driver.results("loop")[59_999] == b"59999" * 60
    assert len(driver.results("loop")) == 60_000
    assert driver.results("loop")[:3] == [b"0" * 60, b"1" * 60, b"2" * 60]


def test_save_every(make: Callable[..., Driver]) -> None:
    """With `save_every` a loop that is left by an exception has all its marks; none of its results is passed over."""
    sparing = make(save_every=10)

    def life() -> None:
        for number in sparing.items(range(100), name="loop"):
            if number == 57:
                raise Stumble

    with pytest.raises(Stumble):
        life()
    assert (sparing.info("loop").seq, sparing.state("loop")) == (6, 57)
    items = sparing.items(range(100), name="loop")
    for number in items:
        if number % 2:
            items.record(number)
    assert list(sparing.results("loop")) == list(range(57, 100, 2))


def test_a_long_description_is_not_written_for_every_few_items(driver: Driver) -> None:
    """A run whose description is as long as a segment of the journal still has room for many marks in each."""
    items: Any = driver.items(range(20_000), name="loop")
    for number in items:
        if number == 0:
            items._loop.run.describe("long", bytes((4 << 20) + 1))
            begun = items._loop.run.journal.position
        ended = items._loop.run.journal.position
    assert ended[0] <= begun[0] + 1
