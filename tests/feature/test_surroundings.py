"""Surroundings that a Driver refuses, by name: another container, another version's files, a network file system."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from resumable import Driver, NetworkFileSystemError, NewerFormatError, checkpoint
from resumable._fastlog import crc32c
from resumable.storage import platform

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="pid namespaces need root")

CONTAINER = """
import sys
from resumable import Driver, SharedPidError, checkpoint
def job(state=0):
    yield checkpoint(1)
    print("running", flush=True)
    sys.stdin.readline()
try:
    with Driver(sys.argv[1]) as driver:
        driver.run(job, name=sys.argv[2])
    print("finished", flush=True)
except SharedPidError as error:
    print("refused:", error, flush=True)
"""


def counting(n: int, state: int = 0) -> Iterator[Any]:
    for i in range(state, n):
        yield checkpoint(i + 1)
    raise KeyError(n)


def container(state_dir: Path, name: str) -> subprocess.Popen[str]:
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-c", CONTAINER, str(state_dir), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@needs_root
def test_two_containers_with_one_pid(state_dir: Path) -> None:
    """A process in another container that has the same pid gets SharedPidError, and the first one is not disturbed."""
    first = container(state_dir, "first")
    assert first.stdout is not None
    assert first.stdout.readline() == "running\n"
    second = container(state_dir, "second")
    out, _ = second.communicate("\n", timeout=60)
    assert out.startswith("refused:")
    assert "another container" in out
    assert first.communicate("\n", timeout=60)[0] == "finished\n"


def test_a_journal_of_a_newer_format(state_dir: Path) -> None:
    """An unfinished run that a newer version wrote is NewerFormatError with both versions, and stays as it is."""
    with Driver(state_dir) as driver, pytest.raises(KeyError):
        driver.run(counting, 3, name="job")
    (segment,) = state_dir.glob("runs/*/1.0")
    data = bytearray(segment.read_bytes())
    for copy in (0, 512):
        data[copy + 8 : copy + 12] = struct.pack("<I", 2)
        data[copy + 124 : copy + 128] = struct.pack("<I", crc32c(bytes(data[copy : copy + 124])))
    segment.write_bytes(data)
    with Driver(state_dir) as driver, pytest.raises(NewerFormatError, match=r"format 2.* knows 1.*upgrade") as caught:
        driver.run(counting, 3, name="job")
    assert (caught.value.found, caught.value.supported) == (2, 1)  # type: ignore[attr-defined]
    assert segment.read_bytes() == data


def test_a_log_of_a_newer_format(state_dir: Path) -> None:
    """A log that a newer version wrote is NewerFormatError with both versions."""
    with Driver(state_dir) as driver, pytest.raises(KeyError):
        driver.run(counting, 3, name="job")
    version = struct.pack("<I", 7)
    with lmdb.open(str(state_dir / "log")) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"format", struct.pack("<I", crc32c(version, crc32c(b"format"))) + version)
    with Driver(state_dir) as driver, pytest.raises(NewerFormatError, match=r"format 7.* reads 1.*install"):
        driver.run(counting, 3, name="job")


@pytest.mark.parametrize("kind", ["nfs4", "fuse.sshfs"])
def test_a_network_file_system(state_dir: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A state directory on a network file system is refused, nothing is made there, and the way out is named."""
    monkeypatch.setattr(platform, "_mount_type", lambda mount_id: kind)
    with Driver(state_dir) as driver:
        with pytest.raises(NetworkFileSystemError, match=f"{kind}.*RESUMABLE_HOME"):
            driver.run(counting, 3, name="job")
    assert not state_dir.exists()
