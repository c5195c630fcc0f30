"""hq-server is told all kinds of nonsense, by keys of a user and by strangers: it goes on, nobody else's state changes, others are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import RemoteError
from hq.kernel.bus import Peer, Received
from hq.model.selection import parse_selection
from hq.model.states import LinkState
from hq.protocol.codec import decode
from hq.protocol.jobs import JobQuery, JobRows
from tests.support.fuzz import Fuzz
from tests.support.serverroom import Client, Room


def throw(room: Room, client: Client, frame: bytes) -> None:
    """The frame arrives as from that connection."""
    peer: Peer = client.port._peer
    room.port._clients[peer] = client.port
    try:
        received = Received(peer, decode(frame))
    except RemoteError as error:
        received = Received(peer, None, str(error))
    room.port._inbox.append(received)


@pytest.mark.parametrize("seed", range(3))
def test_nonsense_harms_nobody(tmp_path: Path, seed: int) -> None:
    room = Room(tmp_path)
    bob = room.user("bob")
    job = bob.submit("true")
    alice = room.user("alice")
    fuzz = Fuzz(seed)
    stranger = room.client("stranger")
    frames = list(fuzz.frames(1500))
    for number, frame in enumerate(frames):
        throw(room, alice if number % 5 else stranger, frame)
        if number % 20 == 0:
            room.tick(0.05)
        if number % 200 == 0:
            alice.send(alice.hello_message())
    room.tick(1.0, times=20)
    assert room.server.counts["faults"] == 0, "hq-server failed over a message: see its log"
    assert not room.server.is_done and room.writer.error is None
    [row] = bob.ask(JobQuery(selection=parse_selection([str(job)])), JobRows).rows
    assert (row.state, row.user) == ("starting", "bob")
    bob.link("one", LinkState.ALIVE)
    room.tick(1.0)
    assert bob.orders() and bob.run(job) == "one"
    room.tick(1.0)
    [row] = bob.ask(JobQuery(selection=parse_selection([str(job)])), JobRows).rows
    assert row.outcome == "ok"
    room.close()


def test_replayed_frames_change_nothing(tmp_path: Path) -> None:
    """Whoever repeats a whole connection (as a broken proxy might) has no more done than once."""
    room = Room(tmp_path)
    bob = room.user("bob")
    heard: list[bytes] = []
    room.bus.is_delivered = lambda source, target, frame: heard.append(frame) or True if target == "server" else True  # type: ignore[func-returns-value]
    job = bob.submit("true")
    bob.link("one", LinkState.ALIVE)
    room.tick(1.0)
    bob.run(job)
    room.tick(1.0)
    before = bob.ask(JobQuery(selection=parse_selection(["1-9"])), JobRows).rows
    for frame in list(heard) * 3:
        throw(room, bob, frame)
    room.tick(1.0, times=10)
    assert room.server.counts["faults"] == 0
    after = bob.ask(JobQuery(selection=parse_selection(["1-9"])), JobRows).rows
    assert after == before and after[0].outcome == "ok"
    room.close()
