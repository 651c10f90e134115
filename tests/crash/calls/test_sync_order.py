"""What reaches the disk before what: the system calls of real runs, in order.

Without a power cut nothing else tells whether a file was synced. The jobs mark with a directory what they were
acknowledged for, so that the mark stands among the calls.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from harness import scratch
from shim import count_calls, run_with_faults

pytestmark = pytest.mark.crash

SCRIPT = """
import os, signal, sys
from resumable.storage import platform
place, durability, kind, ending = sys.argv[1:]
if ending == "reboot":
    boot = os.urandom(16)
    platform.boot_id = lambda: boot     # before anybody else has it by name
from resumable import Driver, checkpoint
from resumable.storage import disksync
disksync.CAPACITY = 1 << 18
KINDS = {"plain": lambda i: i, "pickled": lambda i: (i, {ValueError}), "large": lambda i: bytes([i]) * 300_000}
def job(state=None):
    for i in range(4):
        yield checkpoint(KINDS[kind](i))
        os.mkdir(f"{place}/{ending}.{i}")
    driver.sync()
    os.mkdir(f"{place}/{ending}.logged")
    if ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
with Driver(f"{place}/home/state", durability=durability, sync_every=3600) as driver:
    driver.run(job, name="job")
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, as only the order of the calls counts."""
    with scratch() as made:
        yield made


def program(place: Path, durability: str, kind: str = "plain", ending: str = "ended") -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(place), durability, kind, ending]


def calls_of(place: Path, command: Sequence[str]) -> list[str]:
    """The calls below `place`, as "fsync home/state"; names that are drawn at random are "*"."""
    found = []
    for call in count_calls(command, under=place):
        path = Path(call.path).relative_to(place) if Path(call.path) != place else Path(".")
        stem, dot, end = path.name.partition(".")
        name = f"*{dot}{end}" if path.parent.name == "sync" and stem else path.name
        found.append(f"{call.op} {path.parent / name}")
    return found


def in_order(calls: Sequence[str], *wanted: str) -> list[str]:
    """Those of the `wanted` calls that do not follow on those before them: none, if all is in order."""
    at, missing = 0, []
    for call in wanted:
        if call in calls[at:]:
            at = calls.index(call, at) + 1
        else:
            missing.append(call)
    return missing


@pytest.mark.parametrize("kind", ["plain", "pickled"])
def test_a_checkpoint_is_synced_before_it_is_acknowledged(kind: str, place: Path) -> None:
    """With durability="disk" each checkpoint is written to the sync file, and that synced, before the job goes on."""
    calls = calls_of(place, program(place, "disk", kind))
    acks = [calls.index(f"mkdir ended.{i}") for i in range(4)]
    for before, ack in zip([0, *acks], acks, strict=False):
        assert in_order(calls[before:ack], "pwrite home/state/sync/*", "fdatasync home/state/sync/*") == []


def test_a_sync_file_is_on_disk_before_it_is_used(place: Path) -> None:
    """A sync file is synced whole, then gets its name, then its directory and the one above are synced, and then it counts."""
    calls = calls_of(place, program(place, "disk"))
    assert in_order(
        calls[: calls.index("mkdir ended.0")], "pwrite home/state/sync/*.new", "fsync home/state/sync/*.new",
        "rename home/state/sync/*.new", "fsync home/state/sync", "fsync home/state", "fdatasync home/state/sync/*",
    ) == []  # fmt: skip


def test_a_side_file_is_on_disk_before_its_state(place: Path) -> None:
    """With durability="disk" a large state's file and its name are synced before the record that refers to it."""
    calls = calls_of(place, program(place, "disk", "large"))
    (folder,) = {str(Path(call.partition(" ")[2]).parent) for call in calls if ".side." in call}
    acks = [0, *(calls.index(f"mkdir ended.{i}") for i in range(4))]
    for seq in range(1, 5):
        side = f"{folder}/1.side.{seq}.new"
        assert in_order(
            calls[acks[seq - 1] : acks[seq]], f"fdatasync {side}", f"rename {side}", f"fsync {folder}",
            "fdatasync home/state/sync/*",
        ) == []  # fmt: skip


def test_a_commit_is_synced(place: Path) -> None:
    """When `sync` returns, the log's file is written and synced since the last checkpoint."""
    calls = calls_of(place, program(place, "process"))
    assert "fdatasync home/state/log/data.mdb" in calls[calls.index("mkdir ended.3") : calls.index("mkdir ended.logged")]


def test_new_directories_are_synced(place: Path) -> None:
    """The directories that are made for a state directory, and the log in it, are entered on the disk before a commit is."""
    calls = calls_of(place, program(place, "process"))
    before = calls[: calls.index("mkdir ended.logged")]
    assert in_order(before, "mkdir home", "fsync .", "mkdir home/state", "fsync home") == []
    assert in_order(before, "fsync home/state/log", "fsync home/state", "mkdir ended.0") == []


def test_a_dead_boots_journal_goes_for_good(place: Path) -> None:
    """Before a run that another boot began saves anything new, the removal of its journal is on the disk."""
    done = subprocess.run(program(place, "process", ending="killed"), check=False)
    assert done.returncode == -signal.SIGKILL
    (name,) = os.listdir(place / "home/state/runs")
    calls = calls_of(place, program(place, "process", ending="reboot"))
    folder = f"home/state/runs/{name}"
    assert in_order(calls[: calls.index("mkdir reboot.0")], f"unlink {folder}/1.0", f"fsync {folder}") == []


def test_a_dead_boots_sync_files_go_for_good(place: Path) -> None:
    """Before a run that another boot began saves anything new, the removal of that boot's sync files is on the disk."""
    done = subprocess.run(program(place, "disk", ending="killed"), check=False)
    assert done.returncode == -signal.SIGKILL
    calls = calls_of(place, program(place, "process", ending="reboot"))
    before = calls[: calls.index("mkdir reboot.0")]
    assert in_order(before, "unlink home/state/sync/*", "fsync home/state/sync") == []


@pytest.mark.parametrize("kind", ["plain", "pickled"])
def test_a_failed_sync_is_final(kind: str, place: Path) -> None:
    """A checkpoint whose sync fails once is not acknowledged, though the next sync would succeed: SyncFailedError."""
    ended = program(place, "disk", kind)
    # The first sync is for the run's description.
    done = run_with_faults(ended, "fdatasync", 3, errno.EIO, under=place / "home/state/sync")
    assert "SyncFailedError" in done.stderr
    assert sorted(path.name for path in place.glob("ended.*")) == ["ended.0"]
