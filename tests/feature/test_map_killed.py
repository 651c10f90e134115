"""Maps that are killed: at every item, in its middle, before it, and when its result has been saved."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver

COUNT = 9

MAPPED = """
import asyncio, itertools
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

way, where, at = sys.argv[2], sys.argv[3], int(sys.argv[4])

def die(number, here):
    if where == here and number == at:
        os.kill(int(os.environ["MAIN"]), signal.SIGKILL)
        time.sleep(60)

def work(number):
    with open(STATE + ".calls", "a") as file:
        file.write(f"{number}\\n")
    die(number, "middle")
    return [number, number * number]

async def work_later(number):
    result = work(number)
    await asyncio.sleep(0.001 * (number % 3))
    return result

class Result:
    def __init__(self, number):
        self.number = number
    def __reduce__(self):
        die(self.number, "saving")
        return Result, (self.number,)

def work_and_wrap(number):
    return work(number)[0], Result(number)

def items():
    for number in range(COUNT):
        die(number, "asked")
        yield number

def note():
    with open(STATE + ".pids", "a") as file:
        file.write(f"{os.getpid()}\\n")

def main():
    os.environ["MAIN"] = str(os.getpid())
    executor = {
        "threads": lambda: ThreadPoolExecutor(2), "pool": lambda: ProcessPoolExecutor(2, initializer=note),
        "processes": lambda: 2,
    }
    given = {"executor": executor[way]() if way in executor else None}
    fn = work_and_wrap if where == "saving" else work
    if way == "async":
        fn, given = work_later, {"concurrency": 3}
    with Driver(STATE) as driver:
        if where == "given":
            for number, _ in driver.map_unordered(fn, items(), name="m", once=True, **given):
                die(number, "given")
        else:
            driver.map(fn, items(), name="m", once=True, **given)
        if where != "saving":
            print(driver.results("m")[:])

if __name__ == "__main__":
    main()
"""
IN_FLIGHT = {"here": 1, "threads": 4, "processes": 2, "pool": 4, "async": 3}
PLACES = {
    "here": ["middle", "asked", "saving", "given"], "threads": ["middle", "asked", "given"], "async": ["middle", "given"],
    "processes": ["middle", "given"], "pool": ["middle"],
}


@pytest.fixture
def ended(start: Any, state_dir: Path) -> Callable[..., tuple[int, str, str]]:
    """As `script`, and the workers of a pool go with it: on their own they would not end when their parent is killed."""

    def run(body: str, *arguments: object) -> tuple[int, str, str]:
        process = start(body, *arguments)
        code = process.wait(60)
        pids = Path(f"{state_dir}.pids")
        for pid in pids.read_text().split() if pids.exists() else ():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        pids.unlink(missing_ok=True)
        out, errors = process.communicate(timeout=20)
        return code, out.strip(), errors

    return run


@pytest.mark.parametrize(("way", "where"), [(way, where) for way, places in PLACES.items() for where in places])
def test_a_map_killed_at_every_item(
    ended: Callable[..., tuple[int, str, str]], state_dir: Path, way: str, where: str
) -> None:
    """Killed at each item in turn, a map has the results of an undisturbed one, and at most what was in flight is repeated."""
    body = MAPPED.replace("COUNT", str(COUNT))
    kills = 0
    for at in range(COUNT):
        code, _, errors = ended(body, way, where, at)
        assert code in (0, -9), errors
        kills += code == -9
    code, out, errors = ended(body, way, where, -1)
    assert code == 0, errors
    if where != "saving":
        assert out == str([[number, number * number] for number in range(COUNT)])
    with Driver(state_dir) as driver:
        assert len(driver.results("m")) == COUNT
        assert driver.info("m").number == 1
    calls = Counter(map(int, Path(f"{state_dir}.calls").read_text().split()))
    assert set(calls) == set(range(COUNT))
    assert calls.total() <= COUNT + kills * IN_FLIGHT[way]
    assert kills >= (COUNT if way == "here" else 1)     # a worker that is slow to begin may find all others done


ATTEMPTS = """
at = int(sys.argv[2])
def work(number):
    with open(STATE + ".calls", "a") as file:
        file.write(f"{number}\\n")
    if number == 2:
        raise ValueError(number)
    return number

def pause(attempt):
    if attempt == at:
        kill()
    return 0

with Driver(STATE) as driver:
    print([getattr(result, "attempts", result) for result in driver.map(work, range(5), name="m", max_attempts=6, backoff=pause)])
"""


def test_kill_between_attempts(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> None:
    """Killed after each failed attempt in turn, an item has as many attempts as it may have, over all lives."""
    for at in range(1, 6):
        code, _, errors = script(ATTEMPTS, at)
        assert code == -9, errors
    assert script(ATTEMPTS, 0)[1] == "[0, 1, 6, 3, 4]"
    assert Path(f"{state_dir}.calls").read_text().split() == ["0", "1", *["2"] * 6, "3", "4"]


def test_a_forked_pool_holds_nothing(start: Any, state_dir: Path) -> None:
    """Workers that an executor forked, and that outlive their killed parent, hold no lock of the run."""
    body = """
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
def note():
    with open(STATE + ".pids", "a") as file:
        file.write(f"{os.getpid()}\\n")
def work(number):
    if number == 3:
        os.kill(os.getppid(), signal.SIGKILL)
    return number
if __name__ == "__main__":
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork"), initializer=note) as executor:
        Driver(STATE).map(work, range(9), name="m", executor=executor)
"""
    process = start(body)
    assert process.wait(60) == -signal.SIGKILL
    workers = [int(pid) for pid in Path(f"{state_dir}.pids").read_text().split()]
    try:
        assert all(Path(f"/proc/{pid}").exists() for pid in workers)
        with Driver(state_dir) as driver:
            assert list(driver.map(abs, range(9), name="m")) == list(range(9))
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
