"""Large buffers that did not change since the last checkpoint: not written again, and there as long as a state needs them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resumable import Driver, checkpoint
from resumable.errors import DamagedLogError, StateGoneError
from resumable.storage import folder, side_window
from resumable.storage.records import SIDE
from resumable.tools.check import check_directory
from resumable.tools.repair import repair

LAYER = 1 << 20
LAYERS = 8


def layers() -> list[Any]:
    return [np.full(LAYER, i * 20, dtype=np.uint8) for i in range(LAYERS)]


def turning(n: int, state: Any = None) -> Iterator[Any]:
    """One layer changes at each checkpoint, the others do not."""
    held, done = state or (layers(), 0)
    for i in range(done, n):
        held[i % LAYERS] += 1
        yield checkpoint((held, i + 1))
    return [int(layer[-1]) for layer in held]


def crashing(n: int, state: Any = None) -> Iterator[Any]:
    yield from turning(n, state)
    raise KeyError


def right(n: int) -> list[int]:
    """What the layers hold after n checkpoints."""
    return [i * 20 + (n - i + LAYERS - 1) // LAYERS for i in range(LAYERS)]


def assert_is_after(state: Any, n: int) -> None:
    held, done = state
    assert (done, [int(layer[0]) for layer in held]) == (n, right(n))
    assert all((layer == layer[0]).all() and len(layer) == LAYER for layer in held)


def sides(state_dir: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in state_dir.glob("runs/*/*.side.*")}


def crash(driver: Driver, n: int) -> None:
    with pytest.raises(KeyError):
        driver.run(crashing, n, name="job", on_change="continue")


def written() -> int:
    """Bytes that this process has written so far, to files of any kind."""
    with open("/proc/self/io") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar"))


def test_what_does_not_change_is_written_once(disk: Driver) -> None:
    """Over 100 checkpoints an unchanged state writes its bytes once, and is there after each."""
    before = written()

    def job(state: Any = None) -> Iterator[Any]:
        held = layers()
        for i in range(100):
            yield checkpoint((held, i))
        assert disk.state("job")[1] == 99

    disk.run(job, name="job")
    assert LAYER * LAYERS < written() - before < 1.2 * LAYER * LAYERS


def test_one_changed_layer_is_written_alone(disk: Driver, state_dir: Path) -> None:
    """When one layer of eight changes, a checkpoint's file holds that one."""
    crash(disk, 4)
    found = sides(state_dir)
    assert set(found) == {"1.side.1", "1.side.2", "1.side.3", "1.side.4"}
    assert found["1.side.1"] > LAYER * LAYERS
    assert all(LAYER < found[f"1.side.{seq}"] < 1.1 * LAYER for seq in (2, 3, 4))


@pytest.mark.parametrize("settings", [{}, {"durability": "disk"}, {"keep_states": 1}], ids=str)
def test_every_kept_state_is_whole(make: Callable[..., Driver], settings: dict[str, Any]) -> None:
    """The last two states read as they were saved, at each moment of a run and after it, and check finds no damage."""
    driver = make(**settings)

    def job(state: Any = None) -> Iterator[Any]:
        for made in turning(40):
            yield made
            done = made.state[1]
            assert_is_after(driver.state("job"), done)
            if done > 1 and settings.get("keep_states") != 1:
                assert_is_after(driver.state("job", at=done - 1), done - 1)
            if done % 7 == 0:
                driver.sync()

    driver.run(job, name="job")
    assert_is_after(driver.state("job"), 40)


def test_files_that_nothing_needs_go(disk: Driver, state_dir: Path) -> None:
    """While layers change in turn, the files together stay a small multiple of the state, and none is missed."""
    peak = []

    def job(state: Any = None) -> Iterator[Any]:
        for made in turning(60):
            yield made
            disk.sync()
            peak.append(sum(sides(state_dir).values()))

    disk.run(job, name="job")
    assert max(peak) < 4 * LAYER * LAYERS
    assert not check_directory(state_dir).damaged
    assert "1.side.1" not in sides(state_dir)


def test_a_scattered_state_is_written_whole(disk: Driver, state_dir: Path) -> None:
    """A state that would stand in files of many times its size is written anew, so that they can go."""

    def job(state: Any = None) -> Iterator[Any]:
        held = layers()
        for i in range(LAYERS):
            for other in range(i, LAYERS):      # all but the first i change, and layer i does so for the last time
                held[other] += 1
            yield checkpoint((held, i))

    disk.run(job, name="job")
    assert sum(sides(state_dir).values()) < 2 * LAYER * LAYERS      # 4.5 times without


def test_a_change_in_the_middle_is_seen(driver: Driver) -> None:
    """One changed byte far from both ends makes the buffer another one."""

    def job(state: Any = None) -> Iterator[Any]:
        array = np.zeros(3 << 20, dtype=np.uint8)
        for i in range(3):
            array[2_000_003] = i
            yield checkpoint(array)
            assert driver.state("job")[2_000_003] == i

    driver.run(job, name="job")


def test_moved_buffers_are_found(disk: Driver, state_dir: Path) -> None:
    """Buffers that stand at other places in the state than before are not written again."""

    def job(state: Any = None) -> Iterator[Any]:
        held = layers()
        yield checkpoint(held)
        held.append(held.pop(0))
        held.insert(0, np.full(LAYER, 99, dtype=np.uint8))
        yield checkpoint(held)
        assert [int(layer[0]) for layer in disk.state("job")] == [99, *right(0)[1:], 0]

    disk.run(job, name="job")
    assert sides(state_dir)["1.side.2"] < 1.1 * LAYER


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_killed_and_resumed(script: Any, state_dir: Path, durability: str) -> None:
    """Killed at any of its checkpoints again and again, a run ends with what an undisturbed one has."""
    source = Path(__file__).read_text()
    body = f"""
import numpy as np
LAYER, LAYERS = {LAYER}, {LAYERS}
from collections.abc import Iterator
from typing import Any
{source[source.index("def layers"):source.index("def crashing")]}
def job(n, state=None):
    for made in (inner := turning(n, state)):
        yield made
        if made.state[1] == int(sys.argv[2]):
            kill()
    return [int(layer[-1]) for layer in (made.state if n > (state or (0, 0))[1] else state)[0]]
with Driver(STATE, durability={durability!r}) as d:
    print(d.run(job, 30, name="job"))
"""
    for place in (1, 2, 9, 10, 23):
        assert script(body, place)[0] == -9
        assert not check_directory(state_dir).damaged
    assert script(body, -1) == (0, str(right(30)), "")


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_damage_is_told_for_every_state_that_needs_it(disk: Driver, state_dir: Path, how: str) -> None:
    """Damage in an earlier file is told for each state of which a part stands there, on resume and by check."""
    crash(disk, 4)
    (path,) = state_dir.glob("runs/*/1.side.1")
    good = path.read_bytes()
    bad = bytearray(good)
    bad[-LAYER] ^= 4      # in the last layer, which did not change
    if how == "remove":
        path.unlink()
    else:
        path.write_bytes(bad if how == "flip" else good[:-LAYER])
    for _ in range(2):
        with pytest.raises(DamagedLogError, match=r"1\.side\.4 is damaged.*1\.side\.1: "):
            disk.run(turning, 4, name="job", on_change="continue")
    told = " ".join(str(finding) for finding in check_directory(state_dir).findings if finding.severity == "damage")
    assert all(re.search(rf"1\.side\.{seq}: a part of it stands in 1\.side\.1: " if how != "remove" else
               rf"1\.side\.1 is missing, where a part of 1\.side\.{seq} stands", told) for seq in (3, 4))
    path.write_bytes(good)
    assert not check_directory(state_dir).damaged
    assert disk.run(turning, 4, name="job", on_change="continue") == right(4)


def test_what_was_damaged_meanwhile_is_written_anew(disk: Driver, state_dir: Path) -> None:
    """A buffer whose earlier file is damaged, cut or gone while the run goes on is not referred to."""

    def job(state: Any = None) -> Iterator[Any]:
        held = layers()
        for i in range(4):
            yield checkpoint((held, i))
            (path,) = state_dir.glob(f"runs/*/1.side.{i + 1}")
            if i == 0:
                data = bytearray(path.read_bytes())
                data[LAYER + 500] ^= 1
                path.write_bytes(data)
            elif i == 1:
                os.truncate(path, LAYER // 2)
            elif i == 2:
                path.unlink()

    disk.run(job, name="job")
    held, done = disk.state("job")
    assert (done, [int(layer[0]) for layer in held]) == (3, right(0))


def test_a_state_whose_parts_are_gone_is_gone(disk: Driver, state_dir: Path) -> None:
    """An older state's own file may still be needed when a file that it stands in too is not: StateGoneError, no damage."""

    def job(state: Any = None) -> Iterator[Any]:
        held = layers()
        yield checkpoint((held, 1))
        for layer in held[:4]:
            layer += 3
        yield checkpoint((held, 2))     # half in file 1, half in its own
        for layer in held[4:]:
            layer += 3
        for i in range(3, 6):
            yield checkpoint((held, i))     # half in file 2
        disk.sync()

    disk.run(job, name="job")
    assert set(sides(state_dir)) == {"1.side.2", "1.side.3", "1.side.4", "1.side.5"}
    with pytest.raises(StateGoneError, match="last two"):
        disk.state("job", at=2)
    assert [record.seq for record in disk.history("job")] == [3, 4, 5]
    assert not check_directory(state_dir).damaged


def test_repair_copies_what_a_state_needs(disk: Driver, state_dir: Path, tmp_path: Path) -> None:
    """A repaired copy has the earlier files too, and goes on."""
    crash(disk, 5)
    disk.close()
    repair(state_dir, tmp_path / "copy")
    with Driver(tmp_path / "copy") as copy:
        assert_is_after(copy.state("job"), 5)
        assert copy.run(turning, 9, name="job", on_change="continue") == right(9)
        assert copy.clear("job") == 1
    assert sides(tmp_path / "copy") == {}


def test_a_checkpoint_that_failed_is_not_referred_to(disk: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a large state could be written but not acknowledged, the next one, in the file of the same name, stands alone."""
    whole = folder.DiskFolder.write_side
    failing = True

    def write_side(self: Any, name: str, *args: Any, **keywords: Any) -> Any:
        if "result" in name and failing:
            raise TypeError("no results today")
        return whole(self, name, *args, **keywords)

    monkeypatch.setattr(folder.DiskFolder, "write_side", write_side)

    async def job(state: Any = None) -> None:
        nonlocal failing
        held = layers()
        with pytest.raises(TypeError, match="today"):
            await checkpoint(held, result=bytes(400_000))
        failing = False
        await checkpoint(held, result=bytes(400_000))
        await checkpoint(held)

    asyncio.run(disk.arun(job, name="job"))
    for at in (1, 2):
        assert [int(layer[0]) for layer in disk.state("job", at=at)] == right(0)


def test_what_was_not_acknowledged_goes(script: Any, state_dir: Path) -> None:
    """A kill between a large state's file and its record leaves a file that the next life removes."""
    body = """
import numpy as np
from resumable.runs.saving import SavingRun
if sys.argv[2] == "kill":
    whole = SavingRun._write_side
    def write_side(self, encoded, what, *rest):
        made = whole(self, encoded, what, *rest)
        if what == 3:
            kill()
        return made
    SavingRun._write_side = write_side
def job(state=None):
    done = 0 if state is None else int(state[0])
    for i in range(done, 2):
        yield checkpoint(np.full(1 << 20, i + 1, dtype=np.uint8))
    if sys.argv[2] == "kill":
        yield checkpoint(np.full(1 << 20, 3, dtype=np.uint8))
    yield checkpoint([9])
    raise KeyError
with Driver(STATE) as d:
    d.run(job, name="job")
"""
    assert script(body, "kill")[0] == -9
    assert set(sides(state_dir)) == {"1.side.1", "1.side.2", "1.side.3"}
    assert script(body, "go on")[0] == 1
    assert set(sides(state_dir)) == {"1.side.1", "1.side.2"}
    assert not check_directory(state_dir).damaged


def test_files_are_on_disk_before_the_log_names_them(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file that a state in the log stands in was synced before, also one of a state that the log never had."""
    synced: list[str] = []
    whole = folder.sync_file

    def sync_file(path: Path) -> None:
        synced.append(path.name)
        whole(path)

    monkeypatch.setattr(folder, "sync_file", sync_file)
    with Driver(state_dir, keep_states=1, sync_every=3600) as driver:
        crash(driver, 12)
        last = driver.history("job")[-1]._entry
        assert last.flags & SIDE
        assert side_window.reference_names(last.payload)[1:] == sorted(f"1.side.{seq}" for seq in range(5, 12))
        assert set(side_window.reference_names(last.payload)) <= set(synced)


def test_damage_of_a_table_removes_nothing(disk: Driver, state_dir: Path) -> None:
    """When it cannot be told what a kept state needs, no file goes until that state is out of the window."""

    def job(state: Any = None) -> Iterator[Any]:
        if state is None:
            yield from turning(2)
            yield checkpoint([layer + 103 for layer in layers()])
        yield checkpoint(4)
        raise KeyError

    with pytest.raises(KeyError):
        disk.run(job, name="job")
    (path,) = state_dir.glob("runs/*/1.side.2")
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(KeyError):
        disk.run(job, name="job")
    assert set(sides(state_dir)) == {"1.side.1", "1.side.2", "1.side.3"}
    path.write_bytes(good)
    assert_is_after(disk.state("job", at=2), 2)
