"""A disk that fills up, in steps of its size."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from figures import Figures, chosen
from harness import Ledger, Server, scratch, spread
from test_faults import check_end
from test_syscall_kill import check_rerun, told

pytestmark = [
    pytest.mark.crash, pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own"),
]

SMALLEST, LARGEST, STEP = 64 << 10, 8 << 20, 4 << 10
SAMPLE = 100


@contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A file system in memory with room for this many bytes."""
    with scratch() as place:
        _mount(place, "-t", "tmpfs", "-o", f"size={size},mode=700", "resumable-test")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


def _mount(place: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


def fill(server: Server, size: int, right: list[object], durability: str, plant: str | None = None) -> str:
    """The story on a disk of this size, then with room enough; gives back how it ended before."""
    what = f"a disk of {size >> 10} KiB, {durability}"
    with small_disk(size) as place:
        ledger = Ledger()
        directory = str(place / "d")
        first = server.live("story", directory=directory, durability=durability, plant=plant)
        assert first.code != -signal.SIGBUS, f"{what}: SIGBUS"
        end = check_end(first, what)
        assert end in ("DiskFullError", "NotDurableWarning", "none"), f"{what}: {end}\n{first.report['trace']}"
        _mount(place, "-o", "remount,size=64m")
        second = server.live("story", directory=directory, durability=durability, whole=False)
        try:
            check_rerun(ledger, first, second, right)
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}\nthe first life: {first.report}") from error
    return end


def test_full_disk(seed: int, figures: Figures) -> None:
    """On a disk of any size a run ends with a clear error, never by SIGBUS, and goes on once there is room."""
    sizes = [(size, how) for size in range(SMALLEST, LARGEST + 1, STEP) for how in ("process", "disk")]
    tried = chosen(sizes, SAMPLE, seed)
    with small_disk(1 << 20), Server() as server:
        right = told(server)
    ends: Counter[str] = Counter()

    def work(server: Server, case: tuple[int, str]) -> None:
        ends[fill(server, case[0], right, case[1])] += 1

    spread(tried, work)
    how = ", ".join(f"{name} {count}" for name, count in ends.most_common())
    figures("D1", f"tmpfs, of {len(sizes)} sizes ({how})", disks=len(tried))


def test_control_files_with_holes() -> None:
    """Journal files that do not own their space are found out."""

    def fill_all() -> None:
        with Server() as server:
            right = told(server)
            for size in range(256 << 10, LARGEST, 96 << 10):
                fill(server, size, right, "process", plant="allocate nothing")

    with pytest.raises(AssertionError, match="SIGBUS"):
        fill_all()

