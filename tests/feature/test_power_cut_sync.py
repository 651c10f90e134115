"""Sync files of another boot are put into the log once, by one opener, and files that are just being made are left alone."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, StorageError, checkpoint
from resumable.storage import disksync
from resumable.storage.disksync import DiskSync, read_abandoned
from resumable.storage.memory import MemoryStore
from resumable.storage.records import FINISHED, RunRecord, digest16, run_key

Script = Callable[..., tuple[int, str, str]]

LIFE = """
def job(state=0):
    for i in range(7):
        yield checkpoint(state + i + 1)
    kill()
with Driver(STATE, durability="disk", sync_every=1000) as driver:
    driver.run(job, name="job")
"""
BOOT = os.urandom(16)
KEY = run_key(digest16("job"), 1)


@pytest.fixture
def sync(script: Script, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of sync files after a power cut: in one is a run of 7 checkpoints."""
    assert script(LIFE)[0] == -9
    monkeypatch.setattr(disksync, "boot_id", lambda: BOOT)
    return state_dir / "sync"


def record(store: MemoryStore) -> RunRecord:
    value = store.get(KEY)
    assert value is not None
    return RunRecord.decode(value)


class SlowStore(MemoryStore):
    """Its first commit waits for a word."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.may = threading.Event(), threading.Event()

    def commit(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        if not self.asked.is_set():
            self.asked.set()
            assert self.may.wait(30)
        super().commit(puts, deletes)


def test_the_second_opener_waits(sync: Path) -> None:
    """Of two that open a directory at once, the second goes on when the first has put everything into the log."""
    store = SlowStore()
    first = threading.Thread(target=DiskSync(sync, store).merge)
    second = threading.Thread(target=DiskSync(sync, store).merge)
    first.start()
    assert store.asked.wait(30)
    second.start()
    second.join(0.2)
    assert second.is_alive(), "a run of its own would have begun without what the first is about to put into the log"
    store.may.set()
    first.join(30)
    second.join(30)
    assert record(store).seq == 7
    assert list(sync.iterdir()) == []


@pytest.mark.parametrize("gone_on", [True, False], ids=["live", "finished"])
def test_a_run_that_went_on_is_left_alone(sync: Path, gone_on: bool) -> None:
    """A sync file of another boot changes nothing about a run that is over or that this boot has gone on with."""
    (path,) = sync.iterdir()
    found = read_abandoned(path)
    assert found is not None
    known = RunRecord(1, "running", 3, 0, (0, 9), BOOT, 0, found.records[0][1][4])
    if not gone_on:
        known = replace(known, status=FINISHED, boot=b"")
    store = MemoryStore()
    store.commit([(KEY, known.encode())], [])
    DiskSync(sync, store).merge()
    assert record(store) == known


def test_a_file_that_is_being_made_stays(sync: Path) -> None:
    """A file that is not finished is no sync file, and goes only when whoever made it is dead."""
    dead, alive = sync / "0011.new", sync / "0022.new"
    dead.write_bytes(b"")
    alive.write_bytes(b"")
    with alive.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert read_abandoned(dead) is None
        DiskSync(sync, MemoryStore()).merge()
        assert list(sync.iterdir()) == [alive]


def test_a_file_that_goes_meanwhile_is_no_error(sync: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync file that is gone after the directory was listed, or another in its place, does no harm and is not harmed."""
    (path,) = sync.iterdir()
    found = read_abandoned(path)
    assert found is not None
    keep = sync.parent / "kept"
    path.rename(keep)
    monkeypatch.setattr(disksync, "_listed", lambda folder: [path, path.with_name("gone.new")])
    DiskSync(sync, MemoryStore()).merge()
    path.write_bytes(b"another")
    disksync._unlink(found.path, found.file)
    assert path.read_bytes() == b"another"


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_UN])
def test_a_lock_that_fails_is_told_by_name(
    script: Script, state_dir: Path, monkeypatch: pytest.MonkeyPatch, how: int
) -> None:
    """When the kernel refuses to lock or unlock the sync files the error is a StorageError, and the next call goes on."""
    assert script(LIFE)[0] == -9
    whole, refused = fcntl.flock, []

    def flock(fd: int, asked: int) -> None:
        if asked == how and not refused:
            refused.append(fd)
            raise OSError(5, "Input/output error")
        whole(fd, asked)

    monkeypatch.setattr(fcntl, "flock", flock)
    driver = Driver(state_dir)
    with pytest.raises(StorageError, match="Input/output error"):
        driver.runs()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(refused[0])
    assert driver.info("job").seq == 7
    driver.close()


def test_a_file_that_cannot_be_made_leaves_nothing(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a new sync file fails halfway nothing of it stays, and the next run has another."""

    def job(state: int = 0) -> Any:
        yield checkpoint(1)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with Driver(state_dir, durability="disk") as driver:
        with monkeypatch.context() as patch:
            patch.setattr(disksync, "pwrite_all", fail)
            with pytest.raises(OSError, match="No space"):
                driver.run(job, name="job")
        assert list((state_dir / "sync").iterdir()) == []
        driver.run(job, name="job")


HOLDING = """
def job(state=0):
    yield checkpoint(1)
    driver.sync()
    print("held", flush=True)
    sys.stdin.readline()
with Driver(STATE, durability="disk", sync_every=1000) as driver:
    driver.run(job, name="job")
"""


def test_a_living_process_keeps_its_file(start: Callable[..., Any], state_dir: Path) -> None:
    """The sync file of a process that is alive is nobody else's to remove, though the log has all that is in it."""
    process = start(HOLDING)
    assert process.stdout.readline() == "held\n"
    before = list((state_dir / "sync").iterdir())
    with Driver(state_dir) as driver:
        assert driver.info("job").on_disk == 1
    assert list((state_dir / "sync").iterdir()) == before != []
    assert process.communicate("\n")[1] == ""


FULL_FILES = """
import threading
from resumable.storage import disksync
disksync.CAPACITY = 1 << 13
done = threading.Barrier(9)
def job(state=0):
    for i in range(200):
        yield checkpoint(state + i + 1)
    done.wait()
    time.sleep(60)
driver = Driver(STATE, durability="disk", sync_every=1000)
for n in range(8):
    threading.Thread(target=driver.run, args=(job,), kwargs={"name": f"job {n}"}, daemon=True).start()
done.wait()
kill()
"""


def test_full_files_are_followed_by_others(script: Script, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs in several threads fill one sync file after the other, and a power cut takes nothing that was acknowledged."""
    code, _, error = script("import time\n" + FULL_FILES)
    assert code == -9, error
    assert len(list((state_dir / "sync").iterdir())) > 5
    monkeypatch.setattr(disksync, "boot_id", lambda: BOOT)
    store = MemoryStore()
    DiskSync(state_dir / "sync", store).merge()
    values = [store.get(run_key(digest16(f"job {n}"), 1)) for n in range(8)]
    assert [RunRecord.decode(value).seq for value in values if value is not None] == [200] * 8
