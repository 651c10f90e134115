"""Running a job to its end: what it gets, what it gives, what comes back."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

import resumable
from resumable import Driver, checkpoint
from resumable.errors import RunNameError


def totals(numbers, state=(0, 0)):
    done, total = state
    for number in numbers[done:]:
        done, total = done + 1, total + number
        yield checkpoint((done, total))
    return total


def test_the_return_value_is_given_back(driver):
    """`run` gives back what the job returns."""
    assert driver.run(totals, [1, 2, 3]) == 6


def test_a_job_runs_without_a_driver_too():
    """A job is a plain generator, so its states can be looked at in a unit test."""
    assert [made.state for made in totals([1, 2])] == [(1, 1), (2, 3)]


def test_the_default_state_is_copied_afresh_for_each_start(driver):
    """A job that changes its mutable default state finds it untouched at the next start."""
    seen = []

    def job(state={"items": []}):  # noqa: B006 - that is the point
        seen.append(dict(state, items=list(state["items"])))
        state["items"].append(1)
        yield checkpoint(state)

    for _ in range(2):
        driver.run(job, name="job")
    assert seen == [{"items": []}] * 2


def test_after_success_a_rerun_begins_anew(driver):
    """A finished run is not gone on with: the same call runs the job once more, as another run."""
    starts = []

    def job(state=0):
        starts.append(state)
        yield checkpoint(5)

    driver.run(job, name="job")
    driver.run(job, name="job")
    assert starts == [0, 0]
    assert [info.number for info in driver.runs()] == [2, 1]


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

    __hash__ = None


STATES = [
    None, True, 7, -(1 << 80), 1.5, float("inf"), 2j, "ü\U0001f600", b"\0", bytearray(b"x"),
    (), (1, [2, (3,)]), {1: {2}},
    frozenset({1}), range(3), slice(1, None), {(1, "a"): None}, Decimal("1.10"), datetime(2024, 1, 2, tzinfo=UTC),
    OrderedDict(a=1), Path("a/b"), Point(3), {"deep": [Point((1,))]}, "x" * 100_000,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: f"{type(state).__name__}-{str(state)[:12]!r}")
def test_exact_types_come_back(driver, state):
    """A state comes back equal and of the same types, all the way down."""

    def job(state=None, *, given=state):
        if state is None and given is not None:
            yield checkpoint(given)
            raise KeyError
        return state
        yield

    if state is not None:
        with pytest.raises(KeyError):
            driver.run(job, name="job")
    back = driver.run(job, name="job")
    assert back == state
    assert type(back) is type(state)
    assert repr(back) == repr(state) or "Point" in repr(state)


def test_identity_within_a_state_is_kept(driver):
    """Mutable objects and instances that were one object in a state are one object when it comes back."""

    def job(state=None):
        if state is None:
            shared, point = [], Point(1)
            yield checkpoint([shared, shared, point, {"p": point}])
            raise KeyError
        return state
        yield

    with pytest.raises(KeyError):
        driver.run(job)
    back = driver.run(job)
    assert back[0] is back[1]
    assert back[2] is back[3]["p"]


def test_a_state_is_encoded_at_its_own_yield(driver):
    """What the job does to a state after the yield is not in the checkpoint."""

    def job(state=None):
        state = state or {"n": 0}
        yield checkpoint(state)
        state["n"] = 99
        raise KeyError

    with pytest.raises(KeyError):
        driver.run(job)
    assert driver.state(job) == {"n": 0}


def test_a_job_that_never_yields_finishes(driver):
    """A generator that returns before any yield is a finished run without checkpoints."""

    def job(state=None):
        return "nothing to do"
        yield

    assert driver.run(job, name="job") == "nothing to do"
    info = driver.info("job")
    assert (info.status, info.seq) == ("finished", 0)
    assert driver.run(job, name="job", once=True) == "nothing to do"


def test_yield_from_saves_the_inner_checkpoints(driver):
    """Checkpoints of a generator that the job delegates to are the job's own."""

    def part(first):
        yield checkpoint(first)
        yield checkpoint(first + 1)
        return first + 2

    def job(state=0):
        following = yield from part(state + 1)
        yield checkpoint(following)
        return following

    assert driver.run(job) == 3
    assert [record.state for record in driver.history(job)] == [1, 2, 3]


def test_ten_thousand_checkpoints_cross_segments(driver):
    """Resuming after many checkpoints, over several journal segments, gives the last one."""

    def job(n, state=0):
        for i in range(state, n):
            yield checkpoint(i + 1)
        if state == 0:
            raise KeyError
        return state

    with pytest.raises(KeyError):
        driver.run(job, 10_000)
    assert driver.run(job, 10_000) == 10_000


def test_nothing_is_created_before_first_use(state_dir):
    """Importing and constructing create no directory; the first run does, with a .gitignore of ours."""
    driver = Driver(state_dir)
    assert not state_dir.exists()
    driver.run(totals, [1])
    assert (state_dir / ".gitignore").read_text().strip() == "*"
    driver.close()


def test_the_directory_is_read_at_first_use(tmp_path, monkeypatch):
    """Without a path, RESUMABLE_HOME counts when the driver is first used, else .resumable where we are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESUMABLE_HOME", raising=False)
    with Driver() as here, Driver() as there:
        here.run(totals, [1])
        monkeypatch.setenv("RESUMABLE_HOME", str(tmp_path / "elsewhere"))
        there.run(totals, [1])
    assert sorted(os.listdir(tmp_path)) == [".resumable", "elsewhere"]


def test_the_default_driver_is_there(tmp_path, monkeypatch):
    """`resumable.driver` is a driver that can be used at once."""
    assert isinstance(resumable.driver, Driver)


def test_a_finished_run_leaves_no_folder(disk, state_dir):
    """A finished run is settled: everything is in the log, its folder is gone."""
    disk.run(totals, [1, 2])
    assert os.listdir(state_dir / "runs") == []


def test_the_logger_tells_of_starts_and_ends(driver, caplog):
    """The logger `resumable` says when a run starts, resumes and ends, with the run's name."""

    def job(state=0):
        if not state:
            yield checkpoint(1)
            raise KeyError

    with caplog.at_level(logging.INFO, "resumable"):
        with pytest.raises(KeyError):
            driver.run(job, name="logged")
        driver.run(job, name="logged")
    text = caplog.text
    assert "starting run 'logged'" in text
    assert "resuming run 'logged'" in text
    assert "finished run 'logged'" in text
    assert {record.name for record in caplog.records} == {"resumable"}


NAMES = ["a/b/../c", "ünïcödé \U0001f600", "x" * 10_000, "\U0001f600" * 10_000, ".", "\0", "a\nb", "\ud800", "a@b"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name_will_do(driver, name):
    """A name may have any characters, up to 10,000 of them, and names a run of its own."""

    def job(state=0):
        yield checkpoint(state + 1)
        if state == 0:
            raise KeyError
        return state

    with pytest.raises(KeyError):
        driver.run(job, name=name)
    assert driver.run(job, name=name) == 1
    assert driver.info(name).name == name


@pytest.mark.parametrize("name", ["", "x" * 10_001, 7, b"job"])
def test_what_is_no_name_is_refused(driver, name):
    """An empty name, one of 10,001 characters and what is no str raise RunNameError, and nothing runs."""
    with pytest.raises(RunNameError):
        driver.run(totals, [1], name=name)
    with pytest.raises(RunNameError):
        driver.batch(name).__enter__()
    assert driver.runs() == []


def test_settings_out_of_range_are_refused():
    """Settings that make no sense raise ValueError, which names them."""
    for setting in ({"save_every": 0}, {"keep_states": 0}, {"keep_runs": 0}, {"sync_every": 0}, {"durability": "none"}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            Driver(":memory:", **setting)
    with pytest.raises(ValueError, match="codec"):
        Driver(":memory:", codec="pickle")
