"""A log file that was cut short: an error by name, or all of it, never a signal."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resumable import DamagedLogError, Driver, checkpoint
from resumable.storage import lmdb_file
from resumable.storage.lmdb_log import LmdbStore

USE_ALL = """
import os, signal, sys
from resumable import DamagedLogError, Driver, checkpoint

def job(n, state=0):
    for i in range(state, n):
        yield checkpoint(i + 1, result="r" * 3000)

def use(path):
    with Driver(path) as driver:
        for info in driver.runs():
            list(driver.results(info.name)), driver.history(info.name)
        driver.clear("run 1")
        for n in range(3):
            driver.run(job, 300, name=f"new {n}")

for path in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            use(path)
            os._exit(0)
        except DamagedLogError:
            os._exit(1)
        except BaseException as error:
            print(path, repr(error), file=sys.stderr)
            os._exit(2)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def job(n, state=0):
    for i in range(state, n):
        yield checkpoint(i + 1, result="r" * 3000)


def test_a_cut_log_file_is_no_signal(tmp_path: Path, seed: int) -> None:
    """Wherever the log's file was cut, using it ends in DamagedLogError or works; the process is never killed."""
    whole = tmp_path / "whole"
    with Driver(whole, sync_every=0.02) as driver:
        for n in range(4):
            driver.run(job, 60, name=f"run {n}")
        driver.clear("run 3")
    size = (whole / "log" / "data.mdb").stat().st_size
    cuts = [0, 100, 4096, 8192, 8193, size - 1, size - 4096, *random.Random(seed).sample(range(12288, size), 8)]
    places = []
    for cut in cuts:
        shutil.copytree(whole, tmp_path / str(cut))
        os.truncate(tmp_path / str(cut) / "log" / "data.mdb", cut)
        places.append(str(tmp_path / str(cut)))
    done = subprocess.run([sys.executable, "-c", USE_ALL, *places], capture_output=True, text=True, check=True, timeout=120)
    codes = [int(line) for line in done.stdout.split()]
    assert len(codes) == len(cuts)
    assert set(codes) <= {0, 1}, (list(zip(cuts, codes, strict=True)), done.stderr)
    assert codes[:4] == [1, 1, 1, 1]


def test_pages_that_were_never_written_are_no_damage(tmp_path: Path) -> None:
    """A file that lacks only pages that nothing needs is made as long as LMDB thinks it is, and works."""
    with Driver(tmp_path / "state") as driver:
        driver.run(job, 5, name="run")
    file = tmp_path / "state" / "log" / "data.mdb"
    data = bytearray(file.read_bytes())
    for page in (0, 4096):
        last = int.from_bytes(data[page + 136 : page + 144], "little")
        data[page + 136 : page + 144] = (last + 3).to_bytes(8, "little")
    file.write_bytes(data)
    with Driver(tmp_path / "state") as driver:
        assert driver.info("run").status == "finished"
        driver.run(job, 5, name="another")
    assert file.stat().st_size >= len(data)


def test_the_trees_of_a_whole_log_are_followed_to_their_ends(tmp_path: Path) -> None:
    """A large log that lacks only its last page, which nothing leads to, works; one that lacks half of its pages is refused."""
    store = LmdbStore(tmp_path / "log")
    store.commit([(b"s%08d" % i, bytes([i % 256]) * (20 if i % 50 else 9000)) for i in range(5000)], [])
    store.close()
    file = tmp_path / "log" / "data.mdb"
    fd = os.open(file, os.O_RDONLY)
    meta = lmdb_file._newest(fd)
    assert meta is not None
    pages = meta.length // meta.page_size
    assert lmdb_file._is_whole(fd, meta, pages)
    assert not lmdb_file._is_whole(fd, meta, pages // 2)
    os.close(fd)
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DamagedLogError, match="cut to"):
        LmdbStore(tmp_path / "log")


def test_an_absurd_length_is_refused(tmp_path: Path) -> None:
    """A flipped bit in the length of the log raises DamagedLogError, and the file stays as it is."""
    with Driver(tmp_path / "state") as driver:
        driver.run(job, 5, name="run")
    file = tmp_path / "state" / "log" / "data.mdb"
    data = bytearray(file.read_bytes())
    for page in (0, 4096):
        data[page + 141] ^= 1
    file.write_bytes(data)
    with Driver(tmp_path / "state") as driver, pytest.raises(DamagedLogError, match="say that it has"):
        driver.runs()
    assert file.read_bytes() == data
