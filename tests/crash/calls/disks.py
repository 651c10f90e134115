"""File systems of one's own for a test: small ones that fill up, in memory and on loop devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import scratch

# How large a disk of each kind must be at least, and what makes it.
KINDS = {
    "ext4": (24 << 20, ["mkfs.ext4", "-q", "-m", "0"]),
    "xfs": (300 << 20, ["mkfs.xfs", "-q"]),
    "btrfs": (128 << 20, ["mkfs.btrfs", "-q"]),
}
_BALLAST = "ballast"
_LARGEST_STEP, _SMALLEST_STEP = 1 << 20, 4096


def mount(place: Path, *options: str) -> None:
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@contextmanager
def memory_disk(size: int) -> Iterator[Path]:
    """A file system in memory with room for this many bytes."""
    with scratch() as place:
        mount(place, "-t", "tmpfs", "-o", f"size={size},mode=700", "resumable-test")
        try:
            yield place
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)


@contextmanager
def loop_disk(kind: str) -> Iterator[Path]:
    """A new file system of this kind on a loop device."""
    size, make = KINDS[kind]
    if shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not installed")
    with scratch() as base:
        image, place = base / "image", base / "mounted"
        place.mkdir()
        with open(image, "wb") as file:
            file.truncate(size)
        subprocess.run([*make, image], check=True, capture_output=True)
        mount(place, "-o", "loop", str(image))
        try:
            yield place
        finally:
            subprocess.run(["umount", place], check=True)


def leave_free(place: Path, room: int) -> None:
    """Fill the disk to the brim, then give back so many bytes."""
    with open(place / _BALLAST, "ab") as ballast:
        end, step = 0, _LARGEST_STEP
        while step >= _SMALLEST_STEP:
            try:
                os.posix_fallocate(ballast.fileno(), end, step)
            except OSError:
                step //= 4      # not in one piece
            else:
                end += step
        os.ftruncate(ballast.fileno(), max(0, end - room))
    subprocess.run(["sync", "-f", place], check=True)


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def make_room(place: Path) -> None:
    """Take the ballast away, and wait until the room is there: xfs gives it back by and by."""
    (place / _BALLAST).unlink(missing_ok=True)
    subprocess.run(["sync", "-f", place], check=True)
    until = time.monotonic() + 5
    while _free(place) < 10 * _LARGEST_STEP and time.monotonic() < until:
        time.sleep(0.01)
