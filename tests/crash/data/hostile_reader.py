"""The process that reads hostile state directories in every public way, and says what it met.

    python hostile_reader.py DIR CODEC RUN...

It has 2 GB of address space. Its output is one line of JSON: [way, run, error, message] of each try (error None for an
answer), and the classes that anything unpickled asked for.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Callable
from typing import Any

from resumable import Driver, checkpoint

LIMIT = 2 << 30
MOST = 300 << 20  # bytes of memory that a reader may come to hold


def job(state: Any = 0) -> Any:
    """Whatever the state is, it is not looked at."""
    yield checkpoint(1)


async def async_job(state: Any = 0) -> Any:
    """The same for an event loop."""
    yield checkpoint(1)


def ways(driver: Driver, name: str) -> dict[str, Callable[[], object]]:
    """Each public way to what a run holds; the last ones go on with it."""
    return {
        "info": lambda: driver.info(name),
        "state": lambda: driver.state(name),
        "state at": lambda: driver.state(name, 1),
        "history": lambda: [each.state for each in driver.history(name)],
        "results": lambda: [driver.results(name)[i] for i in range(min(3, len(driver.results(name))))],
        "failure": lambda: driver.failure(name),
        "once": lambda: driver.run(job, name=name, once=True),
        "migrate": lambda: driver.run(job, name=name, version=3, migrate=dict.fromkeys(range(3), lambda state: state)),
        "arun": lambda: asyncio.run(driver.arun(async_job, name=name)),
        "run": lambda: driver.run(job, name=name),
    }


def main(directory: str, codec: Any, *names: str) -> None:
    met: list[tuple[str, str, str | None, str]] = []
    asked: list[str] = []
    sys.addaudithook(lambda event, args: asked.append(str(args)) if event == "pickle.find_class" else None)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    with Driver(directory, codec=codec) as driver:
        for name in names:
            for way, read in ways(driver, name).items():
                met.append((way, name, *outcome(read)))
        met.append(("runs", "", *outcome(driver.runs)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"met": met, "asked": asked, "peak": peak}))


def outcome(read: Callable[[], object]) -> tuple[str | None, str]:
    """(error or None, its message): also of the errors that are none of the library's, which the test refuses."""
    try:
        read()
    except Exception as error:  # noqa: BLE001 - the test judges
        module = type(error).__module__.partition(".")[0]
        return f"{module}.{type(error).__qualname__}", str(error)
    return None, ""


if __name__ == "__main__":
    main(*sys.argv[1:])
