"""Jobs that hold live resources in their state: the five that people write first.

Each does one thing an item where others can see it (a message, a row, a line, a request), then yields its checkpoint.
"""

from __future__ import annotations

import os
import smtplib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
from jobs import ACK, BEGIN, PLANTS, START, TASKS, Job, note

import resumable
from resumable import Driver, checkpoint
from resumable.values.handlers import files, requests_sessions, sqlite  # noqa: F401 - before the forks

USER = "mailer"


def linger() -> None:
    """Most kills are to come here, where an item's effect is seen and not yet acknowledged."""
    time.sleep(0.0005)


def mailer(n: int, run: str, port: int, state: tuple[int, Any] | None = None) -> Job:
    """Sends message after message over one connection that was logged in to."""
    if state is None:
        server = smtplib.SMTP("127.0.0.1", port)
        server.login(USER, os.environ["MAIL_PASSWORD"])
        state = 0, server
    done, server = state
    with server:
        note(START, done)
        for i in range(done, n):
            note(BEGIN, i)
            server.sendmail("me@here.example", [f"{i}@there.example"], f"Subject: {run}\r\n\r\nHello {i}\r\n")
            linger()
            yield checkpoint((i + 1, server))
            note(ACK, i)


def database(n: int, run: str, path: str, state: tuple[int, Any] | None = None) -> Job:
    """Inserts row after row, each committed."""
    done, connection = state or (0, sqlite3.connect(path, timeout=30))
    note(START, done)
    for i in range(done, n):
        note(BEGIN, i)
        connection.execute("INSERT INTO seen VALUES (?, ?)", (run, i))
        connection.commit()
        linger()
        yield checkpoint((i + 1, connection))
        note(ACK, i)
    connection.close()


def csv_rows(n: int, run: str, directory: str, state: tuple[int, Any] | None = None) -> Job:
    """Writes row after row of a CSV file, some of several lines."""
    done, writer = state or (0, resumable.csv_writer(Path(directory, run), header=["run", "item"]))
    with writer:
        note(START, done)
        for i in range(done, n):
            note(BEGIN, i)
            writer.writerow([f"{run}\nof several lines", i])
            linger()
            yield checkpoint((i + 1, writer))
            note(ACK, i)


def http(n: int, run: str, port: int, state: tuple[int, Any] | None = None) -> Job:
    """Makes request after request in one session with a secret in its headers."""
    if state is None:
        session = requests.Session()
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {os.environ['API_TOKEN']}"
        state = 0, session
    done, session = state
    with session:
        note(START, done)
        for i in range(done, n):
            note(BEGIN, i)
            session.get(f"http://127.0.0.1:{port}/{run}/{i}", timeout=10).raise_for_status()
            linger()
            yield checkpoint((i + 1, session))
            note(ACK, i)


def lines(n: int, run: str, directory: str, state: tuple[int, Any, Any] | None = None) -> Job:
    """Copies a text file line by line; both files are in the state."""
    if state is None:
        source = Path(directory, f"{run} source")
        source.write_text("".join(f"line {i}\n" for i in range(n)))
        state = 0, source.open(), Path(directory, run).open("w")  # noqa: SIM115 - below
    done, source, target = state
    with source, target:
        note(START, done)
        for i, line in enumerate(source, done):
            note(BEGIN, i)
            target.write(line)
            target.flush()
            linger()
            yield checkpoint((i + 1, source, target))
            note(ACK, i)


JOBS: dict[str, Callable[..., Job]] = {
    "mailer": mailer, "database": database, "csv writer": csv_rows, "http session": http, "file": lines,
}
ITEMS = 150


def run_live(kind: str, home: str, name: str, place: Any) -> None:
    """Run or resume one of these jobs; `place` is where its effects are seen: a port or a path."""
    with Driver(home) as driver:
        driver.run(JOBS[kind], ITEMS, name, place, name=name, once=True)


def _append() -> None:
    def to_the_end(file: Any, description: dict[str, Any]) -> None:
        file.seek(0, os.SEEK_END) if file.writable() else file.seek(description["position"])

    files.os.ftruncate = lambda descriptor, length: None  # type: ignore[attr-defined]
    files._restore = to_the_end


PLANTS["append"] = _append
TASKS["live"] = run_live
