"""Settings and arguments that cannot be meant: a clear error at the call, and nothing is stored."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from resumable import Driver, checkpoint
from resumable.errors import RunNameError


def job(state=0):
    yield checkpoint(state + 1)


SETTINGS = [
    ({"path": ""}, ValueError),
    ({"path": b"work"}, TypeError),
    ({"path": 3}, TypeError),
    ({"save_every": True}, TypeError),
    ({"save_every": 2.0}, TypeError),
    ({"keep_states": "1"}, TypeError),
    ({"keep_states": False}, TypeError),
    ({"keep_states": 0}, ValueError),
    ({"keep_runs": None}, TypeError),
    ({"keep_runs": -1}, ValueError),
    ({"sync_every": "1"}, TypeError),
    ({"sync_every": True}, TypeError),
    ({"sync_every": float("nan")}, ValueError),
    ({"sync_every": float("inf")}, ValueError),
    ({"sync_every": 0}, ValueError),
    ({"preempt": 15}, TypeError),
    ({"preempt": "SIGTERM"}, TypeError),
    ({"preempt": ["SIGTERM"]}, TypeError),
    ({"preempt": [True]}, TypeError),
    ({"preempt": [0]}, ValueError),
    ({"preempt": [signal.SIGKILL]}, ValueError),
    ({"preempt": (signal.SIGTERM, 4000)}, ValueError),
]


@pytest.mark.parametrize(("setting", "error"), SETTINGS, ids=str)
def test_a_wrong_setting_is_refused_by_name(setting, error):
    """A Driver's setting of a wrong type or outside its range raises when the Driver is made, and names the setting."""
    (name,) = setting
    with pytest.raises(error, match=name if setting != {"path": 3} else "PathLike"):
        Driver(**setting)


def test_right_settings_are_taken(tmp_path):
    """Paths of either kind, whole and broken numbers of seconds, and any collection of signals are taken."""
    for setting in ({"sync_every": 2}, {"keep_states": None}, {"preempt": {signal.SIGTERM}}, {"preempt": ()}, {"preempt": False}):
        Driver(tmp_path, **setting).close()
        Driver(str(tmp_path), **setting).close()


@pytest.mark.parametrize(("version", "error"), [(-1, ValueError), (True, TypeError), ("2", TypeError), (1.0, TypeError)])
def test_a_wrong_version_is_refused(driver, version, error):
    """A version that is no int of 0 or more is refused by name before anything is stored."""
    with pytest.raises(error, match="version"):
        driver.run(job, version=version)
    assert driver.runs() == []
    driver.run(job, version=0)


@pytest.mark.parametrize("handle", [None, 3, b"job", ["job"]])
@pytest.mark.parametrize("report", ["info", "state", "history", "results", "failure", "clear"])
def test_a_run_is_told_by_name_or_job(driver, report, handle):
    """A report that is asked for neither a name nor a job says what it takes."""
    with pytest.raises(RunNameError, match=f"by its name, a str, or by its job, not by {type(handle).__name__}"):
        getattr(driver, report)(handle)


@pytest.mark.parametrize("jobs", [job, iter([job]), None, {job}], ids=["job", "iterator", "None", "set"])
def test_interleave_takes_a_sequence(driver, jobs):
    """`interleave` refuses what is no sequence before it runs anything."""
    with pytest.raises(TypeError, match="sequence of jobs"):
        driver.interleave(jobs)
    assert driver.runs() == []


@pytest.mark.parametrize("relative", ["state", Path("state"), None], ids=str)
def test_a_relative_path_is_resolved_once(tmp_path, monkeypatch, relative):
    """A Driver stays in its directory when the program changes the working directory, and so does a forked child's."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("RESUMABLE_HOME", raising=False)
    monkeypatch.chdir(tmp_path / "first")
    with Driver(relative) as driver:
        driver.run(job, name="parent")
        where = driver.path
        os.chdir(tmp_path / "second")
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                driver.run(job, name="child")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert {info.name for info in driver.runs()} == {"parent", "child"}
        assert driver.path == where == str(tmp_path / "first" / (relative or ".resumable"))
    assert list((tmp_path / "second").iterdir()) == []
