"""Async jobs: generators that yield checkpoints, coroutines and their tasks that await them."""

from __future__ import annotations

import asyncio
import gc
import warnings

import pytest

from resumable import checkpoint
from resumable.errors import (
    AsyncJobError,
    NotACheckpointError,
    NotAJobError,
    OtherArgumentsWarning,
    ResumableError,
    RunLockedError,
    RunningLoopError,
)

broken = True
closed = []


@pytest.fixture(autouse=True)
def _reset():
    global broken
    broken = True


def mend():
    global broken
    broken = False


async def generator(n, state=0):
    for i in range(state, n):
        await asyncio.sleep(0)
        if broken and i == 3:
            raise KeyError(i)
        yield checkpoint(i + 1, result=i)


async def coroutine(n, state=0):
    for i in range(state, n):
        if broken and i == 3:
            raise KeyError(i)
        await checkpoint(i + 1, result=i)
    return n, state


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize(("job", "value"), [(generator, None), (coroutine, (5, 3))], ids=["generator", "coroutine"])
def test_an_async_job_goes_on(make, durability, job, value):
    """An async generator and a coroutine go on after a failure; the one returns None, the other its value."""
    driver = make(durability=durability)
    with pytest.raises(KeyError) as caught:
        asyncio.run(driver.arun(job, 5))
    assert "checkpoint 3" in caught.value.__notes__[-1]
    assert driver.state(job) == 3
    mend()
    assert asyncio.run(driver.arun(job, 5)) == value
    assert list(driver.results(job)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_child_tasks_save_what_they_were_given(make, durability):
    """Tasks of a group await checkpoints of the run they were started in; none is lost, the last is the state."""
    driver = make(durability=durability)

    async def job(state=None):
        done = state or []

        async def part(i):
            await asyncio.sleep(i % 3 / 1000)
            done.append(i)
            await checkpoint(list(done))

        async with asyncio.TaskGroup() as group:
            for i in range(20):
                group.create_task(part(i))
        if broken:
            raise KeyError
        return done

    with pytest.raises(KeyError):
        asyncio.run(driver.arun(job, name="job"))
    states = [record.state for record in driver.history("job")]
    assert [len(state) for state in states] == list(range(1, 21))
    assert sorted(states[-1]) == list(range(20))


def test_a_shared_state_is_encoded_at_its_own_await(make):
    """With durability="disk", what other tasks do while the disk is waited for is not in the checkpoint."""
    driver = make(durability="disk")

    async def job(state=None):
        shared = []

        async def spoil():
            while len(shared) < 1000:
                shared.append(1)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(spoil())
            for _ in range(20):
                before = list(shared)
                await checkpoint((before, shared))

    asyncio.run(driver.arun(job, name="job"))
    assert all(before == shared for before, shared in (record.state for record in driver.history("job")))


@pytest.mark.parametrize("durability", ["process", "disk"])
@pytest.mark.parametrize("job", ["generator", "coroutine"])
def test_cancellation_saves_and_stops(make, durability, job):
    """Cancelling keeps every checkpoint, runs the finally blocks, and frees the run before it is over."""
    driver = make(durability=durability)
    closed.clear()
    some = asyncio.Event()

    async def generator(state=0):
        try:
            for i in range(state, 1_000_000):
                yield checkpoint(i + 1)
                if i == state + 2:
                    some.set()
                await asyncio.sleep(0.001)
        finally:
            await asyncio.sleep(0)
            closed.append(True)

    async def coroutine(state=0):
        try:
            for i in range(state, 1_000_000):
                await checkpoint(i + 1)
                if i == state + 2:
                    some.set()
                await asyncio.sleep(0.001)
        finally:
            closed.append(True)

    async def main(job):
        for _ in range(2):
            some.clear()
            task = asyncio.create_task(driver.arun(job, name="job"))
            await some.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            info = driver.info("job")
            assert info.status == "interrupted"
            assert info.on_disk == info.seq > 1
        assert info.resumed == 1

    asyncio.run(main(generator if job == "generator" else coroutine))
    assert closed == [True, True]


def test_await_inside_an_async_generator_saves(driver):
    """An async generator may await a checkpoint as well: it is saved like one that is yielded."""

    async def job(state=0):
        await checkpoint(1)
        yield checkpoint(2)
        await checkpoint(3)

    asyncio.run(driver.arun(job, name="job"))
    assert [record.state for record in driver.history("job")] == [1, 2, 3]


def test_a_nested_async_run_saves_to_itself(driver):
    """A run inside a coroutine's run keeps its own checkpoints, and the outer goes on with its own."""

    async def inner(state=0):
        await checkpoint("inner")
        return 1

    async def inner_generator(state=0):
        await checkpoint("generator")
        yield checkpoint("generator too")

    async def outer(run, state=0):
        await checkpoint("before")
        await run(inner, name="inner")
        await run(inner_generator, name="generator")
        await checkpoint("after")

    asyncio.run(driver.arun(outer, driver.arun, name="outer"))
    for name, states in {
        "outer": ["before", "after"],
        "inner": ["inner"],
        "generator": ["generator", "generator too"],
    }.items():
        assert [record.state for record in driver.history(name)] == states


def test_a_task_that_outlives_its_run_is_told(driver):
    """A checkpoint awaited after the job has returned raises, and is not saved."""
    errors = []

    async def job(state=0):
        async def late():
            await checkpoint(1)
            await asyncio.sleep(0.05)
            try:
                await checkpoint(2)
            except ResumableError as error:
                errors.append(str(error))

        tasks.append(asyncio.create_task(late()))
        await asyncio.sleep(0.01)
        return "early"

    tasks = []

    async def main():
        assert await driver.arun(job, name="job") == "early"
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert "'job' is over" in errors[0]
    assert driver.state("job") == 1


def plain(n=0, state=0):
    yield checkpoint(1)


def handing_on(state=0):
    return plain()


def test_a_plain_generator_is_no_async_job(driver):
    """`arun` refuses a plain generator, seen before or after the call, and what is no job at all."""
    for job in (plain, handing_on):
        with pytest.raises(AsyncJobError, match=r"driver\.run"):
            asyncio.run(driver.arun(job))
    with pytest.raises(NotAJobError):
        asyncio.run(driver.arun(lambda state=0: 5))


def test_run_inside_a_running_loop_is_refused(driver):
    """`run` would block the loop that runs: it says what to do instead, and `to_thread` does it."""

    async def main():
        for call in (driver.run, lambda job: driver.interleave([job])):
            with pytest.raises(RunningLoopError, match="arun"):
                call(plain)
        await asyncio.to_thread(driver.run, plain)

    asyncio.run(main())
    assert driver.info(plain).status == "finished"


def test_the_run_is_held_while_it_is_awaited(driver):
    """A second call of the same async run raises RunLockedError while the first goes on; another job runs beside it."""

    async def main():
        first = asyncio.create_task(driver.arun(slow, name="job"))
        await asyncio.sleep(0.01)
        with pytest.raises(RunLockedError):
            await driver.arun(slow, name="job")
        mend()
        await driver.arun(generator, 3)
        await first

    async def slow(state=0):
        await checkpoint(1)
        await asyncio.sleep(0.05)

    asyncio.run(main())


def test_an_async_yield_of_something_else(driver):
    """A yield of no checkpoint raises, and the generator's finally blocks run."""
    closed = []

    async def job(state=0):
        try:
            yield checkpoint(1)
            yield 2
        finally:
            closed.append(True)

    with pytest.raises(NotACheckpointError):
        asyncio.run(driver.arun(job, name="job"))
    assert closed == [True]


def test_an_async_yield_while_being_closed(driver):
    """An async generator that yields while it is closed does not hide what stopped it."""

    async def job(state=0):
        try:
            yield checkpoint(1)
            yield 2
        finally:
            yield checkpoint(99)

    with pytest.raises(NotACheckpointError) as caught:
        asyncio.run(driver.arun(job, name="job"))
    assert any("while it is being closed" in note for note in caught.value.__notes__)
    assert driver.state("job") == 1


def test_a_warning_stands_at_the_users_line(driver):
    """What an async run warns of stands in the user's file, called from a coroutine or by asyncio.run itself."""
    with pytest.raises(KeyError):
        asyncio.run(driver.arun(coroutine, 5))
    mend()

    async def main():
        await driver.arun(coroutine, 6)

    for run in (main, lambda: driver.arun(coroutine, 8)):
        with pytest.warns(OtherArgumentsWarning) as caught:
            asyncio.run(run())
        assert caught[0].filename == __file__


def test_nothing_is_left_unawaited(driver):
    """A coroutine job that is refused by `run` leaves no warning behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AsyncJobError):
            driver.run(lambda state=0: coroutine(1, state), name="job")
        gc.collect()
