"""A web server in this process, which remembers what it was asked."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SHOWN = ("Authorization", "Proxy-Authorization", "X-Mine", "Cookie")


class WebServer:
    """url: where it is. paths: what was asked for, in order. headers: the headers of SHOWN, for each request."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.paths: list[str] = []
        self.headers: list[dict[str, str | None]] = []

    def items(self) -> list[int]:
        return [int(path.rpartition("/")[2]) for path in self.paths]


@contextlib.contextmanager
def web_server(**reply: str) -> Iterator[WebServer]:
    """A server that answers everything with 200, its path, and the given headers."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.headers.append({name: self.headers[name] for name in SHOWN})
            seen.paths.append(self.path)
            body = self.path.encode()
            self.send_response(200)
            for name, value in reply.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that is killed
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        seen = WebServer(f"http://127.0.0.1:{http.server_port}/")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield seen
        finally:
            http.shutdown()
            thread.join()
