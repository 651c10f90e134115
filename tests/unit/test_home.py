"""One state directory as a process uses it: which of them is meant."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resumable import Driver, StorageError, checkpoint
from resumable.storage import home, lmdb_log


def count(to: int, state: int = 0) -> object:
    while state < to:
        state += 1
        yield checkpoint(state)
    return state


def names(driver: Driver) -> set[str]:
    return {run.name for run in driver.runs()}


def test_a_removed_directory_is_not_another_one(tmp_path: Path) -> None:
    """While a home is open, its directory's number is no other's, however many are made when it has been removed."""
    left = home.open_home(tmp_path / "left")
    lmdb_log._before_fork()     # closes the log's files, which would keep the number
    lmdb_log._after_fork_in_parent()
    number = os.stat(tmp_path / "left").st_ino
    shutil.rmtree(tmp_path / "left")
    made = [tmp_path / f"{at}" for at in range(300)]
    for path in made:
        path.mkdir(0o700)
    assert number not in {os.stat(path).st_ino for path in made}
    left.close()


def test_a_removed_directory_takes_no_more_runs(tmp_path: Path) -> None:
    """A driver whose directory was removed, or replaced, says so before a run begins; another driver takes the new one."""
    path = tmp_path / "d"
    with Driver(path) as left:
        left.run(count, 3, name="first")
        shutil.rmtree(path)
        with pytest.raises(StorageError, match="moved, removed or replaced while it was open") as caught:
            left.run(count, 3, name="second")
        assert caught.value.path == str(path)   # type: ignore[attr-defined]
        with Driver(path) as other:
            other.run(count, 3, name="third")
            for use in (lambda: left.run(count, 3, name="second"), left.runs):
                with pytest.raises(StorageError, match="moved, removed or replaced"):
                    use()
            assert names(other) == {"third"}
    with Driver(path) as again:
        assert names(again) == {"third"}


def test_a_moved_directory(tmp_path: Path) -> None:
    """A directory that was moved while it was open is used where it is now once its driver is closed, and not before."""
    path, moved = tmp_path / "d", tmp_path / "moved"
    with Driver(path) as driver, Driver(moved) as other:
        driver.run(count, 3, name="first")
        path.rename(moved)
        with pytest.raises(StorageError, match=f"{path} was moved"):
            other.run(count, 3, name="second")
        driver.close()
        assert names(other) == {"first"}


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """An opening that fails, and a home that is closed, leave no descriptor behind."""
    Driver(tmp_path / "d").close()
    gc.collect()        # what earlier tests left open
    before = os.listdir("/proc/self/fd")
    with Driver(tmp_path / "d") as driver, Driver(tmp_path / "d") as second:
        driver.run(count, 3, name="first")
        second.run(count, 3, name="second")
    (tmp_path / "d" / "log" / "data.mdb").unlink()
    (tmp_path / "d" / "runs" / "left").mkdir()
    with pytest.raises(StorageError, match="is gone"):
        home.open_home(tmp_path / "d")
    assert os.listdir("/proc/self/fd") == before


def test_a_driver_may_be_closed_when_the_interpreter_has_closed_it(tmp_path: Path) -> None:
    """A driver that is closed behind the end of the interpreter, by a generator that stands still in it, is closed already."""
    script = """
import sys
from resumable import Driver

def work():
    with Driver(sys.argv[1]) as driver:
        yield driver.runs()

standing = work()
next(standing)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "d")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
