"""Real servers for the tests: on free loopback ports, in directories of their own, each with passwords to keep.

A server ends with the process that started it, also when that is killed. Where a server is not installed its tests are
skipped; with RESUMABLE_SERVERS=required in the environment they fail.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from holding import CANARY

INSTALL = "tests/resources/install-servers"
_START = 30.0  # seconds that a server may take to start
_TRIES = 3  # another process may take a free port before the server does


@dataclass(frozen=True)
class Server:
    """Where a server listens, and a user's login."""

    scheme: str
    port: int
    user: str
    password: str
    database: str
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        login = f"{quote(self.user)}:{quote(self.password, safe='')}"
        return f"{self.scheme}://{login}@{self.host}:{self.port}/{self.database}"


def missing(program: str) -> None:
    """Skip the test that needs this program, or fail it where all servers are to be there."""
    reason = f"{program} is not installed ({INSTALL} installs it)"
    if os.environ.get("RESUMABLE_SERVERS") == "required":
        pytest.fail(reason)
    pytest.skip(reason)


# ---- PostgreSQL


@contextmanager
def postgres() -> Iterator[Server]:
    """A new cluster without data and with scram passwords; the user may do everything."""
    programs = _postgres_programs()
    # What stands at the end would have to be quoted in URLs and in connection strings.
    user, password = "keeper", f"{CANARY} %/@:'\\é"
    with _directory("postgres") as directory:
        secret = directory / "password"
        secret.write_text(password)
        _hand_over(secret)
        data = directory / "data"
        options = ["--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync", "--encoding=UTF8", "--locale=C"]
        made = subprocess.run(
            [*_as_user(), programs / "initdb", "-D", data, "-U", user, *options],
            capture_output=True, text=True, cwd=directory, check=False,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        secret.unlink()

        def command(port: int) -> list[str]:
            settings = f"port={port} listen_addresses=127.0.0.1 unix_socket_directories= fsync=off shared_buffers=16MB"
            settings += " max_prepared_transactions=5"
            options = [word for setting in settings.split() for word in ("-c", setting)]
            return [str(programs / "postgres"), "-D", str(data), *options]

        with _running(command, directory, ready=b"database system is ready to accept connections") as port:
            yield Server("postgresql", port, user, password, "postgres")


def _postgres_programs() -> Path:
    """Where initdb lies; Debian keeps it out of PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda it: int(it.parts[-3]))
    if not versions and (found := shutil.which("initdb")):
        versions = [Path(found)]
    if not versions:
        missing("PostgreSQL")
    return versions[-1].parent


# ---- Redis


@contextmanager
def redis() -> Iterator[Server]:
    """An empty server whose default user has a password; the user `worker` has another one."""
    program = shutil.which("redis-server")
    if program is None:
        missing("redis-server")
    with _directory("redis") as directory:
        settings = directory / "redis.conf"

        def command(port: int) -> list[str]:
            settings.write_text(
                f'bind 127.0.0.1\nport {port}\ndir {directory}\nsave ""\nappendonly no\nrequirepass {CANARY}\n'
                f"user worker on >{CANARY}-worker ~* &* +@all\n"
            )
            _hand_over(settings)
            return [str(program), str(settings)]

        with _running(command, directory, ready=b"eady to accept connections") as port:
            yield Server("redis", port, "", CANARY, "0")


# ---- any server


@contextmanager
def _running(command: Callable[[int], Sequence[str]], directory: Path, ready: bytes) -> Iterator[int]:
    """The server's port, while it runs. It is asked to stop at the end, and when this process dies."""
    log = directory / "log"
    for left in reversed(range(_TRIES)):
        port = _free_port()
        with log.open("wb") as output:
            server = subprocess.Popen(
                [*_as_user("--pdeathsig", "INT"), *command(port)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory,
            )  # fmt: skip
        try:
            if _wait_until(lambda: ready in log.read_bytes(), server):
                yield port
                return
        finally:
            _stop(server)
        if not left:
            pytest.fail(f"{server.args!r} did not start: {log.read_text(errors='replace')[-2000:]}")


def _wait_until(done: Callable[[], bool], server: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + _START
    while time.monotonic() < end and server.poll() is None:
        if done():
            return True
        time.sleep(0.02)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(2)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _account() -> pwd.struct_passwd | None:
    """Whom the servers run as when the tests run as root, which PostgreSQL refuses."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError("neither a user postgres nor a user nobody is there")


def _as_user(*options: str) -> list[str]:
    """What goes before a command. setpriv becomes that command, so signals reach it."""
    account = _account()
    if account is not None:
        options = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", *options)
    return ["setpriv", *options] if options else []


def _hand_over(path: Path) -> None:
    account = _account()
    if account is not None:
        os.chown(path, account.pw_uid, account.pw_gid)


@contextmanager
def _directory(name: str) -> Iterator[Path]:
    """A directory of the servers' user, not among pytest's, which are for its own user alone."""
    with tempfile.TemporaryDirectory(prefix=f"resumable-{name}-") as directory:
        _hand_over(Path(directory))
        yield Path(directory)
