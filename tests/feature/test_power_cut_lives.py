"""A power cut after several lives of a run: what the disk had acknowledged is there, and belongs to what the last life was
called with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable.runs import opening
from resumable.storage import disksync, folder, handoff, journal, platform, recovery
from resumable.storage.records import FAILED, digest16

Script = Callable[..., tuple[int, str, str]]

LIVES = """
def job(state=0, n=0):
    for i in range(n):
        yield checkpoint(state + i + 1)
    if n != 3:
        kill()
    raise KeyError
durability, n, version = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with Driver(STATE, durability=durability, sync_every=1000) as driver:
    driver.run(partial(job, n=n), name="job", version=version, on_change="continue",
               migrate={1: lambda state: state + 100, 2: lambda state: state + 1000})
"""


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Gives the machine another boot id."""

    def another() -> None:
        boot = os.urandom(16)
        for module in (disksync, folder, handoff, journal, platform, recovery, opening):
            if hasattr(module, "boot_id"):
                monkeypatch.setattr(module, "boot_id", lambda: boot)

    return another


def ending(state: int = 0) -> Any:
    yield from ()
    return state


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_state_is_migrated_once(script: Script, state_dir: Path, cut: Callable[[], None], durability: str) -> None:
    """A life that brought the state to a new version and was killed is, after a power cut, not migrated a second time."""
    assert script(LIVES, durability, 3, 1)[0] == 1      # in the log, with version 1
    assert script(LIVES, durability, 2, 2)[0] == -9     # 3 + 100, then two checkpoints beyond the log
    cut()
    with Driver(state_dir) as driver:
        info = driver.info("job")
        assert driver.run(
            ending, name="job", version=3, on_change="continue",
            migrate={1: lambda state: state + 100, 2: lambda state: state + 1000},
        ) == 1105, info


def test_of_two_lives_at_one_checkpoint_the_later_counts(script: Script, state_dir: Path, cut: Callable[[], None]) -> None:
    """Lives of several versions that began at one checkpoint: after a power cut the state has the version of the last."""
    assert script(LIVES, "disk", 3, 1)[0] == 1
    assert script(LIVES, "disk", 0, 3)[0] == -9
    assert script(LIVES, "disk", 2, 2)[0] == -9
    cut()
    with Driver(state_dir) as driver:
        migrate = {1: lambda state: state + 100, 2: lambda state: state + 1000}
        assert driver.run(ending, name="job", version=3, on_change="continue", migrate=migrate) == 1105


def test_a_failure_stays_a_failure(state_dir: Path, cut: Callable[[], None]) -> None:
    """A run whose failure stood in its journal alone has failed after a power cut too."""

    def job(state: int = 0) -> Any:
        yield checkpoint(state + 1)
        raise KeyError

    with Driver(state_dir) as driver, pytest.raises(KeyError):
        driver.run(job, name="job")
    cut()
    (place,) = state_dir.glob("runs/*")
    batch = recovery.salvage(folder.DiskFolder(place), digest16("job"), 1, None)
    assert batch is not None
    assert (batch.record.status, batch.record.seq, batch.record.failure is None) == (FAILED, 1, False)


def test_a_clear_that_is_killed_leaves_no_half(script: Script, state_dir: Path, cut: Callable[[], None]) -> None:
    """A run that only the log has, with its state in a side file, is over when a kill came in the middle of clearing it."""
    body = """
from resumable.storage.folder import DiskFolder

def job(state=b""):
    yield checkpoint(b"x" * 2_000_000)
    raise KeyError

with Driver(STATE) as driver:
    if sys.argv[2] == "clear":
        remove = DiskFolder.remove_sides
        DiskFolder.remove_sides = lambda self, names: (remove(self, names), kill())
        driver.clear("job")
    driver.run(job, name="job")
"""
    assert script(body, "run")[0] == 1
    for path in state_dir.glob("runs/*/[0-9].[0-9]"):
        path.unlink()
    cut()
    with Driver(state_dir) as driver:
        assert (driver.info("job").status, len(driver.state("job"))) == ("failed", 2_000_000)
    assert script(body, "clear")[0] == -9
    with Driver(state_dir) as driver:
        assert driver.info("job").status == "abandoned"
        assert driver.run(ending, name="job") == 0


@pytest.mark.parametrize("first", ["process", "disk"])
def test_the_disk_has_what_it_acknowledged_after_a_resume(
    script: Script, state_dir: Path, cut: Callable[[], None], first: str
) -> None:
    """Killed, resumed on disk, killed again: a power cut that takes the journal leaves every acknowledged checkpoint."""
    assert script(LIVES, first, 7, 1)[0] == -9
    assert script(LIVES, "disk", 5, 1)[0] == -9
    for path in state_dir.glob("runs/*/*.[0-9]"):
        path.unlink()
    cut()
    with Driver(state_dir) as driver:
        assert driver.run(ending, name="job", version=1, on_change="continue") == 12


LARGE = """
def job(state=b""):
    for i in range(3):
        yield checkpoint(bytes([i]) * 300_000)
    if sys.argv[2] == "value":
        return bytes(300_000)
    kill()
with Driver(STATE, sync_every=1000) as driver:
    if sys.argv[2] == "value":
        from resumable.runs import live
        live.LiveRun._pruned = lambda self: kill()
    driver.run(job, name="job")
"""


@pytest.mark.parametrize("lost", ["state", "value"])
def test_what_lost_its_side_file_does_not_count(script: Script, state_dir: Path, cut: Callable[[], None], lost: str) -> None:
    """A state, or a return value, whose side file a power cut took is none: the run goes on from the one before."""
    assert script(LARGE, lost)[0] == -9
    (side,) = state_dir.glob(f"runs/*/1.side.{'return' if lost == 'value' else 3}")
    side.write_bytes(bytes(side.stat().st_size))
    cut()

    def last(state: bytes = b"") -> Any:
        yield from ()
        return state[:1]

    with Driver(state_dir) as driver:
        assert driver.run(last, name="job", on_change="continue") == (b"\x01" if lost == "state" else b"\x02")
