"""What came back after a power cut, judged by the real library on this machine: its runs are read, and gone on with.

Each judgement is made in a process of its own, in a mount namespace of its own, which takes the mount with it when it ends.
What had been promised is not known here: the test compares.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import jobs
import power_jobs
from power_jobs import BRIEF_ITEMS, EVENT, KINDS, MOUNT, NAMES, START, Enough

from resumable import Driver, RunNotFoundError
from resumable._fastlog import Bitset
from resumable.runs.reports import RunInfo
from resumable.tools.check import check_directory

_CLONE_NEWNS = 0x00020000
_GO_ON = 3


def mount_alone(disk: str, kind: str, options: str) -> None:
    """Mount a disk where only this process sees it."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    both = ",".join(part for part in ("loop", options) if part)
    done = subprocess.run(["mount", "-t", kind, "-o", both, disk, MOUNT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the file system cannot be mounted: {done.stderr}"


def judge(disk: str, kind: str, options: str, asked: list[str]) -> dict[str, Any]:
    """What the disk holds: each run's last checkpoint, how the brief runs that are asked for fared, and of the bitset the items
    that are done in a row, and the place of the last. Raises AssertionError for what nobody can have saved.
    """
    mount_alone(disk, kind, options)
    place = Path(MOUNT)
    found: dict[str, Any] = {"runs": {}, "briefs": {}, "bits": _bits(place / "bits")}
    if not (place / "state").exists():
        return found
    # Where the making of the directory was cut short there is no log yet, and check says so.
    if (place / "state" / "log" / "data.mdb").exists():
        _check_undamaged(place / "state")
    with Driver(place / "state") as driver:
        for info in driver.runs():
            if info.name in KINDS:
                found["runs"][info.name] = _run(driver, info, place)
        for name in asked:
            found["briefs"][name] = _brief(driver, name)
    _check_undamaged(place / "state")
    return found


def _check_undamaged(directory: Path) -> None:
    """What a power cut leaves is no damage, neither before the runs have gone on nor after that."""
    report = check_directory(directory)
    assert not report.damaged, str(report)


def _run(driver: Driver, info: RunInfo, place: Path) -> int:
    """Read a run, then go on with it: where that began is what came back."""
    name = info.name
    for record in driver.history(name):
        if name != "lines":
            power_jobs.check_state(name, record.seq, record.state)
    events: list[bytes] = []
    power_jobs.tell, power_jobs.stop_after = events.append, _GO_ON
    with suppress(Enough):
        power_jobs.start(driver, name, place)
        raise AssertionError(f"{name} ended")
    begun = [value for what, kind, _, value, _ in map(EVENT.unpack, events) if (what, NAMES[kind]) == (START, name)]
    assert len(begun) == 1
    assert info.on_disk <= begun[0], f"{name}: {info.on_disk} were said to be on disk, it went on at {begun[0]}"
    assert driver.info(name).seq == begun[0] + _GO_ON
    if name == "lines":
        expected = "".join(power_jobs.line_of(seq + 1) for seq in range(begun[0] + _GO_ON))
        assert (place / "lines.txt").read_text() == expected, "the file is not what its checkpoints say"
    else:
        power_jobs.check_state(name, begun[0] + _GO_ON, driver.state(name))
    if KINDS[name].results:
        results = driver.results(name)
        assert len(results) == begun[0] + _GO_ON
        for seq, result in enumerate(results, 1):
            assert result == power_jobs.result_of(name, seq), f"{name}: result {seq} is wrong"
    return begun[0]


def _brief(driver: Driver, name: str) -> str:
    """`gone`, `finished` or `unfinished`."""
    try:
        info = driver.info(name)
    except RunNotFoundError:
        return "gone"
    number = int(name.split()[1])
    value = driver.run(power_jobs.brief, number, name=name, once=True)
    assert value == number * 3
    assert list(driver.results(name)) == [(number, i) for i in range(BRIEF_ITEMS)]
    return "finished" if info.status == "finished" else "unfinished"


def _bits(path: Path) -> tuple[int, int]:
    """How many items in a row are done, and behind how many none is."""
    if not path.exists() or path.stat().st_size < Bitset.file_size(1):
        return 0, 0
    fd = os.open(path, os.O_RDWR)
    bits = Bitset(fd, 1)
    done = [bits.test(power_jobs.item_at(place)) for place in range(power_jobs.ALL_BITS)]
    bits.close()
    os.close(fd)
    last = max((place + 1 for place, one in enumerate(done) if one), default=0)
    return (done.index(False) if False in done else len(done)), last


jobs.TASKS["judge"] = judge
