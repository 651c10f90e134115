"""Injected resources are closed, in reverse order, at the end and on every kind of stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import traceback
import weakref

import pytest
from injecting import Closable, closables, events, job

from resumable import Driver, checkpoint, resource
from resumable.errors import DriverClosedError, NotACheckpointError, Preempted, ReconnectError, ResourceParameterError

pytestmark = pytest.mark.usefixtures("no_events")


class Managed:
    """Entered and left; says what it was left with."""

    def __enter__(self):
        events.append("enter")
        return "the value"

    def __exit__(self, kind, error, trace):
        assert (kind, trace) == ((type(error), error.__traceback__) if error else (None, None))
        events.append(error if error is None else type(error))
        return True


def two(stop, first=resource("first"), second=resource("second"), state=0):
    try:
        yield checkpoint(1)
        value = stop()
        yield value if value is not None else checkpoint(2)
        yield checkpoint(3)
    finally:
        events.append("job ends")


def raises(error):
    def stop():
        raise error

    return stop


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


STOPS = {
    "return": (lambda: None, None),
    "exception": (raises(KeyError("x")), KeyError),
    "Ctrl-C": (raises(KeyboardInterrupt()), KeyboardInterrupt),
    "exit": (raises(SystemExit(3)), SystemExit),
    "GeneratorExit": (raises(GeneratorExit()), GeneratorExit),
    "cancelled": (raises(asyncio.CancelledError()), asyncio.CancelledError),
    "no checkpoint": (lambda: 5, NotACheckpointError),
    "preempted": (terminate, Preempted),
}


@pytest.mark.parametrize("how", STOPS)
def test_every_stop_closes_in_reverse_order(make, how):
    """However a run ends, first the job's own generator is closed, then the resources, the last made first, each once."""
    driver = make(resources=closables("first", "second"), preempt=True)
    stop, error = STOPS[how]
    with pytest.raises(error) if error else contextlib.nullcontext():
        driver.run(functools.partial(two, stop), name="a")
    assert events == ["open first", "open second", "job ends", "close second", "close first"]


@pytest.mark.parametrize("how", STOPS)
def test_a_context_manager_is_left_with_what_ended_the_job(make, how):
    """`__exit__` gets the exception that ended the job, and cannot swallow it."""
    driver = make(resources={"first": Managed, "second": Closable}, preempt=True)
    stop, error = STOPS[how]
    with pytest.raises(error) if error else contextlib.nullcontext():
        driver.run(functools.partial(two, stop), name="a")
    assert events[0] == "enter"
    assert events[-1] is error
    assert (driver.info("a").status == "finished") == (error is None)


def test_closing_the_driver_in_another_thread_closes_resources(disk, state_dir):
    """A run that a closed driver stops closes its resources in its own thread."""
    driver = Driver(state_dir, resources={"db": Closable})
    with pytest.raises(DriverClosedError):
        driver.run(functools.partial(stopped_elsewhere, driver), name="a")
    assert events == ["open db", "close db"]


def stopped_elsewhere(driver, db=resource("db"), state=0):
    yield checkpoint(1)
    thread = threading.Thread(target=driver.close)
    thread.start()
    thread.join()
    while True:
        yield checkpoint(2)


def test_a_failing_factory_closes_the_earlier_ones(make):
    """If a later factory raises, the error says which, the job does not begin, and what was made before is closed."""
    driver = make(resources={"first": Closable, "second": lambda: 1 / 0})
    with pytest.raises(ZeroDivisionError) as caught:
        driver.run(functools.partial(two, print), name="a")
    assert "'second'" in caught.value.__notes__[0]
    assert events == ["open db", "close db"]
    assert driver.failure("a").type == "ZeroDivisionError"


def test_a_forked_child_closes_nothing(make):
    """An exception that a forked child carries out of the run closes none of the parent's resources."""
    sending = multiprocessing.Pipe()

    @contextlib.contextmanager
    def managed():
        try:
            yield 1
        finally:
            events.append("left")

    def forks(db=resource("first"), other=resource("second"), state=0):
        yield checkpoint(1)
        if os.fork() == 0:
            raise KeyError("in the child")
        os.wait()
        yield checkpoint(2)

    driver, parent = make(resources={"first": managed, "second": Closable}), os.getpid()
    try:
        driver.run(forks, name="a")
    except BaseException:
        if os.getpid() == parent:
            raise
        traceback.clear_frames(sys.exc_info()[2])
        sending[1].send(events)
        os._exit(0)
    assert sending[0].recv() == ["open db"]
    assert events == ["open db", "close db", "left"]
    for end in sending:
        end.close()


# ---- what is made


@contextlib.contextmanager
def transaction():
    events.append("begin")
    try:
        yield "connection"
    except Exception as error:
        events.append(f"roll back: {error!r}")
        raise
    else:
        events.append("commit")


def test_a_contextmanager_function_is_a_factory(make):
    """The generator of a @contextmanager gives the resource, and sees how the job ended."""
    driver = make(resources={"db": transaction})
    assert driver.run(job, 1) == "connection"
    with pytest.raises(KeyError):
        driver.run(failing)
    assert events == ["begin", "commit", "begin", "roll back: KeyError('why')"]


def failing(db=resource("db"), state=0):
    yield checkpoint(1)
    raise KeyError("why")


def takes_it_in_a_thread(db=resource("db"), state=0):
    yield checkpoint(1)
    thread = threading.Thread(target=lambda: events.append(db.acquire(False)))
    thread.start()
    thread.join()


def exit_stack():
    with contextlib.ExitStack() as stack:
        stack.callback(events.append, "callback")
        return stack.pop_all()


@pytest.mark.parametrize(
    ("factory", "left"),
    [
        (lambda: contextlib.closing(Closable()), ["open db", "close db"]),
        (exit_stack, ["callback"]),
        (Managed, ["enter", None]),
        (Closable, ["open db", "close db"]),
        (lambda: 5, []),
        (lambda: Closable, []),
        (lambda: os, []),
    ],
)
def test_each_kind_of_resource_is_closed_in_its_way(make, factory, left):
    """Context managers are entered and left, what has `close` is closed, the rest, classes and modules too, is let alone."""
    driver = make(resources={"db": factory})
    driver.run(job, 1)
    assert events == left


@pytest.mark.parametrize("factory", [threading.Lock, threading.RLock, threading.Semaphore, multiprocessing.Lock])
def test_a_lock_is_given_free(make, factory):
    """A lock as a resource is not held while the job runs: the job takes it where it needs it."""
    driver = make(resources={"db": factory})
    driver.run(takes_it_in_a_thread)
    assert events == [True]


def test_a_sqlite_connection_commits_and_is_closed(make, tmp_path):
    """A connection whose `__exit__` only commits or rolls back is closed after it."""
    path, made = tmp_path / "a.db", []

    def connect():
        made.append(sqlite3.connect(path))
        return made[-1]

    def insert(n, fails, db=resource("db"), state=0):
        yield checkpoint(1)
        db.execute("INSERT INTO t VALUES (?)", (n,))
        if fails:
            raise KeyError(n)

    with contextlib.closing(sqlite3.connect(path)) as reading:
        reading.execute("CREATE TABLE t (n)")
        driver = make(resources={"db": connect})
        driver.run(insert, 1, False)
        with pytest.raises(KeyError):
            driver.run(insert, 2, True)
        assert reading.execute("SELECT n FROM t").fetchall() == [(1,)]
    for connection in made:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


class ClosedOnce:
    """As in pymysql: leaving it closes it, and to close it twice is an error."""

    closed = False

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


def test_what_must_not_be_closed_twice_ends_well(make):
    """A connection that `__exit__` has closed, and that refuses to be closed again, does not make the run fail."""
    driver = make(resources={"db": ClosedOnce})
    assert driver.run(job, 1).closed
    assert driver.info(job).status == "finished"


def test_a_factory_that_yields_is_refused(make):
    """A generator function is no factory: the error says to decorate it."""

    def yields():
        yield 1

    async def yields_too():
        yield 1

    with pytest.raises(ResourceParameterError, match="contextmanager"):
        make(resources={"db": yields}).run(job, 1)
    with pytest.raises(ResourceParameterError, match="contextmanager"):
        make(resources={"db": yields_too}).run(job, 1)


class Plain:
    """Any object; it can be referred to weakly."""


def test_a_resource_is_dropped_with_its_run(make):
    """Once a run is over nothing of the library holds its resource, not even until the next collection."""
    made = []

    def connect():
        connection = Plain()
        made.append(weakref.ref(connection))
        return connection

    def uses(fails, db=resource("db"), state=None):
        yield checkpoint((1, db))
        if fails:
            raise KeyError

    driver = make(resources={"db": connect})
    gc.collect()
    gc.disable()
    try:
        driver.run(uses, False)
        with contextlib.suppress(KeyError):
            driver.run(uses, True)
        assert [reference() for reference in made] == [None, None]
    finally:
        gc.enable()


# ---- trouble while closing


class Troubled:
    def __init__(self, error):
        self.error = error

    def close(self):
        events.append(f"troubled: {self.error!r}")
        raise self.error


def test_a_run_whose_resource_fails_to_close_is_not_finished(make):
    """An exception while closing comes out of `run`, the others are closed, and the next call goes on to the end."""
    errors = [OSError("commit failed")]
    driver = make(resources={"first": Closable, "second": lambda: Troubled(errors[0]) if errors else Closable("again")})
    ended = functools.partial(two, lambda: None)
    with pytest.raises(OSError, match="commit failed") as caught:
        driver.run(ended, name="a")
    assert "closing the resource 'second'" in caught.value.__notes__[0]
    assert events == ["open db", "job ends", "troubled: OSError('commit failed')", "close db"]
    info = driver.info("a")
    assert (info.status, info.seq) == ("failed", 3)
    errors.clear()
    driver.run(ended, name="a")
    assert driver.info("a").status == "finished"
    assert len(driver.runs()) == 1


def test_trouble_while_closing_does_not_hide_why_the_job_failed(make):
    """The job's own exception comes out, with a note on each that closing raised."""
    driver = make(resources={"first": lambda: Troubled(OSError("one")), "second": lambda: Troubled(ValueError("two"))})
    with pytest.raises(KeyError) as caught:
        driver.run(functools.partial(two, raises(KeyError("x"))), name="a")
    assert "'second' raised ValueError: two" in caught.value.__notes__[0]
    assert "'first' raised OSError: one" in caught.value.__notes__[1]


class RaisesAgain:
    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        raise error


def test_what_raises_the_jobs_own_exception_again_is_no_trouble(make):
    """A context manager that raises what it was left with adds nothing to it."""
    driver = make(resources={"db": RaisesAgain})
    with pytest.raises(KeyError) as caught:
        driver.run(failing)
    assert [note for note in caught.value.__notes__ if "raised" in note] == []


def test_a_stop_while_closing_outranks_a_failure(make):
    """Ctrl-C while a resource is closed is not swallowed by the failure that is under way; the rest is closed."""
    driver = make(resources={"first": Closable, "second": lambda: Troubled(KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        driver.run(functools.partial(two, raises(KeyError("x"))), name="a")
    assert events[-1] == "close db"


def test_resources_are_closed_before_the_run_counts_as_finished(make):
    """While a resource is closed its run is still running."""
    seen = []

    @contextlib.contextmanager
    def watching():
        yield 1
        seen.append(driver.info("a").status)

    driver = make(resources={"db": watching})
    driver.run(job, 1, name="a")
    assert seen == ["running"]


# ---- under arun


class Async:
    """Entered and left in a loop alone; leaving takes a while."""

    def __init__(self, name="async"):
        self.name = name

    async def __aenter__(self):
        await asyncio.sleep(0)
        events.append(f"enter {self.name}")
        return self

    async def __aexit__(self, kind, error, trace):
        await asyncio.sleep(0.01)
        events.append((f"leave {self.name}", kind))
        return True


class Both(Async):
    def __enter__(self):
        raise AssertionError

    def __exit__(self, *exc):
        raise AssertionError


class AsyncClosable:
    async def aclose(self):
        await asyncio.sleep(0)
        events.append("aclose")

    def close(self):
        raise AssertionError


class ClosedByCoroutine:
    async def close(self):
        await asyncio.sleep(0)
        events.append("await close")


class Pool:
    """As in asyncpg: it can be awaited and entered, and has `acquire`."""

    def __await__(self):
        raise AssertionError

    async def __aenter__(self):
        events.append("enter pool")
        return self

    async def __aexit__(self, *exc):
        events.append("leave pool")

    def acquire(self):
        raise AssertionError

    async def close(self):
        events.append("close pool")


@contextlib.asynccontextmanager
async def async_transaction():
    events.append("begin")
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        events.append("end")


async def coroutine_of_manager():
    await asyncio.sleep(0)
    return Async()


async def request(db=resource("db"), state=0):
    await checkpoint(state + 1)
    return db


@pytest.mark.parametrize(
    ("factory", "left"),
    [
        (Async, ["enter async", ("leave async", None)]),
        (Both, ["enter async", ("leave async", None)]),
        (coroutine_of_manager, ["enter async", ("leave async", None)]),
        (async_transaction, ["begin", "end"]),
        (AsyncClosable, ["aclose"]),
        (ClosedByCoroutine, ["await close"]),
        (Pool, ["enter pool", "leave pool", "close pool"]),
        (transaction, ["begin", "commit"]),
        (asyncio.Lock, []),
    ],
)
def test_async_resources_are_closed_in_their_way(make, factory, left):
    """Under arun coroutines are awaited, async context managers preferred, `aclose` and async `close` awaited."""
    driver = make(resources={"db": factory})
    asyncio.run(driver.arun(request))
    assert events == left


class AsyncOnly:
    aclose = AsyncClosable.aclose


@pytest.mark.parametrize("factory", [Async, coroutine_of_manager, async_transaction, ClosedByCoroutine, AsyncOnly])
def test_a_plain_job_is_not_given_what_needs_a_loop(make, factory):
    """Under `run` an async factory or resource is an error that names arun, before the job begins; others are closed."""
    driver = make(resources={"first": Closable, "second": factory})
    with pytest.raises(ResourceParameterError, match="arun"):
        driver.run(functools.partial(two, print), name="a")
    assert events == ["open db", "close db"]


async def waits(first=resource("first"), second=resource("second"), state=0):
    try:
        await checkpoint(1)
        events.append("waiting")
        await asyncio.sleep(60)
    finally:
        events.append("job ends")


async def yields(first=resource("first"), second=resource("second"), state=0):
    try:
        yield checkpoint(1)
        events.append("waiting")
        await asyncio.sleep(60)
    finally:
        events.append("job ends")


@pytest.mark.parametrize("waiting", [waits, yields])
def test_cancelling_closes_in_the_loop(make, waiting):
    """A cancelled job's resources are closed in reverse order, and what closing waits for is waited for."""
    driver = make(resources={"first": functools.partial(Async, "one"), "second": functools.partial(Async, "two")})

    async def main():
        task = asyncio.create_task(driver.arun(waiting, name="a"))
        while "waiting" not in events:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    cancelled = asyncio.CancelledError
    assert events == ["enter one", "enter two", "waiting", "job ends", ("leave two", cancelled), ("leave one", cancelled)]


def test_cancelling_twice_closes_the_others(make):
    """A second cancel that breaks off one resource's closing leaves none of the others open."""
    driver = make(resources={"first": functools.partial(Async, "one"), "second": functools.partial(Async, "two")})

    async def main():
        task = asyncio.create_task(driver.arun(waits, name="a"))
        while "waiting" not in events:
            await asyncio.sleep(0)
        task.cancel()
        while "job ends" not in events:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert events[-1] == ("leave one", asyncio.CancelledError)


def test_dropping_an_async_run_closes(make):
    """An arun that is closed without its loop closes what need not wait."""
    driver = make(resources=closables("first", "second"))
    running = driver.arun(waits, name="a")

    async def main():
        running.send(None)
        running.close()

    asyncio.run(main())
    assert events[-3:] == ["job ends", "close second", "close first"]
    assert driver.info("a").status == "interrupted"


class AnyName:
    """Has what is asked for, as a MongoDB database has collections; closing it is none of it."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return AnyName()

    def __call__(self):
        raise TypeError("not callable")

    def __bool__(self):
        raise NotImplementedError


def test_what_answers_to_every_name_has_no_close(make):
    """A resource with attributes of any name is not closed by one of them, with or without a loop."""

    def job(*, db=resource("db"), state=0):
        yield checkpoint(1)
        return "well"

    async def ajob(*, db=resource("db"), state=0):
        await checkpoint(1)
        return "well"

    driver = make(resources={"db": AnyName})
    assert driver.run(job) == asyncio.run(driver.arun(ajob)) == "well"


def test_a_failed_rebuild_leaves_what_was_given(make):
    """If a resource of the state cannot be rebuilt, one that a factory gave is closed by its own context manager alone."""
    shared = Closable("shared")

    class Gone:
        pass

    def refuse(description):
        raise FileNotFoundError

    def job(*, db=resource("db"), state=None):
        yield checkpoint([db, Gone()])
        raise KeyError

    driver = make(resources={"db": lambda: contextlib.nullcontext(shared)})
    driver.register_reconnector(Gone, lambda gone: {}, refuse)
    with pytest.raises(KeyError):
        driver.run(job, name="a")
    with pytest.raises(ReconnectError, match=r"^state\[1\]"):
        driver.run(job, name="a")
    assert events == ["open shared"]
