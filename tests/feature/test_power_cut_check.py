"""What `check` says of a directory that a power cut left, before and after its runs have gone on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import Driver, checkpoint
from resumable.runs import opening
from resumable.storage import disksync, folder, handoff, journal, platform, recovery
from resumable.tools import check as check_module
from resumable.tools.check import check_directory


def another_boot(patch: pytest.MonkeyPatch) -> None:
    boot = os.urandom(16)
    for module in (disksync, folder, handoff, journal, platform, recovery, opening, check_module):
        if hasattr(module, "boot_id"):
            patch.setattr(module, "boot_id", lambda: boot)


def cut_at(directory: Path, copy: Path, seq: int, synced: int) -> None:
    """Make a copy as a power cut would leave it at this checkpoint, when the log has `synced` of them."""

    def job(state: int = 0) -> Iterator[Any]:
        for i in range(state, seq):
            yield checkpoint(i + 1, result=i)
            if i + 1 == synced:
                driver.sync()
        shutil.copytree(directory, copy)
        raise KeyError

    with Driver(directory, sync_every=1000) as driver, pytest.raises(KeyError):
        driver.run(job, name="job")


def counting(state: int = 0) -> Iterator[Any]:
    yield checkpoint(state + 1, result=state)
    raise KeyError


def test_a_journal_torn_by_a_power_cut(state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal that another boot left torn is no damage: the log has what was promised, and the run goes on."""
    copy = tmp_path / "copy"
    cut_at(state_dir, copy, 20, 5)
    segment = next(copy.glob("runs/*/1.0"))
    image = bytearray(segment.read_bytes())
    image[4400:4800] = bytes(400)
    segment.write_bytes(image)
    assert check_directory(copy).damaged, "in this boot it was promised"
    another_boot(monkeypatch)
    report = check_directory(copy)
    assert not report.damaged, str(report)
    assert any("damaged at offset" in finding.what for finding in report.findings)
    with Driver(copy) as driver, pytest.raises(KeyError):
        driver.run(counting, name="job", on_change="continue")
    assert not check_directory(copy).damaged


def test_files_of_zeros(state_dir: Path, tmp_path: Path) -> None:
    """A new journal that a power cut left as zeros, with nothing in the log, is no damage."""
    copy = tmp_path / "copy"
    cut_at(state_dir, copy, 3, 0)
    segment = next(copy.glob("runs/*/1.0"))
    segment.write_bytes(bytes(segment.stat().st_size))
    report = check_directory(copy)
    assert not report.damaged, str(report)
    segment.write_bytes(bytes(4096) + b"x" + bytes(4095))
    assert check_directory(copy).damaged, "a header that is gone is another matter"
