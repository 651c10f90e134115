"""Segments that a power cut tore or emptied: the run goes on from what the disk had; on the same boot they are damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import DamagedLogError, Driver, checkpoint
from resumable.runs import opening
from resumable.storage import disksync, folder, handoff, journal, platform, recovery

Script = Callable[..., tuple[int, str, str]]

# 30 checkpoints in the log, and 650 in three segments.
LIFE = """
def job(state=0):
    while True:
        yield checkpoint(state + 1, result=b"." * 1000)
        state += 1
        if state == 30:
            driver.sync()
        if state == 650:
            kill()
with Driver(STATE, sync_every=1000) as driver:
    driver.run(job, name="job")
"""


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def empty(data: bytes) -> bytes:
    return b""


def odd(data: bytes) -> bytes:
    return data[: len(data) // 2 + 3]


def short(data: bytes) -> bytes:
    return data[:801]


def headless(data: bytes) -> bytes:
    return os.urandom(4096) + data[4096:]


TORN = pytest.mark.parametrize("tear", [zeros, empty, odd, short, headless], ids=lambda tear: tear.__name__)
SLOT = pytest.mark.parametrize("slot", [0, 1, 2, None])


def job(state: int = 0) -> Any:
    yield checkpoint(state + 1, result=b"")
    return state


def tear_segments(state_dir: Path, slot: int | None, tear: Callable[[bytes], bytes]) -> list[Path]:
    paths = sorted(state_dir.glob("runs/*/1.[0-9]"))
    assert len(paths) == 3
    torn = paths if slot is None else [paths[slot]]
    for path in torn:
        path.write_bytes(tear(path.read_bytes()))
    return torn


@TORN
@SLOT
def test_a_torn_segment_is_no_end(
    script: Script, state_dir: Path, monkeypatch: pytest.MonkeyPatch, slot: int | None, tear: Callable[[bytes], bytes]
) -> None:
    """Whatever a power cut made of a segment, the run goes on from the log or beyond, and what is not whole is kept aside."""
    assert script(LIFE)[0] == -9
    torn = tear_segments(state_dir, slot, tear)
    boot = os.urandom(16)
    for module in (disksync, folder, handoff, journal, platform, recovery, opening):
        if hasattr(module, "boot_id"):
            monkeypatch.setattr(module, "boot_id", lambda: boot)
    with Driver(state_dir) as driver:
        state = driver.run(job, name="job")
        assert 30 <= state <= 650
        assert len(list(driver.results("job"))) == state + 1
    aside = [path.parent / f"torn-{path.name}" for path in torn]
    assert all(path.exists() for path in aside) == (tear in (short, headless))


@TORN
@SLOT
def test_on_the_same_boot_it_is_damage(
    script: Script, state_dir: Path, slot: int | None, tear: Callable[[bytes], bytes]
) -> None:
    """Without a power cut a torn segment is a DamagedLogError, and stays as it is."""
    assert script(LIFE)[0] == -9
    torn = tear_segments(state_dir, slot, tear)
    kept = [path.read_bytes() for path in torn]
    with Driver(state_dir) as driver, pytest.raises(DamagedLogError, match=r"the journal of run 1 is damaged.*repair"):
        driver.run(job, name="job")
    assert [path.read_bytes() for path in torn] == kept
