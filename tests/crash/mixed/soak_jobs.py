"""What a process of the soak does: runs in any manner, reports, forgetting, repair.

Every state follows from its number, so whoever finds one, the job that resumes or a report, can say whether it is right.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import jobs
from jobs import ACK, BEGIN, START, Job, Progress, Stumble, note

import resumable.tools.check
import resumable.tools.repair
from resumable import Driver, RunLockedError, RunNotFoundError, StateGoneError, checkpoint
from resumable.runs.identity import identify
from resumable.values.registry import GLOBAL

SYNCED = 7      # an event: the driver says that all of the lane is on disk
LANE_BITS = 40
RESULT_EVERY = 3
FEWEST_KEPT = 5
# form of state: items
FORMS = {"int": 4000, "dict": 1500, "object": 800, "middle": 60, "heavy": 14}
BASE = 48271

Lane = tuple[int, str]      # its number, and the form of its states
life: dict[str, Any] = {}   # what is special about this one: where it stumbles, forks or syncs


@functools.cache
def digest_of(done: int) -> int:
    return BASE if done == 0 else jobs.mixed(digest_of(done - 1), done) if done % 100 else jobs.mixed(BASE, done)


def state_of(form: str, done: int) -> Any:
    """The state after this many items."""
    if form == "int":
        return done
    if form == "dict":
        return {"done": done, "digest": digest_of(done), "last": [f"item {done}", None, 0.5 * done]}
    if form == "object":
        return Progress(done, digest_of(done), {done, done + 1})
    return done, digest_of(done), bytes([done & 255]) * (300_000 if form == "heavy" else 30_000)


def _done_in(form: str, state: Any) -> int:
    """How many items a state stands for; it must be just the state after them."""
    done = 0 if state is None else state if form == "int" else state["done"] if form == "dict" else -1
    if done < 0:
        done = state.done if form == "object" else state[0]
    assert state is None or state == state_of(form, done), f"this is not the state after {done} items"
    return int(done)


def _made(lane: int, form: str, i: int) -> Any:
    state = state_of(form, i + 1)
    return checkpoint(state, result=(lane, i)) if i % RESULT_EVERY == 0 else checkpoint(state)


def _tell(what: int, lane: int, value: int) -> None:
    note(what, lane << LANE_BITS | value)


def _between(lane: int, i: int) -> None:
    """What this life does after an item."""
    if life.get("sync_at") == i:
        life["driver"].sync()
        _tell(SYNCED, lane, i + 1)
    if life.get("fork_at") == i:
        _fork(lane)
    if life.get("stumble_at") == i:
        raise Stumble


def _fork(lane: int) -> None:
    pid = os.fork()
    if pid == 0:
        failed = 1
        try:
            _be_forked(lane)
            failed = 0
        finally:
            os._exit(failed)
    if life["child"] != "outlives":
        assert os.waitpid(pid, 0)[1] == 0, "the forked child met what it should not"


def _be_forked(lane: int) -> None:
    """A forked child: it may use the driver for a run of its own, and never go on with its parent's."""
    for pipe in jobs.pipes:
        os.close(pipe)
    jobs.oracle = -1
    life.update(fork_at=-1, sync_at=-1, stumble_at=-1)
    if life["child"] == "uses":
        life["driver"].run(partial(plain, os.getpid(), lane, "middle"))
        life["driver"].close()
    elif life["child"] == "intrudes":
        try:
            life["driver"].run(life["jobs"][lane], once=True)
        except RunLockedError:
            return
        raise AssertionError("the child went on with its parent's run")
    elif life["child"] == "outlives":
        time.sleep(0.1)


def plain(label: int, lane: int, form: str, state: Any = None) -> Job:
    done = _done_in(form, state)
    _tell(START, lane, done)
    for i in range(done, FORMS[form]):
        _tell(BEGIN, lane, i)
        yield _made(lane, form, i)
        _tell(ACK, lane, i)
        _between(lane, i)
    return lane, digest_of(FORMS[form])


async def awaiting(label: int, lane: int, form: str, state: Any = None) -> tuple[int, int]:
    done = _done_in(form, state)
    _tell(START, lane, done)
    for i in range(done, FORMS[form]):
        _tell(BEGIN, lane, i)
        await _made(lane, form, i)
        _tell(ACK, lane, i)
        _between(lane, i)
        if i % 8 == 0:
            await asyncio.sleep(0)
    return lane, digest_of(FORMS[form])


def bound(label: int, lane: Lane, in_loop: bool) -> Any:
    return partial(awaiting if in_loop else plain, label, *lane)


def name_of(job: Any) -> str:
    """Interleaved runs cannot be given a name, and a report for a job means the one of it that was begun last."""
    return identify(job, (), {}, name=None, registry=GLOBAL, given=set()).name


def _reboot(boot: str) -> None:
    """Another boot id stands for a power cut."""
    for name, module in list(sys.modules.items()):
        if name.startswith("resumable.") and hasattr(module, "boot_id"):
            module.boot_id = lambda: bytes.fromhex(boot)  # type: ignore[attr-defined]


class _StaysOpen(Exception):
    """Leaves a batch so that its runs stay finished."""


def _run_threads(driver: Driver, jobs: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: driver.run(job, once=True), jobs))


def _run_turns(driver: Driver, jobs: list[Any]) -> list[Any]:
    values: list[Any] = []
    with suppress(_StaysOpen), driver.batch(f"turns of lane {jobs[0].args[1]}"):
        values = driver.interleave(jobs)
        raise _StaysOpen
    return values


def _run_loop(driver: Driver, jobs: list[Any]) -> list[Any]:
    async def gather() -> list[Any]:
        return await asyncio.gather(*(driver.arun(job, once=True) for job in jobs))

    return asyncio.run(gather())


def _run_one_by_one(driver: Driver, jobs: list[Any]) -> list[Any]:
    return [driver.run(job, once=True) for job in jobs]


MANNERS: dict[str, Callable[[Driver, list[Any]], list[Any]]] = {
    "threads": _run_threads, "turns": _run_turns, "loop": _run_loop, "one by one": _run_one_by_one,
}  # fmt: skip


def live(
    directory: str, boot: str, label: int, lanes: list[Lane], manner: str, settings: dict[str, Any], deeds: dict[str, Any],
) -> list[Any]:
    """Run or resume these lanes; what they return. `deeds`: see `_between`; a signal comes after some seconds."""
    _reboot(boot)
    life.update(deeds)
    if "signal" in deeds:
        threading.Timer(deeds["signal_after"], os.kill, (os.getpid(), getattr(signal, deeds["signal"]))).start()
    all_of_them = [bound(label, lane, manner == "loop") for lane in lanes]
    try:
        with Driver(directory, **settings) as driver:
            life.update(driver=driver, jobs=dict(zip([lane for lane, _ in lanes], all_of_them, strict=True)))
            return MANNERS[manner](driver, all_of_them)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)       # too late: this process is about to tell how it fared


def report(directory: str, boot: str, label: int, lanes: list[tuple[int, str, bool]]) -> list[list[int]]:
    """Of each lane how far a report says that it is, and how far on disk; all that is readable must be right."""
    _reboot(boot)
    with Driver(directory) as driver:
        driver.runs()
        return [_report(driver, (lane, form), name_of(bound(label, (lane, form), in_loop))) for lane, form, in_loop in lanes]


def _report(driver: Driver, lane: Lane, name: str) -> list[int]:
    number, form = lane
    try:
        info = driver.info(name)
    except RunNotFoundError:
        return [0, 0]
    if info.seq:
        assert _done_in(form, driver.state(name)) >= info.seq
    history = driver.history(name)
    sequence = [record.seq for record in history]
    # Behind the window a history may have some more, and of large states two are kept.
    window = sequence[-2 if form == "heavy" else -FEWEST_KEPT :]
    assert window == list(range(window[0], window[-1] + 1) if window else ()), f"lane {lane}: {window}, {info}"
    for record in history[:3] + history[-3:]:
        try:
            assert _done_in(form, record.state) == record.seq
        except StateGoneError:      # a life beside this one went on and removed it
            assert record.seq not in [kept.seq for kept in driver.history(name)]
    results = [tuple(result) for result in driver.results(name)]
    assert len(results) >= -(-info.seq // RESULT_EVERY)
    assert results == [(number, k * RESULT_EVERY) for k in range(len(results))]
    driver.failure(name)
    return [info.seq, info.on_disk]


def clear(directory: str, boot: str, label: int, lane: Lane, in_loop: bool) -> int:
    """Forget a lane."""
    _reboot(boot)
    with Driver(directory) as driver:
        return driver.clear(name_of(bound(label, lane, in_loop)))


def check(directory: str, boot: str) -> list[str]:
    """What a check finds damaged."""
    _reboot(boot)
    found = resumable.tools.check.check_directory(directory)
    return [str(finding) for finding in found.findings if finding.severity == "damage"]


def repair(directory: str, boot: str, target: str) -> None:
    """Copy what is intact."""
    _reboot(boot)
    resumable.tools.repair.repair(directory, target)


def _sync_nothing() -> None:
    """durability="disk" acknowledges what no sync file has."""
    from resumable.storage.disksync import DiskSync

    DiskSync.put = lambda self, *record: None  # type: ignore[method-assign]
    DiskSync.way = lambda self: None  # type: ignore[method-assign]


jobs.PLANTS["sync nothing"] = _sync_nothing
jobs.TASKS |= {"live": live, "report": report, "clear": clear, "check": check, "repair": repair}
