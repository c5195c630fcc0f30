"""Hosts that come back from a reboot with an empty disk: what the user-server knows of their runs, and what nobody knows."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import pytest

from hq.model.ids import PLAIN, AttemptKey
from hq.model.job import JobSpec, SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.runs import RunRecorded, RunReported, RunRoll, RunStart, RunStop
from hq.protocol.specs import encode_spec
from hq.userserver.ends import End, parse_end
from hq.userserver.hosts import HostMemory
from tests.support.userserver_rig import INSTANCE, Rig, host, order

SPECS = {
    job: SignedSpec(encode_spec(JobSpec(instance=INSTANCE, user="alice", key=f"k{job}-0", name="n", argv=(b"true",), retries=1)), b"%d" % job)
    for job in (1, 2)
}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A host with a memory, and a hq-server."""
    made = Rig(tmp_path, [host("n1")])
    made.welcome()
    made.exec_comes("n1", memory="first")
    return made


def run(*orders: StartOrder) -> RunStart:
    return RunStart(host="n1", specs={each.job: SPECS[each.job] for each in orders}, orders=orders)


def ended(job: int) -> RunReport:
    return RunReport(job=job, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.OK, exit_code=0)


def told(rig: Rig) -> list[RunReport]:
    return [report for message in rig.server_got(RunReported) for report in message.reports]


def given(rig: Rig) -> list[AttemptKey]:
    return [each.key for message in rig.exec_got("n1", RunStart) for each in message.orders]


def test_an_end_that_went_with_the_disk_is_told_by_the_user_server(rig: Rig) -> None:
    """Found by make chaos: told, not yet recorded, then the host was rebooted: the task was refused as one that has ended before."""
    rig.tell(run(order(1), order(2)))
    rig.exec_says("n1", RunReported(host="n1", sequence=7, sent=1.0, reports=(ended(1),)), RunReported(host="n1", sequence=8, sent=1.0, reports=(ended(2),)))
    rig.tell(RunRecorded(host="n1", sequence=7))
    assert (told(rig), len(given(rig))) == ([ended(1), ended(2)], 2)
    rig.exec_comes("n1", memory="second")
    assert told(rig) == [ended(2)], "the other is recorded"
    rig.tell(run(order(2)))
    assert (told(rig), given(rig)) == ([ended(2)], []), "a hq-server that died before it took that in is told the same again"


def test_ends_that_a_host_still_has_are_its_own_to_tell(rig: Rig) -> None:
    rig.tell(run(order(1)))
    rig.exec_says("n1", RunReported(host="n1", sequence=7, sent=1.0, reports=(ended(1),)))
    told(rig)
    rig.exec_comes("n1", [AttemptKey(1, PLAIN, 1)], memory="first")
    assert told(rig) == []


def test_an_order_that_may_have_begun_before_is_not_given_to_a_host_that_has_forgotten(rig: Rig) -> None:
    rig.tell(run(order(1)))
    rig.exec_comes("n1", memory="first")
    rig.tell(run(order(1)))
    assert len(given(rig)) == 2, "with its memory it knows whether it has begun, or that the order was lost on the way"
    rig.exec_comes("n1", memory="second")
    rig.tell(run(order(1), order(2)))
    (report,) = told(rig)
    assert (report.key, report.kind, report.outcome) == (AttemptKey(1, PLAIN, 1), RunKind.ENDED, Outcome.LOST)
    assert "n1 has forgotten" in report.reason
    assert given(rig) == [AttemptKey(2, PLAIN, 1)]
    rig.tell(run(order(1), order(2)))
    assert given(rig) == [AttemptKey(2, PLAIN, 1)], "that one came when it had forgotten already"
    assert told(rig) == [report]


def test_orders_that_still_wait_here_go_to_a_host_that_has_forgotten_the_others(rig: Rig) -> None:
    rig.exec_comes("n1", memory="first", with_roll=False)
    rig.tell(run(order(1)))
    assert given(rig) == []
    rig.tell(run(order(1)))
    rig.exec_comes("n1", memory="second")
    assert (given(rig), told(rig)) == ([AttemptKey(1, PLAIN, 1)], [])
    failed = RunReport(job=1, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.FAILED, exit_code=1)
    rig.exec_says("n1", RunReported(host="n1", sequence=1000, sent=1.0, reports=(failed,)))
    told(rig)
    rig.tell(run(order(1)))
    assert given(rig) == [AttemptKey(1, PLAIN, 1)], "hq-server had not recorded its end; it has, and tells it again"
    assert told(rig) == []


def test_a_reborn_user_server_keeps_what_was_ordered_before_its_time_from_a_host_that_has_forgotten(tmp_path: Path) -> None:
    """Found by make chaos: hq-server had not recorded the start, the user-server was killed and the host rebooted; it ran twice."""
    first = Rig(tmp_path, [host("n1")])
    first.welcome()
    first.exec_comes("n1", memory="first")
    first.tell(run(order(1)))
    second = Rig(tmp_path, [host("n1")])
    second.welcome()
    second.tell(run(order(1)))
    second.exec_comes("n1", memory="second")
    assert given(second) == []
    assert [(report.key.job, report.outcome) for report in told(second)] == [(1, Outcome.LOST)]
    second.tell(run(order(2)))
    third = Rig(tmp_path, [host("n1")])
    third.welcome()
    third.tell(run(order(1), order(2)))
    third.exec_comes("n1", [AttemptKey(2, PLAIN, 1)], memory="second")
    assert [(report.key.job, report.outcome) for report in told(third)] == [(1, Outcome.LOST)], "hq-server had not recorded that"
    assert given(third) == [AttemptKey(2, PLAIN, 1)], "the other is there: its exec-server knows what to do with it"
    third.exec_says("n1", RunReported(host="n1", sequence=1000, sent=1.0, reports=(ended(2),)))
    third.tell(RunRecorded(host="n1", sequence=1000))
    assert not third.links.memory.is_forgetful("n1", "second"), "all is settled"


def test_a_user_server_remembers_the_memories_over_its_own_restart(rig: Rig, tmp_path: Path) -> None:
    again = type(rig.links.memory)(str(tmp_path / "hosts.json"), rig.log)
    assert not again.is_forgetful("n1", "first") and not again.is_forgetful("n1", ""), "one that cannot tell is not taken for another"
    assert again.is_forgetful("n1", "second") and again.is_forgetful("n1", "second"), "until what the first had is settled"
    assert not again.is_forgetful("n2", "any")


def test_a_reborn_user_server_tells_the_true_end_from_its_ledger(tmp_path: Path) -> None:
    """Found by make chaos: the end had passed by, its host lost its disk and the user-server was killed before hq-server recorded it."""
    first = Rig(tmp_path, [host("n1")])
    first.welcome()
    first.exec_comes("n1", memory="first")
    first.tell(run(order(1), order(2)))
    killed = RunReport(job=2, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.FAILED, signal=11)
    first.exec_says("n1", RunReported(host="n1", sequence=7, sent=1.0, reports=(ended(1), killed)))
    for _ in range(2):  # its file is written anew at each start
        second = Rig(tmp_path, [host("n1")])
    second.welcome()
    second.tell(run(order(1), order(2)))
    assert told(second) == [], "its host may have the ends in its spool"
    second.exec_comes("n1", memory="second")
    assert sorted((report.key.job, report.kind, report.outcome, report.exit_code, report.signal) for report in told(second)) == [
        (1, RunKind.ENDED, Outcome.OK, 0, None), (2, RunKind.ENDED, Outcome.FAILED, None, 11),
    ]  # fmt: skip
    second.tell(run(order(1, attempt=2)))
    (report,) = told(second)
    assert (report.attempt, report.outcome) == (2, Outcome.OK) and "attempt 2 was not begun" in report.reason
    assert given(second) == []


@pytest.mark.parametrize("end", [End(1, Outcome.OK, 0), End(3, Outcome.FAILED, 255), End(2, Outcome.FAILED, None, 9), End(1, Outcome.TIMEOUT)])
def test_an_end_is_read_as_it_is_written(end: End) -> None:
    assert parse_end(str(end.attempt), *end.words.split()) == end


def test_a_host_that_has_forgotten_is_not_asked_to_stop_what_came_before(rig: Rig) -> None:
    """Found by make chaos: it said of a task that had run that it never began, and the task, which must run once, ran again."""
    rig.tell(run(order(1), order(2)))
    rig.exec_comes("n1", memory="second", with_roll=False)
    rig.tell(RunStop(host="n1", runs=(AttemptKey(1, PLAIN, 1),)))
    rig.exec_says("n1", RunRoll(host="n1", runs=()))
    assert [(report.key.job, report.kind, report.outcome) for report in told(rig)] == [(1, RunKind.ENDED, Outcome.LOST)]
    rig.tell(RunStop(host="n1", runs=(AttemptKey(2, PLAIN, 1),)))
    assert [(report.key.job, report.kind, report.outcome) for report in told(rig)] == [(2, RunKind.ENDED, Outcome.LOST)]
    assert rig.exec_got("n1", RunStop) == []
    rig.tell(run(order(1, attempt=2)), RunStop(host="n1", runs=(AttemptKey(1, PLAIN, 2),)))
    assert [each.runs for each in rig.exec_got("n1", RunStop)] == [(AttemptKey(1, PLAIN, 2),)]


def test_a_memory_for_which_there_is_no_room_is_written_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, log = str(tmp_path / "hosts.json"), logging.getLogger("memory")
    known = HostMemory(path, log)
    known.know("n1", "first")
    with monkeypatch.context() as patch:
        patch.setattr("hq.userserver.hosts.write_secret", lambda path, text: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
        known.know("n1", "second")
    assert not HostMemory(path, log).is_forgetful("n1", "first")
    known.tick()
    assert not HostMemory(path, log).is_forgetful("n1", "second")
