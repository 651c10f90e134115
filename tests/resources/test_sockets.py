"""TCP sockets, which come back only for those who ask."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from holding import resume, save

from resumable.errors import LiveResourceError, ReconnectError
from resumable.values.codec import Codec
from resumable.values.registry import Registry


@pytest.fixture
def codec() -> Codec:
    """One that was told to take sockets."""
    registry = Registry()
    registry.register(socket.socket)
    return Codec(registry=registry)


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_nobody_gets_a_socket_unasked(server: socket.socket, codec: Codec) -> None:
    """Without opting in a socket is refused, with how to opt in; and a state that holds one is not taken up."""
    with socket.create_connection(server.getsockname()) as client:
        with pytest.raises(LiveResourceError, match=r"register_reconnector\(socket.socket\)"):
            save(client)
        encoded = save(client, codec)
    with pytest.raises(ReconnectError, match="opted in"):
        resume(encoded)


def test_a_connected_socket_is_connected_again(server: socket.socket, codec: Codec) -> None:
    """A TCP client leads to the same peer again, with its timeout and options."""
    with socket.create_connection(server.getsockname(), timeout=5) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.settimeout(2.5)
        encoded = save(client, codec)
    with resume(encoded, codec) as back, contextlib.ExitStack() as stack:
        assert back.getpeername() == server.getsockname()
        assert back.gettimeout() == 2.5
        assert back.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        for _ in range(2):
            accepted = stack.enter_context(server.accept()[0])
        back.sendall(b"hello")
        assert accepted.recv(5) == b"hello"


@pytest.mark.parametrize("timeout", [None, 0.0, 1.5])
def test_a_socket_of_the_newer_internet_is_connected_again(codec: Codec, timeout: float | None) -> None:
    """An IPv6 client comes back too, waiting forever, not at all, or for a time; a second save says the same."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            client.settimeout(timeout)
            encoded = save(client, codec)
        with resume(encoded, codec) as back:
            assert (back.family, back.getpeername()) == (socket.AF_INET6, server.getsockname())
            assert back.gettimeout() == timeout
            assert save(back, codec).data == encoded.data


def test_a_peer_that_is_gone_is_an_error(server: socket.socket, codec: Codec) -> None:
    """A peer that does not listen any more is a ReconnectError that names it."""
    with socket.create_connection(server.getsockname()) as client:
        encoded = save(client, codec)
    address = server.getsockname()
    server.close()
    with pytest.raises(ReconnectError, match="refused") as caught:
        resume(encoded, codec)
    assert tuple(caught.value.metadata["peer"]) == address


def test_other_sockets_are_refused(server: socket.socket, codec: Codec) -> None:
    """Listening, unconnected, datagram and local sockets are refused with what to keep."""
    left, right = socket.socketpair()
    with left, right, socket.socket() as unconnected, socket.socket(type=socket.SOCK_DGRAM) as datagram:
        for sock in (server, unconnected, datagram, left):
            with pytest.raises(LiveResourceError, match="keep its address"):
                save(sock, codec)
