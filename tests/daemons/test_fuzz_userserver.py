"""The user-server is told nonsense from all its sides: hq-server's, exec-servers', commands' and strangers'. It goes on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from hq.errors import RemoteError
from hq.kernel.bus import Received
from hq.protocol.codec import decode
from hq.protocol.peers import PeerAsk, PeerFacts
from tests.support.fuzz import Fuzz
from tests.support.userserver_rig import Client, Rig, host, stranger_key

#: These would end it, as they should.
ENDS = ("peer.shutdown", "peer.refused", "ledger.ask")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("side", ["hq-server", "exec-server", "command", "stranger"])
def test_nonsense_harms_nothing(tmp_path: Path, seed: int, side: str) -> None:
    rig = Rig(tmp_path, [host("one"), host("two")])
    rig.welcome()
    rig.exec_comes("one")
    inbox = rig.port._inbox
    if side == "hq-server":
        inbox = rig.us.upstream._port._inbox  # type: ignore[attr-defined]
        peer = rig.us.upstream._port._peer  # type: ignore[attr-defined]
    elif side == "exec-server":
        peer = rig.execs["one"]._peer
    else:
        peer = rig.bus_client(None if side == "command" else stranger_key())._peer
    for number, frame in enumerate(Fuzz(seed, without=ENDS).frames(600)):
        try:
            inbox.append(Received(peer, decode(frame)))
        except RemoteError as error:
            inbox.append(Received(peer, None, str(error)))
        if number % 5 == 0:
            rig.tick(1)
        if number % 100 == 0:
            rig.clock.move(0.5)
    rig.tick(3)
    assert not rig.us.is_done


def test_nonsense_at_the_socket(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("one")])
    rig.welcome()
    fuzz = Fuzz(5, without=ENDS)
    client = rig.client()
    for _ in range(400):
        line = fuzz.line()
        if any(tag.encode() in line for tag in ENDS):
            continue
        try:
            client.sock.sendall(line)
        except OSError:
            client = rig.client()
        rig.tick(1)
        client.answers()
    assert not rig.us.is_done
    other = rig.client()
    rig.ask(other, PeerAsk(what="ping"))
    assert [type(answer) for answer in other.answers()] == [PeerFacts]


def test_a_crowd_that_says_nothing_is_let_in_as_far_as_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hq.userserver.door.MAX_CONNECTIONS", 20)
    rig = Rig(tmp_path, [host("one")])
    rig.welcome()
    path = str(tmp_path / "door.sock")
    rig.door.listen(path)

    def come() -> socket.socket:
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        found.connect(path)
        found.sendall(b'{"type": "peer.ask", ')
        return found

    crowd = [come() for _ in range(60)]
    rig.tick(5)
    assert len(rig.door) == 20
    last = Client(crowd.pop())
    for each in crowd:
        each.close()
    rig.tick(10)
    last.sock.sendall(b'"what": "ping"}\n')
    rig.tick(3)
    assert [type(answer) for answer in last.answers()] == [PeerFacts] and len(rig.door) == 1
