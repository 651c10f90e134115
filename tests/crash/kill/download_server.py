"""Serves files and fails at random: `python download_server.py SEED LOG`, in a process that outlives those it serves.

A line for each request goes to LOG: the file's number, and how it was answered, once that is done.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULTY = 0.1


def content(number: int) -> bytes:
    """What is in a file."""
    chance = random.Random(number)
    return chance.randbytes(chance.randrange(1, 20_000))


class Answer(BaseHTTPRequestHandler):
    log = -1
    chance = random.Random()

    def do_GET(self) -> None:
        number = int(self.path.rpartition("/")[2])
        fault = self.chance.choice(("refused", "cut", "reset")) if self.chance.random() < FAULTY else ""
        self.send_response(503 if fault == "refused" else 200)
        data = b"" if fault == "refused" else content(number)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault else data)
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.write(self.log, f"{number} {fault or 'whole'}\n".encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass    # a client that was killed


if __name__ == "__main__":
    Answer.chance = random.Random(int(sys.argv[1]))
    Answer.log = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with Server(("127.0.0.1", 0), Answer) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
