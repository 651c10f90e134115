"""What is kept: the last states of a run, the last runs of a name."""

from __future__ import annotations

import os

import pytest

from resumable import Driver, checkpoint
from resumable.errors import RunNotFoundError, StateGoneError
from resumable.runs.live import LiveRun


def counting(n, state=0):
    for i in range(state, n):
        yield checkpoint({"i": i + 1})


@pytest.mark.parametrize("n", [30, 30_000])
def test_states_inside_the_window_are_readable(make, n):
    """The last keep_states states are readable by number, and older ones go, during a run and after it."""
    driver = make(keep_states=20)

    def check():
        for seq in (n - 19, n - 7, n):
            assert driver.state("job", at=seq) == {"i": seq}
        if n > 10_000:
            with pytest.raises(StateGoneError, match="keep_states") as caught:
                driver.state("job", at=1)
            assert caught.value.seq == 1
            assert caught.value.last == n
            assert 1 < caught.value.first <= n - 19
        for wrong in (0, n + 1):
            with pytest.raises(StateGoneError):
                driver.state("job", at=wrong)
        history = driver.history("job")
        assert [record.seq for record in history] == sorted(record.seq for record in history)
        assert history[-1].state == {"i": n}

    def job(state=0):
        yield from counting(n)
        check()
        raise KeyError

    with pytest.raises(KeyError):
        driver.run(job, name="job")
    check()


def test_keep_states_none_keeps_all(make):
    """keep_states=None keeps every state."""
    driver = make(keep_states=None)
    driver.run(counting, 20_000)
    history = driver.history(counting)
    assert [record.seq for record in history] == list(range(1, 20_001))
    assert driver.state(counting, at=7) == {"i": 7}


def test_a_long_run_stays_small(state_dir):
    """A run with a small window takes little room on the disk, however long it is."""
    with Driver(state_dir, keep_states=10) as driver:

        def job(state=0):
            for i in range(300_000):
                yield checkpoint((i, "some words of a state"))
            sizes.append(sum(
                os.stat(os.path.join(where, file)).st_blocks * 512
                for where, _, files in os.walk(state_dir)
                for file in files
            ))

        sizes = []
        driver.run(job, name="job")
        assert sizes[0] < 20 << 20


def test_no_state_yet(driver):
    """A run without a checkpoint has no state to show."""

    def job(state=0):
        return 1
        yield

    driver.run(job)
    with pytest.raises(StateGoneError, match="no checkpoint yet"):
        driver.state(job)
    assert driver.history(job) == []


def test_the_log_hears_of_the_end_and_forgets_older_runs_at_once(make, monkeypatch):
    """Whenever the log's thread comes, the commit that says that a run is over takes with it the runs that fall out."""
    pruned = LiveRun._pruned

    def commit_meanwhile(run):
        found = pruned(run)
        run._home.writer.flush(run._handoff)
        return found

    monkeypatch.setattr(LiveRun, "_pruned", commit_meanwhile)
    driver = make(keep_runs=1)
    for _ in range(3):
        driver.run(counting, 3, name="job")
        assert len(driver.runs()) == 1


def test_keep_runs(make):
    """The last keep_runs runs of a name are readable, older ones go with their results and side files."""
    driver = make(keep_runs=3)

    def job(state=0):
        yield checkpoint("x" * 400_000, result=1)
        return "y" * 400_000

    for _ in range(6):
        driver.run(job, name="job")
    assert [info.number for info in driver.runs()] == [6, 5, 4]
    assert driver.state("job", run=4)[0] == "x"
    assert list(driver.results("job", run=5)) == [1]
    with pytest.raises(RunNotFoundError, match="run 3 of 'job'"):
        driver.info("job", run=3)


def test_clear_forgets_everything(make, state_dir):
    """`clear` removes every run of a name, finished or not, and gives back how many; their numbers are not used again."""
    driver = make()

    def job(state=None):
        yield checkpoint("x" * 400_000, result="z" * 400_000)
        if state is None:
            raise KeyError
        return "y" * 400_000

    with pytest.raises(KeyError):
        driver.run(job, name="job")
    driver.run(job, name="job")
    with pytest.raises(KeyError):
        driver.run(job, name="job")
    driver.run(counting, 3)
    assert driver.clear("job") == 2
    assert [info.name for info in driver.runs()] == [driver.info(counting).name]
    assert driver.clear("job") == 0
    if state_dir.exists():
        assert os.listdir(state_dir / "runs") == []
    with pytest.raises(KeyError):
        driver.run(job, name="job")
    assert driver.info("job").number == 3


def test_clear_takes_a_job(driver):
    """`clear` of a job forgets its runs with any arguments."""
    for n in range(3):
        driver.run(counting, n)
    assert driver.clear(counting) == 3
    assert driver.runs() == []
