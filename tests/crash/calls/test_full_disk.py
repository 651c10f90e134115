"""A disk that fills up: in memory, in steps of its size; ext4, xfs and btrfs, in steps of the room that is left."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

import lmdb
import pytest
from disks import KINDS, leave_free, loop_disk, make_room, memory_disk, mount
from figures import Figures, amount
from harness import Ledger, Server, spread
from test_faults import check_end, told_how
from test_syscall_kill import check_rerun, told

from resumable import DiskFullError
from resumable.storage import folder, platform
from resumable.storage.lmdb_errors import explain

pytestmark = [
    pytest.mark.crash, pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own"),
]

SMALLEST, LARGEST, STEP = 64 << 10, 8 << 20, 4 << 10
# Of five disks two are in memory, and one is of each other kind.
SHORT = 50


def fill(
    server: Server, place: Path, case: tuple[int, str], kind: str, right: list[object], plant: str | None = None
) -> str:
    """The story on a disk with so much room, then with room enough; gives back how it ended before."""
    room, durability = case
    what = f"{kind}, {room >> 10} KiB, {durability}"
    directory = place / "d"
    ledger = Ledger()
    first = server.live("story", directory=str(directory), durability=durability, plant=plant)
    assert first.code != -signal.SIGBUS, f"{what}: SIGBUS"
    end = check_end(first, what)
    assert end in ("DiskFullError", "NotDurableWarning", "none"), f"{what}: {end}\n{first.report['trace']}"
    if kind == "tmpfs":
        mount(place, "-o", "remount,size=64m")
    else:
        make_room(place)
    second = server.live("story", directory=str(directory), durability=durability, whole=False)
    try:
        check_rerun(ledger, first, second, right)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}\nthe first life: {first.report}") from error
    return end


def fill_one(server: Server, case: tuple[int, str], right: list[object], plant: str | None = None) -> str:
    with memory_disk(case[0]) as place:
        return fill(server, place, case, "tmpfs", right, plant)


def fill_loop(kind: str, cases: list[tuple[int, str]], plant: str | None = None) -> Counter[str]:
    """One disk of this kind, filled up to leave so much room, again and again; how the runs ended."""
    ends: Counter[str] = Counter()
    with loop_disk(kind) as place, Server("durable_jobs") as server:
        right = told(server)
        for case in cases:
            leave_free(place, case[0])
            ends[fill(server, place, case, kind, right, plant)] += 1
            shutil.rmtree(place / "d", ignore_errors=True)
    return ends


def cases_of(kind: str, fifths: int, seed: int) -> list[tuple[int, str]]:
    sizes = [(size, how) for size in range(SMALLEST, LARGEST + 1, STEP) for how in ("process", "disk")]
    return random.Random(f"{seed} {kind}").sample(sizes, amount("D1", SHORT) * fifths // 5)


def test_full_memory(seed: int, figures: Figures) -> None:
    """On a disk of any size a run ends with a clear error, never by SIGBUS, and goes on once there is room."""
    cases = cases_of("tmpfs", 2, seed)
    with memory_disk(1 << 20), Server() as server:
        right = told(server)
    ends: Counter[str] = Counter()

    def work(server: Server, case: tuple[int, str]) -> None:
        ends[fill_one(server, case, right)] += 1

    spread(cases, work)
    figures("D1", f"tmpfs ({told_how(ends)})", disks=len(cases))


@pytest.mark.parametrize("kind", KINDS)
def test_full_loop_device(kind: str, seed: int, figures: Figures) -> None:
    """However little room a file system has, a run ends with a clear error, never by SIGBUS, and goes on once there is more."""
    cases = cases_of(kind, 1, seed)
    ends = fill_loop(kind, cases)
    figures("D1", f"{kind} ({told_how(ends)})", disks=len(cases))


def test_room_that_is_kept_back() -> None:
    """A full ext4 is called full, though statvfs counts what it keeps for itself."""
    with loop_disk("ext4") as place:
        leave_free(place, 0)
        assert os.statvfs(place).f_bfree > 0
        found = explain(lmdb.Error(f"mdb_txn_commit: {os.strerror(errno.EIO)}"), place, "cannot write the log", 0)
    assert isinstance(found, DiskFullError)


def test_what_is_mapped_on_btrfs() -> None:
    """On btrfs a journal is mapped if it is not copied on write, and else written with pwrite."""
    with loop_disk("btrfs") as place:
        for name, nocow in (("taken", True), ("refused", False)):
            (place / name).mkdir()
            with pytest.MonkeyPatch.context() as patch:
                if not nocow:
                    patch.setattr(platform, "set_nocow", lambda fd: False)
                segment = folder.DiskFolder(place / name).new_segment(1, 0, 1 << 16, lambda made: None)
            flags = subprocess.run(["lsattr", place / name / "1.0"], capture_output=True, text=True, check=True).stdout
            assert ("C" in flags.split()[0]) == nocow
            assert segment.mode == (folder.BY_MAP if nocow else folder.BY_PWRITE)
            segment.close()


def test_control_files_with_holes() -> None:
    """Journal files that do not own their space are found out."""

    def fill_all() -> None:
        with Server() as server:
            right = told(server)
            for size in range(256 << 10, LARGEST, 96 << 10):
                fill_one(server, (size, "process"), right, plant="allocate nothing")

    with pytest.raises(AssertionError, match="SIGBUS"):
        fill_all()


def test_control_copy_on_write() -> None:
    """Journal files that btrfs copies on write, and that are mapped all the same, are found out."""
    rooms = [(room, "process") for room in range(128 << 10, LARGEST, 128 << 10)]
    with pytest.raises(AssertionError, match="SIGBUS"):
        fill_loop("btrfs", rooms, plant="copy on write")
