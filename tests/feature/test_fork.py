"""Forks: an idle driver opens again in the child, a run in progress belongs to the parent alone."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable

import numpy as np
import pytest

from resumable import Driver, checkpoint
from resumable.errors import ForkedError
from resumable.values.registry import Registry


def in_child(work: Callable[[], object]) -> int:
    """The exit code of a forked child that does this work: 0 if that went well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must not come back
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def counting(n, state=0):
    for i in range(state, n):
        yield checkpoint(i + 1)
    return n


def test_an_idle_driver_opens_again_in_the_child(state_dir):
    """A driver that runs nothing works in a forked child, and in the parent afterwards."""
    with Driver(state_dir) as driver:
        assert driver.run(counting, 2) == 2
        assert in_child(lambda: driver.run(counting, 3)) == 0
        assert in_child(driver.close) == 0
        assert driver.run(counting, 4) == 4
        assert sorted(info.arguments for info in driver.runs()) == ["2", "3", "4"]


def refused(call):
    with pytest.raises(ForkedError, match="child"):
        call()


STATES = {"int": 1, "dict": {"a": [(1, 2)]}, "side": "x" * 1_000_000, "array": np.arange(100_000)}


@pytest.mark.parametrize("given", STATES.values(), ids=STATES)
@pytest.mark.parametrize("settings", [{}, {"durability": "disk"}, {"rng": True}], ids=str)
def test_a_run_in_progress_is_the_parents(state_dir, settings, given):
    """In the child the next checkpoint raises ForkedError, whatever the state is; what the parent saved is unharmed."""
    parent, children = os.getpid(), []

    def job(state=None):
        if state is not None:
            return state
        yield checkpoint((1, os.getpid(), given))
        wait, go = os.pipe()
        children.append(os.fork())
        if children[0] == 0:
            os.close(go)
            os.read(wait, 1)
        yield checkpoint((2, os.getpid(), given))
        os.close(go)
        children.append(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
        raise KeyError

    with Driver(state_dir, **settings) as driver:
        try:
            driver.run(job, name="job")
        except ForkedError:
            os._exit(0 if os.getpid() != parent else 1)
        except KeyError:
            if os.getpid() != parent:
                os._exit(2)
        assert children[1] == 0
        assert driver.info("job").seq == 2
        assert driver.run(job, name="job", on_change="continue")[:2] == (2, parent)


def test_a_job_that_returns_in_the_child_does_not_finish_the_run(state_dir):
    """A job that returns in the child does not finish the parent's run, nor touch its value."""
    wait, go = os.pipe()
    children = []

    def job(state=0):
        yield checkpoint(1)
        children.append(os.fork())
        if children[0]:
            return "x" * 500_000
        os.close(go)
        os.read(wait, 1)
        return "y" * 500_000

    with Driver(state_dir) as driver:
        try:
            value = driver.run(job, name="job", on_change="continue")
        except ForkedError:
            os._exit(0)
        if children[0] == 0:
            os._exit(8)
        os.close(go)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
        os.close(wait)
        assert value[0] == "x"
        assert driver.run(job, name="job", once=True, on_change="continue")[0] == "x"


def test_the_parent_keeps_the_lock(state_dir):
    """A child that the job leaves behind does not hold the run when the parent is gone."""
    pids = []

    def job(state=0):
        yield checkpoint(1)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        os.close(read)
        pids.append((pid, write))
        raise KeyError

    with Driver(state_dir) as driver:
        with pytest.raises(KeyError):
            driver.run(job, name="job")
        assert driver.run(counting, 3, name="job", on_change="continue") == 3
    for pid, write in pids:
        os.close(write)
        os.waitpid(pid, 0)


def test_the_child_may_run_other_jobs(state_dir):
    """Inside a job, a child may run jobs of its own with the same driver."""
    codes = []

    def job(state=0):
        yield checkpoint(1)
        codes.append(in_child(lambda: driver.run(counting, 3)))
        yield checkpoint(2)

    with Driver(state_dir) as driver:
        driver.run(job, name="job")
        assert codes == [0]
        assert driver.state("job") == 2
        assert driver.info(counting).status == "finished"


def test_a_child_dies_of_sigterm(script):
    """A child forked inside a job with preempt=True is ended by SIGTERM, as it would be without the library."""
    body = """
def job(state=0):
    yield checkpoint(1)
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(tell, b"1")
        time.sleep(5)
        os._exit(0)
    os.read(ready, 1)
    os.kill(pid, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    yield checkpoint(2)
Driver(STATE, preempt=True).run(job)
"""
    assert script(body) == (0, str(-signal.SIGTERM), "")


def test_a_memory_driver_is_empty_in_the_child():
    """A driver in memory begins anew in a child."""
    with Driver(":memory:") as driver:
        driver.run(counting, 1)

        def work():
            assert driver.runs() == []
            assert driver.run(counting, 2) == 2

        assert in_child(work) == 0
        assert len(driver.runs()) == 1


def test_closing_in_a_child_never_waits(state_dir):
    """A child may close its parent's driver though a thread of the parent was just using it."""
    with Driver(state_dir) as driver:
        driver.run(counting, 1)
        with driver._turn:
            assert in_child(driver.close) == 0
        assert driver.run(counting, 2) == 2


def test_a_type_is_looked_up_in_the_child(disk):
    """A child saves an object of a new type though a thread of the parent was just registering or loading a handler."""

    class New:
        pass

    def job(state=None):
        yield checkpoint(New())

    def work():
        signal.alarm(10)
        disk.run(job)

    taken, done = threading.Event(), threading.Event()

    def hold():
        with Registry._lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        assert in_child(work) == 0
    finally:
        done.set()
        thread.join()
