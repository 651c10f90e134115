"""A checkpoint that is made and never yielded saves nothing, so it warns where it was made."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings

import pytest

from resumable import checkpoint
from resumable.errors import UnyieldedCheckpointWarning


def line_of(function, text):
    import inspect

    lines, first = inspect.getsourcelines(function)
    return first + next(i for i, line in enumerate(lines) if text in line)


def test_an_unyielded_checkpoint_warns_at_the_users_line(driver):
    """The warning stands at the line that made the checkpoint, and the job goes on."""

    def job(state=0):
        checkpoint(1)  # here
        yield checkpoint(2)
        return 3

    with pytest.warns(UnyieldedCheckpointWarning) as caught:
        assert driver.run(job, name="job") == 3
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, line_of(job, "# here"))
    assert "'job'" in str(warning.message)


def test_one_after_the_last_yield_warns_too(driver):
    """A checkpoint dropped after the last yield is told when the job returns."""

    def job(state=0):
        yield checkpoint(2)
        checkpoint(3)

    with pytest.warns(UnyieldedCheckpointWarning):
        driver.run(job)


def test_one_before_an_exception_is_told_with_it(driver):
    """A checkpoint dropped before the job fails is told of that run, not of the next one."""

    def job(state=0):
        checkpoint(3)
        raise KeyError
        yield

    def innocent(state=0):
        yield checkpoint(1)

    with pytest.warns(UnyieldedCheckpointWarning, match="'guilty'"):
        with pytest.raises(KeyError):
            driver.run(job, name="guilty")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver.run(innocent)


def test_warnings_as_errors_do_not_hide_the_jobs_exception(driver):
    """With warnings as errors, the job's own exception still comes out, the warning as a note."""

    def job(state=0):
        checkpoint(3)
        raise KeyError
        yield

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError) as caught:
            driver.run(job, name="job")
    assert any("never yielded" in note for note in caught.value.__notes__)


def test_checkpoints_outside_a_run_are_silent():
    """Without a run in progress, a dropped checkpoint is nobody's business."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint(1)


def test_checkpoints_of_another_thread_are_not_this_runs(driver):
    """A checkpoint that is dropped in a thread without a run does not warn of the run beside it."""

    def job(state=0):
        other = threading.Thread(target=lambda: [made.state for made in (checkpoint(1), checkpoint(2))])
        other.start()
        other.join()
        yield checkpoint(1)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        driver.run(job, name="job")


def test_a_checkpoint_of_an_earlier_run_is_not_noted():
    """What a traceback held until a later run dies there without a word: that run ends as it would alone."""
    script = """
import asyncio, warnings
warnings.simplefilter("error")
from resumable import Driver, checkpoint
def job(*, state=0):
    yield checkpoint(1)
    raise ValueError(state)
async def drops(*, state=0):
    yield checkpoint(1)
    for _ in job():
        pass
kept, errors = [], set()
for _ in range(400):
    with Driver(":memory:") as driver:
        for call in (lambda: asyncio.run(driver.arun(drops)), lambda: driver.interleave([job])):
            try:
                call()
            except BaseException as error:
                errors.add(type(error).__name__)
                kept = [*kept[-3:], error]
print(errors)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "{'ValueError'}\n"), done.stderr
