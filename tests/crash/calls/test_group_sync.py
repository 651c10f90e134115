"""Threads that share syncs: each is told of its own entry's, in one file whose syncs are slow or fail."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import threading
import time
from pathlib import Path

import pytest
from shim import run_with_faults

from resumable._fastlog import GroupSync

pytestmark = pytest.mark.crash

SLOW = 0.8      # seconds that a sync takes

# Whoever comes first syncs; the others come while it does.
SCRIPT = """
import json, os, sys, threading, time
from resumable._fastlog import GroupSync
group = GroupSync(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600), b"12345678", 64, 1 << 20)
told = {}
def put(name):
    try:
        said = group.put(name.encode())
    except OSError as error:
        said = error.errno
    told[name] = said, time.monotonic()
threads = [threading.Thread(target=put, args=[name]) for name in ("first", "second", "third", "fourth")]
for thread in threads:
    thread.start()
    time.sleep(0.05)
for thread in threads:
    thread.join()
print(json.dumps(told))
"""


def told(directory: Path, what: str = "", failing: int = 0) -> dict[str, tuple[int | bool, float]]:
    """What each thread was told, and when, in seconds, where syncs are slow.

    `what` befalls them, too, in strace's words; the one of number `failing` fails at once.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    inject = f"inject=fdatasync:{what}delay_enter={int(SLOW * 1e6)}"
    command = ["strace", "-f", "-o", str(directory / "trace"), "-e", "trace=fdatasync", "-e", inject]
    program = [sys.executable, "-c", SCRIPT, str(directory / "file")]
    done = run_with_faults([*command, *program], "fdatasync", failing, errno.EIO, under=directory, timeout=20)
    done.check_returncode()
    found: dict[str, tuple[int | bool, float]] = json.loads(done.stdout)
    return found


def test_who_comes_during_a_sync_waits_for_the_next(tmp_path: Path) -> None:
    """An entry that came while others were synced is acknowledged by a sync that began behind it."""
    found = told(tmp_path)
    assert [said for said, _ in found.values()] == [True] * 4
    for name in ("second", "third", "fourth"):
        assert found[name][1] > found["first"][1] + 0.7 * SLOW
    assert len(re.findall("= 0 ", (tmp_path / "trace").read_text())) == 2


def test_a_failed_sync_is_told_to_who_shared_it(tmp_path: Path) -> None:
    """When a sync fails for several entries none of them is acknowledged."""
    found = told(tmp_path, failing=2)
    assert {name: said for name, (said, _) in found.items()} == {
        "first": True, "second": errno.EIO, "third": errno.EIO, "fourth": errno.EIO,
    }  # fmt: skip


def test_a_failed_sync_is_told_to_who_came_meanwhile(tmp_path: Path) -> None:
    """An entry that came during a sync that failed is refused: nothing is written to that file again."""
    found = told(tmp_path, "error=EIO:")
    assert [said for said, _ in found.values()] == [errno.EIO] * 4
    assert (tmp_path / "trace").read_text().count("fdatasync(") == 1


def test_each_entry_of_many_threads_is_there_once(tmp_path: Path) -> None:
    """Of threads that put again and again nobody is forgotten, and no entry is lost or there twice."""
    path = tmp_path / "file"
    group = GroupSync(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), b"12345678", 64, 1 << 22)
    kept = []

    def put(thread: int) -> None:
        for count in range(300):
            assert group.put(f"<{thread}.{count}>".encode())
        kept.append(thread)

    threads = [threading.Thread(target=put, args=[thread], daemon=True) for thread in range(20)]
    for each in threads:
        each.start()
    until = time.monotonic() + 60
    for each in threads:
        each.join(until - time.monotonic())
    assert sorted(kept) == list(range(20))
    found = re.findall(rb"<(\d+)\.(\d+)>", path.read_bytes())
    assert sorted((int(thread), int(count)) for thread, count in found) == [(i, j) for i in range(20) for j in range(300)]
