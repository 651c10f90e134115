"""Locks, events, conditions, semaphores and barriers in a state: new and free after a resume."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from holding import resume, save

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError
from resumable.values.codec import Codec
from resumable.values.fingerprint import digest
from resumable.values.handlers import locks
from resumable.values.registry import GLOBAL

HELD: dict[str, Callable[[], Any]] = {
    "lock": threading.Lock,
    "rlock": threading.RLock,
    "rlock in Python": threading._PyRLock,  # type: ignore[attr-defined]
    "condition": threading.Condition,
    "condition over a lock": lambda: threading.Condition(threading.Lock()),
    "bounded semaphore": partial(threading.BoundedSemaphore, 1),
    "semaphore": partial(threading.Semaphore, 1),
}


def acquired_elsewhere(lock: Any) -> bool:
    """Whether another thread can take it, at once."""
    taken: list[bool] = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return taken[0]


def once_free(lock: Any) -> Any:
    """A plain semaphore has to be seen free once, lest nothing tell what it began with."""
    save(lock)
    return lock


@pytest.mark.parametrize("make", HELD.values(), ids=HELD)
def test_held_locks_come_back_free(make: Callable[[], Any]) -> None:
    """What was held at the checkpoint is of the same class and free after it, for other threads too."""
    lock = once_free(make())
    with lock:
        encoded = save(lock)
        again = save(resume(encoded))
    for back in (resume(encoded), resume(again)):
        assert type(back) is type(lock)
        assert acquired_elsewhere(back)


ASYNC: dict[str, Callable[[], Any]] = {
    "lock": asyncio.Lock,
    "condition": asyncio.Condition,
    "condition over a lock": lambda: asyncio.Condition(asyncio.Lock()),
    "semaphore": partial(asyncio.Semaphore, 1),
    "bounded semaphore": partial(asyncio.BoundedSemaphore, 1),
}


@pytest.mark.parametrize("make", ASYNC.values(), ids=ASYNC)
def test_held_locks_of_asyncio_come_back_free(make: Callable[[], Any]) -> None:
    """They need no loop to come back, belong to none, and can be taken in the loop of the resumed job."""
    lock = once_free(make())

    async def hold() -> Any:
        async with lock:
            return save(lock)

    back = resume(asyncio.run(hold()))
    assert type(back) is type(lock)

    async def take() -> bool:
        return await asyncio.wait_for(back.acquire(), 5)

    assert asyncio.run(take())


@pytest.mark.parametrize("make", [threading.Event, asyncio.Event])
def test_events_come_back_unset(make: Callable[[], Any]) -> None:
    """An event is unset, whatever it was."""
    event = make()
    event.set()
    assert not resume(save(event)).is_set()


def test_shared_locks_stay_shared() -> None:
    """A lock, and two conditions over it, come back as one lock and two conditions over it."""
    lock = threading.Lock()
    codec = Codec()
    state = codec.encode([lock, threading.Condition(lock), [threading.Condition(lock)]])
    free, one, (other,) = codec.decode(*state)
    assert one is not other
    with one:
        assert free.locked()
        assert not acquired_elsewhere(other)
    assert not free.locked()


def test_full_counts_come_back() -> None:
    """A bounded semaphore has the count it was made with, and still cannot be released above it."""
    for make in (threading.BoundedSemaphore, asyncio.BoundedSemaphore):
        semaphore: Any = make(3)
        if make is threading.BoundedSemaphore:
            semaphore.acquire()
        back = resume(save(semaphore))
        with pytest.raises(ValueError, match="too many times"):
            back.release()


@pytest.mark.parametrize("make", [threading.Semaphore, asyncio.Semaphore])
def test_a_plain_semaphore_never_wears_out(make: Callable[[int], Any]) -> None:
    """Its highest count at a checkpoint comes back, through any number of resumes that met it held."""
    semaphore = make(2)
    save(semaphore)
    for _ in range(3):
        semaphore._value -= 1  # as one that is held has it, without a loop
        semaphore = resume(save(semaphore))
        assert semaphore._value == 2
    empty = make(0)
    with pytest.raises(LiveResourceError, match=r"its count is 0.*BoundedSemaphore"):
        save(empty)


def done() -> None:
    """A barrier's action."""


def test_barriers_come_back() -> None:
    """A barrier has its parties, action and timeout, and nobody waits at it."""
    back = resume(save(threading.Barrier(2, done, 3.5)))
    assert (back.parties, back.n_waiting, back._action, back._timeout) == (2, 0, done, 3.5)
    assert resume(save(asyncio.Barrier(3))).parties == 3


class MyEvent(threading.Event):
    pass


def test_classes_of_ones_own_are_refused() -> None:
    """A subclass may hold more than the handler knows, so it is refused with advice."""
    with pytest.raises(LiveResourceError, match=r"class of its own.*register_reconnector"):
        save(MyEvent())


def test_a_python_that_keeps_them_otherwise_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an attribute that is not public has gone, saving says so."""
    monkeypatch.setitem(locks._BOUNDED, "threading:BoundedSemaphore", "_no_such_name")
    with pytest.raises(LiveResourceError, match="_no_such_name cannot be read on this Python"):
        save(threading.BoundedSemaphore())


def test_held_locks_are_the_same_argument() -> None:
    """A job's arguments do not change when a lock among them is taken; another kind or count is another argument."""
    told = partial(digest, path="args[0]", registry=GLOBAL)
    semaphore, event = threading.BoundedSemaphore(2), threading.Event()
    before = told([semaphore, event])
    semaphore.acquire()
    event.set()
    assert told([semaphore, event]) == before
    assert told([threading.BoundedSemaphore(3), event]) != before
    assert told(threading.Lock()) != told(threading.RLock())


class Counter:
    """As programs have them: data with its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts = {"a": 0}


def test_a_job_resumes_with_a_free_lock(tmp_path: Any) -> None:
    """A job that checkpoints inside `with lock` goes on after a failure without waiting for it forever."""

    failed: list[bool] = []

    def job(*, state: Any = None) -> Any:
        counter = state or Counter()
        for _ in range(counter.counts["a"], 3):
            assert counter.lock.acquire(timeout=5)
            counter.counts["a"] += 1
            yield checkpoint(counter)
            if counter.counts["a"] == 2 and not failed:
                failed.append(True)
                raise RuntimeError
            counter.lock.release()
        return counter.counts["a"]

    with Driver(tmp_path) as driver:
        with pytest.raises(RuntimeError):
            driver.run(job, name="counted", on_change="continue")
        assert driver.run(job, name="counted", on_change="continue") == 3
