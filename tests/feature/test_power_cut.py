"""What comes back after a power cut, which another boot id stands for: an exact earlier state, and nothing that was cleared."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, RunNotFoundError, checkpoint
from resumable.runs import opening
from resumable.storage import disksync, folder, handoff, journal, platform, recovery
from resumable.tools import check as check_module
from resumable.tools import repair as repair_module
from resumable.tools.check import check_directory
from resumable.tools.repair import repair

Reboot = Callable[[], None]


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Reboot:
    """Gives the machine another boot id, for everybody who asks for it."""

    def another() -> None:
        boot = os.urandom(16)
        for module in (disksync, folder, handoff, journal, platform, recovery, opening, check_module, repair_module):
            if hasattr(module, "boot_id"):
                monkeypatch.setattr(module, "boot_id", lambda: boot)

    return another


def failing(n: int, state: int = 0) -> Iterator[Any]:
    for i in range(state, n):
        yield checkpoint(i + 1)
    raise KeyError(n)


def test_a_cleared_run_stays_cleared(state_dir: Path, tmp_path: Path, reboot: Reboot) -> None:
    """A run that was on disk in a sync file and was cleared comes back neither after a power cut nor by repair."""
    with Driver(state_dir, durability="disk") as driver:
        with pytest.raises(KeyError):
            driver.run(failing, 5, name="job")
        assert driver.clear("job") == 1
        kept = {path: path.read_bytes() for path in (state_dir / "sync").iterdir()}
    assert kept
    assert list((state_dir / "sync").iterdir()) == [], "nothing in it is needed any more"
    for path, data in kept.items():
        path.write_bytes(data)      # as if the machine had lost its power before the files were removed
    assert check_directory(state_dir).runs == ()
    repair(state_dir, tmp_path / "copy")
    reboot()
    for place in (state_dir, tmp_path / "copy"):
        with Driver(place) as driver:
            with pytest.raises(RunNotFoundError):
                driver.info("job")
            with pytest.raises(KeyError):
                driver.run(failing, 3, name="job")
            assert (driver.info("job").number, driver.info("job").seq) == (2, 3)


def test_a_cleared_journal_stays_cleared(state_dir: Path, reboot: Reboot) -> None:
    """Journal files of a cleared run that a power cut brings back are not taken for a run."""
    with Driver(state_dir) as driver:
        with pytest.raises(KeyError):
            driver.run(failing, 5, name="job")
        files = {path: path.read_bytes() for path in (state_dir / "runs").glob("*/*")}
        driver.clear("job")
    for path, data in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    reboot()
    with Driver(state_dir) as driver:
        with pytest.raises(KeyError):
            driver.run(failing, 2, name="job")
        assert (driver.info("job").number, driver.info("job").seq) == (2, 2)


def test_a_run_that_fell_out_of_the_window_stays_away(state_dir: Path, reboot: Reboot) -> None:
    """A finished run beyond keep_runs does not come back from a sync file."""

    def job(state: int = 0) -> Iterator[Any]:
        yield checkpoint(1)

    with Driver(state_dir, durability="disk", keep_runs=1) as driver:
        driver.run(job, name="job")
        driver.run(job, name="job")
        kept = {path: path.read_bytes() for path in (state_dir / "sync").iterdir()}
    assert list((state_dir / "sync").iterdir()) == []
    for path, data in kept.items():
        path.write_bytes(data)
    reboot()
    with Driver(state_dir) as driver:
        assert [info.number for info in driver.runs()] == [2]


def test_generators_that_never_changed_come_back(state_dir: Path, reboot: Reboot) -> None:
    """With rng=True a run that drew nothing before a power cut has the generators of its start again."""

    def job(state: int = 0) -> Iterator[Any]:
        if state == 0:
            yield checkpoint(1)
            driver.sync()
            raise KeyError
        return random.random()

    random.seed(5)
    expected = random.random()
    for kept in ("log", "sync"):
        random.seed(5)
        durability: Any = "disk" if kept == "sync" else "process"
        with Driver(state_dir, rng=True, durability=durability, sync_every=1000) as driver, pytest.raises(KeyError):
            driver.run(job, name=kept)
        for path in state_dir.glob("runs/*/*.0"):
            path.unlink()       # the power cut takes the journal
        reboot()
        random.seed(99)
        with Driver(state_dir, rng=True) as driver:
            assert driver.run(job, name=kept) == expected
