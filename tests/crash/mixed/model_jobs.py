"""What a process does in the linearised model: calls of the public API as the test planned them, and reports.

One job does whatever its plan says: steps with states of all tiers, and an end. What it is handed and what it is acknowledged
for goes through the pipe at once, so that a process that is killed has told it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import sys
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import jobs
from jobs import note

from resumable import Driver, ForkedError, RunLockedError, checkpoint

CALL, START, ACK, END, RAISED, DONE = range(20, 26)
ITEM = 1_000_000
LARGE = 300_000

Plan = dict[str, Any]
plans: dict[int, Plan] = {}     # by the job's argument


class Box:
    """A state for pickle: one list, met twice."""

    def __init__(self, i: int, mark: int) -> None:
        self.i, self.mark = i, mark
        self.once = self.again = [i, {mark}]

    def __repr__(self) -> str:
        return f"Box({exact(self.i)}, {exact(self.mark)}, {exact(self.once)}, {self.once is self.again})"


class Leave(Exception):
    """Ends a batch before its time."""


def make(kind: str, i: int, mark: int) -> Any:
    """The state of item `i`, of a call that is told apart by its mark."""
    return {
        "int": lambda: i * ITEM + mark,
        "plain": lambda: (i, {"mark": mark, "half": [i / 2, None, True]}, "ä€😀", bytes(i), frozenset((i, -mark))),
        "object": lambda: Box(i, mark),
        "large": lambda: (i, mark, bytes([i & 255]) * LARGE),
    }[kind]()


def item_of(state: Any) -> int:
    """Which item a state stands behind, however often it was migrated."""
    if state is None:
        return 0
    if type(state) is int:
        return state // ITEM
    if type(state) is list:
        return item_of(state[1])
    return state.i if type(state) is Box else state[0]


def exact(value: Any) -> str:
    """What tells a value and its types; two are the same if these are."""
    if type(value) in (tuple, list):
        return f"{type(value).__name__}({', '.join(map(exact, value))})"
    if type(value) in (set, frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(exact, value)))})"
    if type(value) is dict:
        return f"dict({', '.join(f'{exact(key)}: {exact(content)}' for key, content in value.items())})"
    if type(value) is bytes and len(value) > 99:
        return f"bytes({len(value)}, {zlib.crc32(value)})"
    return f"{type(value).__name__} {value!r}"


def sign(value: Any) -> int:
    """`exact`, in the 32 bits that an event has room for."""
    return zlib.crc32(exact(value).encode())


# ---- the job


def going(plan: Plan, state: Any) -> Generator[Any, None, Any]:
    note(START, plan["call"] << 32 | sign(state))
    i, mark = item_of(state), plan["mark"]
    for at, (kind, result, aside) in enumerate(plan["steps"]):
        i += 1
        made = make(kind, i, mark)
        if result is None:
            yield checkpoint(made)
        else:
            yield checkpoint(made, result=("result", make(result, i, mark)))
        note(ACK, plan["call"] << 32 | at)
        if aside is not None:
            ASIDES[aside](plan)
        while plan.get("parent"):
            yield checkpoint(made)      # with save_every=N the N-th is refused
    if plan["end"] == "return":
        return (each for each in ()) if plan["value"] == "unsavable" else ("value", make(plan["value"], i, mark))
    return leave(plan["end"])


def leave(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise {
        "fail": KeyError("planned"), "interrupt": KeyboardInterrupt(), "exit": SystemExit(3), "cancel": asyncio.CancelledError(),
    }[how]  # fmt: skip


def work(tag: int, state: Any = None) -> Generator[Any, None, Any]:
    return (yield from going(plans[tag], state))


async def awork(tag: int, state: Any = None) -> Any:
    plan = plans[tag]
    steps = going({**plan, "end": "return"} if plan["end"] == "cancel" else plan, state)
    while True:
        try:
            made = next(steps)
        except StopIteration as end:
            if plan["end"] == "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(1)
            return end.value
        await made


async def ywork(tag: int, state: Any = None) -> AsyncIterator[Any]:
    for made in going(plans[tag], state):
        yield made


JOBS: dict[str, Callable[..., Any]] = {"work": work, "awork": awork, "ywork": ywork}


# ---- what a job does beside its work


def fork(plan: Plan) -> None:
    """A child tries to go on with its parent's run, and must not; another job it may run."""
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        jobs.oracle = -1
        plan["parent"] = parent
        return
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0, f"a forked child ended with {code}"


def second(plan: Plan) -> None:
    """Another Driver in this process sees the run, and cannot touch it."""
    with Driver(plan["directory"]) as driver:
        (info,) = [info for info in driver.runs() if info.pid == os.getpid() and info.status == "running"]
        again = partial(driver.run, work, plan["tag"], name=plan["name"], on_change="continue")
        for touch in (again, partial(driver.clear, info.name)):
            try:
                touch()
            except RunLockedError:
                continue
            raise AssertionError("two hold the run")


def sync(plan: Plan) -> None:
    plan["driver"].sync()


def hold(plan: Plan) -> None:
    while not Path(plan["leave"]).exists():
        time.sleep(0.001)


ASIDES: dict[str, Callable[[Plan], None]] = {"fork": fork, "second": second, "sync": sync, "hold": hold}


# ---- tasks


def another_boot(boot: int) -> None:
    """From here on this process lives after that many power cuts."""
    if boot:
        for name, module in list(sys.modules.items()):
            if name.startswith("resumable.") and hasattr(module, "boot_id"):
                module.boot_id = lambda: boot.to_bytes(16, "little")


def one_call(driver: Driver, plan: Plan) -> dict[str, Any]:
    """Do it; what came of it."""
    plans[plan["tag"]] = plan | {"driver": driver}
    keywords = dict(plan["keywords"])
    if plan["migrate"]:
        keywords["migrate"] = {old: partial(moved, old) for old in range(3)}
    try:
        job = JOBS[plan["job"]]
        if inspect.isgeneratorfunction(job):
            value = driver.run(job, plan["tag"], name=plan["name"], **keywords)
        else:
            value = asyncio.run(driver.arun(job, plan["tag"], name=plan["name"], **keywords))
    except BaseException as error:  # noqa: BLE001 - the test is told, whatever it is
        if plans[plan["tag"]].get("parent"):
            os._exit(0 if isinstance(error, ForkedError) else 9)
        note(RAISED, plan["call"])
        bases = [kind.__name__ for kind in type(error).__mro__]
        return {"error": bases[0], "bases": bases, "trace": traceback.format_exc()}
    if plans[plan["tag"]].get("parent"):
        os._exit(8)
    note(END, plan["call"])
    return {"value": "unsavable" if inspect.isgenerator(value) else exact(value)}


def moved(old: int, state: Any) -> list[Any]:
    return [old, state]


def calls(directory: str, boot: int, driver: dict[str, Any], plans: list[Plan], batch: str | None, abort: bool) -> list[Any]:
    """These calls in one process, in a batch perhaps; what came of each. The first that raises ends a batch."""
    another_boot(boot)
    found: list[Any] = []
    with Driver(directory, **driver) as made:
        try:
            with made.batch(batch) if batch else nullcontext():
                for plan in plans:
                    note(CALL, plan["call"])
                    found.append(one_call(made, plan))
                    if "error" in found[-1] and batch:
                        raise Leave
                if abort:
                    raise Leave
        except Leave:
            pass
        note(DONE)
    return found


def turns(
    directory: str, boot: int, driver: dict[str, Any], plans: list[Plan], batch: None, abort: bool
) -> list[dict[str, Any]]:
    """The calls' jobs taking turns; what came of it."""
    another_boot(boot)
    with Driver(directory, **driver) as made:
        globals()["plans"].update({plan["tag"]: plan | {"driver": made} for plan in plans})
        note(CALL)
        try:
            values = made.interleave([partial(work, plan["tag"]) for plan in plans])
        except Exception as error:  # noqa: BLE001 - the test is told, whatever it is
            note(RAISED)
            bases = [kind.__name__ for kind in type(error).__mro__]
            found = {"error": bases[0], "bases": bases, "trace": traceback.format_exc()}
        else:
            note(END)
            found = {"value": "; ".join("unsavable" if inspect.isgenerator(value) else exact(value) for value in values)}
        note(DONE)
    return [found]


def clear(directory: str, boot: int, name: str) -> int:
    another_boot(boot)
    with Driver(directory) as driver:
        note(CALL)
        count = driver.clear(name)
        note(END)
        return count


def statuses(directory: str, boot: int, name: str) -> list[str]:
    another_boot(boot)
    with Driver(directory) as driver:
        return [info.status for info in driver.runs() if info.name == name]


def reports(directory: str, boot: int) -> list[dict[str, Any]]:
    """Everything that can be asked of every run."""
    another_boot(boot)
    found = []
    with Driver(directory) as driver:
        for info in driver.runs():
            same = driver.info(info.name, run=info.number)
            assert same == info, (same, info)
            failure = driver.failure(info.name, run=info.number)
            results = driver.results(info.name, run=info.number)
            found.append({
                "name": info.name, "number": info.number, "job": info.job, "status": info.status, "seq": info.seq,
                "on_disk": info.on_disk, "results": info.results, "arguments": info.arguments, "version": info.version,
                "resumed": info.resumed, "pid": info.pid,
                "state": exact(driver.state(info.name, run=info.number)) if info.seq else None,
                "history": [(record.seq, exact(record.state)) for record in driver.history(info.name, run=info.number)],
                "kept": [exact(result) for result in results],
                "failure": [failure.type, failure.message, failure.seq] if failure is not None else None,
            })  # fmt: skip
    return found


jobs.TASKS |= {"calls": calls, "turns": turns, "clear": clear, "statuses": statuses, "reports": reports}
