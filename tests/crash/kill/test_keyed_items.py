"""SIGKILL at random instants of loops with keys, whose items come, go and change places between the lives."""

from __future__ import annotations

import mmap
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from figures import amount

pytestmark = pytest.mark.crash

KILLS = amount("K2", 1200) // 100
ITEMS = 20_000
KILLS_OF_A_LOOP = 6

LOOP = """
import mmap, os, random, signal, sys
from resumable import DamagedLogError, Driver
from resumable.runs.saving import SavingRun

directory, effects, seed, count, left_out, plant, last = sys.argv[1:4] + list(map(int, sys.argv[4:]))
keys = SavingRun.keys

def with_the_one_at_hand(run, salt, done, kept):
    try:
        return keys(run, salt, done + (done > 0), kept)
    except DamagedLogError:     # none was at hand
        return keys(run, salt, done, kept)

if plant:
    SavingRun.keys = with_the_one_at_hand
numbers = list(range(count))
random.Random(seed).shuffle(numbers)
if not last:
    numbers.append(count)
counts = memoryview(mmap.mmap(os.open(effects, os.O_RDWR), 0))
with Driver(directory, sync_every=0.01) as driver:
    begun = False
    for number in driver.items(numbers[left_out:], name="keyed", key=lambda number: f"item {number}"):
        if not begun:
            begun = print(flush=True) is None
        if number == count:
            signal.pause()      # only the last life comes to the end
        for _ in range(9):
            pass
        counts[number] += 1
"""


def life(place: Path, seed: int, left_out: int, kill_after: float | None, plant: bool) -> None:
    """One life of the loop, which is killed, or else goes to its end."""
    command = [sys.executable, "-c", LOOP, str(place / "state"), str(place / "effects"), str(seed), str(ITEMS)]
    command += [str(left_out), str(int(plant)), str(int(kill_after is None))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if kill_after is not None:
            time.sleep(kill_after)
            process.kill()
    assert process.returncode == (0 if kill_after is None else -9)


def slaughter(seed: int, kills: int, plant: bool = False) -> tuple[int, int]:
    """Kill loops until there were so many kills; how many there were, and how many items were repeated."""
    chosen = random.Random(seed)
    done = repeated = 0
    while done < kills:
        with tempfile.TemporaryDirectory() as name:
            place, before = Path(name), done
            (place / "effects").write_bytes(bytes(ITEMS))
            for _ in range(KILLS_OF_A_LOOP):
                left_out, delay = chosen.randrange(ITEMS // 10), chosen.uniform(0, 0.003)
                life(place, chosen.getrandbits(32), left_out, delay, plant)
                done += 1
            life(place, chosen.getrandbits(32), 0, None, plant)
            with (place / "effects").open("r+b") as file:
                counts = bytes(mmap.mmap(file.fileno(), 0))
            assert min(counts) == 1, f"{counts.count(0)} items were skipped"
            assert sum(counts) - ITEMS <= done - before, "more was repeated than the items at hand"
            repeated += sum(counts) - ITEMS
    return done, repeated


def test_random_kills_of_keyed_loops(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Whenever a loop is killed, wherever its items stand in the next life, none is skipped, and a kill repeats at most one."""
    kills, repeated = slaughter(seed, KILLS)
    with capsys.disabled():
        print(f"\n{kills} kills of loops with keys, {repeated} items repeated; seed {seed}")
    assert kills >= KILLS


def test_control_the_item_at_hand_is_done(seed: int) -> None:
    """A loop that takes the key of the item at hand for one that is done is found out."""
    with pytest.raises(AssertionError, match="skipped"):
        slaughter(seed, 200, plant=True)
