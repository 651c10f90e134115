"""`check` and `repair`: what a damaged state directory still holds, and a copy of it that goes on."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resumable import (
    DamagedLogError,
    Driver,
    RunLockedError,
    StateGoneError,
    StorageError,
    UndecodableStateError,
    checkpoint,
)
from resumable._fastlog import hints, scan
from resumable.tools.check import check_directory
from resumable.tools.repair import repair

JOB = '''
import os, random, signal, sys, time
from resumable import Driver, checkpoint

def job(n, state=(0, 0)):
    done, total = state
    for i in range(done, n):
        total += i
        done += 1
        yield checkpoint((done, total, PAD), result=i * 10) if MODE != "large" else checkpoint((done, total, PAD))
        if done == SYNC:
            driver.sync()
        if done == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if MODE == "forever":
            print(done, flush=True)

def dice(n, state=()):
    for _ in range(len(state), n):
        state = (*state, random.random())
        yield checkpoint(state)
        if len(state) == KILL:
            os.kill(os.getpid(), signal.SIGKILL)

path, MODE, n, SYNC, KILL = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
PAD = "x" * (300_000 if MODE == "large" else 20)
random.seed(7)
options = {"durability": "disk"} if MODE == "disk" else {"rng": True} if MODE == "dice" else {}
with Driver(path, sync_every=3600, **options) as driver:
    driver.run(dice if MODE == "dice" else job, n, name="job")
'''


def killed(path: Path, *, mode: str = "", items: int = 30, sync: int = 0, kill: int = 20) -> Path:
    """A state directory whose job was killed right after checkpoint `kill`; the log has what there was at `sync`."""
    command = [sys.executable, "-c", JOB, str(path), mode, str(items), str(sync), str(kill)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    return path


def job(n: int, state: tuple[object, ...] = (0, 0)) -> Iterator[object]:
    """The same job, to be resumed here; its first yield tells where from."""
    done, total = int(str(state[0])), int(str(state[1]))
    began.append(done)
    for i in range(done, n):
        total += i
        done += 1
        yield checkpoint((done, total), result=i * 10)
    return total


began: list[int] = []


def resumed(path: Path, items: int = 30) -> tuple[int, list[object]]:
    """Go on to the end: (the checkpoint it went on from, the results); the final value must be right."""
    began.clear()
    with Driver(path) as driver:
        assert driver.run(job, items, name="job") == sum(range(items))
        results = driver.results("job")
        found: list[object] = []
        for index in range(len(results)):
            try:
                found.append(results[index])
            except UndecodableStateError:
                found.append(None)
    return began[0], found


def contents(path: Path) -> dict[str, str]:
    """Every file and its digest; lock files are no contents."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name not in ("lock", "lock.mdb"))
    return {str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def segment(path: Path) -> Path:
    (found,) = path.glob("runs/*/1.0")
    return found


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 4
    file.write_bytes(data)


def last_record(file: Path) -> int:
    """The offset of the last checkpoint that was acknowledged."""
    return int(hints(file.read_bytes())[0])


def damages(path: Path) -> list[str]:
    return [str(finding) for finding in check_directory(path).findings if finding.severity == "damage"]


def test_a_killed_run_is_no_damage(tmp_path: Path) -> None:
    """What a kill leaves is reported as intact, to the last acknowledged checkpoint."""
    report = check_directory(killed(tmp_path / "s", sync=5))
    assert not report.damaged
    assert not report.findings
    (run,) = report.runs
    assert (run.name, run.number, run.intact) == ("job", 1, ((1, 20),))


def test_resuming_a_damaged_run_says_what_is_intact_and_changes_nothing(tmp_path: Path) -> None:
    """Driver.run raises DamagedLogError with the ways out, and no file is other than before."""
    path = killed(tmp_path / "s", sync=5)
    flip(segment(path), last_record(segment(path)) + 20)
    before = contents(path)
    with Driver(path) as driver, pytest.raises(DamagedLogError, match=r"intact up to checkpoint \d+.*check.*repair"):
        driver.run(job, 30, name="job")
    assert contents(path) == before


def test_check_names_the_damaged_place(tmp_path: Path) -> None:
    """The segment and the offset of a damaged record are named, and what is intact before it."""
    path = killed(tmp_path / "s", sync=5)
    at = last_record(segment(path))
    flip(segment(path), at + 20)
    before = contents(path)
    assert f"run 'job' 1: segment 1.0: damaged at offset {at}" in damages(path)
    assert check_directory(path).runs[0].intact == ((1, 19),)
    assert contents(path) == before


def test_repair_cuts_a_damaged_last_record(tmp_path: Path) -> None:
    """The copy goes on from the checkpoint before the damaged one, and the original stays as it is."""
    path = killed(tmp_path / "s", sync=5)
    flip(segment(path), last_record(segment(path)) + 20)
    before = contents(path)
    repaired = str(repair(path, tmp_path / "new"))
    assert "goes on from checkpoint 19" in repaired
    assert contents(path) == before
    assert not check_directory(tmp_path / "new").damaged
    assert resumed(tmp_path / "new") == (19, [i * 10 for i in range(30)])


def test_repair_goes_on_behind_a_damaged_record(tmp_path: Path) -> None:
    """A damaged record in the middle costs that checkpoint and its result, which keeps its place in the list."""
    path = killed(tmp_path / "s", sync=5)
    records, _ = scan(segment(path).read_bytes())
    at = next(offset for offset, seq, *_ in records if seq == 12)
    flip(segment(path), at + 4)      # in the length, so that the next record must be searched for
    assert check_directory(path).runs[0].intact == ((1, 11), (13, 20))
    assert "1 of 20 results are lost" in str(repair(path, tmp_path / "new"))
    expected = [None if i == 11 else i * 10 for i in range(30)]
    with Driver(tmp_path / "new") as driver:
        with pytest.raises(UndecodableStateError):
            driver.results("job")[11]
        with pytest.raises(StateGoneError):
            driver.state("job", 12)
        assert driver.state("job", 11)[0] == 11
    assert resumed(tmp_path / "new") == (20, expected)


def test_repair_after_a_cut_segment(tmp_path: Path) -> None:
    """A segment that was cut short gives what stands before the cut."""
    path = killed(tmp_path / "s", sync=5)
    records, _ = scan(segment(path).read_bytes())
    os.truncate(segment(path), next(offset for offset, seq, *_ in records if seq == 15) + 3)
    assert any("bytes of 65536" in damage for damage in damages(path))
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new") == (14, [i * 10 for i in range(30)])


def test_repair_takes_the_logs_state_when_the_journal_is_gone(tmp_path: Path) -> None:
    """Without its journal a run is damaged on the boot that wrote it; the copy goes on from what the log has."""
    path = killed(tmp_path / "s", sync=8)
    segment(path).unlink()
    with Driver(path) as driver, pytest.raises(DamagedLogError, match="repair"):
        driver.run(job, 30, name="job")
    assert any("journal is gone" in damage for damage in damages(path))
    assert "journal is gone" in str(repair(path, tmp_path / "new"))
    assert resumed(tmp_path / "new") == (8, [i * 10 for i in range(30)])


def test_one_of_several_segments_is_missing(tmp_path: Path) -> None:
    """A missing segment among others is noticed, and the copy goes on from the newest one that is there."""
    path = killed(tmp_path / "s", items=6000, kill=5900)
    slots = sorted(path.glob("runs/*/1.?"))
    assert len(slots) == 3
    slots[1].unlink()
    assert any("between 1.0 and 1.2 is missing" in damage for damage in damages(path))
    assert "results are lost" in str(repair(path, tmp_path / "new"))
    start, results = resumed(tmp_path / "new", 6000)
    assert start == 5900
    assert all(result in (None, i * 10) for i, result in enumerate(results))
    assert len(results) == 6000


def test_header_copies(tmp_path: Path) -> None:
    """One damaged header copy is a remark, two are damage, and the copy then goes on from the log."""
    path = killed(tmp_path / "s", sync=8)
    flip(segment(path), 30)
    report = check_directory(path)
    assert not report.damaged
    assert "one of the two copies" in str(report)
    flip(segment(path), 512 + 30)
    assert any("no whole header" in damage for damage in damages(path))
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new") == (8, [i * 10 for i in range(30)])


def test_a_missing_side_file(tmp_path: Path) -> None:
    """When the file of the last large state is gone, the copy goes on from the one before it."""
    path = killed(tmp_path / "s", mode="large", kill=6)
    (last,) = path.glob("runs/*/1.side.6")
    last.unlink()
    assert any("side file 1.side.6 is missing" in damage for damage in damages(path))
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new")[0] == 5


def test_a_damaged_side_file(tmp_path: Path) -> None:
    """A flipped bit in the file of the last large state is found, and the copy does without it."""
    path = killed(tmp_path / "s", mode="large", kill=6)
    (last,) = path.glob("runs/*/1.side.6")
    flip(last, 100_000)
    assert any("side file 1.side.6: its bytes fail" in damage for damage in damages(path))
    repair(path, tmp_path / "new")
    assert not check_directory(tmp_path / "new").damaged
    assert resumed(tmp_path / "new")[0] == 5


def finished_and_killed(path: Path) -> Path:
    """A finished run "done" with a state that is easily found in the file of the log, and a killed one."""

    def done(state: object = None) -> Iterator[object]:
        yield checkpoint("MARK" * 10)
        return "value"

    killed(path, sync=8)
    with Driver(path) as driver:
        assert driver.run(done, name="done") == "value"
    return path


def damage_log(path: Path) -> None:
    data = path / "log" / "data.mdb"
    flip(data, data.read_bytes().index(b"MARKMARK"))


def test_a_damaged_value_in_the_log(tmp_path: Path) -> None:
    """An entry that fails its checksum does not stop check or repair: it is counted, and everything else is kept."""
    path = finished_and_killed(tmp_path / "s")
    entries = check_directory(path).entries
    damage_log(path)
    report = check_directory(path)
    assert report.entries == entries
    assert [str(finding) for finding in report.findings if "fails its checksum" in str(finding)]
    assert "1 entries" in str(repair(path, tmp_path / "new"))
    with Driver(tmp_path / "new") as driver:
        assert driver.run(lambda state=None: iter(()), name="done", once=True) == "value"
    assert resumed(tmp_path / "new") == (20, [i * 10 for i in range(30)])


@pytest.mark.parametrize("pages", [[2], [3], [2, 3, 4, 5, 6, 7]])
def test_damaged_pages_of_the_log(tmp_path: Path, pages: list[int]) -> None:
    """Garbage in LMDB's own pages is reported, never fatal, and runs with a journal go on in the copy."""
    path = finished_and_killed(tmp_path / "s")
    with (path / "log" / "data.mdb").open("r+b") as file:
        for page in pages:
            file.seek(page * 4096)
            file.write(random.Random(page).randbytes(4096))
    check_directory(path)
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new")[0] == 20


def test_a_cut_log(tmp_path: Path) -> None:
    """A log file that was cut short is reported, and runs with a journal go on in the copy."""
    path = finished_and_killed(tmp_path / "s")
    os.truncate(path / "log" / "data.mdb", 3 * 4096)
    assert damages(path)
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new")[0] == 20


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_lost_log(tmp_path: Path, what: str) -> None:
    """Without the log no empty one takes its place: opening says what to do, and the journals alone make the copy."""
    path = killed(tmp_path / "s")
    if what == "file":
        (path / "log" / "data.mdb").unlink()
    else:
        shutil.rmtree(path / "log")
    before = contents(path)
    with Driver(path) as driver, pytest.raises(DamagedLogError, match=r"is gone.*repair.*begin anew"):
        driver.run(job, 30, name="job")
    assert contents(path) == before
    assert any("No such file" in told for told in damages(path))
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new") == (20, [i * 10 for i in range(30)])


def test_sync_files_count(tmp_path: Path) -> None:
    """Under durability="disk" the sync file gives the copy what a damaged journal lost."""
    path = killed(tmp_path / "s", mode="disk")
    flip(segment(path), last_record(segment(path)) + 20)
    repair(path, tmp_path / "new")
    assert resumed(tmp_path / "new") == (20, [i * 10 for i in range(30)])


def test_random_generators_go_with_the_cut(tmp_path: Path) -> None:
    """A copy that was cut goes on with the generators' state of its last checkpoint, as if nothing had happened."""
    path = killed(tmp_path / "s", mode="dice")
    flip(segment(path), last_record(segment(path)) + 20)
    assert "goes on from checkpoint 19" in str(repair(path, tmp_path / "new"))
    truth = random.Random(7)
    expected = tuple(truth.random() for _ in range(30))

    def dice(n: int, state: tuple[float, ...] = ()) -> Iterator[object]:
        for _ in range(len(state), n):
            state = (*state, random.random())
            yield checkpoint(state)
        return state

    with Driver(tmp_path / "new", rng=True) as driver:
        assert driver.run(dice, 30, name="job") == expected


def test_a_running_job_is_no_damage_and_is_not_repaired(tmp_path: Path) -> None:
    """While a job writes, check finds nothing wrong with it and repair refuses."""
    command = [sys.executable, "-c", JOB, str(tmp_path / "s"), "forever", "1000000000", "0", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reader = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 1.0
            while time.monotonic() < until:
                report = check_directory(tmp_path / "s")
                assert not report.findings
                assert report.runs[0].status == "running"
            with pytest.raises(RunLockedError, match=str(process.pid)):
                repair(tmp_path / "s", tmp_path / "new")
        finally:
            process.kill()
            reader.wait()
    assert not (tmp_path / "new").exists()


def test_check_beside_an_open_driver(tmp_path: Path) -> None:
    """A directory can be checked by the process that has it open."""
    with Driver(tmp_path / "s") as driver:
        driver.run(job, 5, name="job")
        assert not check_directory(tmp_path / "s").findings


def test_a_directory_that_is_only_begun(tmp_path: Path) -> None:
    """Folders without a log and without a run are what a cut leaves of a directory being made: no damage, and it opens."""
    for name in ("runs", "log"):
        (tmp_path / "s" / name).mkdir(parents=True, mode=0o700)
    with pytest.raises(StorageError, match="no log in it") as caught:
        check_directory(tmp_path / "s")
    assert not isinstance(caught.value, DamagedLogError)
    with Driver(tmp_path / "s") as driver:
        driver.run(job, 5, name="job")
    assert not check_directory(tmp_path / "s").findings


def test_repair_refuses_a_directory_with_something_in_it(tmp_path: Path) -> None:
    """Neither a full target nor a source that is no state directory is touched, and nothing is left behind."""
    path = killed(tmp_path / "s")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(StorageError, match="not empty"):
        repair(path, tmp_path / "full")
    with pytest.raises(StorageError, match="no state directory"):
        repair(tmp_path / "full", tmp_path / "new")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full", "s"]
