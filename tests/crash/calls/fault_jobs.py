"""More that can be done under failing system calls: a journal that is written by pwrite, several jobs on one directory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import jobs
from jobs import ACK, BEGIN, END, START, mixed, note, run_story

from resumable import Driver, checkpoint
from resumable.storage import folder

SEVERAL, SEVERAL_ITEMS = 3, 10
# Where the number of the job stands in a noted value.
JOB_SHIFT = 32


def story_by_pwrite(**args: Any) -> Any:
    """The story where files cannot be mapped."""
    folder.can_map = lambda fd: False
    return run_story(**args)


def one_of_several(which: int, state: tuple[int, int, bytes] = (0, 0, b"")) -> Generator[Any, None, int]:
    """A job that fills a new segment every few items, and tells which it is."""
    done, digest, _ = state
    note(START, which << JOB_SHIFT | done)
    for i in range(done, SEVERAL_ITEMS):
        note(BEGIN, which << JOB_SHIFT | i)
        digest = mixed(digest, i)
        yield checkpoint((i + 1, digest, bytes([i]) * 20_000), result=(which, digest))
        note(ACK, which << JOB_SHIFT | i)
    return digest


def run_several(directory: str, durability: str, threads: bool) -> list[Any]:
    """Several jobs, in a thread each or, as one batch, in turns; their values and results."""
    alike = [partial(one_of_several, which) for which in range(SEVERAL)]
    with Driver(directory, durability=durability, sync_every=3600, keep_states=6) as driver:
        if threads:
            values = _in_threads(driver, alike)
        else:
            with driver.batch("all"):
                values = driver.interleave(alike)
                note(END)
        kept = [list(row) for name in {run.name for run in driver.runs()} for row in driver.results(name)]
    return [values, sorted(kept)]


def _in_threads(driver: Driver, alike: list[Callable[[], Any]]) -> list[Any]:
    values: list[Any] = [None] * len(alike)
    errors: list[BaseException] = []

    def one(at: int) -> None:
        try:
            values[at] = driver.run(alike[at], name=f"job {at}", once=True)
        except BaseException as error:  # noqa: BLE001 - raised below, where the test sees it
            errors.append(error)

    threads = [threading.Thread(target=one, args=(at,)) for at in range(len(alike))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One that is none of ours is the one to be told.
    for error in sorted(errors, key=lambda error: "ResumableError" in [kind.__name__ for kind in type(error).__mro__]):
        raise error
    return values


jobs.TASKS |= {"story by pwrite": story_by_pwrite, "several": run_several}
