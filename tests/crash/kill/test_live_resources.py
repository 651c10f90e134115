"""Live resources through real kills: the five examples that people start from, each killed 50 times.

What is judged is what others saw: a mail server, a database, an HTTP server, and files.
"""

from __future__ import annotations

import csv
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jobs
import live_jobs
import pytest
from figures import Figures, share
from harness import Ledger, Server, scratch, spread

pytestmark = pytest.mark.crash

KILLS = 500 if share() else 50
SECRET = "c4nary-of-the-outside"


@dataclass
class Outside:
    """Where a job's effects go and are counted: (run, item) -> how often."""

    place: Any
    seen: Callable[[str], list[int]]
    exact: bool = False  # not even the item in flight may be there twice


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", SECRET)
    monkeypatch.setenv("API_TOKEN", SECRET)


@dataclass
class Seen:
    items: dict[str, list[int]] = field(default_factory=dict)

    def add(self, run: str, item: int) -> None:
        self.items.setdefault(run, []).append(item)

    def of(self, run: str) -> list[int]:
        return self.items.get(run, [])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def mail_server(directory: Path) -> Iterator[Outside]:
    log, port = directory / "messages", free_port()
    command = [sys.executable, str(Path(__file__).with_name("mail_server.py")), str(port), live_jobs.USER, SECRET]
    with log.open("wb") as out, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out) as server:
        while b"ready" not in log.read_bytes():
            assert server.poll() is None
            time.sleep(0.01)

        def seen(run: str) -> list[int]:
            messages = [line.split("\t") for line in log.read_text().splitlines()[1:]]
            return [int(item) for name, item in messages if name == run]

        yield Outside(port, seen)
        server.communicate()


@contextmanager
def http_server(directory: Path) -> Iterator[Outside]:
    seen = Seen()

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == f"Bearer {SECRET}"
            if allowed:
                _, run, item = self.path.split("/")
                seen.add(run.replace("%20", " "), int(item))
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that was killed

    with Quiet(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Outside(server.server_address[1], seen.of)
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def database(directory: Path) -> Iterator[Outside]:
    path = str(directory / "seen.db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE seen (run TEXT, item INTEGER)")
    try:
        yield Outside(path, lambda run: [item for (item,) in connection.execute("SELECT item FROM seen WHERE run = ?", (run,))])
    finally:
        connection.close()


@contextmanager
def csv_files(directory: Path) -> Iterator[Outside]:
    def rows(run: str) -> list[int]:
        with (directory / run).open(newline="") as file:
            header, *rest = csv.reader(file)
        assert header == ["run", "item"]
        assert {row[0] for row in rest} == {f"{run}\nof several lines"}
        return [int(row[1]) for row in rest]

    yield Outside(str(directory), rows, exact=True)


@contextmanager
def text_files(directory: Path) -> Iterator[Outside]:
    def lines(run: str) -> list[int]:
        return [int(line.removeprefix("line ")) for line in (directory / run).read_text().splitlines()]

    yield Outside(str(directory), lines, exact=True)


OUTSIDE = {
    "mailer": mail_server, "database": database, "csv writer": csv_files, "http session": http_server, "file": text_files,
}


class Carried:
    """Kills runs of one job until it has its number, lets each come to its end, and looks at what the outside saw."""

    def __init__(self, server: Server, kind: str, outside: Outside, home: Path, seed: int, plant: str | None = None) -> None:
        self._server, self._kind, self._outside, self._home, self._plant = server, kind, outside, home, plant
        self._random = random.Random(f"{seed} {kind}")
        self._opening = 0.03
        self.kills = self.runs = self.repeated = 0

    def go(self, kills: int) -> None:
        while self.kills < kills:
            self.runs += 1
            self._one_run(f"run {self.runs}", kills)

    def _one_run(self, name: str, kills: int) -> None:
        ledger = Ledger()
        while True:
            delay = self._random.uniform(0, self._opening + 0.06) if self.kills < kills else None
            life = self._server.live(
                "live", kind=self._kind, home=str(self._home), name=name, place=self._outside.place, kill_after=delay,
                timeout=60, plant=self._plant,
            )
            ledger.add(life, jobs)
            if life.first_start is not None:
                self._opening += (life.first_start - self._opening) / 8
            if not life.killed:
                life.value()
                break
            self.kills += 1
        self.repeated += ledger.repeated
        self._judge(name, 0 if self._outside.exact else ledger.repeated)

    def _judge(self, name: str, allowed: int) -> None:
        seen = self._outside.seen(name)
        assert sorted(set(seen)) == list(range(live_jobs.ITEMS))
        again = {item: count - 1 for item, count in Counter(seen).items() if count > 1}
        assert sum(again.values()) <= allowed, f"{self._kind}, {name}: seen again {again}, in flight were {allowed}"


def canary_in(directory: Path) -> list[Path]:
    """Files that hold the secret. Files of a run come and go, so this is asked at the end."""
    return [path for path in directory.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_five_examples_survive_kills(seed: int, figures: Figures) -> None:
    """Messages, rows, lines and requests are those of an undisturbed run, but for the one in flight; files are exact."""
    done: list[Carried] = []

    def work(server: Server, kind: str) -> None:
        with scratch() as place, OUTSIDE[kind](place) as outside:
            carried = Carried(server, kind, outside, place / "home", seed)
            carried.go(KILLS)
            assert not canary_in(place / "home")
            done.append(carried)

    spread(OUTSIDE, work, "live_jobs")
    figures(
        "K2", "jobs with live resources", kills=sum(one.kills for one in done), runs=sum(one.runs for one in done),
        repeated=sum(one.repeated for one in done),
    )
    assert len(done) == len(live_jobs.JOBS)


def test_control_a_file_that_is_appended_to(seed: int) -> None:
    """A file that keeps what came after the checkpoint, and goes on behind it, is found out."""
    with scratch() as place, text_files(place) as outside, Server("live_jobs") as server:
        carried = Carried(server, "file", outside, place / "home", seed, plant="append")
        with pytest.raises((AssertionError, ValueError)):
            carried.go(200)
