"""A small server that speaks MongoDB's wire protocol, as no MongoDB can be installed from Debian, PyPI or npm.

What pymongo needs here and no more, over real sockets: hello, SCRAM-SHA-256 logins, which every other command requires,
ping, insert (`_id` is unique), find with equal fields and in batches of two, getMore, killCursors, endSessions.
Documents stay in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socketserver
import struct
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import bson

USER = "me"
_HEADER = struct.Struct("<iiii")  # length, request, answer to, operation
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013
_ROUNDS = 4096
_BATCH = 2


class Login:
    """The server's side of one SCRAM-SHA-256 login."""

    def __init__(self, password: str, first: str) -> None:
        self._first = first.removeprefix("n,,")
        user, nonce = (part[2:] for part in self._first.split(","))
        self._known, salt = user == USER, secrets.token_bytes(16)
        self._salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ROUNDS)
        self._nonce = nonce + secrets.token_urlsafe(16)
        self.challenge = f"r={self._nonce},s={b64encode(salt).decode()},i={_ROUNDS}"

    def _hmac(self, key: bytes, text: bytes) -> bytes:
        return hmac.digest(key, text, "sha256")

    def answer(self, last: str) -> str | None:
        """What proves the server in return; None when the client proved nothing."""
        without_proof, _, proof = last.rpartition(",p=")
        message = f"{self._first},{self.challenge},{without_proof}".encode()
        client_key = self._hmac(self._salted, b"Client Key")
        signature = self._hmac(hashlib.sha256(client_key).digest(), message)
        expected = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        nonce = without_proof.partition("r=")[2]
        if not self._known or nonce != self._nonce or not hmac.compare_digest(b64decode(proof), expected):
            return None
        server_key = self._hmac(self._salted, b"Server Key")
        return "v=" + b64encode(self._hmac(server_key, message)).decode()


class Mongo(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, password: str) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.password = password
        self.lock = threading.Lock()
        self.collections: dict[str, list[dict[str, Any]]] = {}
        self.cursors: dict[int, tuple[str, list[dict[str, Any]]]] = {}
        self.logins = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def uri(self) -> str:
        return f"mongodb://{USER}:{self.password}@{self.host}/?authMechanism=SCRAM-SHA-256&serverSelectionTimeoutMS=5000"

    def handle_error(self, *_: Any) -> None:
        pass  # a client that was killed


class Connection(socketserver.StreamRequestHandler):
    server: Mongo

    def handle(self) -> None:
        self._login: Login | None = None
        self._allowed = False
        while header := self.rfile.read(_HEADER.size):
            length, request, _, operation = _HEADER.unpack(header)
            body = self.rfile.read(length - _HEADER.size)
            if operation == _OP_QUERY:  # the first hello
                at = body.index(b"\0", 4) + 1 + 8
                answer = struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(self._run(bson.decode(body[at:])))
                self._send(_OP_REPLY, request, answer)
            else:
                self._send(_OP_MSG, request, b"\0\0\0\0\0" + bson.encode(self._run(_command(body))))

    def _send(self, operation: int, request: int, body: bytes) -> None:
        self.wfile.write(_HEADER.pack(_HEADER.size + len(body), 0, request, operation) + body)

    def _run(self, command: dict[str, Any]) -> dict[str, Any]:
        name = next(iter(command))
        free = name in ("hello", "isMaster", "ismaster", "saslStart", "saslContinue")
        if not free and not self._allowed:
            return {"ok": 0.0, "code": 13, "codeName": "Unauthorized", "errmsg": f"{name} requires a login"}
        handler = getattr(self, f"_do_{name.lower()}", None)
        if handler is None:
            return {"ok": 0.0, "code": 59, "codeName": "CommandNotFound", "errmsg": f"no such command: {name}"}
        with self.server.lock:
            return {**handler(command), "ok": 1.0} if name[:4] != "sasl" else handler(command)

    def _do_hello(self, command: dict[str, Any]) -> dict[str, Any]:
        return {
            "helloOk": True, "isWritablePrimary": True, "ismaster": True, "minWireVersion": 0, "maxWireVersion": 21,
            "maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000,
            "logicalSessionTimeoutMinutes": 30, "saslSupportedMechs": ["SCRAM-SHA-256"],
        }  # fmt: skip

    _do_ismaster = _do_hello

    def _do_saslstart(self, command: dict[str, Any]) -> dict[str, Any]:
        self._login = Login(self.server.password, command["payload"].decode())
        return {"ok": 1.0, "conversationId": 1, "done": False, "payload": self._login.challenge.encode()}

    def _do_saslcontinue(self, command: dict[str, Any]) -> dict[str, Any]:
        answer = self._login.answer(command["payload"].decode()) if self._login else None
        if answer is None:
            return {"ok": 0.0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."}
        self._allowed = True
        self.server.logins += 1
        return {"ok": 1.0, "conversationId": 1, "done": True, "payload": answer.encode()}

    def _do_ping(self, command: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _do_endsessions(self, command: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _do_insert(self, command: dict[str, Any]) -> dict[str, Any]:
        there = self.server.collections.setdefault(f"{command['$db']}.{command['insert']}", [])
        errors = []
        for index, document in enumerate(command["documents"]):
            if any(other["_id"] == document["_id"] for other in there):
                errors.append({"index": index, "code": 11000, "errmsg": "E11000 duplicate key error"})
            else:
                there.append(document)
        return {"n": len(command["documents"]) - len(errors)} | ({"writeErrors": errors} if errors else {})

    def _do_find(self, command: dict[str, Any]) -> dict[str, Any]:
        name, wanted = f"{command['$db']}.{command['find']}", command.get("filter", {})
        found = [it for it in self.server.collections.get(name, []) if wanted.items() <= it.items()]
        return self._batch("firstBatch", name, found[: command.get("limit") or None])

    def _do_getmore(self, command: dict[str, Any]) -> dict[str, Any]:
        return self._batch("nextBatch", *self.server.cursors.pop(command["getMore"]))

    def _batch(self, field: str, name: str, rest: list[dict[str, Any]]) -> dict[str, Any]:
        number = secrets.randbits(62) if len(rest) > _BATCH else 0
        if number:
            self.server.cursors[number] = name, rest[_BATCH:]
        return {"cursor": {"id": bson.int64.Int64(number), "ns": name, field: rest[:_BATCH]}}

    def _do_killcursors(self, command: dict[str, Any]) -> dict[str, Any]:
        for number in command["cursors"]:
            self.server.cursors.pop(number, None)
        return {"cursorsKilled": command["cursors"]}


def _command(body: bytes) -> dict[str, Any]:
    """The document of a message, with those documents that stand beside it."""
    command: dict[str, Any] = {}
    at = 4  # behind the flags
    while at < len(body):
        kind, (size,) = body[at], struct.unpack_from("<i", body, at + 1)
        section = body[at + 1 : at + 1 + size]
        if kind == 0:
            command = {**bson.decode(section), **command}
        else:
            end = section.index(b"\0", 4)
            command[section[4:end].decode()] = bson.decode_all(section[end + 1 :])
        at += 1 + size
    # The name of the command comes first, and those beside it after it.
    return {**{name: it for name, it in command.items() if name != "documents"}, **command}


@contextmanager
def mongo_server(password: str) -> Iterator[Mongo]:
    """A server on a free port of this machine, in a thread."""
    with Mongo(password) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
