"""Key files that were damaged, and power cuts: what `check` tells, what `repair` makes of it, what a loop goes on with."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resumable import ChangedItemsError, DamagedLogError, Driver
from resumable.runs import opening
from resumable.storage import disksync, handoff, journal, platform, recovery
from resumable.tools import check as check_module
from resumable.tools import repair as repair_module
from resumable.tools.check import check_directory
from resumable.tools.repair import repair

HEADER, ENTRY = 64, 16

LOOP = """
carried = sys.argv[2]
with Driver(STATE, sync_every=3600) as driver:
    items = driver.items(range(20), name="keyed", key=str)
    if carried != "none":
        state = items.state(seen=Path("x") if carried == "pickled" else 0)
    for number in items:
        if number == int(sys.argv[3]):
            driver.sync()
        if number == int(sys.argv[4]):
            kill()
"""


@pytest.fixture
def killed(script: Callable[..., tuple[int, str, str]], state_dir: Path) -> Callable[..., Path]:
    """A loop over 20 items that was killed at one, and whose log has the items before another: its key file."""

    def run(at: int = 10, sync: int = -1, carried: str = "none") -> Path:
        code, _, errors = script("from pathlib import Path\n" + LOOP, carried, sync, at)
        assert code == -9, errors
        [path] = state_dir.rglob("*.keys")
        return path

    return run


def go_on(directory: Path, **given: Any) -> list[int]:
    with Driver(directory) as driver:
        return list(_seen(driver, **given))


def _seen(driver: Driver, **given: Any) -> list[int]:
    seen = []
    for number in driver.items(range(20), name="keyed", key=given.pop("key", str), **given):
        seen.append(number)
    return seen


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)


def test_an_intact_key_file(killed: Callable[..., Path], state_dir: Path) -> None:
    """A loop that was killed has nothing that `check` would tell of, nor has one whose keys behind the mark are damaged."""
    path = killed()
    assert check_directory(state_dir).findings == ()
    flip(path, HEADER + 10 * ENTRY)
    assert check_directory(state_dir).findings == ()
    assert go_on(state_dir) == [*range(10, 20)]


DAMAGE: dict[str, tuple[Callable[[Path], None], str, list[int]]] = {
    "a flipped bit": (lambda path: flip(path, HEADER + 3 * ENTRY + 5), r"1 of 1\d keys are lost.*place 3", [3]),
    "the header": (lambda path: flip(path, 12), "header of its key file", []),
    "a page": (lambda path: path.write_bytes(path.read_bytes()[: HEADER + 7 * ENTRY + 1]), "3 of 10 keys.*place 7", [7, 8, 9]),
    "gone": (Path.unlink, "key file is gone", [*range(10)]),
}


@pytest.mark.parametrize("carried", ["none", "plain", "pickled"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_repair_of_keys(
    killed: Callable[..., Path], state_dir: Path, tmp_path: Path, damage: str, carried: str
) -> None:
    """`check` tells of each damage, the loop refuses to go on, and in the repaired copy the items of lost keys alone are done
    again. A pickled state does not tell how many keys there were, so that a file that was cut is not noticed before that."""
    path = killed(carried=carried)
    make, told, lost = DAMAGE[damage]
    make(path)
    report = str(check_directory(state_dir))
    assert re.search(told, report) or (carried == "pickled" and damage == "a page")
    with pytest.raises(DamagedLogError):
        go_on(state_dir)
    said = str(repair(state_dir, tmp_path / "copy"))
    assert ("pickled" in said) == (carried == "pickled")
    assert ("done again" in said) == (bool(lost) or carried == "pickled")
    assert go_on(tmp_path / "copy") == [*lost, *range(10, 20)]


@pytest.mark.parametrize("finished", [False, True], ids=["left", "finished"])
def test_damaged_keys_of_what_is_done_again(tmp_path: Path, finished: bool) -> None:
    """Whichever key of a loop is lost that does dead letters again: the repaired copy does what is left, and its item again."""

    def body(directory: Path, until: int = -1, poison: tuple[int, ...] = ()) -> list[int]:
        seen = []
        with Driver(directory) as driver:
            items = driver.items(range(6), name="keyed", key=str, max_attempts=1)
            for number in items:
                if number == until:
                    break
                with items.attempt():
                    seen.append(number)
                    if number in poison:
                        raise ValueError(number)
        return seen

    made = tmp_path / "made"
    body(made, -1 if finished else 5, (1, 3))
    with Driver(made) as driver:
        assert driver.retry_dead_letters("keyed") == 2
    assert check_directory(made).findings == ()
    assert body(made, 3) == [1]
    assert check_directory(made).findings == ()
    left = [3] if finished else [3, 5]
    # By the place of what is lost: the items that come again. Of 1 a loop that goes on has a key twice, at 1 and 5.
    again = {0: [1]} if finished else {0: [0], 1: [], 2: [2], 3: [], 4: [4], 5: [1]}
    for place, items in again.items():
        damaged, copy = tmp_path / f"damaged{place}", tmp_path / f"copy{place}"
        shutil.copytree(made, damaged)
        [path] = damaged.rglob("*.keys")
        flip(path, HEADER + place * ENTRY + 3)
        assert f"the first at place {place}" in str(check_directory(damaged))
        with pytest.raises(DamagedLogError):
            body(damaged)
        repair(damaged, copy)
        assert body(copy) == sorted([*items, *left])


# ---- power cuts


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Gives the machine another boot id, as after a power cut."""

    def another() -> None:
        boot = os.urandom(16)
        for module in (disksync, handoff, journal, platform, recovery, opening, check_module, repair_module):
            if hasattr(module, "boot_id"):
                monkeypatch.setattr(module, "boot_id", lambda: boot)

    return another


@pytest.mark.parametrize("lost", ["nothing", "what was not synced", "the journal"])
def test_keys_after_a_power_cut(
    killed: Callable[..., Path], state_dir: Path, cut: Callable[[], None], lost: str
) -> None:
    """After a power cut the loop goes on from the last synced mark, whatever of later marks and keys reached the disk."""
    path = killed(at=10, sync=6)
    cut()
    if lost != "nothing":
        data = path.read_bytes()[: HEADER + 6 * ENTRY]
        path.write_bytes(data + bytes(1 << 16))
    if lost == "the journal":
        for segment in path.parent.glob("1.?"):
            segment.unlink()
    assert not check_directory(state_dir).damaged
    assert go_on(state_dir) == [*range(6, 20)]


def test_a_power_cut_before_the_first_sync(killed: Callable[..., Path], state_dir: Path, cut: Callable[[], None]) -> None:
    """A loop of which the log had nothing begins anew, also where its key file is gone or full of keys."""
    path = killed(at=10)
    cut()
    path.unlink()
    assert go_on(state_dir) == [*range(20)]


def test_a_later_life_syncs_the_keys_of_an_earlier_one(
    killed: Callable[..., Path], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A life that ends before it asks for a key has the keys of its marks on disk before it hands these to the log."""
    killed()
    synced: list[str] = []
    real = os.fdatasync

    def sync(fd: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    with pytest.raises(ChangedItemsError):
        go_on(state_dir, key=None)
    assert "1.keys" in synced


def test_abandoned_keys_go(killed: Callable[..., Path], state_dir: Path, cut: Callable[[], None]) -> None:
    """A run that another takes the place of leaves no key file, also if its journal went with the power."""
    path = killed(at=10, sync=6)
    for segment in path.parent.glob("1.?"):
        segment.unlink()
    cut()
    assert go_on(state_dir, fresh=True) == [*range(20)]
    assert list(state_dir.rglob("*.keys")) == []
