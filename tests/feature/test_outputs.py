"""Files in a state reach the disk before the state does, so that a power cut leaves none shorter than its checkpoint."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, SyncFailedError, checkpoint
from resumable.values import outputs

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

JOB = """
import sys
from resumable import Driver, checkpoint
def job(path, n, state=None):
    done, file = state or (0, open(path, "w"))
    with file:
        while done < n:
            file.write("line\\n")
            done += 1
            yield checkpoint((done, file))
with Driver(sys.argv[1], durability=sys.argv[2], sync_every=1000) as driver:
    driver.run(job, sys.argv[3], 3)
"""


def traced(tmp_path: Path, durability: str) -> list[str]:
    """What a run writes and syncs, in order: "out" for the job's file, "data" for the log, "sync" for the sync file."""
    command = ["strace", "-f", "-y", "-e", "trace=write,pwrite64,pwritev,fdatasync,fsync", "-o", str(tmp_path / "trace")]
    program = [sys.executable, "-c", JOB, str(tmp_path / "state"), durability, str(tmp_path / "out")]
    subprocess.run([*command, *program], check=True, timeout=60)
    found = []
    for line in (tmp_path / "trace").read_text().splitlines():
        call = re.search(r"(write|pwrite64|pwritev|fdatasync|fsync)\(\d+<([^>]*)>", line)
        if call is not None:
            path = Path(call[2])
            kind = "sync" if path.parent.name == "sync" else "log" if path.name == "data.mdb" else path.name
            found.append(f"{'sync' if 'sync' in call[1] else 'write'} {kind}")
    return found


def test_the_log_comes_after_the_file(tmp_path: Path) -> None:
    """The job's file, and its directory, are synced after its last line and before the log takes the state."""
    calls = traced(tmp_path, "process")
    last_line = max(i for i, call in enumerate(calls) if call == "write out")
    synced = calls.index("sync out", last_line)
    assert f"sync {tmp_path.name}" in calls[:synced + 2]
    assert "write log" in calls[synced:]
    assert "write log" not in calls[last_line:synced]


def test_each_line_is_on_disk_before_its_checkpoint_is(tmp_path: Path) -> None:
    """With durability="disk" every line is synced before the sync file takes the checkpoint that says it is written."""
    calls = traced(tmp_path, "disk")
    lines = [i for i, call in enumerate(calls) if call == "write out"]
    assert len(lines) == 3
    for line in lines:
        assert calls.index("sync out", line) < calls.index("write sync", line)


def test_a_file_that_cannot_be_synced_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses a file of the state, the checkpoint is not called durable: the error names the file."""

    def job(state: Any = None) -> Iterator[Any]:
        with (tmp_path / "out").open("w") as file:
            for i in range(3):
                file.write("line\n")
                yield checkpoint((i, file))

    def refuse(descriptor: int, sync: Any = os.fdatasync) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("out"):
            raise OSError(5, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(outputs.os, "fdatasync", refuse)
    with Driver(tmp_path / "state", durability="disk") as driver:
        with pytest.raises(SyncFailedError, match="out, which a state describes"):
            driver.run(job, name="w")
        monkeypatch.undo()
        assert driver.info("w").seq <= 1


def test_a_file_that_is_gone_needs_no_sync(tmp_path: Path) -> None:
    """A file that was removed after its checkpoint does not keep the run from its end."""

    def job(state: Any = None) -> Iterator[Any]:
        with (tmp_path / "out").open("w") as file:
            yield checkpoint(file)
        (tmp_path / "out").unlink()
        yield checkpoint("done")

    with Driver(tmp_path / "state") as driver:
        driver.run(job, name="w")
        assert driver.state("w") == "done"
