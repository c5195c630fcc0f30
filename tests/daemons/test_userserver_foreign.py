"""An exec-server of a version too far from the user-server's: its runs are looked after, nothing new starts, its host's program is asked to take over."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.base import PROTOCOL, Problem
from hq.protocol.peers import HostLink, PeerHeartbeat, PeerRefused
from hq.protocol.runs import ExecWelcome, RunReported, RunRoll, RunStart, RunStop
from hq.userserver.foreign import PATIENCE
from tests.support.userserver_rig import Rig, host, order, start

OLD, NEW = AttemptKey(1, -1, 1), AttemptKey(2, -1, 1)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A user-server that hq-server has let in, with a job of before on node."""
    made = Rig(tmp_path, [host("node")])
    made.welcome()
    made.tell(start("node", order(1)))
    made.exec_comes("node")
    assert made.exec_got("node", RunStart)
    made.exec_comes("node", (OLD,), protocol=PROTOCOL + 2)
    made.server_got(RunRoll)
    return made


def test_what_runs_there_is_reported_and_can_be_stopped(rig: Rig) -> None:
    assert rig.exec_got("node", ExecWelcome) and not rig.exec_got("node", PeerRefused)
    rig.tell(RunStop(host="node", runs=(OLD,)))
    assert [stop.runs for stop in rig.exec_got("node", RunStop)] == [(OLD,)]
    report = RunReport(job=1, index=-1, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.CANCELLED)
    rig.exec_says("node", RunReported(host="node", sequence=1, sent=1.0, reports=(report,)))
    assert [each.reports for each in rig.server_got(RunReported)] == [(report,)]
    assert rig.server_got(HostLink)[-1].state is LinkState.ALIVE, "so that nothing there is held for lost"


def test_its_hosts_program_is_asked_to_take_over_once_and_then_gets_what_waited(rig: Rig) -> None:
    dialled = len(rig.transport.started)
    assert dialled == 2, "the start that it came by, and the one that is to bring the nearer program"
    rig.tell(start("node", order(2)))
    rig.move(10.0)
    rig.exec_comes("node", (OLD,), protocol=PROTOCOL + 2)
    assert len(rig.transport.started) == dialled and not rig.exec_got("node", RunStart)
    rig.exec_comes("node", (OLD,), protocol=PROTOCOL)
    assert [each.key for message in rig.exec_got("node", RunStart) for each in message.orders] == [NEW]


def test_without_a_nearer_program_orders_are_given_back_with_words_for_people(rig: Rig) -> None:
    rig.tell(start("node", order(2)))
    for _ in range(int(PATIENCE) + 2):
        rig.tell(PeerHeartbeat())
        rig.exec_says("node", PeerHeartbeat())
        rig.move(1.0)
    (report,) = [each for message in rig.server_got(RunReported) for each in message.reports]
    assert (report.key, report.kind) == (NEW, RunKind.NEVER_STARTED)
    assert f"protocol {PROTOCOL + 2}" in report.reason and "Install hq" in report.reason and "runs on" in report.reason


def test_a_command_that_is_newer_is_told_what_to_do(rig: Rig) -> None:
    client = rig.client()
    client.sock.sendall(b'{"type": "job.frobnicate", "job": 1}\n')
    rig.tick()
    (answer,) = client.answers()
    assert isinstance(answer, Problem) and "knows no 'job.frobnicate'" in answer.text and "hq-client shutdown" in answer.text
