"""One run, one owner; many runs, drivers, threads and processes beside each other."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from resumable import Driver, checkpoint
from resumable.errors import DriverClosedError, RunLockedError

HOLD = """
def job(state=0):
    yield checkpoint(state + 1)
    print("running", flush=True)
    sys.stdin.readline()
    yield checkpoint(state + 2)
    return state
print(Driver(STATE).run(job, name="held"))
"""


def counting(n, state=0):
    for i in range(state, n):
        yield checkpoint(i + 1)
    return n


def nested(run, name, state=0):
    yield checkpoint(1)
    run(nested, run, "inner", name=name) if name else None
    yield checkpoint(2)


def test_another_process_holds_the_run(disk, start):
    """A run that another process has raises RunLockedError naming pid, host and since when; it is free when that is killed."""
    process = start(HOLD)
    assert process.stdout.readline() == "running\n"
    with pytest.raises(RunLockedError) as caught:
        disk.run(counting, 3, name="held")
    error = caught.value
    assert (error.pid, error.host, error.run) == (process.pid, os.uname().nodename, "held")
    assert error.since > 0
    assert re.search(rf"process {process.pid} on {error.host}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", str(error))
    with pytest.raises(RunLockedError):
        disk.clear("held")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert disk.run(counting, 3, name="held", on_change="continue") == 3


def test_another_thread_holds_the_run(driver):
    """Of two threads that start one run, the second gets RunLockedError, naming this process."""
    going, done = threading.Event(), threading.Event()

    def job(state=0):
        yield checkpoint(1)
        going.set()
        done.wait(10)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(driver.run, job, name="job")
        going.wait(10)
        with pytest.raises(RunLockedError, match="this very process") as caught:
            driver.run(job, name="job")
        assert caught.value.pid == os.getpid()
        assert caught.value.since is not None
        assert driver.info("job").status == "running"
        assert driver.info("job").pid == os.getpid()
        done.set()
        first.result()


def test_a_run_inside_itself_is_refused(driver):
    """A job that runs its own name raises RunLockedError inside the job."""

    def job(state=0):
        yield checkpoint(1)
        with pytest.raises(RunLockedError):
            driver.run(job, name="job")
        yield checkpoint(2)

    driver.run(job, name="job")
    assert driver.state("job") == 2


def test_a_run_inside_another_is_fine(driver):
    """A job may run other jobs, which go on by themselves."""

    def outer(state=0):
        total = 0
        for n in range(state, 3):
            total += driver.run(counting, n + 1, once=True)
            yield checkpoint(n + 1)
        return total

    assert driver.run(outer, name="outer") == 6
    assert {info.status for info in driver.runs()} == {"finished"}


def test_several_drivers_on_one_directory(state_dir):
    """Drivers made again and again on one directory, as in a notebook, work side by side, closed or not."""
    drivers = [Driver(state_dir) for _ in range(4)]
    for n, driver in enumerate(drivers):
        assert driver.run(counting, n) == n
    drivers[0].close()
    assert len(drivers[1].runs()) == 4
    with pytest.raises(KeyError):
        drivers[1].run(failing, name="job")
    assert drivers[2].run(counting, 5, name="job", on_change="continue") == 5
    del drivers[2]
    for driver in drivers:
        driver.close()
    with Driver(state_dir) as again:
        assert len(again.runs()) == 5


def failing(state=0):
    yield checkpoint(1)
    raise KeyError


def test_a_directory_under_two_names_is_one(state_dir, tmp_path):
    """The same directory by another path, or through a link, is the same to the process."""
    (tmp_path / "link").symlink_to(state_dir)
    with Driver(state_dir) as one, Driver(tmp_path / "." / "x" / ".." / "state") as two:
        one.run(counting, 1)
        assert len(two.runs()) == 1


def test_one_driver_in_many_threads(make):
    """Many threads run jobs through one driver at once, and every run is whole."""
    driver = make()
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda n: driver.run(counting, n, name=f"job {n}"), range(100, 124)))
    assert values == list(range(100, 124))
    assert {(info.status, info.seq - int(info.arguments)) for info in driver.runs()} == {("finished", 0)}


def test_a_closed_driver(make):
    """A closed driver raises DriverClosedError from everything but `close`."""
    driver = make()
    driver.run(counting, 1)
    driver.close()
    driver.close()
    for call in (
        lambda: driver.run(counting, 1), driver.runs, driver.sync, lambda: driver.state("x"), lambda: driver.clear("x"),
        lambda: driver.batch("x"),
    ):
        with pytest.raises(DriverClosedError, match="closed"):
            call()
    unused = make()
    unused.close()
    with pytest.raises(DriverClosedError):
        unused.run(counting, 1)


def test_a_driver_closed_inside_its_run(disk, state_dir):
    """A driver closed while its job runs stops the job at its next checkpoint; another driver goes on from the one before."""

    def job(state=0):
        yield checkpoint(1)
        disk.close()
        yield checkpoint(2)
        raise KeyError

    with pytest.raises(DriverClosedError, match="run again"):
        disk.run(job, name="job")
    with Driver(state_dir) as driver:
        assert driver.info("job").seq == 1
        assert driver.failure("job") is None
        assert driver.run(counting, 5, name="job", on_change="continue") == 5


def test_closing_stops_a_run_that_waits_for_the_log(disk, state_dir):
    """A run in another thread whose journal is full when the driver closes ends with an error; it does not hang."""
    met = []

    def job(state=0):
        for i in range(state, 10_000_000):
            yield checkpoint(i + 1, result=b"x" * 200)

    def work():
        try:
            disk.run(job, name="job")
        except DriverClosedError as error:
            met.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.3)
    disk.close()
    thread.join(20)
    assert not thread.is_alive()
    assert len(met) == 1
    with Driver(state_dir) as driver:
        assert len(driver.results("job")) == driver.state("job") == driver.info("job").seq


def test_the_driver_is_a_context_manager(state_dir):
    """Leaving the block closes the driver, after an exception too."""
    with pytest.raises(KeyError):
        with Driver(state_dir) as driver:
            driver.run(failing)
    with pytest.raises(DriverClosedError):
        driver.runs()


def test_no_resource_is_left_open(script):
    """With every warning an error and development mode on, a session of runs is silent."""
    body = """
import gc
def job(n, state=0):
    for i in range(n):
        yield checkpoint(i, result=bytes(300_000) if n == 2 else i)
    if n == 3:
        raise KeyError
for settings in ({}, {"durability": "disk"}, {"rng": True}, {"keep_states": None}):
    d = Driver(STATE, **settings)
    for n in range(4):
        try:
            d.run(job, n)
        except KeyError:
            d.clear(job)
    d.close()
    del d
    gc.collect()
print(len(os.listdir("/proc/self/fd")) < 12, "ok")
"""
    assert script(body, env={"PYTHONDEVMODE": "1"}) == (0, "True ok", "")


def test_many_names_make_one_log(disk, state_dir):
    """Finished runs leave nothing but the log, however many they were."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(30):
            disk.run(counting, n)
    assert sorted(os.listdir(state_dir)) in (["log", "runs"], [".gitignore", "log", "runs"])
    assert os.listdir(state_dir / "runs") == []
