"""Large states: in side files, out of band, checked; and what happens when such a file is not whole."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from resumable import Driver, checkpoint
from resumable._fastlog import encode_plain
from resumable.errors import DamagedLogError, StateGoneError, SyncFailedError
from resumable.runs.reports import View
from resumable.storage.side import read_side, sync_file, write_side

LARGE = 10 << 20


def job(n, state=None):
    done = 0 if state is None else int(state["done"])
    for i in range(done, n):
        yield checkpoint({"array": np.full(LARGE // 8, i, dtype=np.int64), "done": i + 1})
    return state


def crashing(n, state=None):
    yield from job(n, state)
    raise KeyError


def sides(state_dir):
    return sorted(file for _, _, files in os.walk(state_dir) for file in files if ".side." in file)


def crash(driver, n):
    with pytest.raises(KeyError):
        driver.run(crashing, n, name="job")


@pytest.mark.parametrize("settings", [{}, {"durability": "disk"}], ids=str)
def test_an_array_comes_back_writable(make, settings):
    """A large array comes back equal, of its dtype, and writable."""
    driver = make(**settings)
    crash(driver, 3)
    state = driver.state("job")
    array = state["array"]
    assert (array.dtype, array.shape, state["done"]) == (np.int64, (LARGE // 8,), 3)
    assert (array == 2).all()
    array[0] = 99
    assert driver.run(job, 3, name="job", on_change="continue")["done"] == 3


def test_large_states_of_other_kinds(driver):
    """Frames, tables, bytes and texts above the limit come back as they were."""
    values = [
        pd.DataFrame({"a": np.arange(200_000), "b": ["x"] * 200_000}),
        pa.table({"a": list(range(200_000))}),
        b"\1" * (1 << 20),
        bytearray(1 << 20),
        "ü" * (1 << 20),
        [np.arange(100_000), np.arange(100_000)],
    ]

    def job(state=0):
        for value in values:
            yield checkpoint(value)
            back = driver.state("job")
            assert type(back) is type(value)
            if isinstance(value, list):
                assert all((a == b).all() for a, b in zip(value, back, strict=True))
            else:
                assert value.equals(back) if hasattr(value, "equals") else value == back

    driver.run(job, name="job")


def test_the_last_two_are_kept(disk, state_dir):
    """Of the large states the last two stay, during the run and after it; older ones are StateGoneError."""
    crash(disk, 6)
    assert sides(state_dir) == ["1.side.5", "1.side.6"]
    assert disk.state("job", at=5)["done"] == 5
    with pytest.raises(StateGoneError, match="last two"):
        disk.state("job", at=3)
    disk.run(job, 8, name="job", on_change="continue")
    assert sides(state_dir) == ["1.side.7", "1.side.8"] or sides(state_dir)[:2] == ["1.side.7", "1.side.8"]
    assert disk.state("job", at=7)["done"] == 7


def test_a_long_run_does_not_fill_the_disk(state_dir):
    """While a job goes on, side files of older states go, long before sync_every is over."""
    counts = []

    def job(state=0):
        for i in range(200):
            yield checkpoint(bytes([i]) * 300_000)
            time.sleep(0.002)
            counts.append(len(sides(state_dir)))

    with Driver(state_dir, sync_every=1000) as driver:
        driver.run(job, name="job")
        assert len(sides(state_dir)) == 2
        assert driver.state("job") == bytes([199]) * 300_000
    assert max(counts) < 100


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_a_damaged_side_file_is_told(disk, state_dir, how):
    """A side file with a flipped bit, cut short, or gone raises DamagedLogError on resume; nothing starts over."""
    crash(disk, 3)
    (path,) = state_dir.glob("runs/*/1.side.3")
    data = bytearray(path.read_bytes())
    good = bytes(data)
    if how == "flip":
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[:-100])
    else:
        path.unlink()
    for _ in range(2):
        with pytest.raises(DamagedLogError, match=r"1\.side\.3"):
            disk.run(crashing, 3, name="job")
    path.write_bytes(good)
    assert disk.run(job, 3, name="job", on_change="continue")["done"] == 3


def test_the_last_state_of_a_run_that_goes_on(disk, monkeypatch):
    """Asked for the last state while the run removes it and saves others, a report gives a later one."""

    def slow(state=None):
        for done in range(1, 6):
            yield checkpoint({"array": np.full(LARGE // 8, done), "done": done})
            if done in (1, 4):
                disk.sync()     # else the first may not be removed yet
                reached.release()
                assert go_on.acquire(timeout=10)

    def last_state(view):
        entry = look(view)
        looks.append(entry.seq)
        if entry.seq == 1:
            go_on.release()
            assert reached.acquire(timeout=10)
        return entry

    look, looks, reached, go_on = View.last_state, [], threading.Semaphore(0), threading.Semaphore(0)
    monkeypatch.setattr(View, "last_state", last_state)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(disk.run, slow, name="slow")
        assert reached.acquire(timeout=10)
        assert disk.state("slow")["done"] == 4
        go_on.release()
        running.result()
    assert looks == [1, 4]


@pytest.mark.parametrize("kind", ["state", "result"])
def test_a_lost_side_file_is_told_by_reports(disk, state_dir, kind):
    """A report that wants the last state, or a result, whose side file is gone says that, and not that it was one too many."""

    def one(state=None):
        large = np.zeros(LARGE // 8)
        yield checkpoint(large) if kind == "state" else checkpoint(1, result=large)

    disk.run(one, name="one")
    (path,) = state_dir.glob("runs/*/1.side.*")
    path.unlink()
    with pytest.raises(DamagedLogError, match="it is missing"):
        disk.state("one") if kind == "state" else disk.results("one")[0]


def test_small_and_large_in_turn(driver):
    """A run may change between small and large states, and resume from either."""

    def job(state=0):
        n = len(state) if isinstance(state, bytes) else state
        for i in range(n, 6):
            yield checkpoint(i + 1)
            if i == stops[0]:
                stops.pop(0)
                raise KeyError
            yield checkpoint(bytes(i + 1) if i % 2 else i + 1)
        return n

    stops = [2, 3, 99]
    for _ in range(2):
        with pytest.raises(KeyError):
            driver.run(job, name="job", on_change="continue")
    assert driver.run(job, name="job", on_change="continue") == 4


def test_an_unsavable_result_leaves_no_side_file(disk, state_dir):
    """When the result beside a large state cannot be saved, the state before stays the last one, whole."""

    def job(state=0):
        yield checkpoint(b"a" * 400_000, result=1)
        yield checkpoint(b"b" * 400_000, result=(i for i in ()))

    with pytest.raises(TypeError):
        disk.run(job, name="job")
    assert disk.state("job") == b"a" * 400_000
    assert sides(state_dir) == ["1.side.1"]


def test_across_processes(script):
    """Killed with large states, large results and a large value, another process goes on and reads them all."""
    body = """
def job(state=b""):
    for i in range(len(state) // 300_000, 6):
        if i == int(sys.argv[2]):
            kill()
        yield checkpoint(bytes([65]) * (300_000 * (i + 1)), result=bytes([66 + i]) * 400_000)
    return b"z" * 500_000
d = Driver(STATE)
value = d.run(job, once=True)
print(value == b"z" * 500_000, [r[:1].decode() for r in d.results(job)], len(d.state(job)))
"""
    for place in (2, 4):
        assert script(body, place)[0] == -9
    for _ in range(2):
        assert script(body, -1) == (0, "True ['B', 'C', 'D', 'E', 'F', 'G'] 1800000", "")


def test_a_large_array_is_not_copied(state_dir):
    """Saving an array takes no second copy of it in memory, at a checkpoint and as a return value."""
    script = f"""
import numpy
from resumable import Driver, checkpoint

def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

def job(state=None):
    yield checkpoint({{"weights": array, "step": 1}})
    return array

def warm(state=None):
    yield checkpoint(1)

array = numpy.ones(200 << 17)       # 200 MB
with Driver({str(state_dir)!r}) as driver:
    driver.run(warm)
    before = peak()
    driver.run(job, name="job")
    print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40


def test_writes_that_come_up_short(state_dir, monkeypatch):
    """A write that takes half of its bytes is gone on with, for a side file's header too."""
    write, pwrite = os.write, os.pwrite
    with Driver(state_dir) as driver:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: write(fd, data[: -(-len(data) // 2)]))
            patch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[: -(-len(data) // 2)], at))
            with pytest.raises(KeyError):
                driver.run(crashing, 2, name="short")
        assert driver.state("short")["done"] == 2


@pytest.mark.parametrize("forged", [("../a", ()), ("1.side.1", ("../../a",)), ("1.side.1", ("/etc/passwd",)), ("..", ())])
def test_a_reference_out_of_the_folder(tmp_path, forged):
    """A reference that names a file of another folder is damage: nothing there is read, or copied by `repair`."""
    (tmp_path / "1.side.1").touch()
    name, others = forged
    with pytest.raises(DamagedLogError, match="folder"):
        read_side(tmp_path, bytes(encode_plain((name, 10, 0, list(others)))))


def test_a_header_without_a_table(state_dir):
    """A side file whose header is torn is damage that is named."""
    with Driver(state_dir) as driver:
        with pytest.raises(KeyError):
            driver.run(crashing, 2, name="torn")
        side = next(state_dir.glob("runs/*/1.side.2"))
        with open(side, "r+b") as file:
            file.seek(16)
            file.write(bytes(16))
        with pytest.raises(DamagedLogError, match="header"):
            driver.run(job, 2, name="torn")


def test_a_failed_sync_is_not_believed_later(state_dir, monkeypatch):
    """A side file that the disk refused to sync is never synced again: a copy of it takes its place."""
    refused = []

    def refuse(fd, sync=os.fdatasync):
        if ".side." in os.readlink(f"/proc/self/fd/{fd}") and not refused:
            refused.append(os.fstat(fd).st_ino)
            raise OSError(errno.EIO, "Input/output error")
        assert os.fstat(fd).st_ino not in refused
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", refuse)
    with Driver(state_dir, sync_every=3600) as driver:
        with pytest.raises(KeyError):
            driver.run(crashing, 1, name="sync")
        side = next(state_dir.glob("runs/*/1.side.1"))
        if side.stat().st_ino in refused:       # else the last flush of the run has done it
            driver.run(job, 1, name="sync")
    assert refused
    assert side.stat().st_ino not in refused


def test_a_refused_side_file_that_is_not_whole(tmp_path, monkeypatch):
    """A side file that the disk refused to sync and that lost bytes by it is damage that is named."""
    path = tmp_path / "1.side.1"
    write_side(path, bytes(300_000), [], durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: os.fsync(1 << 20))
        with pytest.raises(SyncFailedError):
            sync_file(path)
    with open(path, "r+b") as file:
        file.seek(5000)
        file.write(b"\1")
    with pytest.raises(DamagedLogError, match="refused to sync it, and then its bytes fail"):
        sync_file(path)
    assert sorted(tmp_path.iterdir()) == [path]
