"""The bus over TCP, with real sockets on loopback."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import zmq

from hq.errors import InputError, UnavailableError
from hq.kernel.bus import Received
from hq.kernel.keys import make_curve_pair
from hq.kernel.zmqbus import ZmqClient, ZmqServer, zap_answer
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerAsk, PeerHeartbeat
from tests.support.wait import until

SERVER = make_curve_pair()
ALICE = make_curve_pair()
BOB = make_curve_pair()


@pytest.fixture
def opened() -> Iterator[list]:
    """Ports and sockets to close at the end."""
    things: list = []
    yield things
    for thing in reversed(things):
        thing.close()


@pytest.fixture
def server(opened: list) -> ZmqServer:
    port = ZmqServer("tcp://127.0.0.1:0", *SERVER)
    opened.append(port)
    return port


def dial(opened: list, server: ZmqServer, pair: tuple[str, str] = ALICE, server_key: str = SERVER[0]) -> ZmqClient:
    client = ZmqClient(f"tcp://127.0.0.1:{server.port}", server_key, *pair)
    opened.append(client)
    return client


def say(client: ZmqClient, number: int = 1) -> None:
    until(lambda: client.send(envelope(PeerAsk(what="ping"), id=number)), what="a connection")


def hear(port: ZmqServer | ZmqClient) -> Received:
    return until(lambda: port.receive(1), what="a message")[0]


def raw_dealer(opened: list, server: ZmqServer, pair: tuple[str, str], route: bytes | None = None) -> zmq.Socket:
    """A peer that does what it likes."""
    context = zmq.Context(1)
    sock = context.socket(zmq.DEALER)
    sock.linger = 0
    sock.curve_publickey, sock.curve_secretkey = pair[0].encode(), pair[1].encode()
    sock.curve_serverkey = SERVER[0].encode()
    if route is not None:
        sock.setsockopt(zmq.ROUTING_ID, route)
    sock.connect(f"tcp://127.0.0.1:{server.port}")
    opened.append(Closing(lambda: (sock.close(), context.term())))
    return sock


class Closing:
    def __init__(self, close: Callable[[], object]) -> None:
        self.close = close


def test_the_key_of_the_connection_names_the_peer_and_answers_find_it(opened: list, server: ZmqServer) -> None:
    alice, bob = dial(opened, server), dial(opened, server, BOB)
    say(alice, 7)
    first = hear(server)
    say(bob, 8)
    second = hear(server)
    assert (first.peer.key, second.peer.key) == (ALICE[0], BOB[0])
    assert first.letter is not None and first.letter.id == 7 and first.letter.messages == [PeerAsk(what="ping")]
    assert server.send(envelope(PeerHeartbeat(), re=7), first.peer)
    answer = hear(alice)
    assert answer.peer.key == SERVER[0] and answer.letter is not None and answer.letter.re == 7
    assert bob.receive() == []


def test_a_client_that_expects_another_server_gets_nothing_through(opened: list, server: ZmqServer) -> None:
    wrong = dial(opened, server, ALICE, make_curve_pair()[0])
    right = dial(opened, server, BOB)
    assert not wrong.send(envelope(PeerHeartbeat()))
    say(right)
    assert hear(server).peer.key == BOB[0]
    assert not wrong.is_connected() and server.receive() == []


def test_without_the_handler_no_connection_comes_about(opened: list) -> None:
    closed = ZmqServer("tcp://127.0.0.1:0", *SERVER, has_handler=False)
    opened.append(closed)
    client = dial(opened, closed)
    monitor = client._socket.get_monitor_socket()
    # in this order: to stop a monitor whose other end is closed already may wait for ever
    opened.extend((monitor, Closing(client._socket.disable_monitor)))
    failed = (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED)
    seen: set[int] = set()

    def is_refused() -> bool:
        while monitor.poll(0):
            seen.add(int.from_bytes(monitor.recv_multipart()[0][:2], "little"))
        return bool(seen & set(failed))

    until(is_refused, what="the end of the handshake")
    assert zmq.EVENT_HANDSHAKE_SUCCEEDED not in seen
    assert closed.receive() == []


def test_a_peer_without_curve_gets_nothing_through(opened: list, server: ZmqServer) -> None:
    context = zmq.Context(1)
    plain = context.socket(zmq.DEALER)
    plain.linger = 0
    opened.append(Closing(lambda: (plain.close(), context.term())))
    plain.connect(f"tcp://127.0.0.1:{server.port}")
    plain.send(b"hello")
    client = dial(opened, server)
    say(client)
    assert hear(server).peer.key == ALICE[0]
    assert server.receive() == []


def test_a_chosen_routing_id_is_refused(opened: list, server: ZmqServer) -> None:
    alice = dial(opened, server)
    say(alice)
    route = hear(server).peer.route
    for thief_route in (b"alice", route[1:], b"\0abc", b"\0abcdefgh"):
        thief = raw_dealer(opened, server, BOB, thief_route)
        thief.send(b"whatever")
        got = hear(server)
        assert got.letter is None and "routing id" in got.note
        assert got.peer.key == BOB[0] and not server.send(envelope(PeerHeartbeat()), got.peer)


def test_a_copy_of_a_living_routing_id_gets_nothing_and_takes_nothing(opened: list, server: ZmqServer) -> None:
    alice = dial(opened, server)
    say(alice)
    peer = hear(server).peer
    thief = raw_dealer(opened, server, BOB, peer.route)
    monitor = thief.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
    opened.append(Closing(thief.disable_monitor))
    until(lambda: monitor.poll(0), what="the thief's handshake")
    for number in range(1, 6):
        assert server.send(envelope(PeerHeartbeat(), re=number), peer)
        answer = hear(alice).letter
        assert answer is not None and answer.re == number
    assert not thief.poll(0)


def test_a_route_counts_only_with_its_key(opened: list, server: ZmqServer) -> None:
    alice = dial(opened, server)
    say(alice)
    peer = hear(server).peer
    assert not server.send(envelope(PeerHeartbeat()), peer._replace(key=BOB[0]))
    assert not server.send(envelope(PeerHeartbeat()), peer._replace(route=b"\0nobody"))
    assert server.send(envelope(PeerHeartbeat()), peer)


def test_garbage_becomes_a_note_and_the_peer_goes_on(opened: list, server: ZmqServer) -> None:
    sock = raw_dealer(opened, server, BOB)
    for frames in ([b"\xff\x00garbage"], [b""], [b"a", b"b", b"c"], [b"\xc1" * 5000]):
        sock.send_multipart(frames)
        got = hear(server)
        assert got.letter is None and got.note and got.peer.key == BOB[0]
    alice = dial(opened, server)
    say(alice)
    assert hear(server).letter is not None


def test_bytes_that_are_not_zeromq_do_no_harm(opened: list, server: ZmqServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
        raw.sendall(b"GET / HTTP/1.0\r\n\r\n" * 100)
        alice = dial(opened, server)
        say(alice)
        assert hear(server).letter is not None


def test_sending_to_one_who_left_says_no(opened: list, server: ZmqServer) -> None:
    alice = dial(opened, server)
    say(alice)
    peer = hear(server).peer
    alice.close()
    until(lambda: not server.send(envelope(PeerHeartbeat()), peer), what="the news that the peer is gone")


def test_a_client_without_server_drops_and_finds_it_when_it_comes(opened: list, server: ZmqServer) -> None:
    port = server.port
    server.close()
    client = dial(opened, server)
    assert not client.send(envelope(PeerHeartbeat()))
    again = ZmqServer(f"tcp://127.0.0.1:{port}", *SERVER)
    opened.append(again)
    say(client, 3)
    got = hear(again)
    assert got.letter is not None and got.letter.id == 3


def test_order_is_kept_and_receive_is_bounded(opened: list, server: ZmqServer) -> None:
    alice = dial(opened, server)
    for number in range(1, 51):
        say(alice, number)
    got: list[int] = []

    def take() -> bool:
        piece = server.receive(7)
        assert len(piece) <= 7
        got.extend(each.letter.id for each in piece if each.letter is not None)
        return len(got) == 50

    until(take)
    assert got == list(range(1, 51))


def test_a_taken_port_and_a_bad_address_are_named(server: ZmqServer) -> None:
    with pytest.raises(UnavailableError, match=str(server.port)):
        ZmqServer(f"tcp://127.0.0.1:{server.port}", *SERVER)
    for bad in ("127.0.0.1:5", "tcp://127.0.0.1", "ipc:///tmp/x", "tcp://a:b", "tcp://:5"):
        with pytest.raises(InputError, match="tcp://HOST:PORT"):
            ZmqServer(bad, *SERVER)


@pytest.mark.parametrize(
    "frames",
    [[], [b"1.0"], [b"1.0", b"1", b"hq", b"a", b"", b"NULL"], [b"1.0", b"1", b"other", b"a", b"", b"CURVE", b"k" * 32],
     [b"1.0", b"1", b"hq", b"a", b"", b"CURVE", b"short"], [b"2.0", b"1", b"hq", b"a", b"", b"CURVE", b"k" * 32]],
)  # fmt: skip
def test_the_handler_refuses_whatever_is_not_curve_in_our_domain(frames: list[bytes]) -> None:
    assert zap_answer(frames)[2] == b"400"


def test_readiness_is_told_to_the_loop(opened: list, server: ZmqServer) -> None:
    alice = dial(opened, server)
    assert not server.is_ready() and all(isinstance(each, int) for each in server.fds())
    say(alice)
    until(server.is_ready)
    server.receive()
    assert not server.is_ready()
