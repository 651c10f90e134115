"""The built-in handlers: files, sqlite3, sockets, requests; each against the real thing, deep in a state."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.codec import Codec, Encoded

CANARY = "hunter2-c4nary"
codec = Codec()


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held


def save(resource: Any) -> Encoded:
    """A checkpoint with the resource deep inside, twice."""
    return codec.encode({"a": [Holder((resource,))], "b": resource})


def resume(encoded: Encoded) -> Any:
    tier, data, buffers = encoded
    state = codec.decode(tier, data, [bytearray(buffer) for buffer in buffers])
    assert state["a"][0].held[0] is state["b"]
    return state["b"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


# ---- files that are written


@pytest.mark.parametrize("mode", ["w", "x", "a", "r+", "w+", "x+", "a+"])
@pytest.mark.parametrize("kind", ["text", "binary", "unbuffered"])
def test_a_written_file_is_cut_to_its_checkpoint(path: Path, mode: str, kind: str) -> None:
    """What was written before the checkpoint is there once; what came after it is gone; nothing is emptied."""
    start = b"" if mode[0] in "wx" else b"before\n"
    if mode[0] != "x":
        path.write_bytes(b"before\n")
    make: Any = (lambda text: text) if kind == "text" else str.encode
    with open(path, mode if kind == "text" else f"{mode}b", buffering=0 if kind == "unbuffered" else -1) as file:
        file.seek(0, os.SEEK_END)
        file.write(make("kept\n"))
        encoded, can = save(file), (file.readable(), file.writable())
        file.write(make("lost and much longer\n"))
    with resume(encoded) as back:
        assert type(back) is type(file)
        assert path.read_bytes() == start + b"kept\n"
        assert back.tell() == len(start) + 5
        assert (back.readable(), back.writable()) == can
        if kind == "text":
            assert back.mode == mode
        back.write(make("again\n"))
    assert path.read_bytes() == start + b"kept\nagain\n"


def test_a_killed_writer_goes_on(path: Path) -> None:
    """After kill -9 between two checkpoints the file is as if nothing had happened after the last one."""
    code = (
        "import sys, os, signal\n"
        "from resumable.values.codec import Codec\n"
        "path, c = sys.argv[1], Codec()\n"
        "f = open(path, 'w')\n"
        "for n in range(5):\n"
        "    print(n, file=f)\n"
        "    if n < 3:\n"
        "        open(path + '.state', 'wb').write(c.encode(f).data)\n"
        "f.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=False)
    assert path.read_text() == "0\n1\n2\n3\n4\n"
    with codec.decode(1, Path(f"{path}.state").read_bytes()) as file:
        print("three", file=file)
    assert path.read_text() == "0\n1\n2\nthree\n"


@pytest.mark.parametrize("newline", [None, "", "\n", "\r", "\r\n"])
@pytest.mark.parametrize("mode", ["w", "r", "r+", "a"])
def test_newline_is_kept(path: Path, newline: str | None, mode: str) -> None:
    """A text file translates newlines after resuming as it did before, which no attribute of it tells."""
    path.write_bytes(b"a\nb\r\nc\rd\n" * 3)
    with open(path, mode, newline=newline) as file, open(path, mode, newline=newline) as expected:
        if mode in ("r", "r+"):
            assert file.readline() == expected.readline()
        with resume(save(file)) as back:
            if mode in ("r", "r+"):
                assert back.read() == expected.read()
            else:
                back.write("x\n")
                back.flush()
                assert path.read_bytes().endswith(b"x" + (newline or "\n").encode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252", "shift_jis"])
def test_encodings_are_kept(path: Path, encoding: str) -> None:
    """Encoding and error handling come back, and a byte order mark is not written twice."""
    text = "ASCII" if encoding == "shift_jis" else "äöü"
    with open(path, "w", encoding=encoding, errors="replace") as file:
        file.write(text)
        encoded = save(file)
    with resume(encoded) as back:
        assert (back.encoding, back.errors) == (encoding, "replace")
        back.write(f"{text}\n")
    assert path.read_text(encoding=encoding) == f"{text}{text}\n"


def test_line_buffering_and_write_through_are_kept(path: Path) -> None:
    """A log that is flushed by the line is so after resuming."""
    with open(path, "w", buffering=1) as file, resume(save(file)) as back:
        assert back.line_buffering
        back.write("line\n")
        assert path.read_text() == "line\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_standard_streams_are_those_of_the_process(name: str) -> None:
    """sys.stdout in a state is the new process's."""
    code = (
        "import sys; from resumable.values.codec import Codec; c = Codec()\n"
        f"e = c.encode([sys.{name}]); sys.{name} = other = open('/dev/null'); assert c.decode(*e) == [other]\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


# ---- files that are read


@pytest.mark.parametrize("how", ["iterate", "readline", "read", "binary", "unbuffered"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("length", [3, 200, 20_000])
def test_a_read_file_goes_on_exactly(path: Path, how: str, newline: bytes, length: int) -> None:
    """At any line of any length, what is read after resuming is what was left, and saving changes nothing."""
    path.write_bytes(b"".join(b"%d %s\xc3\xa4%s" % (n, b"x" * (n * 37 % length), newline) for n in range(120)))
    binary = how in ("binary", "unbuffered")
    with open(path, "rb" if binary else "r", 0 if how == "unbuffered" else -1) as file:
        lines = file.readlines()
        file.seek(0)
        for n in range(len(lines)):
            if how in ("iterate", "binary", "unbuffered"):
                assert next(file) == lines[n]
            elif how == "readline":
                assert file.readline() == lines[n]
            else:
                assert file.read(len(lines[n])) == lines[n]
            if n % 7 == 0:
                with resume(save(file)) as back:
                    assert back.readlines() == lines[n + 1 :]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-16-le", "shift_jis"])
@pytest.mark.parametrize("newline", [None, "", "\n"])
@pytest.mark.parametrize("ends", [["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"], ["\r", "\r\n", "\n"]])
def test_iterating_is_exact_or_refused(path: Path, encoding: str, newline: str | None, ends: list[str]) -> None:
    """Inside `for line in file` the place is exact with any encoding and newlines, or the error says what to write."""
    sign = "é" if encoding != "shift_jis" else "語"
    text = "".join(f"{n}{sign}{'-' * (n * 31 % 90)}{ends[n % len(ends)]}" for n in range(900))
    path.write_bytes(text.encode(encoding))
    with open(path, encoding=encoding, newline=newline) as file:
        lines = file.readlines()
        file.seek(0)
        for n, line in enumerate(file):
            assert line == lines[n]
            if n % 97 == 5:
                try:
                    encoded = save(file)
                except LiveResourceError as error:
                    assert "readline()" in error.reason  # noqa: PT017 - either outcome is right
                    assert encoding == "utf-16" or len(ends) > 1
                    return
                with resume(encoded) as back:
                    assert back.readlines() == lines[n + 1 :]


def test_equal_lines_do_not_mislead(path: Path) -> None:
    """In a file of equal lines the place inside the loop is exact too, also after a large read."""
    path.write_text("x\n" * 60_000)
    with open(path) as file:
        file.read(30_001)
        for n, _ in enumerate(file):
            if n % 5000 == 0:
                with resume(save(file)) as back:
                    assert len(back.read()) == 120_000 - 30_002 - 2 * n


def test_an_iterated_file_can_go_on_itself(path: Path) -> None:
    """Saving inside `for line in file` neither skips nor repeats a line for the job that goes on."""
    path.write_text("".join(f"line {n}\n" for n in range(3000)))
    with open(path) as file:
        seen = []
        for line in file:
            seen.append(line)
            save(file)
    assert seen == [f"line {n}\n" for n in range(3000)]


# ---- files that are not what they were


def test_a_shrunken_file_is_an_error(path: Path) -> None:
    """A file shorter than at the checkpoint is a ReconnectError that says so, and is left as it is."""
    with open(path, "w") as file:
        file.write("0123456789")
        encoded = save(file)
    os.truncate(path, 4)
    with pytest.raises(ReconnectError, match=r"shrank: it has 4 bytes and had 10"):
        resume(encoded)
    assert path.read_text() == "0123"


def test_a_vanished_file_is_an_error(path: Path) -> None:
    """A file that is gone is a ReconnectError with its path, and is not made anew, empty."""
    with open(path, "w") as file:
        encoded = save(file)
    path.unlink()
    with pytest.raises(ReconnectError, match="No such file") as caught:
        resume(encoded)
    assert caught.value.metadata["path"] == str(path)
    assert not path.exists()


@pytest.mark.parametrize("mode", ["w", "r"])
def test_a_replaced_file_is_an_error(path: Path, mode: str) -> None:
    """Another file under the same path, also one with the same inode, is a ReconnectError and is left as it is."""
    path.write_text("a" * 100)
    with open(path, "r" if mode == "r" else "a") as file:
        encoded = save(file)
    path.write_text("b" * 200)  # the same inode
    with pytest.raises(ReconnectError, match="other bytes"):
        resume(encoded)
    other = path.with_suffix(".new")
    other.write_text("a" * 100)
    other.replace(path)
    with pytest.raises(ReconnectError, match="replaced by another file"):
        resume(encoded)
    assert path.read_text() == "a" * 100


def test_a_growing_input_is_no_error(path: Path) -> None:
    """A log that grew since the checkpoint is read on."""
    path.write_text("1\n2\n")
    with open(path) as file:
        file.readline()
        encoded = save(file)
    path.write_text("1\n2\n3\n")
    with resume(encoded) as back:
        assert back.read() == "2\n3\n"


def test_a_relative_path_is_kept_absolute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file opened by a relative path is found from another working directory."""
    monkeypatch.chdir(path.parent)
    with open("file", "w") as file:
        file.write("x")
        encoded = save(file)
    monkeypatch.chdir("/")
    with resume(encoded) as back:
        assert back.tell() == 1


def test_files_without_a_place_are_refused(path: Path) -> None:
    """Pipes, closed and deleted files, and layers over something else are refused with what to keep."""
    read_end, write_end = os.pipe()
    with open(read_end) as pipe, open(write_end, "w"), pytest.raises(LiveResourceError, match="no position"):
        save(pipe)
    with open(path, "w") as file, open(os.dup(file.fileno()), "w") as bare:
        with pytest.raises(LiveResourceError, match="descriptor"):
            save(bare)
        path.unlink()
        with pytest.raises(LiveResourceError, match="deleted"):
            save(file)
    with pytest.raises(LiveResourceError, match="closed"):
        save(file)
    with pytest.raises(LiveResourceError, match="BytesIO"):
        save(io.TextIOWrapper(io.BytesIO()))


@pytest.mark.parametrize("value", [io.StringIO("a\nb"), io.BytesIO(b"ab")])
def test_files_in_memory_are_values(value: Any) -> None:
    """StringIO and BytesIO are saved whole, with their position."""
    value.read(1)
    assert resume(save(value)).read() == value.read()


def test_files_are_not_kept_open_by_the_handler(path: Path) -> None:
    """What the handler remembers of a file goes with the file."""
    from resumable.values.handlers import files

    with open(path, "w") as file:
        file.write("x" * 100)
        save(file)
        assert any(raw.name == str(path) for raw in files._paths)
    del file
    gc.collect()
    assert not any(raw.name == str(path) for raw in [*files._paths, *files._heads])


# ---- sqlite3


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        yield connection


class MyConnection(sqlite3.Connection):
    pass


def as_dict(cursor: sqlite3.Cursor, row: Any) -> dict[str, Any]:
    return dict(zip([column[0] for column in cursor.description], row, strict=True))


def test_a_database_is_opened_again(database: sqlite3.Connection) -> None:
    """A connection comes back to the same database, with what was committed."""
    with database:
        database.execute("INSERT INTO t VALUES (1)")
    encoded = save(database)
    with database:
        database.execute("INSERT INTO t VALUES (2)")
    with contextlib.closing(resume(encoded)) as back:
        assert back.execute("SELECT n FROM t").fetchall() == [(1,), (2,)]


def test_an_open_transaction_is_refused(database: sqlite3.Connection) -> None:
    """Uncommitted work would be lost: the error says commit first, and the transaction is untouched."""
    database.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(LiveResourceError, match="commit") as caught:
        save(database)
    assert caught.value.path == 'state["a"][0].held[0]'
    database.commit()
    assert database.execute("SELECT n FROM t").fetchall() == [(1,)]
    save(database)


@pytest.mark.parametrize("rows", [0, 3, 20_000])
def test_a_database_in_memory_comes_back_whole(rows: int) -> None:
    """A :memory: database is restored with all its rows, never as an empty one."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
        with connection:
            connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(rows)])
        encoded = save(connection)
    assert bool(encoded.buffers) == (rows == 20_000)
    with contextlib.closing(resume(encoded)) as back:
        assert back.execute("SELECT count(*) FROM t").fetchall() == [(rows,)]
        with back:
            back.execute("INSERT INTO t VALUES (7)")


def test_settings_of_a_connection_are_kept(tmp_path: Path) -> None:
    """Class, isolation level, factories, pragmas and attached databases come back."""
    other = tmp_path / "other.db"
    settings: dict[str, Any] = {"isolation_level": "IMMEDIATE", "timeout": 3.5, "factory": MyConnection}
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db", **settings)) as connection:
        connection.execute("ATTACH DATABASE ? AS other", (str(other),))
        connection.execute("CREATE TABLE other.t (n)")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.row_factory, connection.text_factory = as_dict, bytes
        encoded = save(connection)
    with contextlib.closing(resume(encoded)) as back:
        assert type(back) is MyConnection
        assert (back.isolation_level, back.row_factory, back.text_factory) == ("IMMEDIATE", as_dict, bytes)
        assert back.execute("PRAGMA busy_timeout").fetchone() == {"timeout": 3500}
        assert back.execute("PRAGMA foreign_keys").fetchone() == {"foreign_keys": 1}
        assert back.execute("SELECT count(*) AS n FROM other.t").fetchone() == {"n": 0}


@pytest.mark.parametrize("flags", range(4))
@pytest.mark.parametrize("bound", [True, False])
def test_hidden_settings_are_found_out(database: sqlite3.Connection, tmp_path: Path, flags: int, bound: bool) -> None:
    """detect_types and check_same_thread, which no attribute tells, come back."""
    sqlite3.register_converter("stamp", lambda value: ("converted", value))
    database.execute("CREATE TABLE d (at stamp)")
    database.execute("INSERT INTO d VALUES ('2026-01-02')")
    database.commit()
    query = 'SELECT at, at AS "b [stamp]" FROM d'
    with contextlib.closing(
        sqlite3.connect(tmp_path / "a.db", detect_types=flags, check_same_thread=bound)
    ) as connection:
        encoded, expected = save(connection), str(connection.execute(query).fetchall())
        assert not connection.in_transaction
    with contextlib.closing(resume(encoded)) as back:
        assert str(back.execute(query).fetchall()) == expected
        errors: list[BaseException] = []

        def use() -> None:
            try:
                back.execute("SELECT 1")
            except sqlite3.ProgrammingError as error:
                errors.append(error)

        thread = threading.Thread(target=use)
        thread.start()
        thread.join()
        assert bool(errors) == bound


def test_saving_in_the_middle_of_a_query(database: sqlite3.Connection) -> None:
    """A connection with a cursor under way can be saved, and the cursor goes on."""
    with database:
        database.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(10)])
    cursor = database.execute("SELECT n FROM t")
    assert cursor.fetchone() == (0,)
    save(database)
    assert len(cursor.fetchall()) == 9


def test_databases_that_cannot_come_back_are_refused(database: sqlite3.Connection) -> None:
    """Temporary tables, attached databases in memory and closed connections are refused."""
    database.execute("CREATE TEMP TABLE gone (n)")
    with pytest.raises(LiveResourceError, match="temporary tables"):
        save(database)
    database.execute("DROP TABLE gone")
    save(database)
    database.execute("ATTACH DATABASE ':memory:' AS m")
    with pytest.raises(LiveResourceError, match="attached"):
        save(database)
    database.close()
    with pytest.raises(LiveResourceError, match="closed"):
        save(database)


def test_a_vanished_database_is_not_made_anew(database: sqlite3.Connection, tmp_path: Path) -> None:
    """A database whose file is gone is a ReconnectError, not an empty database."""
    encoded = save(database)
    (tmp_path / "a.db").unlink()
    with pytest.raises(ReconnectError, match="not there any more"):
        resume(encoded)
    assert not (tmp_path / "a.db").exists()


# ---- sockets


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_a_connected_socket_is_connected_again(server: socket.socket) -> None:
    """A TCP client leads to the same peer again, with its timeout and options."""
    with socket.create_connection(server.getsockname(), timeout=5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(2.5)
        encoded = save(client)
    with resume(encoded) as back, contextlib.ExitStack() as stack:
        assert back.getpeername() == server.getsockname()
        assert back.gettimeout() == 2.5
        assert back.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for _ in range(2):
            accepted = stack.enter_context(server.accept()[0])
        back.sendall(b"hello")
        assert accepted.recv(5) == b"hello"


def test_a_peer_that_is_gone_is_an_error(server: socket.socket) -> None:
    """A peer that does not listen any more is a ReconnectError that names it."""
    with socket.create_connection(server.getsockname()) as client:
        encoded = save(client)
    address = server.getsockname()
    server.close()
    with pytest.raises(ReconnectError, match="refused") as caught:
        resume(encoded)
    assert caught.value.metadata["peer"] == address


def test_other_sockets_are_refused(server: socket.socket) -> None:
    """Listening, unconnected, datagram and local sockets are refused with what to keep."""
    left, right = socket.socketpair()
    with left, right, socket.socket() as unconnected, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for sock in (server, unconnected, datagram, left):
            with pytest.raises(LiveResourceError, match="keep its address"):
                save(sock)


# ---- requests


class MySession(requests.Session):
    def __init__(self, base: str) -> None:
        super().__init__()
        self.base = base


class TokenAuth(AuthBase):
    def __init__(self, hidden: str) -> None:
        self.hidden = hidden


def a_hook(response: Any, **_: Any) -> Any:
    return response


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def test_a_session_comes_back_as_it_was_set(session: requests.Session) -> None:
    """Headers, proxies, parameters, verification, hooks and adapters of a session come back."""
    session.headers["User-Agent"] = "me"
    session.proxies["http"] = "http://proxy:3128"
    session.params, session.verify, session.cert = {"q": 1}, "/ca.pem", ("/a", "/b")
    session.max_redirects, session.trust_env, session.stream = 3, False, True
    session.hooks["response"].append(a_hook)
    session.mount("https://slow/", HTTPAdapter(max_retries=7, pool_maxsize=3))
    back = resume(save(session))
    for name in ("headers", "proxies", "params", "verify", "cert", "max_redirects", "trust_env", "stream", "hooks"):
        assert getattr(back, name) == getattr(session, name)
    assert type(back.headers) is type(session.headers)
    assert list(back.adapters) == list(session.adapters)
    assert back.adapters["https://slow/"].max_retries.total == 7
    back.close()


def test_a_subclass_keeps_its_class_and_attributes() -> None:
    """A session of one's own class is of that class again, with its attributes."""
    with MySession("https://host") as session, resume(save(session)) as back:
        assert (type(back), back.base) == (MySession, "https://host")


SECRETS: dict[str, Any] = {
    "authorization header": lambda it: it.headers.update({"Authorization": f"Bearer {CANARY}"}),
    "key header": lambda it: it.headers.update({"X-Api-Key": CANARY}),
    "auth pair": lambda it: setattr(it, "auth", ("me", CANARY)),
    "basic auth": lambda it: setattr(it, "auth", HTTPBasicAuth("me", CANARY)),
    "digest auth": lambda it: setattr(it, "auth", HTTPDigestAuth("me", CANARY)),
    "cookie": lambda it: it.cookies.set("session", CANARY, domain="host", path="/"),
    "proxy": lambda it: it.proxies.update({"http": f"http://me:{CANARY}@proxy"}),
    "parameter": lambda it: it.params.update({"api_key": CANARY}),
    "attribute": lambda it: setattr(it, "token", CANARY),
}


@pytest.mark.parametrize("hide", SECRETS.values(), ids=SECRETS)
def test_no_secret_of_a_session_is_stored(session: requests.Session, hide: Any) -> None:
    """A secret in a session, which pickle writes in clear, is refused by name."""
    hide(session)
    with pytest.raises(SecretError) as caught:
        save(session)
    assert CANARY not in str(caught.value)
    assert caught.value.key


@pytest.mark.parametrize("hide", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("extra", [None, lambda: 1], ids=["pickle", "dill"])
def test_secrets_of_the_environment_come_back(
    session: requests.Session, hide: Any, extra: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session whose secrets the environment holds is stored without them and comes back with them."""
    monkeypatch.setenv("APP_SECRET", CANARY)
    hide(session)
    encoded = codec.encode([session, extra])
    assert CANARY.encode() not in encoded.data
    back = codec.decode(*encoded)[0]
    for name in ("headers", "auth", "params", "proxies"):
        assert getattr(back, name) == getattr(session, name)
    assert [vars(cookie) for cookie in back.cookies] == [vars(cookie) for cookie in session.cookies]
    assert getattr(back, "token", None) == getattr(session, "token", None)
    back.close()


def test_an_unknown_auth_object_is_refused(session: requests.Session) -> None:
    """An auth object of one's own may hold anything under any name, so it is refused."""
    session.auth = TokenAuth(CANARY)
    with pytest.raises(LiveResourceError, match="register_reconnector") as caught:
        save(session)
    assert CANARY not in str(caught.value)
    assert CANARY.encode() in pickle.dumps(session)  # what would have been stored otherwise


def test_a_resumed_session_works(session: requests.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server gets the same headers and login from the resumed session."""
    seen: list[dict[str, str]] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name: self.headers[name] for name in ("Authorization", "X-Mine", "Cookie")})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("APP_SECRET", CANARY)
    session.auth, session.trust_env = ("me", CANARY), False
    session.headers["X-Mine"] = "yes"
    session.cookies.set("c", CANARY)
    with HTTPServer(("127.0.0.1", 0), Answer) as http:
        threading.Thread(target=http.serve_forever).start()
        for one in (session, resume(save(session))):
            one.get(f"http://127.0.0.1:{http.server_port}/")
            one.close()
        http.shutdown()
    assert seen[0] == seen[1]
    assert seen[0]["X-Mine"] == "yes"
