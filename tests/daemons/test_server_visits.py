"""Exec-servers that come to hq-server by themselves while their user-server is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hq.core.leases import MARGIN
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.runs import RunReport
from hq.model.selection import Selection
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.base import PROTOCOL
from hq.protocol.jobs import JobAct, JobActed, JobQuery, JobRows, JobSubmit
from hq.protocol.peers import KeyRegister, PeerBye, PeerHeartbeat, PeerRefused
from hq.protocol.runs import ExecHello, ExecWelcome, RunRecorded, RunReported, RunRoll, RunStart, RunStop
from tests.support.serverroom import Client, Room, UserServer

KEY = "alice-exec-one".ljust(40, "0")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A server with a heartbeat of 5 s and a lease of 120 s."""
    made = Room(tmp_path)
    yield made
    made.close()


def hello(**changes: Any) -> ExecHello:
    values: dict[str, Any] = {"version": "0", "protocol": PROTOCOL, "boot": "b", "host": "one", "machine": "m", "pid": 1}
    return ExecHello(**(values | changes))


def started(room: Room) -> tuple[UserServer, int]:
    """A job of alice's that runs on `one`, whose exec-server's key is registered."""
    alice = room.user("alice")
    alice.send(KeyRegister(host="one", public=KEY))
    alice.link("two", LinkState.FAILED)
    alice.link("one", LinkState.ALIVE)
    job = alice.submit("sleep", "9")
    alice.report("one", job, RunKind.STARTED, pid=7)
    return alice, job


def visit(room: Room) -> Client:
    client = room.client(KEY)
    client.send(hello())
    room.tick()
    (welcome,) = client.all_of(ExecWelcome)
    assert welcome.lease == 120.0
    return client


def end(room: Room, job: int) -> RunReported:
    at = room.clock.now().wall
    report = RunReport(job=job, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=at, outcome=Outcome.OK, exit_code=0)
    return RunReported(host="one", sequence=3, sent=at, reports=(report,))


def state(peer: Client) -> list[str]:
    return [row.state for row in peer.ask(JobQuery(selection=Selection()), JobRows).rows]


def test_an_end_is_recorded_while_the_user_server_is_away(room: Room) -> None:
    alice, job = started(room)
    alice.send(PeerBye(reason="stops"))
    room.tick()
    client = visit(room)
    client.send(RunRoll(host="one", runs=(AttemptKey(job, PLAIN, 1),)), end(room, job))
    room.tick()
    assert client.all_of(RunRecorded) == [RunRecorded(host="one", sequence=3)]
    assert room.server.cluster.job(job) is None
    again = room.user("alice")
    again.send(end(room, job))
    room.tick()
    assert state(again) == ["finished"]


def test_a_stop_goes_straight_to_it(room: Room) -> None:
    alice, job = started(room)
    client = visit(room)
    alice.ask(JobAct(action="cancel", selection=Selection(tasks=(TaskKey(job),))), JobActed)
    (stop,) = client.all_of(RunStop)
    assert stop.runs == (AttemptKey(job, PLAIN, 1),)
    assert not alice.all_of(RunStop)


def test_it_never_gets_a_start(room: Room) -> None:
    alice, _ = started(room)
    alice.send(PeerBye(reason="stops"))
    room.tick()
    client = visit(room)
    client.send(RunRoll(host="one", runs=()))
    room.tick()
    assert not client.all_of(RunStart)


def test_only_a_key_that_its_user_server_registered_comes_in(room: Room) -> None:
    started(room)
    stranger = room.client("somebody")
    assert "does not know this key" in stranger.refused(hello())
    bob = room.user("bob")
    assert "somebody or something else" in bob.refused(KeyRegister(host="one", public=KEY))
    assert "no host" in bob.refused(KeyRegister(host="nowhere", public="x" * 40))


def test_it_speaks_for_its_host_and_user_only(room: Room) -> None:
    _, job = started(room)
    client = visit(room)
    at = room.clock.now().wall
    assert "reports about two" in client.refused(RunReported(host="two", sequence=1, sent=at, reports=()))
    assert "may not send" in client.refused(JobSubmit(items=()))
    bob = room.user("bob")
    bob.send(KeyRegister(host="one", public="bob-exec".ljust(40, "0")))
    room.tick()
    other = room.client("bob-exec")
    other.send(hello())
    other.send(end(room, job))
    room.tick()
    assert room.server.cluster.job(job) is not None


def test_what_comes_before_its_hello_is_not_heard(room: Room) -> None:
    _, job = started(room)
    client = room.client(KEY)
    client.send(end(room, job))
    room.tick()
    assert client.all_of(PeerBye)
    assert room.server.cluster.job(job) is not None


@pytest.mark.parametrize("step", [-1, 1, 2, 7])
def test_a_version_however_far_away_may_report(room: Room, step: int) -> None:
    """What is said on this way every version knows: an upgrade orphans no run."""
    _, job = started(room)
    client = room.client(KEY)
    client.send(hello(protocol=PROTOCOL + step))
    room.tick()
    assert client.all_of(ExecWelcome) and not client.all_of(PeerRefused)
    client.send(end(room, job))
    room.tick()
    assert client.all_of(RunRecorded)


# --- leases at hq-server ---


def pass_time(room: Room, seconds: float, *peers: Client) -> None:
    for _ in range(int(seconds)):
        for peer in peers:
            peer.send(PeerHeartbeat())
        room.tick(1.0, times=2)


def test_a_host_that_is_silent_for_the_lease_is_lost(room: Room) -> None:
    alice, job = started(room)
    alice.link("one", LinkState.SUSPECT)
    pass_time(room, 120.0 + MARGIN - 10, alice)
    assert state(alice) == ["running"]
    pass_time(room, 20, alice)
    assert state(alice) == ["host_lost"]
    alice.link("one", LinkState.ALIVE)
    alice.send(RunRoll(host="one", runs=(AttemptKey(job, PLAIN, 1),)))
    room.tick()
    assert state(alice) == ["running"]


def test_while_the_user_server_is_away_nothing_is_lost(room: Room) -> None:
    alice, _ = started(room)
    alice.link("one", LinkState.SUSPECT)
    pass_time(room, 100, alice)
    pass_time(room, 600)
    again = room.user("alice")
    pass_time(room, 100, again)
    assert state(again) == ["running"], "the lease begins anew when somebody is there to ask"


def test_an_exec_server_that_visits_holds_its_lease(room: Room) -> None:
    alice, _ = started(room)
    alice.link("one", LinkState.SUSPECT)
    client = visit(room)
    pass_time(room, 300, alice, client)
    assert state(alice) == ["running"]
    assert client.all_of(PeerHeartbeat)
    client.send(PeerBye())
    pass_time(room, 190, alice)
    assert state(alice) == ["host_lost"]
