"""Preemption: on a signal the job stops at its next checkpoint, with everything saved and exit code 75."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from resumable import Driver, checkpoint
from resumable.errors import Preempted

BODY = """
def job(n, state=0):
    for i in range(state, n):
        if i == int(sys.argv[3]):
            os.kill(os.getpid(), getattr(signal, sys.argv[2]))
        yield checkpoint(i + 1)
    return n
d = Driver(STATE, preempt=True)
try:
    print(d.run(job, 10))
finally:
    info = d.info(job)
    print(info.status, info.seq, info.on_disk)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_stops_at_the_next_checkpoint(script, name):
    """The process ends with exit code 75 after the next checkpoint, synced, and the next one goes on from there."""
    code, out, err = script(BODY, name, 4)
    assert (code, out) == (75, "interrupted 5 5")
    assert err == ""
    assert script(BODY, name, -1)[:2] == (0, "10\nfinished 10 10")


def test_without_preempt_nothing_is_installed(script):
    """Without preempt= a SIGTERM ends the process as always."""
    assert script(BODY.replace(", preempt=True", ""), "SIGTERM", 4)[0] == -signal.SIGTERM


def jobs(n, send=None, state=0):
    for i in range(state, n):
        if i == send:
            os.kill(os.getpid(), signal.SIGUSR1)
        yield checkpoint(i + 1)
    return n


@pytest.fixture
def heard():
    """The signals that an earlier handler got; it is in place before and after."""
    got = []

    def handler(number, frame):
        got.append(number)

    before = signal.signal(signal.SIGUSR1, handler)
    yield got
    assert signal.getsignal(signal.SIGUSR1) is handler
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("save_every", [1, 3])
def test_the_earlier_handler_is_chained_and_restored(make, heard, save_every):
    """The program's own handler is called too, and is back after the run; the stop saves the state at hand."""
    driver = make(preempt=[signal.SIGUSR1], save_every=save_every)
    with pytest.raises(Preempted) as caught:
        driver.run(jobs, 10, 3, name="job")
    assert heard == [signal.SIGUSR1]
    assert (caught.value.code, caught.value.signal, caught.value.run) == (75, signal.SIGUSR1, "job")
    assert isinstance(caught.value, SystemExit)
    assert driver.state("job") == 4
    assert "'job'" in caught.value.__notes__[-1]
    assert driver.run(jobs, 10, 3, name="job") == 10


def test_the_second_signal_does_not_wait(make, heard):
    """A second signal stops the job where it is, with the last checkpoint in place."""
    driver = make(preempt=[signal.SIGUSR1])

    def job(state=0):
        yield checkpoint(1)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("not reached")

    with pytest.raises(Preempted):
        driver.run(job, name="job")
    assert driver.state("job") == 1


LATE = """
def job(end, state=0):
    yield checkpoint(1)
    os.kill(os.getpid(), getattr(signal, end))
    if end == "SIGUSR1":
        raise ValueError
    return "value"
d = Driver(STATE, preempt=True)
if sys.argv[2:]:
    print(*[(info.status, info.seq) for info in d.runs()])
else:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        d.run(job, "SIGUSR1", name="ignored")
    except ValueError:
        print(signal.getsignal(signal.SIGUSR1).name, flush=True)
    d.run(job, "SIGTERM", name="job")
    print("not reached")
"""


def test_a_signal_after_the_last_checkpoint_is_not_lost(script):
    """A signal that no checkpoint obeyed does, once the run is over and kept, what it would have done without us."""
    assert script(LATE) == (-signal.SIGTERM, "SIG_IGN", "")
    assert script(LATE, "look") == (0, "('finished', 1) ('failed', 1)", "")


def test_a_handler_of_the_programs_hears_a_late_signal_once(make, heard):
    """A signal after the last checkpoint that the program's own handler has heard is not sent again, nor stops the next run."""
    driver = make(preempt=[signal.SIGUSR1])

    def job(state=0):
        yield checkpoint(1)
        os.kill(os.getpid(), signal.SIGUSR1)
        return "value"

    assert driver.run(job, name="job") == "value"
    assert driver.run(jobs, 5, name="next") == 5
    assert heard == [signal.SIGUSR1]


THREAD = """
import threading
signal.signal(signal.SIGUSR1, lambda number, frame: print("heard", flush=True))
before = signal.getsignal(signal.SIGUSR1)
d, inside, go = Driver(STATE, preempt=True), threading.Event(), threading.Event()
def slow(late, state=0):
    yield checkpoint(1)
    inside.set()
    go.wait()
    if late:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
def quick(state=0):
    thread.start()
    inside.wait()
    yield checkpoint(1)
late = sys.argv[2] == "late"
thread = threading.Thread(target=d.run, args=(slow, late))
d.run(quick)
go.set()
thread.join()
if not late:
    os.kill(os.getpid(), signal.SIGUSR1)
    print(signal.getsignal(signal.SIGUSR1) is before)
    os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
print("not reached")
"""


@pytest.mark.parametrize(("when", "said"), [("after", "heard\nTrue"), ("late", "")])
def test_a_run_in_another_thread_may_end_last(script, when, said):
    """After a run in another thread ended last, or in its last item, a signal does what it did before the runs."""
    assert script(THREAD, when) == (-signal.SIGTERM, said, "")


def test_runs_of_two_drivers_may_overlap(make, heard):
    """The handlers are back when two drivers' runs overlap without one being inside the other, and both are stopped."""

    async def job(mine, others, send, state=0):
        await checkpoint(1)
        mine.set()
        await others.wait()
        if send:
            os.kill(os.getpid(), signal.SIGUSR1)
            await checkpoint(2)

    async def both(send):
        first, second, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        one = asyncio.create_task(make(preempt=[signal.SIGUSR1]).arun(job, first, second, False, name="one"))
        await first.wait()
        two = asyncio.create_task(make(preempt=[signal.SIGUSR1]).arun(job, second, over, send, name="two"))
        await one
        over.set()
        await two

    asyncio.run(both(False))
    assert signal.getsignal(signal.SIGUSR1).__module__ == __name__
    with pytest.raises(Preempted):
        asyncio.run(both(True))
    assert heard == [signal.SIGUSR1]


def test_interleaved_jobs_obey_a_signal_once(script):
    """A signal that one of several interleaved jobs obeys ends the process with 75, not by the signal."""
    body = """
def job(n, state=0):
    for i in range(state, 5):
        if (n, i) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        yield checkpoint(i + 1)
Driver(STATE, preempt=True).interleave([partial(job, n) for n in range(3)])
"""
    assert script(body)[0] == 75


def test_preemption_runs_finally_blocks(make, heard):
    """The generator is closed in order when a signal stops it."""
    driver, closed = make(preempt=[signal.SIGUSR1]), []

    def job(state=0):
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            yield checkpoint(1)
        finally:
            closed.append(True)

    with pytest.raises(Preempted):
        driver.run(job, name="job")
    assert closed == [True]


def test_preempt_settings():
    """`preempt` is off by default, True stands for SIGTERM and SIGUSR1, and a sequence for itself."""
    before = signal.getsignal(signal.SIGTERM)

    def job(state=0):
        yield checkpoint(signal.getsignal(signal.SIGTERM) == before)

    for preempt, untouched in ((None, True), (False, True), (True, False), ([signal.SIGUSR1], True), ([15], False)):
        with Driver(":memory:", preempt=preempt) as driver:
            driver.run(job, name="job")
            assert driver.state("job") is untouched
    assert signal.getsignal(signal.SIGTERM) == before
