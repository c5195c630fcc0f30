"""What ZeroMQ keeps without measure: messages without end, answers that nobody reads. Who has it keep too much is hung up on, others are served."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from hq.kernel import portguard
from hq.kernel.keys import make_curve_pair
from hq.kernel.zmqbus import ZmqClient, ZmqServer
from hq.protocol.codec import encode, envelope
from hq.protocol.peers import PeerAsk, PeerFacts
from tests.support.wait import until
from tests.support.zmtp import RawPeer

SERVER = make_curve_pair()
PART = b"x" * (1 << 20)
MIB = 1 << 20


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZmqServer]:
    """A server's end whose guard does not wait for hundreds of megabytes."""
    for name, value in (("MOST_OF_ONE", 16 * MIB), ("MOST_OF_ALL", 40 * MIB), ("GROWTH", 8 * MIB)):
        monkeypatch.setattr(portguard, name, value)
    monkeypatch.setattr("hq.kernel.zmqbus.LOOK_EVERY", 0.05)
    port = ZmqServer("tcp://127.0.0.1:0", *SERVER)
    yield port
    port.close()


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def send_until_cut(server: ZmqServer, peers: list[RawPeer], most: int) -> int:
    """Send parts by turns until all were hung up on; how many MiB that were."""
    sent, living = 0, list(peers)
    while living and sent < most:
        for peer in list(living):
            try:
                peer.send(PART, has_more=True)
                sent += 1
            except OSError:
                living.remove(peer)
        server.receive()
    assert not living, f"{sent} MiB were taken"
    return sent


def test_a_message_without_end_is_cut_off(server: ZmqServer) -> None:
    good = ZmqClient(f"tcp://127.0.0.1:{server.port}", SERVER[0], *make_curve_pair())
    question = envelope(PeerAsk(what="ping"), id=7)
    until(lambda: good.send(question), 20, "a connection")
    evil = RawPeer(server.port, SERVER[0], *make_curve_pair())
    evil.send(encode(question))
    assert len(until(lambda: (got := server.receive()) and got, 20, "the first words")) in (1, 2)
    before = resident()
    sent = send_until_cut(server, [evil], 3000)
    # what is free again the C library may keep for itself
    until(lambda: server.receive() == [] and resident() - before < (sent + 64) * MIB, 20, "the memory to be bounded")
    assert server.guard.hung_up == 1
    assert good.send(question), "another one's connection stands"
    until(lambda: [each for each in server.receive() if each.letter is not None], 20, "his message")
    good.close()


def test_many_that_keep_below_the_limit_of_one(server: ZmqServer) -> None:
    crowd = [RawPeer(server.port, SERVER[0], *make_curve_pair()) for _ in range(20)]
    before = resident()
    for _ in range(12):
        for peer in crowd:
            try:
                peer.send(PART, has_more=True)
            except OSError:
                continue
        server.receive()
    # what the kernel still holds makes no process large, so it is bounded only once some were hung up on
    until(
        lambda: server.receive() == [] and server.guard.hung_up >= 5 and resident() - before < 120 * MIB, 60,
        "the memory to be bounded: half of what was sent",
    )  # fmt: skip
    for peer in crowd:
        peer.close()


def test_who_sends_much_that_is_whole_goes_on(server: ZmqServer) -> None:
    peer = RawPeer(server.port, SERVER[0], *make_curve_pair())
    kept = []
    for number in range(60):
        peer.send(PART)
        kept += until(lambda: server.receive(), 20, f"message {number}")
        kept[-1] = bytearray(PART)  # type: ignore[call-overload]  # the process grows, as it would by work of its own
    assert server.guard.hung_up == 0
    peer.close()


def test_who_does_not_read_its_answers_is_cut_off(server: ZmqServer, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf = [RawPeer(server.port, SERVER[0], *make_curve_pair()) for _ in range(3)]
    peers = []
    for each in deaf:
        each.send(encode(envelope(PeerAsk(what="ping"), id=7)))
        peers.append(until(lambda: server.receive(), 20, "its question")[0].peer)
    answer = envelope(PeerFacts(facts={"answer": "x" * MIB}), re=7)
    for number, peer in enumerate(peers[:2], 1):
        # a few at a time, so that the guard has its turns in between
        until(lambda peer=peer: not all(server.send(answer, peer) for _ in range(10)), 60, "an answer that is not taken")  # type: ignore[misc]
        assert server.guard.hung_up == number, "as much as its queue has room for was kept"
        monkeypatch.setattr(portguard, "GROWTH", 1 << 40)  # the next one fills what the first one had, the process does not grow
    assert server.send(answer, peers[2]), "the other one is let alone"
    for each in deaf:
        each.close()


def test_the_connections_of_one_key_count_together(server: ZmqServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GROWTH", -(1 << 40)), ("MOST_OF_ALL", 1 << 40)):  # it looks whatever the size of the process
        monkeypatch.setattr(portguard, name, value)
    pair = make_curve_pair()
    several = [RawPeer(server.port, SERVER[0], *pair) for _ in range(4)]
    other = RawPeer(server.port, SERVER[0], *make_curve_pair())
    hello = encode(envelope(PeerAsk(what="ping"), id=7))
    for each in (*several, other):
        each.send(hello)
        until(lambda: server.receive(), 20, "its first word")
    until(lambda: server.receive() == [] and [each.read > 0 for each in server.guard._seen.values()] == [True] * 5, 20, "all to be known")
    for _ in range(9):
        for each in (*several, other):
            with suppress(OSError):
                each.send(PART, has_more=True)
    until(lambda: server.guard.hung_up >= 2, 20, "the largest of that key to be hung up on")
    other.send(b"")
    until(lambda: any("of 10 frames" in each.note for each in server.receive()), 20, "the other one's message")
    for each in (*several, other):
        each.close()
