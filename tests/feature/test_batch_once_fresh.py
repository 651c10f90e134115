"""`once`, `fresh` and batches: when a finished run's value is given back, and when a run begins anew."""

from __future__ import annotations

import contextlib

import pytest

from resumable import checkpoint
from resumable.errors import ChangedArgumentsError, NotDurableWarning, NoValueError, RunLockedError

ran = []
broken = False


def job(n, state=0):
    ran.append(n)
    yield checkpoint(n)
    if broken:
        raise KeyError
    return {"n": n}


@pytest.fixture(autouse=True)
def _reset():
    global broken
    ran.clear()
    broken = False


def test_once_gives_back_the_value(driver):
    """once=True gives back a finished run's value, of exact type, without running."""
    first = driver.run(job, 1, once=True)
    again = driver.run(job, 1, once=True)
    assert first == again == {"n": 1}
    assert ran == [1]


def test_once_goes_on_with_an_unfinished_run(driver):
    """once=True on an unfinished run finishes it."""
    global broken
    broken = True
    with pytest.raises(KeyError):
        driver.run(job, 1, once=True)
    broken = False
    assert driver.run(job, 1, once=True) == {"n": 1}
    assert ran == [1, 1]


@pytest.mark.parametrize("mark", ["once", "batch"])
def test_a_value_of_other_arguments_is_not_given_back(driver, mark):
    """A named run that finished with other arguments is an error under once=True and in its batch, not their value."""

    def call(number, on_change="error"):
        return driver.run(job, number, name="n", once=mark == "once", on_change=on_change)

    with driver.batch("b") if mark == "batch" else contextlib.nullcontext():
        assert call(1) == {"n": 1}
        with pytest.raises(ChangedArgumentsError, match=r"\(1\).*\(2\).*have its value"):
            call(2)
        assert call(2, "continue") == {"n": 1}
        assert call(2, "restart") == {"n": 2}
        assert call(2) == {"n": 2}
    assert ran == [1, 2]


VALUES = {"none": None, "tuple": (1, [2]), "large": "x" * 1_000_000, "object": KeyError("a")}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_any_value_comes_back(driver, value):
    """The value of a finished run comes back whatever its tier and size, large ones out of a side file."""

    def valued(state=0):
        return value
        yield

    driver.run(valued, name="job")
    back = driver.run(valued, name="job", once=True)
    assert type(back) is type(value)
    assert str(back) == str(value)


def test_a_value_that_cannot_be_saved_is_told(driver):
    """A return value that cannot be saved is given to the caller; asking for it later raises NoValueError."""

    def job(state=0):
        yield checkpoint(1)
        return (i for i in range(3))

    with pytest.warns(NotDurableWarning, match="return value"):
        assert list(driver.run(job, name="job", once=True)) == [0, 1, 2]
    with pytest.raises(NoValueError, match="fresh=True"):
        driver.run(job, name="job", once=True)
    assert list(driver.run(job, name="job")) == [0, 1, 2]


def test_fresh_begins_another_run(driver):
    """fresh=True leaves the unfinished run readable as abandoned, and begins at the default state."""
    global broken
    broken = True
    with pytest.raises(KeyError):
        driver.run(job, 1)
    broken = False
    assert driver.run(job, 1, fresh=True) == {"n": 1}
    new, old = driver.runs()
    assert [(info.number, info.status) for info in (old, new)] == [(1, "abandoned"), (2, "finished")]
    assert driver.state(job, run=1) == 1
    assert driver.failure(job, run=1).type == "KeyError"


def test_fresh_runs_a_finished_one_again(driver):
    """fresh=True inside a batch runs a finished run again."""
    with driver.batch("night"):
        driver.run(job, 1)
        driver.run(job, 1, fresh=True)
    assert ran == [1, 1]


def pipeline(driver):
    with driver.batch("night"):
        first = driver.run(job, 1)
        second = driver.run(job, 2)
    return first, second


def test_a_batch_does_not_repeat_what_is_finished(driver):
    """After a crash in the second job, the first gives back its value without running, until the batch has ended."""
    global broken

    def crashing():
        with driver.batch("night"):
            driver.run(job, 1)
            global broken
            broken = True
            driver.run(job, 2)

    with pytest.raises(KeyError):
        crashing()
    broken = False
    assert pipeline(driver) == ({"n": 1}, {"n": 2})
    assert ran == [1, 2, 2]
    assert pipeline(driver) == ({"n": 1}, {"n": 2})
    assert ran == [1, 2, 2, 1, 2]


def test_runs_before_the_batch_do_not_count(driver):
    """A run that finished outside, or in an earlier batch, is run again inside."""
    driver.run(job, 1)
    with driver.batch("night"):
        driver.run(job, 1)
    with driver.batch("day"):
        driver.run(job, 1)
    assert ran == [1, 1, 1]


def test_a_run_begun_outside_and_finished_inside_counts(driver):
    """An unfinished run that is finished inside a batch is not run again there."""
    global broken
    broken = True
    with pytest.raises(KeyError):
        driver.run(job, 1)
    broken = False
    with driver.batch("night"):
        driver.run(job, 1)
        driver.run(job, 1)
    assert ran == [1, 1]


def test_a_batch_is_held_by_one(driver):
    """The same batch entered twice at a time raises RunLockedError."""
    with driver.batch("night"):
        with pytest.raises(RunLockedError, match="batch night"):
            driver.batch("night").__enter__()
    with driver.batch("night"):
        pass


def test_a_batch_and_a_run_may_have_one_name(driver):
    """A run called like the batch around it is found, reported and cleared."""
    global broken
    broken = True
    with pytest.raises(KeyError):
        with driver.batch("night"):
            driver.run(job, 1, name="night")
    with driver.batch("night"):
        assert driver.info("night").seq == 1
        assert driver.state("night") == 1
        assert driver.clear("night") == 1
    assert driver.runs() == []


def test_a_batch_survives_a_kill(script, tmp_path):
    """After SIGKILL in the second job, another process gets the first one's value without running it."""
    body = """
def job(what, state=0):
    with open("ran", "a") as file:
        file.write(what + " ")
    yield checkpoint(1)
    if what == "second" and sys.argv[2] == "kill":
        kill()
    return what.upper()
d = Driver(STATE)
with d.batch("night"):
    print(d.run(job, "first"), d.run(job, "second"))
"""
    assert script(body, "kill")[0] == -9
    assert script(body, "go") == (0, "FIRST SECOND", "")
    assert (tmp_path / "ran").read_text().split() == ["first", "second", "second"]
