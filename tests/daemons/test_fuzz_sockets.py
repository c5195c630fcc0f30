"""Crowds at the port: a thousand idle connections, handshakes that stall, greetings cut short, noise. Whoever means it is served."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from random import Random

import psutil
import pytest

from hq.kernel.keys import make_curve_pair
from hq.kernel.zmqbus import ZmqClient, ZmqServer
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerAsk
from tests.support.wait import until

SERVER = make_curve_pair()
GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00CURVE" + b"\0" * 15 + b"\0" + b"\0" * 31
MEMORY = 64 << 20


@pytest.fixture
def server() -> Iterator[ZmqServer]:
    """A server's end, with descriptors enough for both ends of a crowd."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 8192), before[1]))
    port = ZmqServer("tcp://127.0.0.1:0", *SERVER)
    try:
        yield port
    finally:
        port.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def is_served(server: ZmqServer) -> bool:
    """Whether a newcomer with a key gets a word through, within the patience of `until`."""
    client = ZmqClient(f"tcp://127.0.0.1:{server.port}", SERVER[0], *make_curve_pair())
    try:
        until(lambda: client.send(envelope(PeerAsk(what="ping"), id=7)), 20, "a connection")
        got = until(lambda: [each for each in server.receive() if each.letter is not None], 20, "the message")
        return got[0].letter is not None and got[0].letter.id == 7
    finally:
        client.close()


def crowd(server: ZmqServer, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]


def test_a_thousand_connections_that_say_nothing(server: ZmqServer) -> None:
    before = psutil.Process().memory_info().rss
    idle = crowd(server, 1000)
    try:
        assert is_served(server)
        assert psutil.Process().memory_info().rss - before < MEMORY
    finally:
        for each in idle:
            each.close()
    assert is_served(server)


def test_handshakes_that_stall_and_noise(server: ZmqServer) -> None:
    random = Random(1)
    before = psutil.Process().memory_info().rss
    hello = b"\x04\xc8\x05HELLO\x01\x00" + b"\0" * 72 + random.randbytes(112)
    several = crowd(server, 300)
    try:
        for number, each in enumerate(several):
            what = (GREETING[: number % 64], GREETING, GREETING + hello, GREETING + hello[: number % 190], random.randbytes(number * 7), GREETING + b"\x02" + b"\xff" * 8)
            try:
                each.sendall(what[number % len(what)])
            except OSError:
                continue  # it hung up on us, as it may
        assert is_served(server)
        assert psutil.Process().memory_info().rss - before < MEMORY
        assert server.receive() == []
    finally:
        for each in several:
            each.close()
