"""What the feature tests share: a driver on disk and one in memory, and scripts in processes of their own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from injecting import events

from resumable import Driver

Make = Callable[..., Driver]
Script = Callable[..., subprocess.Popen[str]]
HEAD = """\
import os, signal, sys, time
from functools import partial
from resumable import Driver, checkpoint
STATE = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)    # whoever starts the tests in the background has it ignored
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where the drivers of a test keep their state."""
    return tmp_path / "state"


@pytest.fixture(params=["disk", "memory"])
def make(request: pytest.FixtureRequest, state_dir: Path) -> Iterator[Make]:
    """Makes drivers, with any settings: all on one directory, or each with a memory of its own."""
    made: list[Driver] = []

    def driver(**settings: Any) -> Driver:
        made.append(Driver(state_dir if request.param == "disk" else ":memory:", **settings))
        return made[-1]

    yield driver
    for each in made:
        each.close()


@pytest.fixture
def driver(make: Make) -> Driver:
    """A driver with the default settings, on disk and in memory."""
    return make()


@pytest.fixture
def disk(state_dir: Path) -> Iterator[Driver]:
    """A driver with the default settings, on disk alone."""
    with Driver(state_dir) as made:
        yield made


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with a table `rows (n)`."""
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE rows (n)")
    return path


@pytest.fixture
def rows(database: Path) -> Callable[[], list[Any]]:
    """What others see of that table, in the order in which it was written."""

    def look() -> list[Any]:
        with closing(sqlite3.connect(database)) as made:
            return [row[0] for row in made.execute("SELECT n FROM rows ORDER BY rowid")]

    return look


@pytest.fixture
def start(tmp_path: Path, state_dir: Path) -> Iterator[Script]:
    """Starts `HEAD` and a script, which finds the state directory in STATE, with warnings as errors."""
    started: list[subprocess.Popen[str]] = []

    def run(body: str, *arguments: object, file: str = "script.py", env: dict[str, str] | None = None) -> Any:
        path = tmp_path / file
        path.write_text(HEAD + body)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path), str(state_dir), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env={**os.environ, **(env or {})},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def script(start: Script) -> Callable[..., tuple[int, str, str]]:
    """Runs such a script to its end: (exit code, standard output, standard error)."""

    def run(body: str, *arguments: object, **options: Any) -> tuple[int, str, str]:
        process = start(body, *arguments, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.strip(), err

    return run


@pytest.fixture
def no_events() -> None:
    """Empties `injecting.events` of what earlier tests left there."""
    events.clear()
