"""Files in a state reach the disk before the state does, so that a power cut leaves none shorter than its checkpoint."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, SyncFailedError, checkpoint
from resumable.runs import saving
from resumable.storage.disksync import DiskSync
from resumable.storage.records import CHECKPOINT
from resumable.values import outputs

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture(autouse=True)
def nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file that another test left to be synced."""
    monkeypatch.setattr(outputs, "_unsynced", set())


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
    """When the disk refuses a file of the state, the checkpoint is not called durable: the error names the file, and no other
    file is taken for it later."""

    def job(state: Any = None) -> Iterator[Any]:
        with (tmp_path / "out").open("w") as file:
            for i in range(3):
                file.write("line\n")
                yield checkpoint((i, file))

    def refuse(descriptor: int, sync: Any = os.fdatasync) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("out"):
            raise OSError(5, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(outputs, "_unsynced", set())
    monkeypatch.setattr(outputs, "_lost", {})
    monkeypatch.setattr(outputs.os, "fdatasync", refuse)
    with Driver(tmp_path / "state", durability="disk") as driver:
        with pytest.raises(SyncFailedError, match="out, which a state describes"):
            driver.run(job, name="w")
        monkeypatch.setattr(outputs.os, "fdatasync", os.fsync)
        with pytest.raises(SyncFailedError, match="an earlier sync of it failed"):
            outputs.sync()
        assert driver.info("w").seq <= 1
    number = os.stat(tmp_path / "out").st_ino
    os.unlink(tmp_path / "out")
    for at in range(300):
        (tmp_path / f"{at}").touch()
    assert number not in {os.stat(tmp_path / f"{at}").st_ino for at in range(300)}


def test_a_file_in_another_threads_hand_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread syncs a file, no other is told that the disk has it."""
    (tmp_path / "out").touch()
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def slow(descriptor: int) -> None:
        begun.set()
        go_on.wait(10)

    monkeypatch.setattr(outputs.os, "fdatasync", slow)
    outputs.written(str(tmp_path / "out"))
    first = threading.Thread(target=outputs.sync)
    second = threading.Thread(target=lambda: (outputs.sync(), ended.set()))
    first.start()
    begun.wait(10)
    second.start()
    assert not ended.wait(0.1)
    go_on.set()
    first.join()
    second.join()
    assert ended.is_set()


def test_a_sync_that_is_broken_off_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in a sync the file is synced by the next one."""
    (tmp_path / "out").touch()
    synced: list[str] = []

    def stop(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if len(synced) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(outputs.os, "fdatasync", stop)
    outputs.written(str(tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        outputs.sync()
    outputs.sync()
    assert synced == [str(tmp_path / "out")] * 2


def test_a_file_made_anew_has_its_directory_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that takes the place of one that was removed is entered in its directory on the disk too."""
    synced: list[str] = []
    monkeypatch.setattr(outputs.os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    out = tmp_path / "out"
    out.touch()
    for _ in range(2):
        outputs.written(str(out))
        outputs.sync()
    assert synced == [str(tmp_path)]
    (tmp_path / "other").touch()
    (tmp_path / "other").rename(out)
    outputs.written(str(out))
    outputs.sync()
    assert synced == [str(tmp_path)] * 2


def test_files_come_before_the_states_of_other_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that one task makes while another waits for the disk gets there after the files that it describes."""
    order: list[str] = []
    second = threading.Event()

    def put(self: DiskSync, *record: Any, real: Any = DiskSync.put) -> None:
        if record[3] == CHECKPOINT:
            second.wait(10)     # the first is held up until the second is published
            order.append("state")
        real(self, *record)

    def sync(real: Any = outputs.sync) -> None:
        real()
        order.append("files")

    async def job(state: Any = None) -> None:
        async def task(name: str) -> None:
            with (tmp_path / name).open("w") as file:
                file.write("line")
                file.flush()
                await checkpoint(file)

        async with asyncio.TaskGroup() as group:
            group.create_task(task("one"))
            group.create_task(task("two"))
            await asyncio.sleep(0.05)
            second.set()

    monkeypatch.setattr(DiskSync, "put", put)
    monkeypatch.setattr(saving.outputs, "sync", sync)
    with Driver(tmp_path / "state", durability="disk", sync_every=1000) as driver:
        asyncio.run(driver.arun(job, name="w"))
        states = [i for i, what in enumerate(order) if what == "state"]
        assert len(states) == 2
        assert "files" in order[states[0]:states[1]]


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
