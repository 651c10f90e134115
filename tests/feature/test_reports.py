"""What a directory tells of its runs, while they go on and after."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import time
from datetime import UTC, datetime, timedelta

import pytest

from resumable import Driver, checkpoint
from resumable._fastlog import read_header, scan
from resumable.errors import NotACheckpointError, NotAJobError, RunNotFoundError, StorageError


def counting(n, state=0):
    for i in range(state, n):
        yield checkpoint(i + 1, result=i)
    return n


def failing(n, state=0):
    yield from counting(n)
    raise ValueError("bad")


def test_runs_lists_all_newest_first(driver):
    """`runs` lists every run, the one begun last first."""
    assert driver.runs() == []
    for n in range(3):
        driver.run(counting, n)
    assert [info.arguments for info in driver.runs()] == ["2", "1", "0"]
    assert [info.started for info in driver.runs()] == sorted((info.started for info in driver.runs()), reverse=True)


def test_info_of_a_finished_run(driver):
    """`info` tells name, job, numbers, times and where the run is."""
    driver.run(counting, 3, name="job", version=2)
    info = driver.info("job")
    assert dataclasses.replace(info, started=None, updated=None) == dataclasses.replace(
        info, name="job", number=1, job="test_reports:counting", status="finished", seq=3, on_disk=3, results=3,
        arguments="3", version=2, started=None, updated=None, resumed=0, write_path="log", pid=None, host=None,
    )
    assert info.started <= info.updated
    assert abs(datetime.now(UTC) - info.updated) < timedelta(seconds=60)
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.seq = 5


def test_status_of_every_kind(driver):
    """A run is running, interrupted, failed, finished or abandoned."""
    seen = []

    def job(info, state=0):
        yield checkpoint(1)
        seen.append(info("job").status)
        raise stops.pop()

    stops = [KeyboardInterrupt(), ValueError()]
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            driver.run(job, driver.info, name="job")
        seen.append(driver.info("job").status)
    driver.run(counting, 1, name="job", fresh=True)
    seen += [driver.info("job").status, driver.info("job", run=1).status]
    assert seen == ["running", "failed", "running", "interrupted", "finished", "abandoned"]


def test_reports_of_a_run_in_progress(make, request):
    """While a job runs, its reports tell the last acknowledged checkpoint, and the write path in use."""
    driver = make(sync_every=1000)
    seen = []

    def job(d, state=0):
        for i in range(5):
            yield checkpoint(i)
        seen.append((d.info("job"), d.state("job"), [record.state for record in d.history("job")]))
        d.sync()
        seen.append(d.info("job").on_disk)

    driver.run(job, driver, name="job")
    info, state, history = seen[0]
    assert (info.status, info.seq, info.on_disk, state, history) == ("running", 5, 0, 4, [0, 1, 2, 3, 4])
    assert info.write_path == ("memory" if driver.path == ":memory:" else "map")
    assert seen[1] == 5


def test_durability_disk_is_on_disk_at_once(state_dir):
    """With durability="disk" the last acknowledged checkpoint is the last on disk, at any time."""
    with Driver(state_dir, durability="disk", sync_every=1000) as driver:

        def job(info, state=0):
            for i in range(3):
                yield checkpoint(i)
                seen.append((info("job").seq, info("job").on_disk))

        seen = []
        driver.run(job, driver.info, name="job")
    assert seen == [(1, 1), (2, 2), (3, 3)]


SECOND = """
from resumable.storage import journal

def job(state=0):
    yield checkpoint(1, result="r")
    return "value"

made = []

def make(whole=journal.Journal):
    if len(made) == 3:
        kill()      # the second run has a segment, and nothing in it
    made.append(whole())
    return made[-1]

journal.Journal = make
with Driver(STATE) as driver:
    driver.run(job, name="job")
    driver.run(job, name="job")
"""


def test_a_run_that_was_killed_before_its_first_record_is_none(script, state_dir):
    """Reports tell of the last run that has begun, not of the one that a kill kept from its first record."""
    assert script(SECOND)[0] == -9
    assert len(list(state_dir.glob("runs/*/2.0"))) == 1
    with Driver(state_dir) as driver:
        assert (driver.info("job").number, driver.info("job").status) == (1, "finished")
        assert (driver.state("job"), list(driver.results("job"))) == (1, ["r"])
        assert [run.number for run in driver.runs()] == [1]
        with pytest.raises(RunNotFoundError, match="no run 2 of 'job'"):
            driver.info("job", run=2)
        driver.clear("job")
        with pytest.raises(RunNotFoundError, match="no run 'job'"):
            driver.info("job")


UNSYNCED = """
from collections import Counter
from resumable.runs.saving import SavingRun

def job(state=None):
    for i in range(len(state or ()), 9):
        if i == 2:
            SavingRun._reach_disk = lambda run: os.kill(os.getpid(), 9)
        yield checkpoint(Counter(range(i + 1)))     # pickled, so that it takes the way through Python
Driver(STATE, durability="disk", sync_every=1000).run(job, name="job")
"""


def test_what_may_not_be_synced_is_not_called_on_disk(disk, start):
    """After a kill between publishing and syncing a report counts the last checkpoint, and does not call it on disk."""
    start(UNSYNCED).wait()
    assert (disk.info("job").seq, disk.info("job").on_disk) == (3, 2)


def test_what_a_failed_run_has_acknowledged_is_called_on_disk(script, state_dir):
    """Wherever in its journal a run of durability="disk" fails, all its checkpoints are on disk for reports after a kill."""
    body = """
from resumable.storage.writer import Writer

def job(n, state=b""):
    for _ in range(n):
        yield checkpoint(b"x" * 3_000)
    raise KeyError

Writer.flush = lambda *given: None      # the log gets nothing
with Driver(STATE, durability="disk", sync_every=1_000) as driver:
    for n in range(1, 30):
        try:
            driver.run(job, n, name=str(n))
        except KeyError:
            pass
    kill()
"""
    assert script(body)[0] == -9
    with Driver(state_dir) as driver:
        assert sorted((run.seq, run.on_disk, run.status) for run in driver.runs()) == [(n, n, "failed") for n in range(1, 30)]


def test_a_life_that_saved_nothing_calls_nothing_on_disk(disk, start):
    """What a life with durability="disk" goes on from is not called on disk while it may still be on its way there."""
    process = start(RUNNING, 1000)
    for _ in range(3):
        process.stdout.readline()
        process.stdin.write("\n")
        process.stdin.flush()
    process.stdout.readline()
    process.kill()
    process.wait()
    start(BEGINNING).wait()
    assert (disk.info("job").seq, disk.info("job").on_disk) == (4, 0)


def test_a_life_that_needs_no_disk_keeps_what_is_on_it(disk, start):
    """A life with durability="process" that goes on from a killed one with "disk" still reports what that had on disk."""
    start(UNSYNCED).wait()
    process = start(GOING_ON)
    process.stdout.readline()
    # 4 if the log's thread, which the new life woke once, was slow enough to see that one too.
    assert (disk.info("job").seq, disk.info("job").on_disk) in ((4, 3), (4, 4))
    process.kill()
    process.wait()
    assert (disk.info("job").seq, disk.info("job").on_disk) in ((4, 3), (4, 4))


GOING_ON = """
def job(state=None):
    yield checkpoint([0])
    print(flush=True)
    sys.stdin.readline()
Driver(STATE, sync_every=1000).run(job, name="job")
"""


BEGINNING = """
from resumable.storage.writer import Writer

def job(state=0):
    yield checkpoint([0])
Writer.flush = lambda *_: os.kill(os.getpid(), 9)
Driver(STATE, durability="disk", sync_every=1000).run(job, name="job")
"""


RUNNING = """
def job(state=0):
    for i in range(state, 10):
        yield checkpoint([i], result=i)
        print(i, flush=True)
        sys.stdin.readline()
Driver(STATE, sync_every=float(sys.argv[2])).run(job, name="job")
"""


@pytest.mark.parametrize("sync_every", [0.01, 1000])
def test_reports_while_another_process_runs_the_job(disk, start, sync_every):
    """Another process's run can be looked at: state, history, results, who runs it; after a kill it is interrupted."""
    process = start(RUNNING, sync_every)
    for i in range(3):
        assert process.stdout.readline() == f"{i}\n"
        info = disk.info("job")
        assert (info.status, info.seq, info.results, info.pid) == ("running", i + 1, i + 1, process.pid)
        assert disk.state("job") == [i]
        assert disk.state("job", at=1) == [0]
        assert [record.state for record in disk.history("job")] == [[n] for n in range(i + 1)]
        assert list(disk.results("job")) == list(range(i + 1))
        assert disk.failure("job") is None
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.stdout.readline() == "3\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    (info,) = disk.runs()
    assert (info.status, info.seq, info.pid, info.host) == ("interrupted", 4, None, None)
    assert disk.state("job") == [3]


def test_a_report_takes_a_name_or_the_job(driver):
    """Reports take a name, or the job itself: then its newest run with any arguments is meant."""
    driver.run(counting, 3)
    driver.run(counting, 4)
    assert driver.info(counting).arguments == "4"
    assert driver.state(counting) == 4
    name = driver.info(counting).name
    assert driver.info(name) == driver.info(counting)


def test_an_older_run_is_picked_by_number(driver):
    """`run=` picks an older run of the same name."""
    for n in (3, 4, 5):
        driver.run(counting, n, name="job")
    for number, n in ((1, 3), (2, 4), (3, 5)):
        assert driver.state("job", run=number) == n
        assert len(driver.results("job", run=number)) == n
        assert driver.info("job", run=number).number == number
        assert driver.history("job", run=number)[-1].seq == n


def test_history_says_tier_and_size(driver):
    """A history record tells number, tier and size, and decodes its state when asked."""

    def job(state=0):
        yield checkpoint([1])
        yield checkpoint(ValueError("x"))
        yield checkpoint(lambda: 5)

    driver.run(job, name="job")
    records = driver.history("job")
    assert [(record.seq, record.tier) for record in records] == [(1, 0), (2, 1), (3, 2)]
    assert all(record.size > 0 for record in records)
    assert records[2].state() == 5
    assert str(records[1].state) == "x"


def test_failure_tells_what_happened(driver):
    """`failure` keeps type, message, traceback and the locals of the job's own innermost frame."""

    def helper(inner):
        raise ValueError(f"bad {inner}")

    def job(state=0):
        where = {"row": 7, "password": "hunter2"}
        handle = object()
        yield checkpoint(1)
        helper(where["row"] + (handle is None))

    with pytest.raises(ValueError):
        driver.run(job, name="job")
    failure = driver.failure("job")
    assert (failure.type, failure.message, failure.seq, failure.run, failure.number) == ("ValueError", "bad 7", 1, "job", 1)
    assert "in helper" in failure.traceback
    assert failure.locals["where"]["row"] == 7
    assert failure.locals["handle"].type_name == "object"
    assert "inner" not in failure.locals
    assert "hunter2" not in repr(failure)
    assert abs(datetime.now(UTC) - failure.time) < timedelta(seconds=60)


def test_failure_of_jobs_of_other_kinds(driver):
    """The job's own frame is found for methods and callable objects too."""

    class Job:
        def run(self, state=0):
            mine = "method"
            yield checkpoint(mine)
            raise ValueError

        def __call__(self, state=0):
            mine = "called"
            yield checkpoint(mine)
            raise ValueError

    for name, job in (("method", Job().run), ("called", Job())):
        with pytest.raises(ValueError):
            driver.run(job, name=name)
        assert driver.failure(name).locals["mine"] == name


def test_failure_locals_can_be_left_out(make):
    """With failure_locals=False no locals are kept."""
    driver = make(failure_locals=False)
    with pytest.raises(ValueError):
        driver.run(failing, 2)
    assert driver.failure(failing).locals == {}


def test_a_failure_never_hides_the_jobs_exception(driver):
    """Objects that misbehave when looked at do not change what comes out, and the rest is kept."""

    class Bad(Exception):
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    error = Bad()

    def job(state=0):
        bad = error  # noqa: F841 - a local to be frozen
        yield checkpoint(1)
        raise error

    with pytest.raises(Bad) as caught:
        driver.run(job, name="job")
    assert caught.value is error
    assert driver.failure("job").type.endswith("Bad")
    assert driver.info("job").seq == 1


def test_a_huge_failure_is_bounded(driver):
    """Message, traceback and locals are at most 64 KB each, and the failure fits."""

    def job(state=0):
        text = "x" * 10_000_000
        lots = [text[:1000]] * 10_000
        yield checkpoint(1)
        raise ValueError(text + lots[0])

    with pytest.raises(ValueError):
        driver.run(job, name="job")
    failure = driver.failure("job")
    assert len(failure.message) <= 1 << 16
    assert len(failure.traceback) <= 1 << 16


def test_the_failure_stays_readable_after_success(driver):
    """How a run last failed can be read after it was finished; a run that never failed has none."""
    with pytest.raises(ValueError):
        driver.run(failing, 2, name="job")
    driver.run(counting, 3, name="job", on_change="continue")
    assert driver.info("job").status == "finished"
    assert driver.failure("job").message == "bad"
    driver.run(counting, 3, name="good")
    assert driver.failure("good") is None


def test_a_failure_that_the_log_does_not_have_yet(disk, monkeypatch):
    """A failure that only the journal has can be read while the run goes on, as before and after that."""

    def job(state=0):
        yield checkpoint(1)
        if not state:
            raise ValueError("not in the log")
        seen.append(disk.failure("job"))

    def refuse(*_):
        raise StorageError("the log cannot be written")

    seen = []
    disk.runs()     # opens the directory
    with monkeypatch.context() as patch:
        patch.setattr(disk._engine.home.store, "commit", refuse)
        with pytest.raises(ValueError):
            disk.run(job, name="job")
    seen.append(disk.failure("job"))
    disk.run(job, name="job")
    seen.append(disk.failure("job"))
    assert [failure and failure.message for failure in seen] == ["not in the log"] * 3


def test_interrupts_are_no_failures(driver):
    """Ctrl-C and SystemExit leave no failure record."""
    for error in (KeyboardInterrupt, SystemExit):

        def job(error, state=0):
            yield checkpoint(1)
            raise error

        with pytest.raises(error):
            driver.run(job, error, name=error.__name__)
        assert driver.failure(error.__name__) is None
        assert driver.info(error.__name__).status == "interrupted"


FULL_SPEED = """
def job(state=0):
    for i in range(state, 10**12):
        yield checkpoint(i + 1)
Driver(STATE).run(job, name="job")
"""


def test_reports_of_a_run_at_full_speed(disk, start):
    """While its process saves millions of checkpoints a second, a run's reports never go back and never contradict."""
    start(FULL_SPEED)
    deadline = time.monotonic() + 20
    while not any(info.seq for info in disk.runs()):
        assert time.monotonic() < deadline
    seqs = []
    for _ in range(200):
        info = disk.info("job")
        assert (info.status, info.resumed, info.results) == ("running", 0, 0)
        assert info.on_disk <= info.seq
        seqs += [info.seq, disk.state("job")]       # the state is its checkpoint's number
        assert disk.failure("job") is None
    assert seqs == sorted(seqs)
    assert len(set(seqs)) > 100


@pytest.mark.parametrize("count", [10, 400_000])
def test_the_last_checkpoint_costs_the_same_after_many(disk, count, monkeypatch):
    """`info`, `state` and `failure` read a handful of records, however many checkpoints the journal holds."""

    def job(n, state=0):
        for i in range(n):
            yield checkpoint(i + 1)
        read.clear()
        seen.append((disk.info("job").seq, disk.state("job"), disk.failure("job"), disk.runs()[0].seq))

    def counted(*args):
        records, end = scan(*args)
        read.extend(records)
        return records, end

    read, seen = [], []
    monkeypatch.setattr("resumable.storage.tail.scan", counted)
    disk.run(job, count, name="job")
    assert seen == [(count, count, None, count)]
    assert len(read) <= 4 * 11
    assert disk.state("job") == count


def test_reports_where_there_are_no_hints(disk, monkeypatch):
    """A journal that is written with pwrite has no hints: reports read its newest segment, and say the same."""
    monkeypatch.setattr("resumable.storage.folder.can_map", lambda fd: False)

    def job(state=0):
        for i in range(3):
            yield checkpoint(i, result=i)
        seen.append(disk.info("job"))
        seen.append(disk.state("job"))

    seen = []
    disk.run(job, name="job")
    assert (seen[0].seq, seen[0].results, seen[0].write_path, seen[1]) == (3, 3, "pwrite", 2)


def test_a_report_is_read_anew_when_the_segment_changed_meanwhile(disk, monkeypatch):
    """A header that is not what it was makes reports begin anew, and in the end read the whole journal."""
    headers = itertools.count()

    def changing(image):
        header = read_header(image)
        return header and header | {"generation": next(headers)}

    def job(state=0):
        yield checkpoint(1)
        with monkeypatch.context() as patch:
            patch.setattr("resumable.storage.tail.read_header", changing)
            seen.append((disk.info("job").seq, disk.state("job")))

    seen = []
    disk.run(job, name="job")
    assert seen == [(1, 1)]
    assert next(headers) > 50


def test_history_lists_what_can_be_read(make):
    """Large states that are gone are not in the history: every record that it lists has its state."""

    def job(state=""):
        for i in range(6):
            yield checkpoint(str(i) * (300_000 if i < 5 else 1))

    driver = make(sync_every=0.01)
    driver.run(job, name="job")
    records = driver.history("job")
    assert 1 <= len(records) < 6
    assert [record.state[0] for record in records] == [str(record.seq - 1) for record in records]


def test_messages_name_types_and_runs_plainly(driver):
    """A run that is not there, and a job that makes or yields something else, are told without a wrong article."""

    def yields(state=0):
        yield 3

    with pytest.raises(RunNotFoundError, match=r"^there is no run 'nope' in "):
        driver.info("nope")
    with pytest.raises(NotACheckpointError, match="yielded an object of type int after checkpoint 0"):
        driver.run(yields, name="yields")
    with pytest.raises(NotAJobError, match="made int, not a generator"):
        driver.run(lambda state=0: 3, name="makes")
