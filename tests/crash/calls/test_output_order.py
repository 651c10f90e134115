"""Output files on the disk: synced before anything durable tells of their bytes; a full disk loses nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from disks import leave_free, make_room, memory_disk
from harness import scratch
from shim import count_calls

import resumable
from resumable import DiskFullError, Driver

pytestmark = pytest.mark.crash

SCRIPT = """
import os, sys
import resumable
from resumable import Driver
place, durability = sys.argv[1:]
with Driver(f"{place}/state", durability=durability, sync_every=3600) as driver:
    with resumable.open(f"{place}/out") as out:
        for item in driver.items(range(4), name="loop"):
            os.mkdir(f"{place}/begin.{item}")
            out.write(str(item) * 2000)
            if item == 2:
                with resumable.open(f"{place}/whole") as whole:
                    whole.write("whole")
            if item == 3:
                driver.sync()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory, as only the order of the calls counts."""
    with scratch() as made:
        yield made


def calls_of(place: Path, durability: str) -> list[str]:
    """The calls that write, sync and rename below `place`, in order; the log's and the sync files are "log" and "sync"."""
    found = []
    for call in count_calls([sys.executable, "-c", SCRIPT, str(place), durability], under=place):
        path = os.path.relpath(call.path, place)
        name = "log" if path.endswith("data.mdb") else "sync" if "/sync/" in path else path
        found.append(f"{call.op} {name}")
    return found


def behind(calls: list[str], *wanted: str) -> bool:
    """Whether the `wanted` calls stand in this order, with others between."""
    rest = iter(calls)
    return all(call in rest for call in wanted)


def test_a_file_is_synced_before_the_log_tells_of_it(place: Path) -> None:
    """What was written since the last commit, and the name of a new file, are on the disk before the next commit is."""
    calls = calls_of(place, "process")
    assert behind(calls, "mkdir begin.3", "fdatasync out", "fsync .", "fdatasync log")
    assert behind(calls, "rename .whole.resumable", "mkdir begin.3", "fdatasync whole", "fdatasync log")
    last = calls[calls.index("mkdir begin.3") :]
    committed = last[last.index("fdatasync log") :]
    assert behind(committed, "pwrite out", "fdatasync out", "fdatasync log"), "the end of the loop, too"


def test_a_file_is_synced_before_its_mark_is_acknowledged(place: Path) -> None:
    """With durability="disk" each item's bytes are synced before the record that tells of them, and that before the next item."""
    calls = calls_of(place, "disk")
    for item in (1, 2):
        part = calls[calls.index(f"mkdir begin.{item}") : calls.index(f"mkdir begin.{item + 1}")]
        assert behind(part, "pwrite out", "fdatasync out", "pwrite sync", "fdatasync sync")
    assert behind(calls, "mkdir begin.2", "rename .whole.resumable", "fdatasync whole", "fdatasync sync", "mkdir begin.3")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own")
@pytest.mark.parametrize("full", ["files", "state"])
def test_a_full_disk(full: str, place: Path) -> None:
    """A disk that is full, the files' or the state's, is a DiskFullError; with room again the loop goes on, each byte once."""
    ended = []
    with memory_disk(64 << 20) as small:
        out, state = (small / "out", place / "state") if full == "files" else (place / "out", small / "state")
        for free in (0, 200_000, 1_000_000, None):
            if free is not None:
                leave_free(small, free)
            else:
                make_room(small)
            try:
                with Driver(state) as driver, resumable.open(out) as file:
                    for item in driver.items(range(2000), name="loop"):
                        file.write(f"{item}: " + "-" * 1000 + "\n")
            except DiskFullError as error:
                ended.append(error.path)
            if free is not None:
                make_room(small)
        assert ended
        assert out.read_text() == "".join(f"{item}: " + "-" * 1000 + "\n" for item in range(2000))
