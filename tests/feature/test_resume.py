"""Going on after the job was stopped: by itself, by the user, by the machine."""

from __future__ import annotations

import logging
import traceback

import pytest

from resumable import checkpoint
from resumable.errors import NotACheckpointError, UnsavableStateError


class Log(list):
    """What a job did, item by item."""


def counting(log, n, stop_at, error):
    """A job that does items 0 to n - 1 and is stopped once while it does `stop_at`."""
    stops = [stop_at]

    def job(state=0):
        for i in range(state, n):
            log.append(i)
            if i in stops:
                stops.remove(i)
                raise error
            yield checkpoint(i + 1)
        return "done"

    return job


STOPS = [ValueError("bad"), KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError()]


@pytest.mark.parametrize("error", STOPS)
def test_a_stopped_job_goes_on(driver, error):
    """After an exception, Ctrl-C or SystemExit the same call goes on, and repeats the item in flight alone."""
    log = Log()
    job = counting(log, 10, 6, error)
    with pytest.raises(type(error)) as caught:
        driver.run(job, name="job")
    assert caught.value is error
    assert driver.run(job, name="job") == "done"
    assert log == [*range(7), *range(6, 10)]


def test_the_exception_is_the_jobs_own_with_a_note(driver):
    """The very exception object comes out, no context added, with a note naming the run, the number and the way on."""
    error = ValueError("bad")
    with pytest.raises(ValueError) as caught:
        driver.run(counting([], 9, 4, error), name="my run")
    assert caught.value is error
    assert error.args == ("bad",)
    assert error.__context__ is None
    assert error.__cause__ is None
    note = "\n".join(error.__notes__)
    assert "'my run'" in note
    assert "checkpoint 4" in note
    assert "call it again" in note


def test_the_traceback_ends_in_the_job(driver):
    """The innermost frame of the traceback is the job's."""
    with pytest.raises(ValueError) as caught:
        driver.run(counting([], 9, 4, ValueError("bad")), name="job")
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "job"


def test_an_exception_that_takes_no_note_comes_out_unchanged(driver):
    """An exception whose add_note fails is still the one that comes out."""

    class Stubborn(Exception):
        def add_note(self, note):
            raise RuntimeError("no notes here")

    error = Stubborn()
    with pytest.raises(Stubborn) as caught:
        driver.run(counting([], 3, 1, error), name="job")
    assert caught.value is error
    assert driver.info("job").status == "failed"


@pytest.mark.parametrize(("stop_at", "repeated"), [(9, 0), (10, 1), (11, 2), (2, 2)])
def test_save_every_repeats_what_was_not_saved(make, stop_at, repeated):
    """With save_every=3, every third checkpoint is saved, and a rerun repeats the items since."""
    log = Log()
    driver = make(save_every=3)
    job = counting(log, 15, stop_at, KeyError())
    with pytest.raises(KeyError):
        driver.run(job, name="job")
    assert driver.run(job, name="job") == "done"
    assert len(log) == 15 + 1 + repeated


def test_finally_blocks_run(driver):
    """When something stops a run from outside the job, the generator is closed and its finally blocks run."""
    closed = []

    def job(state=0):
        try:
            yield checkpoint(1)
            yield "no checkpoint"
        finally:
            closed.append(True)

    with pytest.raises(NotACheckpointError):
        driver.run(job)
    assert closed == [True]


def test_the_generator_is_closed_before_the_lock_is_free(driver):
    """While the job's finally block runs, nobody else can take the run."""
    from resumable.errors import RunLockedError

    seen = []

    def job(state=0):
        try:
            yield checkpoint(1)
            yield None
        finally:
            with pytest.raises(RunLockedError):
                driver.run(job, name="job")
            seen.append(True)

    with pytest.raises(NotACheckpointError):
        driver.run(job, name="job")
    assert seen


def test_the_lock_is_free_before_the_exception_leaves_run(driver):
    """A retry in the except block goes on at once."""
    job = counting([], 5, 3, ValueError())
    try:
        driver.run(job, name="job")
    except ValueError:
        assert driver.run(job, name="job") == "done"


def test_a_caught_generator_exit_is_no_error(driver):
    """A job that catches GeneratorExit and returns leaves the error that stopped it in place."""

    def job(state=0):
        try:
            yield checkpoint(1)
            yield 5
        except GeneratorExit:
            return

    with pytest.raises(NotACheckpointError):
        driver.run(job)


def test_a_yield_while_being_closed_leaves_the_error_in_place(driver):
    """A job that yields while it is closed does not hide what stopped it, and the state it yields is not saved."""

    def job(state=0):
        try:
            yield checkpoint(1)
            yield 5
        finally:
            yield checkpoint(99)

    with pytest.raises(NotACheckpointError) as caught:
        driver.run(job)
    assert any("yields while it is being closed" in note for note in caught.value.__notes__)
    assert driver.state(job) == 1


def test_a_failing_finally_block_is_seen(driver):
    """An exception of the job's own finally block comes out, with what stopped the run as its context."""

    def job(state=0):
        try:
            yield checkpoint(1)
            yield 5
        finally:
            raise KeyError("cleanup")

    with pytest.raises(KeyError, match="cleanup") as caught:
        driver.run(job)
    closing = caught.value.__context__
    assert isinstance(closing, GeneratorExit)
    assert isinstance(closing.__context__, NotACheckpointError)
    assert driver.state(job) == 1


def test_an_unsavable_state_is_refused_before_it_is_published(driver):
    """A state that cannot be saved raises with its place, the checkpoint before stays, and a mended job goes on."""

    def job(state=0):
        yield checkpoint(1)
        yield checkpoint({"conn": [1, 2] if mended else [1, (i for i in ())]})
        return "done"

    global mended
    mended = False
    with pytest.raises(UnsavableStateError) as caught:
        driver.run(job, name="job")
    assert caught.value.path == 'state["conn"][1]'
    assert 'state["conn"][1]' in str(caught.value)
    assert (driver.state("job"), driver.info("job").seq) == (1, 1)
    mended = True
    assert driver.run(job, name="job") == "done"


def test_an_unsavable_result_is_refused_with_its_state(driver):
    """When a result cannot be saved, its state is not saved either."""

    def job(state=0):
        yield checkpoint(1, result="a")
        yield checkpoint(2, result=[print, (i for i in ())])

    with pytest.raises(UnsavableStateError, match=r"result\[1\]"):
        driver.run(job, name="job")
    assert driver.state("job") == 1
    assert list(driver.results("job")) == ["a"]


def test_a_state_changed_in_place_is_saved_each_time(driver):
    """A job may change one object and yield it again and again: each checkpoint has it as it was then."""

    def job(state=None):
        state = state or []
        for i in range(3):
            state.append(i)
            yield checkpoint(state)
        raise KeyError

    with pytest.raises(KeyError):
        driver.run(job)
    assert [record.state for record in driver.history(job)] == [[0], [0, 1], [0, 1, 2]]


class StopsOnce:
    """Ctrl-C comes when it is pickled for the first time."""

    came = False

    def __reduce__(self):
        if not StopsOnce.came:
            StopsOnce.came = True
            raise KeyboardInterrupt
        return StopsOnce, ()


def test_an_interrupt_while_a_state_is_pickled_stops_the_job(driver):
    """Ctrl-C that comes while a state is pickled stops the job there, and nothing half pickled is saved."""
    StopsOnce.came = False

    def job(state=None):
        yield checkpoint((1, {ValueError}))
        yield checkpoint(StopsOnce())

    with pytest.raises(KeyboardInterrupt):
        driver.run(job)
    assert (driver.info(job).seq, driver.state(job)) == (1, (1, {ValueError}))


def test_codec_plain_saves_plain_data_alone(make):
    """With codec="plain" anything that needs pickle is refused with its place."""

    def job(state=0):
        yield checkpoint({"a": [1, {2}]})
        yield checkpoint({"a": ValueError})

    driver = make(codec="plain")
    with pytest.raises(UnsavableStateError, match=r'state\["a"\]'):
        driver.run(job, name="job")
    assert driver.state("job") == {"a": [1, {2}]}


def test_fixed_code_goes_on(driver, caplog):
    """Mending the job between crash and rerun is normal: the new code gets the old state, and the log notes it."""

    def first(state=0):
        yield checkpoint(state + 1)
        raise ValueError("bug")

    def second(state=0):
        yield checkpoint(state + 10)
        return state

    with caplog.at_level(logging.INFO, "resumable"):
        for _ in range(2):
            with pytest.raises(ValueError):
                driver.run(first, name="job")
        assert "is not what it was" not in caplog.text
        assert driver.run(second, name="job") == 2
        assert "the code of run 'job' is not what it was at checkpoint 2" in caplog.text


KILLED = """
def job(n, state=0):
    for i in range(state, n):
        with open("items", "a") as file:
            file.write(f"{i}\\n")
        if i == int(sys.argv[2]):
            kill()
        yield checkpoint(i + 1, result=i) if i % 3 == 0 else checkpoint(i + 1)
    return "done"
d = Driver(STATE)
print(d.run(job, 30), list(d.results(job)))
"""


def test_a_killed_job_goes_on(script, tmp_path):
    """After SIGKILL the job goes on in another process, repeats the item in flight alone, and has each result once."""
    for instant in (7, 12, 20):
        assert script(KILLED, instant)[0] == -9
    code, out, err = script(KILLED, -1)
    assert (code, err) == (0, "")
    assert out == f"done {[i for i in range(30) if i % 3 == 0]}"
    items = [int(line) for line in (tmp_path / "items").read_text().split()]
    assert sorted(items) == sorted([*range(30), 7, 12, 20])


def test_a_script_may_end_without_closing(script):
    """A driver that nobody closes is closed at interpreter exit: no warning, no error, and nothing is lost."""
    body = """
def job(state=0):
    yield checkpoint(state + 1)
    if not state:
        raise SystemExit(4)
    return state
print(Driver(STATE).run(job))
"""
    assert script(body)[0] == 4
    assert script(body) == (0, "1", "")


def test_the_state_is_in_the_log_after_an_exception(script):
    """An exception syncs: after it, the log alone has the last checkpoint."""
    body = """
def job(state=0):
    yield checkpoint(5)
    raise KeyError
d = Driver(STATE, sync_every=1000)
try:
    d.run(job)
except KeyError:
    info = d.info(job)
    print(info.seq, info.on_disk)
"""
    assert script(body)[1] == "1 1"
