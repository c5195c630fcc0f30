"""A user-server that moves: hq-server's part, the ledger that goes along, and one that comes back on the same machine at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.client.takeover import keep_ledger
from hq.kernel.clock import Now
from hq.model.ids import PLAIN
from hq.model.runs import StartOrder
from hq.protocol.peers import LedgerAsk, LedgerTold, PeerRefused, PeerWelcome
from hq.protocol.runs import RunStart
from hq.userserver.ledger import LedgerFile
from tests.daemons.test_userserver_ledger import SPEC, run
from tests.support.serverroom import Room, UserServer
from tests.support.userserver_rig import Rig, host, order


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


def test_another_machine_is_let_in_when_its_user_says_so_and_the_first_is_told(room: Room) -> None:
    first = room.user("alice")
    second = UserServer(room, "alice", boot="boot-2")
    refused = second.ask(second.hello_message(machine="other"), PeerRefused)
    assert "is up on login" in refused.reason
    second.ask(second.hello_message(machine="other", takeover=True), PeerWelcome)
    room.tick()
    (told,) = first.all_of(PeerRefused)
    assert "moved his user-server to other" in told.reason and not told.may_change
    session = room.server.sessions.of("alice")
    assert session is not None and session.boot == "boot-2"


def test_who_holds_the_lock_is_let_in_at_once(room: Room) -> None:
    first = UserServer(room, "alice", boot="boot-1")
    first.ask(first.hello_message(lock="boot:1:2"), PeerWelcome)
    other = UserServer(room, "alice", boot="boot-2")
    other.ask(other.hello_message(lock="boot:1:3"), PeerRefused)
    other.ask(other.hello_message(), PeerRefused)
    again = UserServer(room, "alice", boot="boot-3")
    again.ask(again.hello_message(lock="boot:1:2"), PeerWelcome)


def test_the_ledger_goes_along(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")])
    rig.welcome()
    rig.exec_comes("n1")
    rig.tell(run("n1", order(1)))
    client = rig.client()
    rig.ask(client, LedgerAsk())
    (answer,) = client.answers()
    assert isinstance(answer, LedgerTold)
    rig.exec_got("n1", RunStart)
    rig.tell(run("n1", order(2)))
    assert not rig.exec_got("n1", RunStart), "the other one decides from now on"
    rig.move(2.0)
    assert rig.us.is_done
    path = tmp_path / "elsewhere"
    keep_ledger(str(path), answer.data)
    moved = LedgerFile(str(path), logging.getLogger("test"), Now(wall=1.0, boot=1.0))
    verdict = moved.admit({9: SPEC}, [StartOrder(9, PLAIN, 2, (0,))])
    assert verdict.refused and not verdict.orders


def test_an_empty_start_makes_a_new_user_server_look_for_its_exec_server(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")])
    rig.welcome()
    rig.tell(run("n1"))
    assert [bootstrap.host for bootstrap in rig.transport.started] == ["n1"]
