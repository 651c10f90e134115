"""Several jobs taking turns in one thread."""

from __future__ import annotations

from functools import partial

import pytest

from resumable import checkpoint
from resumable.errors import AsyncJobError, NotACheckpointError, RunLockedError

order = []
broken = None


@pytest.fixture(autouse=True)
def _reset():
    global broken
    order.clear()
    broken = None


def job(name, n, state=0):
    for i in range(state, n):
        order.append(f"{name}{i}")
        if broken == f"{name}{i}":
            raise KeyError(name)
        yield checkpoint(i + 1)
    return name


def test_one_checkpoint_each_in_turn(driver):
    """The jobs make one checkpoint each in turn, and their values come back in the order of the jobs."""
    assert driver.interleave([partial(job, "a", 3), partial(job, "b", 1), partial(job, "c", 2)]) == ["a", "b", "c"]
    assert order == ["a0", "b0", "c0", "a1", "c1", "a2"]
    assert {info.status for info in driver.runs()} == {"finished"}


def outcome(driver):
    return {info.arguments[12]: (info.status, info.seq) for info in driver.runs()}


def test_after_a_failure_each_goes_on_from_its_own(driver):
    """When one fails all stop; it alone has failed, and later each goes on from its own last checkpoint."""
    global broken
    broken = "b1"
    both = [partial(job, "a", 3), partial(job, "b", 3)]
    with pytest.raises(KeyError, match="b"):
        driver.interleave(both)
    assert outcome(driver) == {"a": ("interrupted", 2), "b": ("failed", 1)}
    failures = {info.arguments[12]: driver.failure(info.name) for info in driver.runs()}
    assert failures["a"] is None
    assert failures["b"].type == "KeyError"
    order.clear()
    broken = None
    assert driver.interleave(both) == ["a", "b"]
    assert order == ["a2", "b1", "b2"]


def test_a_finished_one_is_not_touched_by_a_later_failure(driver):
    """A job that has returned before another fails is finished."""
    global broken
    broken = "b2"
    with pytest.raises(KeyError):
        driver.interleave([partial(job, "a", 1), partial(job, "b", 3)])
    assert outcome(driver) == {"a": ("finished", 1), "b": ("failed", 2)}


def test_the_same_job_twice_is_refused(driver):
    """Two jobs that mean one run raise RunLockedError, and the first is not left locked."""
    with pytest.raises(RunLockedError):
        driver.interleave([partial(job, "a", 1), partial(job, "a", 1)])
    assert driver.interleave([partial(job, "a", 1)]) == ["a"]


def test_bad_jobs_are_refused(driver):
    """An async job and a wrong yield are refused as by `run`; the others are not failed by that."""

    async def coroutine(state=0):
        await checkpoint(1)

    def wrong(state=0):
        yield 5

    with pytest.raises(AsyncJobError):
        driver.interleave([partial(job, "a", 1), coroutine])
    with pytest.raises(NotACheckpointError):
        driver.interleave([partial(job, "a", 1), wrong])
    assert driver.interleave([]) == []
    assert driver.interleave([partial(job, "a", 1)]) == ["a"]
