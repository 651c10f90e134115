"""The processes of a map: those that die, those that must not outlive their parent, and what can be sent to them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mapped_functions import die_at_three, die_once, exit_at_three, pid_and_sleep, raise_odd, square, told

from resumable import (
    BrokenExecutorError,
    DeadLetter,
    Driver,
    UnsavableStateError,
    WorkerDiedError,
    WorkerError,
)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---- those that die


def test_a_worker_that_dies_is_replaced(driver: Driver, tmp_path: Path) -> None:
    """The item of a worker that was killed is done by another one; no other item is done twice."""
    jobs = [(str(tmp_path / "died"), number) for number in range(10)]
    assert list(driver.map(die_once, jobs, name="m", executor=2)) == list(range(10))
    assert (tmp_path / "died").exists()


def test_workers_that_are_killed_all_the_time(driver: Driver, tmp_path: Path) -> None:
    """Whichever worker is killed between two results, all results come, and few items are done twice."""
    oracle = tmp_path / "calls"
    results = driver.map_unordered(told, [(str(oracle), number) for number in range(60)], name="m", executor=2)
    for done, _ in enumerate(results, 1):
        if done % 20 == 0:
            victim = next(pid for pid in children() if is_alive(pid))
            os.kill(victim, signal.SIGKILL)
    assert list(driver.results("m")) == list(range(60))
    calls = [int(line) for line in oracle.read_text().split()]
    assert set(calls) == set(range(60))
    assert len(calls) <= 60 + 2


def children() -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "spawn_main"], capture_output=True, text=True, check=True)
    return [int(pid) for pid in found.stdout.split()]


def test_an_item_that_kills_its_workers(driver: Driver) -> None:
    """An item that has killed several workers is to blame: an error that names it, or a dead letter."""
    with pytest.raises(WorkerDiedError, match="killed by signal 9 while it had item 3, as 2 others") as caught:
        driver.map(die_at_three, range(8), name="m", executor=2)
    assert (caught.value.index, caught.value.exitcode) == (3, -9)   # type: ignore[attr-defined]
    found = driver.map(die_at_three, range(8), name="m", executor=2, max_attempts=1)
    assert isinstance(found[3], DeadLetter)
    assert [result for result in found if not isinstance(result, DeadLetter)] == [0, 1, 2, 4, 5, 6, 7]


def test_an_exit_in_a_worker_is_one_of_the_map(driver: Driver) -> None:
    """`sys.exit` in the function stops the map, as it does without processes."""
    with pytest.raises(SystemExit) as caught:
        driver.map(exit_at_three, range(8), name="m", executor=2, max_attempts=5)
    assert caught.value.code == 7
    assert driver.info("m").status == "interrupted"
    assert driver.failure("m") is None
    found = driver.map(square, range(8), name="m", executor=2)
    assert found[3] == 9
    assert all(result in (number, number * number) for number, result in enumerate(found))


def test_a_broken_executor_of_the_caller(driver: Driver) -> None:
    """It cannot be mended, so it is an error; what it has done is saved, and another one goes on."""
    with ProcessPoolExecutor(2) as executor, pytest.raises(BrokenExecutorError, match="another executor") as caught:
        driver.map(die_at_three, range(8), name="m", executor=executor, max_attempts=3)
    assert caught.value.run == "m"      # type: ignore[attr-defined]
    with ProcessPoolExecutor(2) as executor:
        assert list(driver.map(abs, range(8), name="m", executor=executor)) == list(range(8))
        assert list(executor.map(abs, [-1])) == [1]     # it stays open


# ---- what can be sent


def test_functions_that_nobody_can_import(driver: Driver) -> None:
    """Lambdas and closures go to processes too."""
    add = 5
    assert list(driver.map(lambda number: number + add, range(5), name="own", executor=2)) == [5, 6, 7, 8, 9]
    with ProcessPoolExecutor(2) as executor:
        assert list(driver.map(lambda number: number + add, range(5), name="pool", executor=executor)) == [5, 6, 7, 8, 9]


def test_what_cannot_be_sent(driver: Driver) -> None:
    """A function or an item that cannot be sent is named; an exception that cannot be sent is told in words."""
    generator = (number for number in ())
    with pytest.raises(UnsavableStateError, match="fn"):
        driver.map(lambda number: generator, range(3), name="fn", executor=2)
    assert driver.runs() == []
    with pytest.raises(UnsavableStateError, match=r"items\[1\]"):
        driver.map(str, [0, generator, 2], name="items", executor=2, on_change="continue")
    with pytest.raises(WorkerError, match=r"item \d raised mapped_functions\.Odd(.|\n)*raise Odd"):
        driver.map(raise_odd, range(3), name="odd", executor=2)


def test_large_items_and_results(driver: Driver) -> None:
    """What is larger than a pipe goes through it both ways."""
    items = [bytes([number]) * 3_000_000 for number in range(6)]
    assert driver.map(bytearray, items, name="large", executor=2)[:] == items


# ---- scripts

NO_GUARD = """
from resumable import Driver
with Driver(STATE) as driver:
    driver.map(abs, range(3), name="m", executor=2)
"""


def test_a_script_without_a_guard(script: Callable[..., tuple[int, str, str]]) -> None:
    """A script that begins its work when it is imported is told what to write."""
    code, _, errors = script(NO_GUARD)
    assert code == 1
    assert "WorkerStartError" in errors
    assert 'if __name__ == "__main__":' in errors


TYPED_IN = """
import sys
from resumable import Driver
def double(number):
    return 2 * number
with Driver(sys.argv[1]) as driver:
    print(list(driver.map(double, range(3), name="m", executor=2)))
"""


def test_a_function_that_was_typed_in(state_dir: Path) -> None:
    """A function of a program without a file, as of a notebook, goes to processes."""
    import sys

    answer = subprocess.run(
        [sys.executable, "-c", TYPED_IN, str(state_dir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.stdout.strip(), answer.stderr) == ("[0, 2, 4]", "")


def test_an_inner_function_of_the_guard(script: Callable[..., tuple[int, str, str]]) -> None:
    """A function that is defined under the guard cannot be found by workers, and the error says so."""
    body = """
if __name__ == "__main__":
    def inner(number):
        return number
    with Driver(STATE) as driver:
        driver.map(inner, range(3), name="m", executor=2)
"""
    code, _, errors = script(body)
    assert code == 1
    assert "top level" in errors


LONG = """
from mapped_functions import pid_and_sleep
if __name__ == "__main__":
    with Driver(STATE) as driver:
        driver.map(pid_and_sleep, [(sys.argv[2], 600.0)] * 4, name="m", executor=2)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=str)
def test_no_worker_outlives_its_parent(start: Any, tmp_path: Path, how: signal.Signals, state_dir: Path) -> None:
    """However the parent ends, its workers end too, in the middle of an item, and the run is free."""
    pids = tmp_path / "pids"
    pids.mkdir()
    process = start(LONG, pids, env={"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parent}"})
    until(lambda: len(list(pids.iterdir())) == 2)
    workers = [int(path.name) for path in pids.iterdir()]
    assert all(map(is_alive, workers))
    begun = time.monotonic()
    process.send_signal(how)
    process.communicate(timeout=10)
    until(lambda: not any(map(is_alive, workers)), 5)
    assert time.monotonic() - begun < 8
    with Driver(state_dir) as driver:
        assert driver.info("m").status == "interrupted"
        assert list(driver.map(pid_and_sleep, [(str(pids), 600.0)] * 0, name="m", on_change="restart")) == []


def test_ctrl_c_reaches_all_processes_of_a_terminal(start: Any, tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to workers too, ends all of them at once and without their tracebacks."""
    pids = tmp_path / "pids"
    pids.mkdir()
    process = start(LONG, pids, env={"PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parent}"})
    until(lambda: len(list(pids.iterdir())) == 2)
    workers = [int(path.name) for path in pids.iterdir()]
    for pid in (*workers, process.pid):
        os.kill(pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert not any(map(is_alive, workers))
    assert errors.count("Traceback") <= 1 + errors.count("another exception")
    assert "KeyboardInterrupt" in errors


def test_a_map_that_is_left_lets_its_workers_go(driver: Driver, tmp_path: Path) -> None:
    """Nobody is left behind by an iterator that is dropped half way, nor by one that has ended."""
    results = driver.map_unordered(square, range(100), name="m", executor=2)
    next(results)
    workers = children()
    assert len(workers) == 2
    del results
    assert not any(map(is_alive, workers))
    driver.map(square, range(100), name="m", executor=2)
    assert not [pid for pid in children_or_none() if is_alive(pid)]


def children_or_none() -> list[int]:
    try:
        return children()
    except subprocess.CalledProcessError:
        return []


ABANDONED = """
from resumable import Driver
if __name__ == "__main__":
    driver = Driver(STATE)
    results = driver.map_unordered(abs, range(100), name="m", executor=2)
    print(next(results) in range(100))
"""


def test_a_program_that_ends_with_workers(script: Callable[..., tuple[int, str, str]]) -> None:
    """A program that ends while an iterator of a map is half gone through ends, without a word."""
    assert script(ABANDONED) == (0, "True", "")
