"""Results: items appended beside the state, read lazily, each exactly once whatever happens."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest

from resumable import checkpoint
from resumable.errors import UnsavableStateError

STEPS = 40


stops = set()


def job(n, state=0):
    for i in range(state, n):
        yield checkpoint(i + 1, result={"item": i, "square": (i, i * i)})
        if i in stops:
            stops.remove(i)
            raise KeyError


def test_results_are_a_sequence(driver):
    """The results have a length, indexes, slices and an end, and come back with their exact types."""
    driver.run(job, 25)
    results = driver.results(job)
    assert len(results) == 25
    assert results[3] == {"item": 3, "square": (3, 9)}
    assert results[-1]["item"] == 24
    assert [item["item"] for item in results[5:8]] == [5, 6, 7]
    assert [item["item"] for item in results] == list(range(25))
    assert [item["item"] for item in reversed(results)] == list(reversed(range(25)))
    for wrong in (25, -26):
        with pytest.raises(IndexError):
            results[wrong]


@pytest.mark.parametrize("settings", [{}, {"durability": "disk"}], ids=str)
def test_results_may_be_none_and_few(make, settings):
    """None is a result; a checkpoint without one adds none."""
    driver = make(**settings)

    def job(state=0):
        yield checkpoint(1)
        yield checkpoint(2, result=None)
        yield checkpoint(3)
        yield checkpoint(4, result=())

    driver.run(job)
    assert list(driver.results(job)) == [None, ()]
    assert driver.info(job).results == 2


def test_results_do_not_make_the_state_grow(driver):
    """Results are no part of the state, and all of them stay when states fall out of the window."""

    def job(state=0):
        for i in range(5000):
            yield checkpoint(i, result=i)

    driver.run(job)
    assert list(driver.results(job)) == list(range(5000))
    assert driver.state(job) == 4999


def test_results_after_a_failure(driver):
    """After a failure and a rerun each index has its result once."""
    stops.update((3, 9, 10))
    for _ in range(3):
        with pytest.raises(KeyError):
            driver.run(job, 25, name="job")
    driver.run(job, 25, name="job")
    assert [item["item"] for item in driver.results("job")] == list(range(25))


def test_results_are_read_while_the_job_runs(driver):
    """The job's own process, and others, see the results so far; a list once taken keeps its length."""
    seen = []

    def job(run, state=0):
        for i in range(4):
            yield checkpoint(i, result=i)
            seen.append(run("job"))

    driver.run(job, driver.results, name="job")
    assert [list(results) for results in seen] == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]


def test_large_results_are_beside_the_log(driver):
    """A large result comes back whole, and is kept as long as its run is."""

    def job(state=0):
        for i in range(4):
            yield checkpoint(i, result=bytes([i]) * 1_000_000)

    driver.run(job)
    assert [result[:1] * 1_000_000 == result for result in driver.results(job)] == [True] * 4


def test_save_every_saves_each_result_at_once(make):
    """With save_every=N a checkpoint with a result is saved at its own yield, so no result is lost or doubled."""
    driver = make(save_every=7)
    stops.add(10)
    with pytest.raises(KeyError):
        driver.run(job, 25, name="job")
    driver.run(job, 25, name="job")
    assert [item["item"] for item in driver.results("job")] == list(range(25))


def test_results_wait_for_the_log(make):
    """A job that is faster than the log loses no result: their segment is not used again before the log has them."""
    driver = make(sync_every=3600, keep_states=5)

    def job(state=0):
        for i in range(40_000):
            yield checkpoint(i, result=i)

    driver.run(job)
    assert list(driver.results(job)) == list(range(40_000))


def test_a_refused_result_leaves_no_gap(make):
    """A job that catches the error of a result that cannot be saved, and goes on, has all others under their numbers."""
    driver = make()

    async def job(state=0):
        await checkpoint(1, result="first")
        with pytest.raises(UnsavableStateError):
            await checkpoint(2, result=(i for i in ()))
        await checkpoint(3, result="second")

    asyncio.run(driver.arun(job, name="job"))
    assert list(driver.results("job")) == ["first", "second"]


KILLED = """
def job(state=0):
    for i in range(state, 40):
        yield checkpoint(i + 1, result=bytes(300_000) + bytes([i]) if i % 10 == 9 else i)
        print(i, flush=True)
        sys.stdin.readline()
d = Driver(STATE, sync_every=float(sys.argv[2]))
d.run(job)
print([r if isinstance(r, int) else r[-1] for r in d.results(job)])
"""


@pytest.mark.parametrize("sync_every", [0.01, 100])
def test_each_result_once_after_kills(start, seed, sync_every):
    """Killed at random places, whatever the log has by then, a job ends with each result exactly once."""
    choose = random.Random(seed)
    for _ in range(5):
        process = start(KILLED, sync_every)
        for _ in range(choose.randrange(1, 9)):
            if process.stdout.readline().startswith("["):
                pytest.fail("the job was not to end yet")
            process.stdin.write("\n")
            process.stdin.flush()
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = start(KILLED, sync_every)
    out, err = process.communicate("\n" * STEPS, timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == str(list(range(40)))
