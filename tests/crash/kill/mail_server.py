"""A mail server in a process of its own: `python mail_server.py PORT USER PASSWORD` prints "run<TAB>item" for each message.

Not in the test's process, as what killed clients leave of their connections is warned of at its end.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Inbox:
    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        head, _, body = envelope.content.decode().partition("\r\n\r\n")
        os.write(1, f"{head.removeprefix('Subject: ')}\t{body.removeprefix('Hello ').strip()}\n".encode())
        return "250 OK"


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    return AuthResult(success=[login.login.decode(), login.password.decode()] == sys.argv[2:])


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # that nothing is encrypted here
    controller = Controller(
        Inbox(), "127.0.0.1", int(sys.argv[1]), authenticator=authenticate, auth_required=True, auth_require_tls=False
    )
    controller.start()
    os.write(1, b"ready\n")
    sys.stdin.read()
    controller.stop()
