"""What the examples would find on the network or on your disk: a mail server, a web service, a database, files.

    python examples/offline.py mail|web LOG        serve until stdin ends; prints the address, and notes whom it has served
"""

from __future__ import annotations

import csv
import json
import os
import random
import socketserver
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

PORTS = {"mail": 18025, "web": 18080}
served = os.devnull


def note(whom: str) -> None:
    time.sleep(0.002)   # as a network would take
    with open(served, "ab", buffering=0) as log:
        log.write(f"{whom}\n".encode())


class Mail(socketserver.StreamRequestHandler):
    """As much of a mail server as smtplib needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 offline\r\n")
        to = ""
        for line in self.rfile:
            answer = b"250 fine\r\n"
            if line.upper().startswith(b"RCPT"):
                to = line.decode().split("<")[1].split(">")[0]
            elif line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                if b".\r\n" not in iter(self.rfile.readline, b""):
                    return      # whoever sends it was killed
                note(to)
            elif line.upper().startswith(b"QUIT"):
                answer = b"221 bye\r\n"
            self.wfile.write(answer)


class Web(BaseHTTPRequestHandler):
    """Knows the company of each address."""

    def do_GET(self) -> None:
        email = self.path.rpartition("/")[2]
        note(email)
        answer = json.dumps({"email": email, "company": f"{email.partition('@')[0]} & Co"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass    # a client that was killed


@contextmanager
def service(kind: str) -> Iterator[tuple[str, int]]:
    """The address of a service: the one that OFFLINE_MAIL or OFFLINE_WEB names, or one in this process."""
    if address := os.environ.get(f"OFFLINE_{kind.upper()}"):
        host, _, port = address.partition(":")
        yield host, int(port)
        return
    with serving(kind, PORTS[kind]) as address:
        yield address


@contextmanager
def serving(kind: str, port: int) -> Iterator[tuple[str, int]]:
    with Server(("127.0.0.1", port), Mail if kind == "mail" else Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address
        server.shutdown()


# ---- data


def people(count: int) -> list[dict[str, str]]:
    return [{"name": f"User {number}", "email": f"user{number}@example.org"} for number in range(count)]


def database(path: str, count: int) -> sqlite3.Connection:
    """One with a table of users, made if it is not there."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, score INTEGER)")
        connection.executemany("INSERT OR IGNORE INTO users VALUES (?, NULL)", [(number,) for number in range(count)])
    return connection


def pictures(folder: str, count: int) -> list[str]:
    """Pictures of 256 by 256 points (binary PPM), made if they are not there."""
    Path(folder).mkdir(exist_ok=True)
    paths = [Path(folder, f"{number:03}.ppm") for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            unfinished = path.with_suffix(".tmp")
            unfinished.write_bytes(b"P6\n256 256\n255\n" + random.Random(number).randbytes(3 * 256 * 256))
            unfinished.rename(path)
    return [str(path) for path in paths]


def raw_rows(path: str, count: int) -> Iterator[list[str]]:
    """The rows of a CSV file as people fill them in, made if it is not there."""
    if not Path(path).exists():
        with open(f"{path}.tmp", "w", newline="") as file:
            csv.writer(file).writerows([f"  uSER {number} ", f"{number},50"] for number in range(count))
        os.rename(f"{path}.tmp", path)
    with open(path, newline="") as file:
        yield from csv.reader(file)


if __name__ == "__main__":
    served = sys.argv[2]
    with serving(sys.argv[1], 0) as (host, port):
        print(f"{host}:{port}", flush=True)
        sys.stdin.read()
