"""Where a package for resumable loops went wrong, measured on it: each as the property that holds here.

Failing items (Ctrl-C taken for one, locals that begin anew) stand with the tests of those; what live resources lose, in
tests/resources.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import resumable
from resumable import ChangedItemsError, DamagedLogError, Driver, RunLockedError, UnmarkedItemsWarning, loop


class Stumble(Exception):
    """Stands for a crash of the body."""


def fails_at(driver: Driver, items: Any, bad: Any) -> list[Any]:
    """The items of a loop that fails at one of them."""
    seen = []
    try:
        for item in driver.items(items, name="loop"):
            seen.append(item)
            if item == bad:
                raise Stumble
    except Stumble:
        pass
    return seen


def test_items_put_in_front_are_not_skipped(driver: Driver) -> None:
    """With items put in front, or those that were done taken away, nothing is skipped or done twice: the call is refused."""
    assert fails_at(driver, ["a", "b", "c", "d", "e"], "c") == ["a", "b", "c"]
    for others in (["new 1", "new 2", "a", "b", "c", "d", "e"], ["d", "e"], ["c", "d", "e"]):
        with pytest.raises(ChangedItemsError, match="loop"):
            fails_at(driver, others, None)
    assert fails_at(driver, ["a", "b", "c", "d", "e"], None) == ["c", "d", "e"]


def test_a_sum_is_the_sum(driver: Driver) -> None:
    """A sum over a loop that failed at its fourth item, and went on, is 15 and not 9."""
    stumbles = [4]

    @loop(driver=driver, name="sum")
    def total(numbers: Any) -> int:
        with numbers.state(total=0) as carried:
            for number in numbers:
                if number in stumbles:
                    stumbles.remove(number)
                    raise Stumble
                carried.total += number
        return int(carried.total)

    with pytest.raises(Stumble):
        total([1, 2, 3, 4, 5])
    assert total([1, 2, 3, 4, 5]) == 15


def test_what_was_saved_by_hand_comes_back(driver: Driver) -> None:
    """What a function saved by hand has a way back into it, and an exception's locals do not take its place."""
    lives = []

    @loop(driver=driver, auto_iterate=False, name="by hand")
    def crawl(start: str) -> list[str]:
        visited = resumable.saved({"visited": []})["visited"]
        lives.append(list(visited))
        resumable.save(visited=[*visited, start])
        visited = ["a local of that name"]
        if len(lives) < 3:
            raise Stumble
        return visited

    for _ in range(2):
        with pytest.raises(Stumble):
            crawl("p")
    crawl("p")
    assert lives == [[], ["p"], ["p", "p"]]


def test_items_taken_ahead_are_not_done(driver: Driver) -> None:
    """A body that takes all items first, or collects them for a flush that fails, loses none of them."""

    def listed(bad: int | None) -> list[int]:
        done = []
        for item in list(driver.items(range(10), name="listed")):
            if item == bad:
                raise Stumble
            done.append(item)
        return done

    with pytest.warns(UnmarkedItemsWarning), pytest.raises(Stumble):
        listed(3)
    with pytest.warns(UnmarkedItemsWarning):
        assert listed(None) == list(range(10))

    flushed: list[int] = []

    def in_batches(bad: int | None) -> None:
        for batch in driver.items(range(10), name="batches").batches(4):
            if bad in batch:
                raise Stumble
            flushed.extend(batch)

    with pytest.raises(Stumble):
        in_batches(5)
    in_batches(None)
    assert flushed == list(range(10))


def test_two_at_once_do_nothing_twice(disk: Driver, start: Callable[..., Any]) -> None:
    """While a loop runs, another process or thread that starts it is refused, and every item is done once."""
    process = start(RUNNING)
    assert process.stdout.readline() == "running\n"
    with pytest.raises(RunLockedError):
        fails_at(disk, range(50), None)
    out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (0, "50\n"), err
    seen: list[list[int] | RunLockedError] = []
    both = threading.Barrier(2)

    def run() -> None:
        mine = []
        try:
            for item in disk.items(range(50), name="threads"):
                if item == 0:
                    both.wait()
                mine.append(item)
                time.sleep(0.001)
            seen.append(mine)
        except RunLockedError as error:
            seen.append(error)
            both.wait()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(type(one).__name__ for one in seen) == ["RunLockedError", "list"]
    assert list(range(50)) in seen


RUNNING = """
done = 0
for item in Driver(sys.argv[1]).items(range(50), name="loop"):
    if not item:
        print("running", flush=True)
        sys.stdin.readline()
    done += 1
print(done)
"""


@pytest.mark.parametrize("trial", range(24))
def test_damage_is_told(state_dir: Path, trial: int, seed: int) -> None:
    """A journal that was cut or flipped is an error that names it, never another set of done items, nor all of them again."""
    with Driver(state_dir) as driver:
        fails_at(driver, range(20), 12)
        folder = next((state_dir / "runs").iterdir())
    journal = next(path for path in folder.iterdir() if path.name.startswith("1."))
    data, chance = bytearray(journal.read_bytes()), random.Random(seed + trial)
    if trial == 0:
        del data[len(data) // 2 :]
    else:
        data[chance.randrange(5000)] ^= 1 << chance.randrange(8)
    journal.write_bytes(data)
    found = resumed(state_dir)
    if isinstance(found, DamagedLogError):
        assert str(folder) in str(found)
    else:
        assert found == [12], "what was hit says nothing, as free space does"


def resumed(state_dir: Path) -> list[Any] | DamagedLogError:
    try:
        with Driver(state_dir) as driver:
            return fails_at(driver, range(20), 12)
    except DamagedLogError as error:
        return error


def test_nothing_is_taken_ahead(driver: Driver) -> None:
    """A generator has been asked for three items when the third is at hand, and an endless one can be gone through."""
    source = iter(range(1000))
    for item in driver.items(source, name="ahead"):
        if item == 2:
            break
    assert next(source) == 3
    assert fails_at(driver, itertools.count(), 500) == list(range(501))
    assert fails_at(driver, itertools.count(), 700) == list(range(500, 701))


def test_kills_leave_nothing_behind(disk: Driver, start: Callable[..., Any], seed: int) -> None:
    """After kills at any moment each item was done, at most one of them twice for each kill, and no file stays behind."""
    chance = random.Random(seed)
    done: list[int] = []
    kills = 0
    while kills < 8:
        process = start(COUNTING)
        timer = threading.Timer(chance.uniform(0.2, 0.6), os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        done += [int(line) for line in process.communicate(timeout=60)[0].splitlines()]
        timer.cancel()
        if process.returncode == 0:
            break
        kills += 1
    else:
        done += [int(line) for line in start(COUNTING).communicate(timeout=60)[0].splitlines()]
    assert sorted(set(done)) == list(range(300))
    assert len(done) <= 300 + kills
    assert [path.name for path in Path(disk.path).rglob("*.tmp")] == []
    assert list((Path(disk.path) / "runs").iterdir()) == []


COUNTING = """
import resumable

@resumable.loop(driver=sys.argv[1], keep_on_success=True)    # a kill may come when all is done
def main(numbers):
    for number in numbers:
        os.write(1, b"%d\\n" % number)
        time.sleep(0.002)

main(range(300))
"""


def test_names_that_look_alike_are_two(driver: Driver) -> None:
    """Names that a file system would spell alike are two runs."""
    assert fails_at(driver, range(3), 1) == [0, 1]
    for name in ("a/b", "a_b", "A/B", "a b", "../a/b"):
        for item in driver.items(range(3), name=name):
            assert item == 0
            break
    assert len(driver.runs()) == 6
