"""What one user may make a daemon hold and do, however much he sends: his share of a step, of what waits, of the questions, of a socket's buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hq.kernel.bus import Peer, Received
from hq.kernel.daemon import Done
from hq.model.selection import Selection
from hq.protocol.codec import encode_line, envelope
from hq.protocol.jobs import JobAsk, JobQuery, JobRequest, JobRows, JobSubmit
from hq.protocol.peers import PeerAsk, PeerBye, PeerFacts, PeerHeartbeat
from hq.server import gate
from hq.server.gate import Gate
from hq.userserver import door
from hq.userserver.turns import IN_ROOM, ROOM
from tests.support.serverroom import Room
from tests.support.userserver_rig import Client, Rig, host

PING = PeerAsk(what="ping")


class Inbox:
    """A port at which envelopes have arrived. Keys are users."""

    def __init__(self) -> None:
        self.got: list[Received] = []

    def put(self, key: str, *messages: Any, size: int = 100, route: bytes = b"") -> None:
        self.got.append(Received(Peer(key, route), envelope(*messages), size=size))

    def receive(self, limit: int = 1000) -> list[Received]:
        got, self.got = self.got, []
        return got


def taken(made: Gate, inbox: Any, boot: float = 0.0) -> list[str]:
    """Whose messages are handed out, one after the other."""
    return [received.peer.key for received in made.take(inbox, boot, lambda peer: "" if peer.key == "stranger" else peer.key)]


def test_users_take_turns_message_by_message_whatever_the_number_of_their_connections() -> None:
    made, inbox = Gate(), Inbox()
    for number in range(3):
        inbox.put("alice", PING, PING, route=b"%d" % number)
    inbox.put("bob", PING)
    assert taken(made, inbox) == ["alice", "bob", "alice", "alice", "alice", "alice", "alice"]


def test_a_share_is_used_up_until_the_core_has_taken_it() -> None:
    made, inbox = Gate(), Inbox()
    inbox.put("alice", *[PING] * (gate.PER_STEP + 10))
    inbox.put("alice", PING)
    assert len(taken(made, inbox)) == gate.PER_STEP and not made.has_more
    inbox.put("bob", PING)
    assert taken(made, inbox) == ["bob"], "and nobody else waits for that"
    made.renew()
    assert made.has_more and len(taken(made, inbox)) == 11
    inbox.put("alice", PING, size=gate.BYTES_PER_STEP)
    inbox.put("alice", PING)
    assert len(taken(made, inbox)) == 1


def test_what_one_user_sends_beyond_measure_is_dropped() -> None:
    made, inbox = Gate(), Inbox()
    inbox.put("alice", *[PING] * (gate.PER_STEP + 1), size=1)
    for _ in range(5):
        inbox.put("alice", PING, size=gate.MAX_WAITING_BYTES // 4)
    inbox.put("bob", PING)
    taken(made, inbox)
    assert made.dropped == 1
    for _ in range(gate.MAX_WAITING):
        inbox.put("alice", PING, size=0)
    taken(made, inbox)
    assert made.dropped == 1 + gate.MAX_WAITING, "his bytes are used up"


def test_an_envelope_with_nothing_in_it_is_nothing() -> None:
    made, inbox = Gate(), Inbox()
    inbox.put("alice")
    assert taken(made, inbox) == [] and not made.has_more


def test_few_questions_of_one_user_are_looked_into_at_a_time(tmp_path: Path) -> None:
    room = Room(tmp_path)
    alice, bob = room.user("alice"), room.user("bob")
    asked: list[tuple[Any, Any]] = []
    room.server.background.run = lambda token, function: asked.append((token, function))  # type: ignore[method-assign]
    everything = JobQuery(selection=Selection(states=("finished",)))
    alice.send(*[everything] * 50)
    alice.send(*[everything] * 50)
    bob.send(everything)
    room.tick(0.1)
    assert [token.request.caller.user for token, _ in asked] == ["alice", "bob", "alice"]
    deadline = room.tick(0.1)
    assert deadline is not None and deadline > room.clock.now().boot, "what waits for an answer does not keep the loop busy"
    finished: list[Done] = []
    room.server.background.finished = lambda: [finished.pop(0) for _ in range(len(finished))]  # type: ignore[method-assign]
    for _ in range(200):
        finished.extend(Done(token, function(), None) for token, function in asked)
        asked.clear()
        room.tick(0.01)
    assert len(alice.all_of(JobRows)) == 100 and len(bob.all_of(JobRows)) == 1
    room.close()


def test_a_user_server_whose_words_wait_is_not_taken_for_silent(tmp_path: Path) -> None:
    room = Room(tmp_path)
    alice = room.user("alice")
    room.server.background.run = lambda token, function: None  # type: ignore[method-assign]
    alice.send(*[JobQuery(selection=Selection(states=("finished",)))] * 10)
    for _ in range(10):
        alice.send(PeerHeartbeat())
        room.tick(5.0)
    assert room.server.sessions.of("alice") is not None
    assert not alice.all_of(PeerBye)
    room.close()


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """One host, hq-server has let us in."""
    made = Rig(tmp_path, [host("n1")])
    made.welcome()
    return made


def pour(client: Client, line: bytes, most: int) -> int:
    """Send the line until the socket takes no more; how often it went."""
    client.sock.setblocking(False)
    sent = 0
    try:
        while sent < most * len(line):
            sent += client.sock.send(line[sent % len(line) :])
    except BlockingIOError:
        pass
    return sent


def test_who_does_not_read_his_answers_is_not_read_either(rig: Rig) -> None:
    client, other = rig.client(), rig.client()
    line, sent = encode_line(PING), 0
    for _ in range(300):
        sent += pour(client, line, 100_000)
        rig.tick(1)
    (connection,) = [each for each in rig.us.door._connections.values() if each._in]
    assert connection.size < 2 * ROOM + 2 * IN_ROOM and rig.us.door._size < 4 * ROOM
    rig.ask(other, PING)
    assert isinstance(other.answers()[0], PeerFacts)
    got = 0
    for _ in range(100_000):
        got += len(client.answers())
        rig.tick(1)
        if got == sent // len(line):
            break
    assert got == sent // len(line), "once he reads, he is answered all of it"


def submission(number: int) -> JobAsk:
    return JobAsk(key=f"k{number}", jobs=(JobRequest(argv=(b"true",), env=(b"A=1",)),))


def test_when_much_is_held_each_connection_has_one_request_worked_on(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MUCH", 100_000)
    crowd = [rig.client() for _ in range(40)]
    for number, client in enumerate(crowd):
        client.sock.sendall(b"".join(encode_line(submission(100 * number + each)) for each in range(20)))
    rig.tick(5)
    went = [message for _, message in rig.at_server if isinstance(message, JobSubmit)]
    assert 40 <= len(went) < 200
    assert rig.us.door._size < 500_000


def test_if_they_hold_too_much_all_the_same_the_largest_is_closed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MOST", 3 << 20)
    crowd = [rig.client() for _ in range(5)]
    half = b'{"type":"peer.ask","what":"' + b"x" * (1 << 18)
    for client in crowd:
        for _ in range(3 if client is not crowd[2] else 6):
            pour(client, half, 1)
            rig.tick(3)
    assert [client.is_closed for client in crowd] == [False, False, True, False, False]
    assert rig.us.door._size <= 3 << 20
