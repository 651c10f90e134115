"""durability="disk": on disk before the job goes on; and what a disk that is full, foreign or closed does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from resumable import Driver, checkpoint
from resumable.errors import DiskFullError, DriverClosedError, Preempted, ReadOnlyError, StorageError, UnsafeDirectoryError
from resumable.storage.disksync import DiskSync

root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")


def counting(n, size=0, stop=None, state=0):
    done = state[0] if state else 0
    for i in range(done, n):
        yield checkpoint((i + 1, os.urandom(size)))
        if i == stop:
            raise KeyError
    return n


def test_it_runs_and_resumes(make):
    """A run with durability="disk" gives its value, and goes on after a failure."""
    driver = make(durability="disk")
    with pytest.raises(KeyError):
        driver.run(counting, 50, 10, 20, name="job")
    assert driver.info("job").seq == 21
    assert driver.run(counting, 50, name="job", on_change="continue") == 50
    assert driver.state("job")[0] == 50


def test_it_survives_a_kill(script):
    """Killed anywhere, it goes on from the last acknowledged checkpoint, with either durability."""
    body = """
def job(state=0):
    for i in range(state, 30):
        if i == int(sys.argv[2]):
            kill()
        yield checkpoint(i + 1, result=i)
    return state
d = Driver(STATE, durability=sys.argv[3])
print(d.run(job), list(d.results(job)) == list(range(30)))
"""
    for place, durability in ((7, "disk"), (12, "process"), (19, "disk"), (20, "disk"), (25, "disk")):
        assert script(body, place, durability)[0] == -9
    assert script(body, -1, "disk") == (0, "25 True", "")
    assert script(body, -1, "process") == (0, "0 True", "")


def test_eight_threads(make):
    """Eight jobs at once in one process each keep all that was acknowledged to them."""
    driver = make(durability="disk")
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda n: driver.run(counting, n, name=f"job {n}"), range(60, 68)))
    assert values == list(range(60, 68))
    assert {info.seq for info in driver.runs()} == set(values)


def test_a_record_larger_than_the_sync_file(state_dir):
    """States of any size go to disk before the job goes on."""
    with Driver(state_dir, durability="disk") as driver:
        with pytest.raises(KeyError):
            driver.run(counting, 60, 200_000, 50, name="job")
        assert driver.run(counting, 60, 9_000_000, name="job", on_change="continue") == 60


def test_closing_leaves_no_sync_file(state_dir):
    """When all is in the log, the sync files are gone with the driver."""
    with Driver(state_dir, durability="disk") as driver:
        driver.run(counting, 5)
        with pytest.raises(KeyError):
            driver.run(counting, 5, 0, 3)
    assert os.listdir(state_dir / "sync") == []


@pytest.fixture
def small(tmp_path):
    """A file system of 64 MB."""
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@root
@pytest.mark.parametrize("settings", [{}, {"keep_states": None}], ids=str)
@pytest.mark.parametrize("size", [1000, 400_000], ids=["journal", "side files"])
def test_a_full_disk(small, settings, size):
    """A full disk is a DiskFullError; what was acknowledged is kept, and after making room the job goes on."""
    ballast = small / "ballast"
    with Driver(small / "state", **settings) as driver:
        driver.run(counting, 1)
        seen = []

        def job(state=None):
            for i in range(state[0] if state else 0, 8000 if size == 1000 else 40):
                seen.append(i)
                yield checkpoint((i + 1, os.urandom(size)))
                if i == 5 and not ballast.exists():
                    free = os.statvfs(small)
                    ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - 100_000)))

        with pytest.raises(DiskFullError) as caught:
            driver.run(job, name="job", on_change="continue")
        acknowledged = seen[-1]
        assert acknowledged >= 5
        assert any("checkpoint" in note for note in caught.value.__notes__)
        assert driver.state("job")[0] in (acknowledged, acknowledged + 1)
        ballast.write_bytes(b"")
        seen.clear()
        if settings:
            return  # all states are to be kept, and there is no room for that
        driver.run(job, name="job", on_change="continue")
        assert seen[0] in (acknowledged, acknowledged + 1)


@root
def test_a_disk_that_is_full_from_the_start(small):
    """Where nothing can be made, the first run says so by a DiskFullError, and works when there is room."""
    ballast = small / "ballast"
    free = os.statvfs(small)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize))
    with Driver(small / "state") as driver:
        with pytest.raises(DiskFullError):
            driver.run(counting, 3)
        ballast.unlink()
        assert driver.run(counting, 3) == 3


@root
def test_a_read_only_directory(small):
    """A read-only file system is a ReadOnlyError."""
    with Driver(small / "state") as driver:
        driver.run(counting, 1)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with Driver(small / "state") as driver:
        with pytest.raises(ReadOnlyError):
            driver.run(counting, 2)


def test_a_world_writable_directory_is_refused(state_dir):
    """A directory that others can write is refused: who can write it could run code in us."""
    state_dir.mkdir()
    state_dir.chmod(0o777)
    with Driver(state_dir) as driver:
        with pytest.raises(UnsafeDirectoryError, match=r"chmod|mode|writ"):
            driver.run(counting, 1)
    state_dir.chmod(0o700)
    with Driver(state_dir) as driver:
        assert driver.run(counting, 1) == 1


@root
def test_a_foreign_directory_is_refused(state_dir):
    """A directory of another user's is refused."""
    state_dir.mkdir(0o700)
    os.chown(state_dir, 12345, 12345)
    with Driver(state_dir) as driver:
        with pytest.raises(UnsafeDirectoryError, match="12345"):
            driver.runs()


def test_a_file_in_the_way(state_dir):
    """Something else than a directory at the path is a StorageError."""
    state_dir.write_text("")
    with Driver(state_dir) as driver:
        with pytest.raises(StorageError):
            driver.run(counting, 1)


def test_a_store_that_breaks_stops_the_job(make, monkeypatch):
    """When the log cannot take entries, for whatever reason, the job stops with an error instead of waiting for ever."""
    driver = make(keep_states=None)
    store = driver._open().home.store

    def broken(puts, deletes):
        raise RuntimeError("a bug")

    def job(state=0):
        yield checkpoint(1)
        monkeypatch.setattr(store, "commit", broken)
        for i in range(1_000_000):
            yield checkpoint(i)

    done = []

    def call():
        with pytest.raises(StorageError, match="a bug"):
            driver.run(job, name="job")
        done.append(True)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(20)
    assert done == [True]
    monkeypatch.undo()
    assert driver.run(counting, 2) == 2


def test_a_signal_while_the_pace_is_set(state_dir, monkeypatch):
    """A signal that comes just when a checkpoint has been saved stops the run at the next one."""
    asked = []

    def way(self, real=DiskSync.way):
        asked.append(self)
        found = real(self)
        if len(asked) == 7:         # once at the start; then plain states need no pace
            os.kill(os.getpid(), signal.SIGTERM)
        return found

    def job(state=0):
        for i in range(state, 100):
            yield checkpoint(i + 1 if i > 5 else {int})

    monkeypatch.setattr(DiskSync, "way", way)
    with Driver(state_dir, durability="disk", preempt=True) as driver:
        with pytest.raises(Preempted):
            driver.run(job, name="job")
        assert driver.info("job").seq <= 7


def test_closing_stops_a_run_on_plain_states(state_dir):
    """A run whose driver another thread closes stops with DriverClosedError, and acknowledged nothing that is lost."""
    for kind in (int, lambda i: (i, {int})):
        driver, seen, stopped = Driver(state_dir, durability="disk"), [], []

        def job(state=0, kind=kind, seen=seen):
            while True:
                yield checkpoint(kind(len(seen) + 1))
                seen.append(None)

        def go(driver=driver, job=job, stopped=stopped):
            try:
                driver.run(job, name="job", fresh=True)
            except DriverClosedError as error:
                stopped.append(error)

        thread = threading.Thread(target=go)
        thread.start()
        while len(seen) < 20:
            time.sleep(0.001)
        driver.close()
        thread.join(10)
        assert stopped
        with Driver(state_dir) as later:
            assert later.info("job").seq >= len(seen)


def test_a_refused_record_goes_before_the_next(state_dir, monkeypatch):
    """What could not be put on disk goes there before what comes after it, if the job goes on: else there would be a gap."""
    put, gone = [], []

    def refuse_once(self, name, number, seq, *rest, real=DiskSync.put):
        if seq == 2 and not gone:
            gone.append(seq)
            raise StorageError("the disk refused")
        put.append(seq)
        real(self, name, number, seq, *rest)

    async def job(state=0):
        await checkpoint({1})
        with pytest.raises(StorageError, match="refused"):
            await checkpoint({2})
        await checkpoint({3})
        put.append("acknowledged")

    monkeypatch.setattr(DiskSync, "put", refuse_once)
    with Driver(state_dir, durability="disk", rng=True) as driver:
        asyncio.run(driver.arun(job, name="job"))
    assert [seq for seq in put[: put.index("acknowledged")] if seq] == [1, 2, 3]


def test_a_closed_sync_file_takes_nothing(state_dir):
    """Whoever still knows a sync file that is about to be removed cannot put anything into it any more."""
    with Driver(state_dir, durability="disk") as driver:
        driver.run(counting, 3)
        group, _ = driver._engine.home.sync.way()
    assert group.put(b"too late") is False


def test_a_closed_driver_makes_no_sync_file(state_dir):
    """What comes after the sync files were closed is refused by name, and makes no new one."""
    driver = Driver(state_dir, durability="disk")
    driver.run(counting, 3)
    sync = driver._engine.home.sync
    driver.close()
    with pytest.raises(DriverClosedError):
        sync.put(b"n" * 16, 1, 1, 1, 0, b"")
    assert os.listdir(state_dir / "sync") == []
