"""A kill between a job's return and its caller's next line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, sys
from resumable import Driver, checkpoint
from resumable.runs import live
from resumable.storage.writer import Writer

def job(n, state=0):
    for i in range(state, n):
        os.write(1, b"%d " % i)
        yield checkpoint(i + 1)
    if place == "before the flush":
        Writer.flush = die
    elif place == "behind the flush":
        Writer.flush = flush_and_die
    return n

def die(*_):
    os.kill(os.getpid(), 9)

def flush_and_die(*given, flush=Writer.flush):
    flush(*given)
    die()

where, n, place = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with Driver(where) as d:
    if place == "before the commit":
        live.LiveRun._pruned = die
    elif place == "behind it":
        from resumable.storage.folder import DiskFolder
        DiskFolder.discard = die
    os.write(1, b"= %d" % d.run(job, n, name="job"))
"""


def run(directory: Path, n: int, place: str) -> tuple[int, str]:
    command = [sys.executable, "-c", SCRIPT, str(directory), str(n), place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("place", ["before the commit", "before the flush", "behind the flush", "behind it"])
def test_a_finished_job_is_not_run_again(place: str, tmp_path: Path) -> None:
    """A kill after a job's last line, before its caller has the value, does not make the next call repeat the job."""
    assert run(tmp_path, 3, place) == (-signal.SIGKILL, "0 1 2 ")
    assert run(tmp_path, 3, "nowhere") == (0, "= 3")
    assert run(tmp_path, 3, "nowhere") == (0, "0 1 2 = 3")


def test_other_arguments_are_another_run(tmp_path: Path) -> None:
    """The value that a kill kept from its caller is not given to a call with other arguments."""
    run(tmp_path, 3, "before the commit")
    assert run(tmp_path, 4, "nowhere") == (0, "0 1 2 3 = 4")
    assert os.listdir(tmp_path / "runs") == []
