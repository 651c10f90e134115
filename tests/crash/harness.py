"""Processes that get killed, made quickly: a server that has imported everything forks each of them.

A life is one such process. It tells two pipes what happens: events (8 bytes each, see jobs.py) and a report at its end.
What is judged is judged from there, outside the process, never from the store under test.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import seams
from compiled import compile_c
from places import HERE, PYTHONPATH

_VALUE = (1 << 56) - 1
_T = TypeVar("_T")


# ---- in the server


def serve(sock: socket.socket, *more_tasks: str) -> None:
    """Fork a child for each request, one after another. `more_tasks`: modules that bring some."""
    import forks  # noqa: F401 - its tasks
    import interrupts  # noqa: F401 - its tasks
    import jobs

    for name in more_tasks:
        import_module(name)
    faulthandler.enable()
    while True:
        message, fds, _, _ = socket.recv_fds(sock, 1 << 16, 8)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            sock.close()
            _be(json.loads(message), fds, jobs)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(sock, [str(pid).encode()], [pidfd])
        os.close(pidfd)
        sock.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


def _be(request: dict[str, Any], fds: Sequence[int], jobs: Any) -> None:
    """The child: do the task, report, leave."""
    report: dict[str, Any] = {}
    jobs.oracle, jobs.pipes = fds[0], fds
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if request["plant"]:
                jobs.PLANTS[request["plant"]]()
            if request["faults"]:
                os.environ.update(request["faults"])
                ctypes.CDLL(os.environ["LD_PRELOAD"]).fault_restart()
            if request["seam"]:
                seams.kill_at(*request["seam"])
            jobs.note(jobs.ENTERED)
            report["value"] = jobs.TASKS[request["task"]](**request["args"])
    except BaseException as error:  # noqa: BLE001 - whatever it is, the test is told
        report["error"] = type(error).__name__
        report["bases"] = [kind.__name__ for kind in type(error).__mro__]
        report["fields"] = {key: value for key, value in vars(error).items() if isinstance(value, (str, int, float))}
        report["trace"] = traceback.format_exc()
    report["warnings"] = [warning.category.__name__ for warning in caught]
    os.close(fds[0])     # the test reads the events to their end first
    with open(fds[1], "wb") as reports:
        reports.write(json.dumps(report).encode())
    os._exit(0)


# ---- in the test


@dataclass
class Life:
    """How one process fared. `code` is negative for a signal; `entered` says how long it took to its first event."""

    events: array[int] = field(default_factory=lambda: array("Q"))
    report: dict[str, Any] = field(default_factory=dict)
    code: int = 0
    pid: int = 0
    first_start: float | None = None
    timed_out: bool = False

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL and not self.timed_out

    def list(self) -> list[tuple[int, int]]:
        return [(event >> 56, event & _VALUE) for event in self.events]

    def last(self, what: int) -> int | None:
        return next((event & _VALUE for event in reversed(self.events) if event >> 56 == what), None)

    def first(self, what: int) -> int | None:
        return next((event & _VALUE for event in self.events if event >> 56 == what), None)

    def value(self) -> Any:
        """What the task gave back; its error is an AssertionError here."""
        assert "value" in self.report, f"code {self.code}, hung: {self.timed_out}\n{self.report.get('trace', '')}"
        return self.report["value"]


class Server:
    """A fork server; with `shim`, its children can have system calls fail. `more_tasks`: modules that bring some."""

    def __init__(self, *more_tasks: str, shim: bool = False) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {**os.environ, "PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1"}
        if shim:
            env |= {"LD_PRELOAD": str(_control()), "FAULT_OP": "none"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *more_tasks], pass_fds=[theirs.fileno()], env=env
            )
        self._sock = ours

    def live(
        self, task: str, *, kill_after: float | None = None, kill_at: Callable[[Life], bool] | None = None,
        seam: tuple[str, int] | None = None, faults: dict[str, str] | None = None, plant: str | None = None, timeout: float = 8,
        **args: Any,
    ) -> Life:
        """Have a child do the task; SIGKILL it `kill_after` seconds after it was begun, at a seam, or when `kill_at` says so."""
        life = Life()
        events, events_in = os.pipe()
        reports, reports_in = os.pipe()
        request = {"task": task, "args": args, "faults": faults, "plant": plant, "seam": seam}
        began = time.monotonic()
        socket.send_fds(self._sock, [json.dumps(request).encode()], [events_in, reports_in])
        os.close(events_in)
        os.close(reports_in)
        pid, (pidfd,), _, _ = socket.recv_fds(self._sock, 64, 1)
        life.pid = int(pid)
        try:
            self._watch(life, events, reports, pidfd, began, kill_after, kill_at, timeout)
        finally:
            for fd in (events, reports, pidfd):
                os.close(fd)
        life.code = int(self._sock.recv(64))
        return life

    def _watch(
        self, life: Life, events: int, reports: int, pidfd: int, began: float, kill_after: float | None,
        kill_at: Callable[[Life], bool] | None, timeout: float,
    ) -> None:
        limit = began + (timeout if kill_after is None else kill_after)
        rest = report = b""
        while True:
            ready, _, _ = select.select([events], [], [], max(0.0, limit - time.monotonic()))
            data = os.read(events, 1 << 20) if ready else b""
            if ready and not data:
                break
            rest += data
            whole = len(rest) & ~7
            life.events.frombytes(rest[:whole])
            rest = rest[whole:]
            if life.first_start is None and len(life.events) > 1:
                life.first_start = time.monotonic() - began
            wanted = kill_at is not None and kill_at(life)
            if wanted or time.monotonic() >= limit:
                # One that hangs says where: faulthandler prints its threads.
                life.timed_out = kill_after is None and not wanted
                with suppress(ProcessLookupError):      # it has just ended by itself
                    signal.pidfd_send_signal(pidfd, signal.SIGABRT if life.timed_out else signal.SIGKILL)
                while data := os.read(events, 1 << 20):
                    rest += data
                life.events.frombytes(rest[: len(rest) & ~7])
                break
        while data := os.read(reports, 1 << 16):
            report += data
        life.report = json.loads(report) if report else {}

    def close(self) -> None:
        self._sock.close()
        self._process.wait(30)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _control() -> Path:
    shim = (HERE / "calls" / "fault_shim.c").read_bytes()
    return compile_c(HERE / "calls" / "fault_control.c", "-shared", "-fPIC", "-ldl", f"-DSHIM_{sha256(shim).hexdigest()[:16]}")


def fault_settings(
    directory: Path, op: str = "any", nth: int = 0, errno: int = 0, *, persistent: bool = False, kill: bool = False,
    hold: bool = False, counts: Path | None = None,
) -> dict[str, str]:
    """What a life's `faults` are: see fault_shim.c."""
    found = {
        "FAULT_OP": op, "FAULT_NTH": str(nth), "FAULT_ERRNO": str(errno), "FAULT_FROM": str(int(persistent)),
        "FAULT_KILL": str(2 if hold else int(kill)), "FAULT_UNDER": str(directory.resolve()),
    }
    return found | ({"FAULT_COUNTS": str(counts)} if counts else {})


def spread(
    cases: Iterable[_T], work: Callable[[Server, _T], None], *more_tasks: str, shim: bool = False, servers: int = 2
) -> None:
    """Do all the cases, on as many fork servers."""
    idle: SimpleQueue[Server] = SimpleQueue()

    def one(case: _T) -> None:
        server = idle.get()
        try:
            work(server, case)
        finally:
            idle.put(server)

    with ExitStack() as stack:
        for _ in range(servers):
            idle.put(stack.enter_context(Server(*more_tasks, shim=shim)))
        with ThreadPoolExecutor(servers) as pool:
            futures = [pool.submit(one, case) for case in cases]
            failed = [error for future in futures if (error := future.exception()) is not None]
    if failed:
        shown = "\n\n".join(str(error) for error in failed[:5])
        raise AssertionError(f"{len(failed)} of {len(futures)} cases failed, first of all:\n{shown}") from failed[0]


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory in memory where there is one: what a kill leaves is the same, and a sync costs nothing."""
    shm = Path("/dev/shm")
    place = tempfile.mkdtemp(prefix="resumable-", dir=shm if os.access(shm, os.W_OK) else None)
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


# ---- the ledger


class Lost(AssertionError):
    """An acknowledged checkpoint is gone."""


class Repeated(AssertionError):
    """More than the item in flight was done again."""


@dataclass
class Ledger:
    """What one run was seen to promise, over all its lives: counts of items acknowledged and begun."""

    acked: int = 0
    begun: int = 0
    repeated: int = 0
    events: int = 0

    def add(self, life: Life, jobs: Any) -> None:
        """Take a life's events into account. Raises Lost, Repeated."""
        started = False
        for what, value in life.list():
            if what == jobs.START:
                started = True
                if value < self.acked:
                    raise Lost(f"resumed at {value}, acknowledged were {self.acked}")
                if value > self.begun or self.begun - value > 1:
                    raise Repeated(f"resumed at {value}, begun were {self.begun}, acknowledged {self.acked}")
                self.repeated += self.begun - value
            elif what == jobs.BEGIN:
                assert started
                self.begun = value + 1
            elif what == jobs.ACK:
                self.acked = value + 1
                self.events += 1


if __name__ == "__main__":
    threading.stack_size(1 << 20)
    serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
