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


@pytest.mark.parametrize("key", [None, str])
@pytest.mark.parametrize("size", [0, 300_000])
@pytest.mark.parametrize("save_every", [1, 4])
def test_the_state_of_a_finished_loop(make: Callable[..., Driver], key: Any, size: int, save_every: int) -> None:
    """With `once` a finished loop does nothing, and its state and the number of items are what they were at the end."""
    driver = make(save_every=save_every)
    for _ in range(3):
        items = driver.items(range(10), name="loop", once=True, key=key)
        with items.state(total=0, large=b"", seen=frozenset()) as carried:
            for number in items.batches(3) if size else items:
                carried.total += sum(number) if size else number
                carried.large = bytes([carried.total]) * size
                carried.seen |= {str(number)}
        assert (carried.total, carried.large, len(carried.seen)) == (45, bytes([45]) * size, 4 if size else 10)
        assert items.done == 10
    assert driver.info("loop").number == 1


KILLED_BEHIND_ITS_END = """
from resumable.storage.folder import DiskFolder

if sys.argv[2] == "die":
    DiskFolder.discard = lambda *args, **kwargs: kill()
with Driver(STATE) as driver:
    items = driver.items(range(10), name="loop")
    with items.state(total=0) as carried:
        for number in items:
            print(number, end=" ")
            sys.stdout.flush()
            carried.total += number
    print("=", carried.total, items.done)
"""


def test_the_state_behind_a_kill_at_the_end(script: Callable[..., tuple[int, str, str]]) -> None:
    """A loop that was killed between its last item and the next line is not gone through again, and its sum is the sum."""
    numbers = "0 1 2 3 4 5 6 7 8 9"
    assert script(KILLED_BEHIND_ITS_END, "die")[:2] == (-9, numbers)
    assert script(KILLED_BEHIND_ITS_END, "live")[:2] == (0, "= 45 10")
    assert script(KILLED_BEHIND_ITS_END, "live")[:2] == (0, f"{numbers} = 45 10")


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
