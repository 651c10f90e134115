"""Damage that is met while a job runs, at its end, or when it is to go on: an error that names the way on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resumable import DamagedLogError, Driver, checkpoint
from resumable.tools.check import check_directory
from resumable.tools.repair import repair


def spoil(state_dir: Path, place: int) -> None:
    """Flip a bit of the journal's first segment, which is mapped, while the job runs."""
    (file,) = state_dir.glob("runs/*/1.0")
    with file.open("r+b") as opened:
        opened.seek(place)
        byte = opened.read(1)[0]
        opened.seek(place)
        opened.write(bytes([byte ^ 16]))


def middle(state_dir: Path) -> int:
    (file,) = state_dir.glob("runs/*/1.0")
    return file.read_bytes().index(b"item 5 ")


def words(n: int, state: int = 0) -> Iterator[Any]:
    for i in range(state, n):
        yield checkpoint(i + 1, result=f"item {i} of many")
    return n


def test_damage_met_at_the_end_is_no_warning(state_dir: Path, tmp_path: Path) -> None:
    """A journal that was damaged in its middle makes finishing raise DamagedLogError, and a repaired copy has the value."""

    def job(state: int = 0) -> Iterator[Any]:
        yield from words(20)
        spoil(state_dir, middle(state_dir))
        return "the value"

    with Driver(state_dir, sync_every=1000) as driver:
        with pytest.raises(DamagedLogError, match="repair") as caught:
            driver.run(job, name="job")
        assert any("holds the value" in note and "repair" in note for note in caught.value.__notes__)
        with pytest.raises(DamagedLogError, match="repair"):
            driver.run(job, name="job", once=True)
    repair(state_dir, tmp_path / "copy")
    with Driver(tmp_path / "copy") as driver:
        assert driver.run(job, name="job", once=True) == "the value"


def test_damage_met_by_the_writer_names_the_way_on(state_dir: Path) -> None:
    """A job whose journal is damaged stops with DamagedLogError, and its note does not say to call it again."""

    def job(state: int = 0) -> Iterator[Any]:
        yield from words(20)
        spoil(state_dir, middle(state_dir))
        driver.sync()
        yield checkpoint(21)

    with Driver(state_dir, sync_every=1000) as driver:
        with pytest.raises(DamagedLogError, match="repair") as caught:
            driver.run(job, name="job")
    notes = " ".join(caught.value.__notes__)
    assert "repair" in notes
    assert "call it again to go on" not in notes


def test_a_damaged_side_file_names_the_way_on(state_dir: Path, tmp_path: Path) -> None:
    """When the last large state is damaged, the error and its note name repair, and the copy goes on from the one before."""

    def job(state: bytes = b"") -> Iterator[Any]:
        began.append(state[:1])
        for i in range(state[0] if state else 0, 3):
            yield checkpoint(bytes([i + 1]) * 300_000)
        if len(began) == 1:
            raise KeyError

    began: list[bytes] = []
    with Driver(state_dir) as driver:
        with pytest.raises(KeyError):
            driver.run(job, name="job", on_change="continue")
        (side,) = state_dir.glob("runs/*/1.side.3")
        side.write_bytes(side.read_bytes()[:-1])
        with pytest.raises(DamagedLogError, match="python -m resumable repair") as caught:
            driver.run(job, name="job", on_change="continue")
    notes = " ".join(caught.value.__notes__)
    assert "repair" in notes
    assert "call it again to go on" not in notes
    repair(state_dir, tmp_path / "copy")
    with Driver(tmp_path / "copy") as driver:
        driver.run(job, name="job", on_change="continue")
    assert began == [b"", b"\x02"]


def test_a_life_killed_before_its_first_record_is_no_damage(
    state_dir: Path, script: Callable[..., tuple[int, str, str]]
) -> None:
    """A segment that a kill left without a record, and the gap that it leaves between indexes, are no lost segment."""
    body = """
def job(state=0):
    print("from", state, flush=True)
    for i in range(state, 20):
        if i == int(sys.argv[2]):
            kill()
        yield checkpoint(i + 1)
Driver(STATE, sync_every=3600).run(job, name="job")
"""
    assert script(body, 5)[:2] == (-9, "from 0")
    assert script(body, 8)[:2] == (-9, "from 5")
    (second,) = state_dir.glob("runs/*/1.1")
    data = second.read_bytes()
    second.write_bytes(data[:1024] + bytes(len(data) - 1024))
    assert script(body, 12)[:2] == (-9, "from 5")
    assert check_directory(state_dir).findings == ()
    assert script(body, -1)[:2] == (0, "from 12")


ROLLING = """
from resumable.storage import journal

to, how = int(sys.argv[2]), sys.argv[3]
made = []

class Killing:
    def attach(self, *_):
        kill()

def make(whole=journal.Journal):
    made.append(Killing() if made and how == "dies as it begins" else whole())
    return made[-1]

def job(state=(0, b"")):
    for i in range(state[0], to):
        yield checkpoint((i + 1, bytes(20_000)))
        if how == "syncs":
            driver.sync()
    kill()

journal.Journal = make
with Driver(STATE, sync_every=3600) as driver:
    driver.run(job, name="job")
"""


def test_a_segment_without_records_is_used_again(state_dir: Path, script: Callable[..., tuple[int, str, str]]) -> None:
    """A life that was killed as it began leaves nothing that is taken for a lost segment, however far later lives go."""
    for to, how in ((1, "goes on"), (2, "goes on"), (3, "syncs"), (4, "dies as it begins"), (400, "syncs")):
        assert script(ROLLING, to, how)[0] == -9
    assert check_directory(state_dir).findings == ()
    with Driver(state_dir) as driver:
        assert driver.state("job") == (400, bytes(20_000))
    assert script(ROLLING, 401, "goes on")[::2] == (-9, "")


OLDER = """
def job(state=0):
    for i in range(state, 100):
        yield checkpoint(i + 1)
        if i in (4, 9):
            driver.sync()
        if i == int(sys.argv[2]):
            kill()
with Driver(STATE, sync_every=3600) as driver:
    driver.run(job, name="job")
"""


def test_a_journal_older_than_the_log_is_damage(state_dir: Path, script: Callable[..., tuple[int, str, str]]) -> None:
    """Journal files put back from an earlier copy do not take a run back to where it was then: it is damaged."""
    assert script(OLDER, 4)[0] == -9
    (file,) = state_dir.glob("runs/*/1.0")
    copy = file.read_bytes()
    assert script(OLDER, 9)[0] == -9
    for path in state_dir.glob("runs/*/1.?"):
        path.unlink()
    file.write_bytes(copy)
    with Driver(state_dir) as driver, pytest.raises(DamagedLogError, match="the log has checkpoint 10, the journal ends at 5"):
        driver.run(words, 100, name="job", on_change="continue")


MANY = """
def job(state=0):
    for i in range(100_000):
        yield checkpoint((i + 1, "some words"))
        if i == 10_000:
            kill()
with Driver(STATE, sync_every=3600, keep_states=None) as driver:
    driver.run(job, name="job")
"""


def test_states_between_two_segments_are_missed(state_dir: Path, script: Callable[..., tuple[int, str, str]]) -> None:
    """A run without one of its segments is damaged, also when its last state is whole."""
    assert script(MANY)[0] == -9
    slots = sorted(state_dir.glob("runs/*/1.?"))
    assert len(slots) == 3
    slots[1].unlink()
    with Driver(state_dir) as driver, pytest.raises(DamagedLogError, match="one of its segments is missing"):
        driver.run(words, 100, name="job", on_change="continue")


def test_a_segment_of_another_run_is_damage(state_dir: Path, script: Callable[..., tuple[int, str, str]]) -> None:
    """A whole segment of one run in the folder of another is no state of that."""
    body = OLDER.replace('name="job"', "name=sys.argv[3]")
    assert script(body, 6, "one")[0] == script(body, 7, "two")[0] == -9
    one, two = sorted(state_dir.glob("runs/*/1.0"), key=lambda file: file.stat().st_mtime_ns)
    two.write_bytes(one.read_bytes())
    with Driver(state_dir) as driver:
        with pytest.raises(DamagedLogError, match="belongs to another run"):
            driver.run(words, 100, name="two", on_change="continue")
