"""SMTP clients, against a real server in this process: plain, with STARTTLS, with TLS from the start, with a login."""

from __future__ import annotations

import contextlib
import random
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd import lmtp
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from certificates import make_certificate
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from holding import CANARY, resume, save
from killing import ITEMS, assert_done, files_with, run_with_kills

from resumable import Driver, checkpoint
from resumable.errors import LiveResourceError, ReconnectError, SecretError
from resumable.values.fingerprint import digest
from resumable.values.registry import GLOBAL, Registry

FROM, TO, TEXT = "a@here.example", ["b@there.example"], "Subject: x\r\n\r\nhello\r\n"


class Mailbox:
    """What a server got: texts, and for each login whether it was over TLS."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.logins: list[bool] = []
        self.refusing = False

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.texts.append(envelope.content.decode())
        return "250 OK"

    def log_in(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        self.logins.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        right = isinstance(data, LoginPassword) and data == LoginPassword(b"me", CANARY.encode())
        return AuthResult(success=right and not self.refusing, handled=False)


class LmtpController(Controller):
    def factory(self) -> Any:
        return lmtp.LMTP(self.handler, **self.SMTP_kwargs)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


Serve = Callable[..., int]


@pytest.fixture
def serve(mailbox: Mailbox) -> Iterator[Serve]:
    """Starts a server and says its port."""
    with contextlib.ExitStack() as stack:

        def start(cls: type[Controller] = Controller, **options: Any) -> int:
            options = {"authenticator": mailbox.log_in, "auth_require_tls": False, **options}
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = int(free.getsockname()[1])
            controller = cls(mailbox, hostname="127.0.0.1", port=port, **options)
            controller.start()
            stack.callback(controller.stop)
            return port

        yield start


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", CANARY)


class MySMTP(smtplib.SMTP):
    campaign = ""


def described(smtp: smtplib.SMTP) -> Any:
    handler = Registry().lookup(type(smtp))
    assert handler is not None
    return {**handler.extract(smtp), "context": None}


def test_a_mail_connection_sends_at_once(serve: Serve, mailbox: Mailbox) -> None:
    """A connection comes back connected: the next mail needs no other call, and what it is described by is the same."""
    with smtplib.SMTP("127.0.0.1", serve(), local_hostname="me.example", timeout=7) as smtp:
        smtp.sendmail(FROM, TO, TEXT)
        encoded, before = save(smtp), described(smtp)
    with resume(encoded) as back:
        assert (type(back), back.timeout, back.local_hostname) == (smtplib.SMTP, 7, "me.example")
        assert described(back) == before
        back.sendmail(FROM, TO, TEXT)
    assert len(mailbox.texts) == 2


@pytest.mark.parametrize("form", ["starttls", "from the start"])
@pytest.mark.parametrize("trusting", [True, False], ids=["own authority", "unchecked"])
def test_an_encrypted_login_comes_back(
    serve: Serve, mailbox: Mailbox, tmp_path: Path, secret: None, form: str, trusting: bool
) -> None:
    """TLS is as it was, with the same authorities, and the login is done again inside it, its password not stored."""
    certificate, server_context = make_certificate(tmp_path)
    context = ssl.create_default_context(cafile=str(certificate)) if trusting else None
    if form == "starttls":
        smtp = smtplib.SMTP("127.0.0.1", serve(tls_context=server_context, require_starttls=True))
        smtp.starttls(context=context)
    else:
        port = serve(ssl_context=server_context)
        smtp = smtplib.SMTP_SSL("127.0.0.1", port, context=context)
    with smtp:
        smtp.login("me", CANARY)
        encoded, before = save(smtp), described(smtp)
    assert CANARY.encode() not in encoded.data
    with resume(encoded) as back:
        assert isinstance(back.sock, ssl.SSLSocket)
        assert back.sock.context.verify_mode == (ssl.CERT_REQUIRED if trusting else ssl.CERT_NONE)
        assert described(back) == before
        assert save(back).tier == encoded.tier
        back.sendmail(FROM, TO, TEXT)
    assert mailbox.logins == [True, True]
    assert len(mailbox.texts) == 1


def test_a_server_that_became_another_is_not_trusted(serve: Serve, tmp_path: Path) -> None:
    """A server that shows a certificate of another authority on resume is an error, and no mail goes there."""
    certificate, server_context = make_certificate(tmp_path)
    with smtplib.SMTP("127.0.0.1", serve(tls_context=server_context)) as smtp:
        smtp.starttls(context=ssl.create_default_context(cafile=str(certificate)))
        encoded = save(smtp)
        (tmp_path / "other").mkdir()
        make_certificate(tmp_path / "other")
        server_context.load_cert_chain(tmp_path / "other/cert.pem", tmp_path / "other/key.pem")
    with pytest.raises(ReconnectError, match="CERTIFICATE_VERIFY_FAILED"):
        resume(encoded)


def test_lmtp_comes_back(serve: Serve, mailbox: Mailbox) -> None:
    """A connection for LMTP greets as LMTP again."""
    with smtplib.LMTP("127.0.0.1", serve(LmtpController)) as smtp, resume(save(smtp)) as back:
        assert type(back) is smtplib.LMTP
        back.sendmail(FROM, TO, TEXT)
    assert len(mailbox.texts) == 1


def test_a_subclass_of_smtp_keeps_its_attributes(serve: Serve) -> None:
    """A connection of one's own class is of that class again, with its attributes."""
    with MySMTP("127.0.0.1", serve()) as smtp:
        smtp.campaign = "autumn"
        with resume(save(smtp)) as back:
            assert (type(back), back.campaign) == (MySMTP, "autumn")


def test_a_connection_the_server_closed_comes_back_live(serve: Serve, mailbox: Mailbox, secret: None) -> None:
    """A server that hung up on an idle connection is no obstacle: it is described all the same and comes back logged in."""
    with smtplib.SMTP("127.0.0.1", serve(timeout=0.2)) as smtp:
        smtp.login("me", CANARY)
        assert smtp.sock is not None
        assert smtp.sock.recv(1000) == b""
        encoded = save(smtp)
    with resume(encoded) as back:
        back.sendmail(FROM, TO, TEXT)
    assert (len(mailbox.texts), len(mailbox.logins)) == (1, 2)


def test_a_closed_connection_comes_back_closed(serve: Serve, mailbox: Mailbox) -> None:
    """One that was closed or never opened makes no connection on resume, and can be connected by hand."""
    port = serve()
    smtp = smtplib.SMTP("127.0.0.1", port)
    smtp.quit()
    for closed in (smtp, smtplib.SMTP()):
        back = resume(save(closed))
        assert back.sock is None
        with pytest.raises(smtplib.SMTPServerDisconnected):
            back.noop()
        back.connect("127.0.0.1", port)
        back.quit()


def test_a_wrong_password_is_tried_once(serve: Serve, mailbox: Mailbox, secret: None) -> None:
    """A login that the server refuses on resume is not repeated, as that locks accounts; nothing is left open."""
    with smtplib.SMTP("127.0.0.1", serve()) as smtp:
        smtp.login("me", CANARY)
        encoded = save(smtp)
    mailbox.logins.clear()
    mailbox.refusing = True
    with pytest.raises(ReconnectError, match="refused the login of me") as caught:
        resume(encoded)
    assert CANARY not in str(caught.value)
    assert len(mailbox.logins) <= 2  # one for each mechanism of a single login()


def test_a_password_outside_the_environment_is_refused(serve: Serve, tmp_path: Path) -> None:
    """A login whose password no environment variable holds is refused by name before anything of it is stored."""

    def job(state: Any = None) -> Iterator[Any]:
        with smtplib.SMTP("127.0.0.1", port) as smtp:
            smtp.login("me", CANARY)
            yield checkpoint(smtp)

    port = serve()
    with Driver(tmp_path) as driver, pytest.raises(SecretError, match="password") as caught:
        driver.run(job)
    assert CANARY not in str(caught.value)
    assert files_with(CANARY, tmp_path) == []


def test_which_server_counts_as_an_argument(serve: Serve, secret: None) -> None:
    """Two connections to one server with one user are one argument; another user or server is another."""

    def digested(smtp: smtplib.SMTP) -> bytes:
        return digest(smtp, path="args[0]", registry=GLOBAL)

    port, other_port = serve(), serve()
    with smtplib.SMTP("127.0.0.1", port) as one, smtplib.SMTP("127.0.0.1", port) as two:
        assert digested(one) == digested(two)
        one.sendmail(FROM, TO, TEXT)
        assert digested(one) == digested(two)
        one.login("me", CANARY)
        assert digested(one) != digested(two)
        with smtplib.SMTP("127.0.0.1", other_port) as other:
            assert digested(other) != digested(two)


def test_contexts_that_cannot_be_made_again_are_refused(tmp_path: Path) -> None:
    """Contexts of servers, with authorities in a directory or with a callback are refused with what to do."""
    _, server_context = make_certificate(tmp_path)
    hidden = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    hidden.load_verify_locations(capath=str(tmp_path))
    watched = ssl.create_default_context()
    watched._msg_callback = print  # type: ignore[attr-defined]
    for context, advice in ((server_context, "keep the paths"), (hidden, "from a file"), (watched, "callback")):
        with pytest.raises(LiveResourceError, match=advice):
            save(context)


@pytest.mark.parametrize("ciphers", ["DEFAULT", "ECDHE-RSA-AES256-GCM-SHA384"], ids=["usual", "for another key"])
@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048),
                                 ed25519.Ed25519PrivateKey.generate()], ids=["EC", "RSA", "Ed25519"])  # fmt: skip
def test_a_client_certificate_is_refused_and_not_lost(tmp_path: Path, key: Any, ciphers: str) -> None:
    """A context that shows a certificate is refused, also when that was loaded after a checkpoint; looking logs no keys."""
    make_certificate(tmp_path, key)
    context = ssl.create_default_context()
    context.set_ciphers(ciphers)
    context.keylog_filename = str(tmp_path / "keys")
    log = (tmp_path / "keys").read_text()
    save(context)
    assert (tmp_path / "keys").read_text() == log
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(LiveResourceError, match=r"client certificate.* Driver\(resources="):
        save(context)


def test_rules_of_a_context_are_kept(tmp_path: Path) -> None:
    """Authorities, versions, ciphers and flags of a context are the same after two rounds."""
    certificate, _ = make_certificate(tmp_path)
    own = ssl.create_default_context(cafile=str(certificate))
    own.minimum_version, own.check_hostname = ssl.TLSVersion.TLSv1_3, False
    own.set_ciphers("ECDHE+AESGCM")
    unchecked = ssl._create_unverified_context()
    for context in (ssl.create_default_context(), own, unchecked):
        back = resume(save(resume(save(context))))
        for name in ("verify_mode", "check_hostname", "minimum_version", "verify_flags", "options"):
            assert getattr(back, name) == getattr(context, name)
        assert back.get_ca_certs() == context.get_ca_certs()
        assert back.get_ciphers() == context.get_ciphers()


@pytest.mark.crash
def test_a_mailer_that_is_killed_sends_every_mail(serve: Serve, mailbox: Mailbox, tmp_path: Path, secret: None) -> None:
    """A job with a logged-in connection in its state, killed 5 times, sends each mail, the one in flight at most twice."""
    run_with_kills("into_mail", tmp_path, str(serve()), 5, random.Random("mail"))
    sent = [int(text.split("number ")[1]) for text in mailbox.texts]
    assert_done(sent, 5)
    assert len(sent) >= ITEMS
    assert files_with(CANARY, tmp_path) == []
