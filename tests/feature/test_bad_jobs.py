"""What is no job, and what is no right call of one: each is a named error, and nothing is left behind."""

from __future__ import annotations

import functools

import pytest

from resumable import checkpoint
from resumable.errors import (
    AsyncJobError,
    DriverKeywordError,
    NotACheckpointError,
    NotAJobError,
    ResumableError,
    RunNotFoundError,
    StateParameterError,
)


def good(a, b=2, *, state=0):
    yield checkpoint(state)


def without_state(a):
    yield checkpoint(a)


def without_default(a, state):
    yield checkpoint(a)


def state_in_kwargs(**state):
    yield checkpoint(1)


def positional_only(state=0, /):
    yield checkpoint(1)


async def coroutine(state=0):
    await checkpoint(1)


async def async_generator(state=0):
    yield checkpoint(1)


def hidden_coroutine(state=0):
    return coroutine(state)


def hidden_async_generator(state=0):
    return async_generator(state)


def no_generator(state=0):
    return [checkpoint(1)]


@pytest.mark.parametrize(
    ("job", "error", "part"),
    [
        (5, NotAJobError, "no job"),
        ("job", NotAJobError, "no job"),
        (good(1), NotAJobError, "pass the function itself"),
        (no_generator, NotAJobError, "list, not a generator"),
        (without_state, StateParameterError, "no parameter `state`"),
        (without_default, StateParameterError, "default"),
        (state_in_kwargs, StateParameterError, "no parameter `state`"),
        (positional_only, StateParameterError, "keyword"),
        (coroutine, AsyncJobError, "arun"),
        (async_generator, AsyncJobError, "arun"),
        (hidden_coroutine, AsyncJobError, "arun"),
        (hidden_async_generator, AsyncJobError, "arun"),
        (functools.partial(coroutine), AsyncJobError, "arun"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_job_is_refused(driver, job, error, part):
    """What makes no generator, or cannot take its state, raises its own error, which is a TypeError too."""
    with pytest.raises(error, match=part) as caught:
        driver.run(job)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ResumableError)


def test_a_refused_job_leaves_nothing(disk, state_dir):
    """What is seen to be no job before it is called makes no run."""
    for job in (5, without_state, without_default, coroutine, async_generator):
        with pytest.raises(ResumableError):
            disk.run(job)
    assert not state_dir.exists()


def test_the_call_decides_what_is_a_job(driver):
    """A function that hands on a generator is a job, though it has no `yield` itself."""

    def handing_on(a, state=0):
        return good(a, state=state)

    driver.run(handing_on, 1)
    assert driver.info(handing_on).status == "finished"


class Stepper:
    """A generator in all but type."""

    def __init__(self):
        self.left = [1, 2]
        self.closed = False

    def __iter__(self):
        return self

    def __next__(self):
        return self.send(None)

    def send(self, value):
        if not self.left:
            raise StopIteration("end")
        return checkpoint(self.left.pop(0))

    def throw(self, *error):
        raise error[0]

    def close(self):
        self.closed = True


def test_a_generator_of_ones_own_class_is_one(driver):
    """An object with the generator methods is a job's generator."""

    def job(state=0):
        return Stepper()

    assert driver.run(job) == "end"
    assert driver.state(job) == 2


@pytest.mark.parametrize("value", [None, 5, (1,), "text"], ids=repr)
def test_a_yield_of_something_else_is_refused(driver, value):
    """A yield of no checkpoint raises, naming its type and the checkpoint before; that checkpoint is kept."""

    def job(state=0):
        yield checkpoint(1)
        yield value

    with pytest.raises(NotACheckpointError, match=f"{type(value).__name__} after checkpoint 1") as caught:
        driver.run(job, name="job")
    assert (caught.value.seq, caught.value.value_type) == (1, type(value).__name__)
    assert driver.state("job") == 1


@pytest.mark.parametrize("arguments", [(), (1, 2, 3)], ids=["missing", "extra"])
def test_arguments_that_do_not_fit_are_a_type_error(driver, arguments):
    """Missing and extra arguments raise TypeError before anything runs."""
    with pytest.raises(TypeError):
        driver.run(good, *arguments)
    assert driver.runs() == []


def test_state_is_never_bound_by_position(driver):
    """An argument that would become the state is refused."""

    def job(a, state=0):
        yield checkpoint(state)

    with pytest.raises(StateParameterError, match="argument 2"):
        driver.run(job, 1, 5)


def named(a, name=None, once=False, state=0):
    yield checkpoint((a, name, once))


@pytest.mark.parametrize(
    ("job", "keywords", "word"),
    [
        (named, {"name": "x"}, "name"),
        (named, {"once": True}, "once"),
        (good, {"b": 3}, "b"),
        (good, {"nobody": 3}, "nobody"),
        (good, {"state": 3}, "state"),
    ],
    ids=["name", "once", "the job's", "nobody's", "state"],
)
def test_keywords_go_to_the_driver(driver, job, keywords, word):
    """A keyword that is the job's too, or nobody's, raises an error that shows the partial line."""
    with pytest.raises(DriverKeywordError, match=rf"functools\.partial\({job.__name__}, {word}=\.\.\.\)") as caught:
        driver.run(job, 1, **keywords)
    assert caught.value.keyword == word
    assert isinstance(caught.value, TypeError)


def test_the_partial_line_works(driver):
    """What the error shows is the way to give a job a keyword of the driver's."""
    driver.run(functools.partial(named, name="mine"), 1)
    assert driver.state(named) == (1, "mine", False)


@pytest.mark.parametrize(
    ("keywords", "part"),
    [
        ({"fresh": True, "once": True}, "fresh=True.*once=True"),
        ({"on_change": "ignore"}, "on_change"),
        ({"migrate": {1: list}}, "version"),
    ],
    ids=["fresh and once", "on_change", "migrate"],
)
def test_keywords_that_make_no_sense_are_a_value_error(driver, keywords, part):
    """fresh with once, an unknown on_change and migrate without version raise ValueError."""
    with pytest.raises(ValueError, match=part):
        driver.run(good, 1, **keywords)
    assert driver.runs() == []


@pytest.mark.parametrize("report", ["info", "state", "history", "results", "failure"])
def test_a_report_of_no_run_raises(driver, report):
    """Reports of a name that has no run raise RunNotFoundError, naming it and the directory."""
    with pytest.raises(RunNotFoundError, match="'nothing'") as caught:
        getattr(driver, report)("nothing")
    assert caught.value.run == "nothing"
    assert isinstance(caught.value, LookupError)
    with pytest.raises(RunNotFoundError):
        getattr(driver, report)(good)
    assert driver.clear("nothing") == 0
