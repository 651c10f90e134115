"""Dead letters of maps, done again in processes that are killed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mapped_functions import square
from stepping import STEPPING

from resumable import Driver

KILLED = STEPPING + """
from concurrent.futures import ThreadPoolExecutor
from resumable.runs import live, saving

phase, at, threads, calls = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
for kind, name in ((saving.SavingRun, "_save_encoded"), (saving.SavingRun, "describe_all"), (live.LiveRun, "finish"),
                   (live.LiveRun, "leave")):
    stepping(kind, name)

def work(number):
    with open(calls, "a") as file:
        file.write(f"{number}\\n")
    if phase == "letters" and number in (1, 3):
        raise ValueError(number)
    if phase != "letters":
        step()
    return [number, b"z" * (1_500_000 if number == 2 else 3)]

with Driver(STATE, keep_runs=1) as driver:
    given = {"name": "m", "max_attempts": 1, "executor": ThreadPoolExecutor(1) if threads else None}
    if phase == "left":
        phase = "letters"
        results = driver.map_unordered(work, range(5), **given)
        for _ in range(4):
            next(results)
        results.close()
    else:
        if phase == "mended":
            print(driver.retry_dead_letters("m"))
        found = driver.map(work, range(5), once=phase == "mended", **given)
        if phase == "mended":
            print([(result[0], len(result[1])) for result in found])
            print(driver.dead_letters("m"))
"""


@pytest.mark.parametrize(("phase", "threads"), [("letters", 0), ("left", 1)])
def test_kill_at_every_step_of_a_map_done_again(
    script: Callable[..., tuple[int, str, str]], state_dir: Path, tmp_path: Path, phase: str, threads: int
) -> None:
    """Killed at each step of asking, taking over and doing again, a map has all results, and each item was done once."""
    calls = tmp_path / "calls"
    code, _, errors = script(KILLED, phase, -1, threads, calls)
    assert code == 0, errors
    first = calls.read_text()
    made = tmp_path / "made"
    state_dir.rename(made)
    code, at = -9, 0
    while code == -9:
        at += 1
        shutil.rmtree(state_dir, ignore_errors=True)
        shutil.copytree(made, state_dir)
        calls.write_text(first)
        code, out, errors = script(KILLED, "mended", at, threads, calls)
        assert code in (0, -9), errors
        if code == -9:
            again, out, errors = script(KILLED, "mended", -1, threads, calls)
            assert again == 0, errors
        whole = [(number, 1_500_000 if number == 2 else 3) for number in range(5)]
        assert out.splitlines()[1:] == [str(whole), "[]"], at
        counted = Counter(map(int, calls.read_text().split()))
        assert set(counted) == set(range(5))
        assert sum(counted.values()) - 7 <= (code == -9) * (1 + threads), (at, counted)       # 7: each once, the letters' twice
        if code == -9 and at % 5 == 0:
            assert "1 of 1" in script(CHECKED)[1]
    assert at > (15 if phase == "letters" else 8)


CHECKED = """
import subprocess
found = subprocess.run([sys.executable, "-m", "resumable", "check", STATE], capture_output=True, text=True)
print(found.returncode, "1 of 1" if found.returncode == 0 else found.stdout + found.stderr)
"""


def test_finished_in_a_process_that_was_killed_at_the_end(disk: Driver, script: Callable[..., tuple[int, str, str]]) -> None:
    """A map or loop that a kill met between its end and its tidying up has its letters done again like any other."""
    body = """
from resumable.runs import live
from resumable.storage.folder import DiskFolder
def work(number):
    if number == 1:
        raise ValueError
    return number
driver = Driver(STATE)
items = driver.items(range(3), name="loop", max_attempts=1)
if sys.argv[2] == "map":
    DiskFolder.discard = lambda *given: kill()
    driver.map(work, range(3), name="m", max_attempts=1)
for number in items:
    with items.attempt():
        DiskFolder.discard = lambda *given: kill()
        work(number)
"""
    disk.close()
    for way in ("map", "loop"):
        assert script(body, way)[0] == -9
    with Driver(disk.path) as driver:
        assert (driver.retry_dead_letters("m"), driver.retry_dead_letters("loop")) == (1, 1)
        assert list(driver.map(square, range(3), name="m")) == [0, 1, 2]
        seen = []
        for number in driver.items(range(3), name="loop"):
            seen.append(number)
        assert seen == [1]
