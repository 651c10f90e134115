"""Log handlers in a state: they go on where they were, and no line is lost or cut."""

from __future__ import annotations

import gzip
import http.server
import io
import logging
import logging.handlers
import os
import pickle
import queue
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from holding import CANARY, resume, save

from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec
from resumable.values.fingerprint import digest
from resumable.values.registry import GLOBAL

told = partial(digest, path="args[0]", registry=GLOBAL)


def record(text: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("app", level, "job.py", 1, text, (), None)


def back_of(handler: logging.Handler) -> Any:
    """The handler after a checkpoint and a resume, the old one closed."""
    with closing(handler):
        encoded = save(handler)
    with closing(resume(encoded)) as once:
        again = save(once)
    return resume(again)


def only_warnings(entry: logging.LogRecord) -> bool:
    return entry.levelno >= logging.WARNING


def gz_name(name: str) -> str:
    return name + ".gz"


def gz_rotate(source: str, target: str) -> None:
    with open(source, "rb") as lines, gzip.open(target, "wb") as packed:
        shutil.copyfileobj(lines, packed)
    os.remove(source)


# ---- files

FILES = [
    partial(logging.FileHandler, mode="w"),
    partial(logging.FileHandler, mode="a", delay=True),
    partial(logging.handlers.WatchedFileHandler, mode="w"),
    partial(logging.handlers.RotatingFileHandler, mode="w", maxBytes=10**6, backupCount=2),
    partial(logging.handlers.TimedRotatingFileHandler, when="midnight", backupCount=2),
]


@pytest.mark.parametrize("make", FILES, ids=lambda it: f"{it.func.__name__} {it.keywords.get('mode', '')}")
def test_log_files_go_on(make: Any, tmp_path: Path) -> None:
    """A handler opened "w" too appends to its file: every line once, those after the checkpoint as well, as set up before."""
    path = tmp_path / "app.log"
    handler = make(path, encoding="utf-16-le", errors="replace")
    handler.setFormatter(logging.Formatter("{levelname}|{message}", style="{"))
    handler.setLevel(logging.INFO)
    handler.addFilter(only_warnings)
    handler.terminator = "!\n"
    handler.handle(record("before"))
    encoded = save(handler)
    handler.handle(record("after the checkpoint"))
    handler.close()
    with closing(resume(encoded)) as back:
        assert type(back) is type(handler)
        assert (back.level, back.delay) == (logging.INFO, handler.delay)
        back.handle(record("not shown", logging.INFO))
        back.handle(record("ä"))
    assert path.read_text("utf-16-le") == "WARNING|before!\nWARNING|after the checkpoint!\nWARNING|ä!\n"


def test_a_file_that_was_rotated_away_is_begun(tmp_path: Path) -> None:
    """Where logrotate took the file, a new one is begun, as the handler itself would; without its directory is an error."""
    path = tmp_path / "logs" / "app.log"
    path.parent.mkdir()
    with closing(logging.FileHandler(path)) as handler:
        encoded = save(handler)
    path.rename(tmp_path / "app.log.1")
    with closing(resume(encoded)) as back:
        back.handle(record("new"))
    assert path.read_text() == "new\n"
    shutil.rmtree(path.parent)
    with pytest.raises(ReconnectError, match=r"app\.log"):
        resume(encoded)


def test_rotation_goes_on(tmp_path: Path) -> None:
    """Sizes, counts, names and the way of rotating are kept; nothing rotates when the handler comes back."""
    path = tmp_path / "app.log"
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=20, backupCount=5)
    handler.namer, handler.rotator = gz_name, gz_rotate
    handler.handle(record("0" * 18))
    with closing(back_of(handler)) as back:
        assert [it.name for it in tmp_path.iterdir()] == ["app.log"]
        back.handle(record("1" * 18))
    assert path.read_text() == "1" * 18 + "\n"
    assert gzip.decompress((tmp_path / "app.log.1.gz").read_bytes()) == b"0" * 18 + b"\n"


@pytest.mark.parametrize("when", ["S", "M", "H", "D", "midnight", "W0", "W6"])
def test_times_of_rotation_come_back(when: str, tmp_path: Path) -> None:
    """Interval, weekday, suffix and clock are the same, and so the next rotation is due when the old one's would be."""
    handler = logging.handlers.TimedRotatingFileHandler(tmp_path / "app.log", when, interval=3, backupCount=4, utc=True)
    handler.suffix = "%Y"
    with closing(back_of(handler)) as back:
        for name in ("when", "interval", "backupCount", "utc", "atTime", "suffix", "extMatch"):
            assert getattr(back, name) == getattr(handler, name), name
        assert abs(back.rolloverAt - handler.rolloverAt) < 10


JOB = """
import logging, os, sys
from resumable import Driver, checkpoint

def job(*, state=None):
    handler, done = state or (logging.FileHandler("app.log", "w"), 0)
    for done in range(done, 40):
        handler.handle(logging.LogRecord("app", 30, "", 1, f"item {done}", (), None))
        yield checkpoint((handler, done + 1))
        if done % 7 == 3 and not os.path.exists(f"killed{done}"):
            open(f"killed{done}", "x").close()
            os.kill(os.getpid(), 9)
    handler.close()

with Driver("state") as driver:
    driver.run(job, once=True)
"""


@pytest.mark.crash
def test_a_log_survives_kills(tmp_path: Path) -> None:
    """After kill -9 at any checkpoint the file has every line, once: none is lost, cut or written again."""
    killed = 0
    for _ in range(20):
        ended = subprocess.run([sys.executable, "-c", JOB], cwd=tmp_path, check=False).returncode
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        killed += 1
    assert killed == 6
    assert (tmp_path / "app.log").read_text() == "".join(f"item {n}\n" for n in range(40))


# ---- streams, memory


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_standard_streams_are_those_of_the_new_process(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler to stdout or stderr writes to what stands under that name when it comes back."""
    encoded = save(logging.StreamHandler(getattr(sys, name)))
    monkeypatch.setattr(sys, name, io.StringIO())
    resume(encoded).handle(record("hello"))
    assert getattr(sys, name).getvalue() == "hello\n"


def test_a_stream_stays_shared(tmp_path: Path) -> None:
    """A handler over a file that stands in the state too writes into that very file."""
    codec = Codec()
    with open(tmp_path / "out", "w") as file:
        encoded = codec.encode([file, logging.StreamHandler(file)])
    file, handler = codec.decode(*encoded)
    with file:
        assert handler.stream is file


def test_a_memory_handler_must_be_empty(tmp_path: Path) -> None:
    """Records that were not handed over are no part of a state; empty, it comes back with its target."""
    target = logging.FileHandler(tmp_path / "app.log")
    handler = logging.handlers.MemoryHandler(7, logging.CRITICAL, target, flushOnClose=False)
    with closing(target):
        handler.handle(record("kept back"))
        with pytest.raises(LiveResourceError, match=r"holds 1 records \(flush"):
            save(handler)
        assert (tmp_path / "app.log").read_text() == ""
        handler.flush()
        back = resume(save(handler))
    assert (back.capacity, back.flushLevel, back.flushOnClose) == (7, logging.CRITICAL, False)
    with closing(back.target):
        back.handle(record("more", logging.CRITICAL))
    assert (tmp_path / "app.log").read_text() == "kept back\nmore\n"


def test_a_null_handler_comes_back() -> None:
    """A handler that does nothing keeps its name, and is found under it."""
    handler = logging.NullHandler(logging.ERROR)
    handler.set_name("the null")
    back = back_of(handler)
    assert (type(back), back.level, back.name) == (logging.NullHandler, logging.ERROR, "the null")
    back.close()


# ---- servers


class Collector(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Keeps what it is sent over TCP."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        collected = self.got

        class Take(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                collected.append(self.rfile.read())

        super().__init__(("127.0.0.1", 0), Take)


def serving(server: socketserver.BaseServer) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    yield from serving(Collector())


def test_a_socket_handler_sends_on(collector: Collector) -> None:
    """Records reach the server before and after a resume, with the settings that were made."""
    handler = logging.handlers.SocketHandler("127.0.0.1", collector.server_address[1])
    handler.closeOnError, handler.retryMax = True, 7.0
    handler.handle(record("one"))
    with closing(back_of(handler)) as back:
        assert (back.closeOnError, back.retryMax) == (True, 7.0)
        back.handle(record("two"))
    until = time.monotonic() + 10
    while len(collector.got) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    records = [pickle.loads(data[4:]) for data in collector.got]
    assert sorted(entry["msg"] for entry in records) == ["one", "two"]


@pytest.mark.parametrize("make", [
    lambda address: logging.handlers.SysLogHandler(address, logging.handlers.SysLogHandler.LOG_MAIL),
    lambda address: logging.handlers.DatagramHandler(*address),
], ids=["syslog", "datagram"])  # fmt: skip
def test_handlers_over_datagrams_send_on(make: Any) -> None:
    """Records arrive as before: to the same address, of a SysLogHandler with its facility and its mark."""
    with socketserver.UDPServer(("127.0.0.1", 0), socketserver.BaseRequestHandler) as server:
        server.socket.settimeout(5)
        handler = make(server.server_address)
        handler.ident = "app: "
        with closing(back_of(handler)) as back:
            back.handle(record("hello"))
        got = server.socket.recv(10_000)
        assert b"hello" in got
        if isinstance(handler, logging.handlers.SysLogHandler):
            assert got == b"<20>app: hello\x00"


class Web(http.server.BaseHTTPRequestHandler):
    got: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.got.append((self.path.partition("?")[0], self.headers["Authorization"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Any]:
    handler = type("Handler", (Web,), {"got": []})
    yield from serving(http.server.HTTPServer(("127.0.0.1", 0), handler))


def test_an_http_handler_logs_in_again(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its password is read from the environment again, and never stored; one from elsewhere is refused."""
    host = f"127.0.0.1:{web.server_address[1]}"
    # The library insists on TLS for logins, which is not the point here.
    handler = logging.handlers.HTTPHandler(host, "/log", secure=True, credentials=("me", CANARY))
    handler.secure = False
    with pytest.raises(SecretError, match=r"login\.password"):
        save(handler)
    monkeypatch.setenv("LOG_PASSWORD", CANARY)
    encoded = save(handler)
    assert CANARY.encode() not in encoded.data
    assert b"LOG_PASSWORD" in encoded.data
    handler.handle(record("one"))
    back = resume(encoded)
    back.handle(record("two"))
    assert len(web.RequestHandlerClass.got) == 2
    assert len({*web.RequestHandlerClass.got}) == 1
    for each in (handler, back):
        each.close()


def test_the_tls_rules_of_an_http_handler_come_back() -> None:
    """Its context is one with the same rules."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    back = back_of(logging.handlers.HTTPHandler("h", "/", secure=True, context=context))
    assert back.context.minimum_version == ssl.TLSVersion.TLSv1_3
    back.close()


def test_a_mail_handler_logs_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends a mail after a resume, logged in with the password of the environment, which is never stored."""
    mails: list[bytes] = []
    logins: list[tuple[bytes, bytes]] = []

    class Inbox:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - its name
            mails.append(envelope.content)
            return "250 OK"

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        logins.append((data.login, data.password))
        return AuthResult(success=True)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Inbox(), "127.0.0.1", port, authenticator=authenticate, auth_require_tls=False)
    monkeypatch.setenv("MAIL_PASSWORD", CANARY)
    controller.start()
    try:
        handler = logging.handlers.SMTPHandler(
            ("127.0.0.1", port), "app@x", ["me@x", "you@x"], "it failed", credentials=("me", CANARY)
        )
        encoded = save(handler)
        assert CANARY.encode() not in encoded.data
        with closing(back_of(handler)) as back:
            back.handle(record("hello"))
    finally:
        controller.stop()
    assert b"Subject: it failed" in mails[0]
    assert b"hello" in mails[0]
    assert logins == [(b"me", CANARY.encode())]


# ---- refused


class Mine(logging.FileHandler):
    pass


def test_what_cannot_come_back_is_refused(tmp_path: Path) -> None:
    """Classes of one's own, queues and closed handlers are refused with what to do, subclasses of everything included."""
    mine = Mine(tmp_path / "a.log")
    queued = logging.handlers.QueueHandler(queue.SimpleQueue())
    closed = logging.FileHandler(tmp_path / "b.log")
    closed.close()
    for handler, match in (
        (mine, "class of its own.*register_reconnector"),
        (logging.Handler(), "class of its own"),
        (queued, "thread that will be gone.*when the job starts"),
        (closed, "it is closed"),
    ):
        with closing(handler), pytest.raises(LiveResourceError, match=match):
            save(handler)


# ---- loggers


def test_loggers_come_back_by_name() -> None:
    """A logger is the one of that name, the root too; an adapter keeps its extra; formatters and filters are equal."""
    adapter = logging.LoggerAdapter(logging.getLogger("app.part"), {"run": 1})
    codec = Codec()
    root, logger, back = codec.decode(*codec.encode([logging.getLogger(), logging.getLogger("app.part"), adapter]))
    assert root is logging.getLogger()
    assert logger is logging.getLogger("app.part")
    assert back.logger is logger
    assert back.extra == {"run": 1}
    formatter, name = codec.decode(*codec.encode([logging.Formatter("%(x)s", "%Y", defaults={"x": 1}), logging.Filter("app")]))
    assert formatter.format(record("m")) == "1"
    assert not name.filter(logging.LogRecord("other", 30, "", 1, "m", (), None))


def test_as_arguments_handlers_count_by_where_they_write(tmp_path: Path) -> None:
    """Another level is no other argument, another file is."""
    paths = tmp_path / "a.log", tmp_path / "a.log", tmp_path / "b.log"
    one, same, other = (logging.FileHandler(path, delay=True) for path in paths)
    same.setLevel(logging.ERROR)
    assert told(one) == told(same) != told(other)
    for handler in (one, same, other):
        handler.close()
