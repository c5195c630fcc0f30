"""The user-server and its ledger: what it relays, refuses and says, whatever hq-server asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import UnavailableError
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import JobSpec, SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.selection import Selection
from hq.model.states import Outcome, RunKind
from hq.protocol.jobs import ActResult, JobAct, JobActed
from hq.protocol.runs import RunRecorded, RunReported, RunStart
from hq.protocol.specs import encode_spec
from tests.support.userserver_rig import INSTANCE, Rig, host, order

SPEC = SignedSpec(encode_spec(JobSpec(instance=INSTANCE, user="alice", key="k-0", name="n", argv=(b"true",))), b"s")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two hosts whose exec-servers are up."""
    made = Rig(tmp_path, [host("n1"), host("n2")])
    made.welcome()
    made.exec_comes("n1")
    made.exec_comes("n2")
    return made


def run(name: str, *orders: StartOrder) -> RunStart:
    return RunStart(host=name, specs={each.job: SPEC for each in orders}, orders=orders)


def told(rig: Rig) -> list[RunReport]:
    return [report for message in rig.server_got(RunReported) for report in message.reports]


def test_a_second_start_is_refused_upward_and_reaches_no_host(rig: Rig) -> None:
    rig.tell(run("n1", order(1)))
    assert len(rig.exec_got("n1", RunStart)) == 1
    rig.tell(run("n2", order(1, attempt=2)))
    assert not rig.exec_got("n2", RunStart)
    (report,) = told(rig)
    assert (report.kind, report.outcome, report.attempt) == (RunKind.NEVER_STARTED, Outcome.REFUSED, 2)
    assert "signed for 1" in report.reason


def test_the_same_job_under_another_id_is_not_started_but_told_as_it_ended(rig: Rig) -> None:
    rig.tell(run("n1", order(1)))
    rig.exec_says("n1", RunReported(host="n1", sequence=1, sent=1.0, reports=(
        RunReport(job=1, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.OK, exit_code=0),)))
    told(rig)
    rig.tell(run("n2", order(50)))
    assert not rig.exec_got("n2", RunStart)
    assert [(report.job, report.outcome) for report in told(rig)] == [(50, Outcome.OK)]


def test_what_its_exec_server_never_started_may_start_elsewhere(rig: Rig) -> None:
    rig.tell(run("n1", order(1)))
    rig.exec_says("n1", RunReported(host="n1", sequence=1, sent=1.0, reports=(
        RunReport(job=1, index=PLAIN, attempt=1, kind=RunKind.NEVER_STARTED, at=1.0),)))
    rig.tell(run("n2", order(1, attempt=2)))
    assert len(rig.exec_got("n2", RunStart)) == 1


def test_a_requeue_of_its_owner_permits_one_start_more(rig: Rig) -> None:
    rig.tell(run("n1", order(1)))
    client = rig.client()
    rig.ask(client, JobAct(action="requeue", selection=Selection(tasks=(TaskKey(1),))))
    request, _ = rig.take_request(JobAct)
    rig.reply(request, JobActed(results=(ActResult("1", True, "waits again"),)))
    rig.tell(run("n2", order(1, attempt=2)))
    assert len(rig.exec_got("n2", RunStart)) == 1


def test_while_the_ledger_cannot_be_written_orders_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = rig.links.ledger
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "flush", lambda: False)
        ledger.trouble = "No space left on device"
        rig.tell(run("n1", order(1)))
        assert not rig.exec_got("n1", RunStart)
        assert not told(rig), "it is neither lost nor refused"
    ledger.trouble = ""
    rig.move(1.0)
    (start,) = rig.exec_got("n1", RunStart)
    assert start.orders[0].key == AttemptKey(1, PLAIN, 1)


def test_an_end_that_is_not_recorded_is_no_reason_to_refuse(rig: Rig) -> None:
    """hq-server died before it recorded the end, and orders the attempt again: the report is the answer. Found by `make chaos`."""
    rig.tell(run("n1", order(1)))
    end = RunReport(job=1, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.OK, exit_code=0)
    rig.exec_says("n1", RunReported(host="n1", sequence=1, sent=1.0, reports=(end,)))
    rig.exec_got("n1", RunStart)
    told(rig)
    rig.tell(run("n1", order(1)))
    assert not rig.exec_got("n1", RunStart) and not told(rig)
    rig.tell(RunRecorded(host="n1", sequence=1))
    rig.tell(run("n1", order(1)))
    assert not rig.exec_got("n1", RunStart)
    assert [(report.kind, report.outcome) for report in told(rig)] == [(RunKind.ENDED, Outcome.OK)], "as after a restored backup"


def test_what_was_relayed_once_is_not_given_back_unasked(tmp_path: Path) -> None:
    """A new user-server, and a host that cannot be reached: the attempt may run there, so only its exec-server may say that it does not."""
    first = Rig(tmp_path, [host("n1")])
    first.welcome()
    first.exec_comes("n1")
    first.tell(run("n1", order(1)))
    first.us.stop(first.clock.now())
    rig = Rig(tmp_path, [host("n1")])
    rig.transport.trouble["n1"] = UnavailableError("no route to host")
    rig.welcome()
    other = SignedSpec(encode_spec(JobSpec(instance=INSTANCE, user="alice", key="k-1", name="n", argv=(b"true",))), b"t")
    rig.tell(RunStart(host="n1", specs={1: SPEC, 2: other}, orders=(order(1), order(2))))
    rig.move(3.0)
    assert {(report.job, report.kind) for report in told(rig)} == {(2, RunKind.NEVER_STARTED)}
    rig.transport.trouble.clear()
    rig.exec_comes("n1")
    assert [each.job for message in rig.exec_got("n1", RunStart) for each in message.orders] == [1]
