"""rng=True: a resumed run draws the numbers that it would have drawn without the crash."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from resumable import checkpoint
from resumable.errors import UnsavableStateError

stop = None


def job(n, *, state=()):
    numbers = list(state)
    for i in range(len(numbers), n):
        numbers.append((random.random(), random.gauss(0, 1), float(np.random.random()), float(np.random.normal())))
        if i == stop:
            raise KeyError
        yield checkpoint(numbers)
    return numbers


def expected(n):
    random.seed(5)
    np.random.seed(5)
    return [made.state for made in job(n)][-1]


@pytest.mark.parametrize("settings", [{}, {"durability": "disk"}, {"save_every": 3}], ids=str)
def test_a_resumed_run_is_bit_identical(make, settings):
    """With random's and NumPy's global generators, a run with two crashes equals an undisturbed one bit for bit."""
    global stop
    driver = make(rng=True, **settings)
    stop = None
    undisturbed = expected(30)
    random.seed(5)
    np.random.seed(5)
    for place in (11, 19):
        stop = place
        with pytest.raises(KeyError):
            driver.run(job, 30, name="job")
        random.seed(99)
        np.random.seed(99)
    stop = None
    assert driver.run(job, 30, name="job") == undisturbed


@pytest.mark.parametrize("last", range(1, 12))
def test_generators_and_state_are_in_one_segment(make, last):
    """Where a segment ends between checkpoints, each state still has the generators that were saved with it."""
    driver = make(rng=True)

    def rolling(state=None):
        if state is not None:
            return random.random()
        for i in range(last):
            random.random()
            yield checkpoint((i, b"x" * 20_000))
        raise KeyError

    random.seed(5)
    right = [random.random() for _ in range(last + 1)][-1]
    random.seed(5)
    with pytest.raises(KeyError):
        driver.run(rolling, name="job")
    random.seed(99)
    assert driver.run(rolling, name="job") == right


def test_a_refused_checkpoint_keeps_no_generators_back(make):
    """A job that draws, is refused a checkpoint and goes on to one that is saved finds the generators of that one again."""
    driver = make(rng=True)

    async def drawing(state=0):
        if state == 0:
            await checkpoint(1)
            random.random()
            with pytest.raises(UnsavableStateError):
                await checkpoint(i for i in ())
            await checkpoint(2)
            raise KeyError
        return random.random()

    random.seed(5)
    right = [random.random(), random.random()][1]
    random.seed(5)
    with pytest.raises(KeyError):
        asyncio.run(driver.arun(drawing, name="job"))
    random.seed(99)
    assert asyncio.run(driver.arun(drawing, name="job")) == right


def test_a_crash_before_the_first_checkpoint(make):
    """The generators' state at the start of the run is kept too."""
    global stop
    driver = make(rng=True)
    stop = None
    undisturbed = expected(3)
    random.seed(5)
    np.random.seed(5)
    stop = 0
    with pytest.raises(KeyError):
        driver.run(job, 3, name="job")
    random.seed(99)
    np.random.seed(99)
    stop = None
    assert driver.run(job, 3, name="job") == undisturbed


def test_without_rng_nothing_is_touched(driver):
    """By default the generators are left alone on resume."""
    global stop
    stop = 2
    with pytest.raises(KeyError):
        driver.run(job, 5, name="job")
    random.seed(7)
    before = random.getstate()
    stop = 0
    with pytest.raises(KeyError):
        driver.run(job, 5, name="other")
    drawn = random.getstate()
    random.setstate(before)
    random.random(), random.gauss(0, 1)
    assert random.getstate() == drawn


def test_it_is_cheap_when_unchanged(make):
    """A job that draws nothing saves no generator states."""
    driver = make(rng=True)

    def job(state=0):
        for i in range(200):
            yield checkpoint(i)
        raise KeyError

    with pytest.raises(KeyError):
        driver.run(job, name="job")
    folder = driver._open().home.folder(next(name for name, _ in driver._open().home.folders()))
    from resumable._fastlog import scan

    records = [record for _, image in folder.images(1) for record in scan(image)[0]]
    assert sum(record[2] == 3 for record in records) == 0


def test_across_processes(script):
    """After SIGKILL another process draws the same numbers on."""
    body = """
import random
import numpy as np
def job(state=()):
    numbers = list(state)
    for i in range(len(numbers), 20):
        numbers.append((random.random(), float(np.random.random())))
        if i == int(sys.argv[2]):
            kill()
        yield checkpoint(numbers)
    return numbers
if sys.argv[3] == "seed":
    random.seed(5)
    np.random.seed(5)
print(Driver(STATE, rng=True).run(job, name=sys.argv[4]))
"""
    undisturbed = script(body, -1, "seed", "whole")[1]
    assert script(body, 13, "seed", "job")[0] == -9
    assert script(body, 17, "no", "job")[0] == -9
    assert script(body, -1, "no", "job") == (0, undisturbed, "")
