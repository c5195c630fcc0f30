"""hq-server on the bus in memory: a job's way from submission to history, listings, watches, commits in flight, a database that goes away."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hq.db.writer import Writer
from hq.errors import DatabaseError, UnavailableError
from hq.kernel.keys import digest_of
from hq.model.changes import Changes
from hq.model.job import Wishes
from hq.model.runs import RunReport
from hq.model.selection import Selection, parse_selection
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.admin import AdminAnswer, AdminRun
from hq.protocol.base import Problem
from hq.protocol.jobs import (
    GroupQuery,
    GroupRows,
    JobAct,
    JobActed,
    JobExplain,
    JobExplained,
    JobProgress,
    JobQuery,
    JobRows,
    JobShow,
    JobShown,
    JobSubmit,
    JobSubmitted,
    JobUnwatch,
    JobWatch,
    LogLocate,
    LogLocated,
)
from hq.protocol.peers import PeerWelcome
from hq.protocol.runs import BlobGet, BlobPut, RunRecorded, RunReported, RunStop
from hq.server import handlers_reads
from tests.support.serverroom import InlineWriter, Room, UserServer
from tests.support.wait import until


def test_a_job_goes_from_submission_to_history(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("sleep", "1", blobs=(b"sealed",), env=digest_of(b"sealed"))
    [(host, order)] = alice.orders()
    assert (order.job, order.attempt) == (job, 1) and host in ("one", "two")
    rows = alice.ask(JobQuery(selection=Selection()), JobRows).rows
    assert [(row.id, row.state, row.command) for row in rows] == [(job, "starting", "sleep 1")]
    alice.run(job, exit_code=3)
    [row] = alice.ask(JobQuery(selection=Selection()), JobRows).rows
    assert (row.state, row.outcome, row.exit_code, row.host) == ("finished", "failed", 3, host)
    shown = alice.ask(JobShow(task=str(job)), JobShown)
    assert shown.row == row and shown.facts["slots"] == 1
    assert [moment.state for moment in shown.history][-3:] == ["starting", "running", "finished"]
    assert "exit code 3" in " ".join(alice.ask(JobExplain(task=str(job)), JobExplained).sentences)
    located = alice.ask(LogLocate(task="last"), LogLocated)
    assert (located.host, located.attempt, located.is_live) == (host, 1, False)
    assert alice.ask(BlobGet(digests=(digest_of(b"sealed"), "none")), BlobPut) == BlobPut(blobs={digest_of(b"sealed"): b"sealed"}, missing=("none",))


def test_a_listing_makes_no_more_rows_of_what_waits_than_the_loop_has_time_for(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers_reads, "MAX_LIVE_ROWS", 5)
    alice = room.user("alice")
    plain = alice.submit("early")
    alice.run(plain)
    job = alice.submit("work", indices="1-1000000")
    found = alice.ask(JobQuery(selection=Selection(), by_task=True, limit=None), JobRows)
    assert [row.task for row in found.rows] == [*(f"{job}_{index}" for index in range(1, 6)), str(plain)] and found.is_cut
    found = alice.ask(JobQuery(selection=Selection(), by_task=True, limit=3), JobRows)
    assert [row.task for row in found.rows] == [f"{job}_{index}" for index in range(1, 4)] and found.is_cut
    assert not alice.ask(JobQuery(selection=Selection()), JobRows).is_cut


def test_reports_are_acknowledged_when_they_are_durable(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("true")
    [(host, _)] = alice.orders()
    assert isinstance(room.writer, InlineWriter)
    room.writer.is_held = True
    alice.report(host, job, RunKind.STARTED, sequence=7, pid=1)
    assert not alice.all_of(RunRecorded)
    room.writer.is_held = False
    room.writer.let_go()
    room.tick()
    assert alice.all_of(RunRecorded) == [RunRecorded(host=host, sequence=7)]


def test_an_answer_leaves_after_its_commit_and_later_events_wait_for_the_next(room: Room) -> None:
    alice, bob = room.user("alice"), room.user("bob")
    assert isinstance(room.writer, InlineWriter)
    room.writer.is_held = True
    first = alice.send(JobSubmit(items=(alice.item("first"),)))
    room.tick()
    second = alice.send(JobSubmit(items=(alice.item("second"),)))
    bob.send(JobSubmit(items=(bob.item("third"),)))
    room.tick()
    assert not alice.all_of(JobSubmitted) and not bob.all_of(JobSubmitted) and len(room.writer.submitted) == 1
    room.writer.let_go()
    room.tick()
    alice.receive()
    assert [re for re, message in alice.got if isinstance(message, JobSubmitted)] == [first] and not bob.all_of(JobSubmitted)
    room.writer.is_held = False
    room.writer.let_go()
    room.tick()
    alice.receive()
    assert [re for re, message in alice.got if isinstance(message, JobSubmitted)] == [first, second]
    assert len(bob.all_of(JobSubmitted)) == 1
    ids = [item.id for message in (*alice.all_of(JobSubmitted), *bob.all_of(JobSubmitted)) for item in message.items]
    assert ids == sorted(set(ids))


def test_a_repeated_submission_makes_no_second_job(room: Room) -> None:
    alice = room.user("alice")
    message = JobSubmit(items=(alice.item("true"),))
    first, again = alice.ask(message, JobSubmitted).items[0], alice.ask(message, JobSubmitted).items[0]
    assert (first.id, first.tasks) == (again.id, again.tasks) and "before" in again.note
    assert len(alice.ask(JobQuery(selection=Selection()), JobRows).rows) == 1


def test_all_or_none(room: Room) -> None:
    alice = room.user("alice")
    words = alice.refused(JobSubmit(items=(alice.item("fine"), alice.item("huge", slots=100))))
    assert "4" in words  # the largest that there is
    assert not alice.ask(JobQuery(selection=Selection()), JobRows).rows


def test_watching_live_and_ended_jobs_together(room: Room) -> None:
    alice = room.user("alice")
    ended, live = alice.submit("one"), alice.submit("two")
    alice.run(ended, exit_code=2)
    number = alice.send(JobWatch(selection=parse_selection([str(ended), str(live)])))
    room.tick()
    alice.receive()
    [first] = [message for re, message in alice.got if re == number]
    assert isinstance(first, JobProgress) and not first.is_done
    assert {counts.id: (counts.is_finished, counts.exit_code) for counts in first.jobs} == {ended: (True, 2), live: (False, None)}
    alice.run(live)
    last = alice.all_of(JobProgress)[-1]
    assert last.is_done and last.jobs[0].is_finished and last.jobs[0].exit_code == 0


def test_watching_what_ended_long_ago_or_never_was(room: Room) -> None:
    alice, bob = room.user("alice"), room.user("bob")
    job = alice.submit("one")
    alice.run(job)
    done = alice.ask(JobWatch(selection=parse_selection(["last"])), JobProgress)
    assert done.is_done and done.jobs[0].tasks == {"finished": 1, "finished:ok": 1}
    assert bob.refused(JobWatch(selection=parse_selection([str(job)]))) == bob.refused(JobWatch(selection=parse_selection(["999"]))).replace("999", str(job))
    assert "not submitted any" in bob.refused(JobWatch(selection=parse_selection(["last"])))


def test_a_job_that_ends_between_the_look_and_the_step_is_watched_all_the_same(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("one")
    [(host, _)] = alice.orders()
    assert isinstance(room.writer, InlineWriter)
    # both arrive in one tick: the look sees a live job, the step ends it before it is watched
    at = room.clock.now().wall
    reports = tuple(RunReport(job=job, index=-1, attempt=1, kind=kind, at=at, outcome=outcome, exit_code=code)
                    for kind, outcome, code in ((RunKind.STARTED, None, None), (RunKind.ENDED, Outcome.OK, 0)))  # fmt: skip
    number = alice.send(RunReported(host=host, sequence=1, sent=at, reports=reports), JobWatch(selection=parse_selection([str(job)])))
    room.tick()
    alice.receive()
    [answer] = [message for re, message in alice.got if re == number and isinstance(message, JobProgress)]
    assert answer.is_done and [counts.id for counts in answer.jobs] == [job]


def test_jobs_that_end_one_after_the_other_while_a_watch_begins_are_all_told(room: Room) -> None:
    alice = room.user("alice")
    jobs = [alice.submit("one") for _ in range(8)]
    hosts = {order.job: host for host, order in alice.orders()}
    started = [job for job in jobs if job in hosts]
    alice.run(started[0])
    number = alice.send(JobWatch(selection=parse_selection([f"{jobs[0]}-{jobs[-1]}"])))
    for job in started[1:]:
        at = room.clock.now().wall
        ended = RunReport(job=job, index=-1, attempt=1, kind=RunKind.ENDED, at=at, started=at, outcome=Outcome.OK, exit_code=0)
        alice.send(RunReported(host=hosts[job], sequence=job, sent=at, reports=(ended,)))
        room.server.tick(room.clock.now())
    room.tick()
    alice.receive()
    told = [message for re, message in alice.got if re == number and isinstance(message, JobProgress)]
    assert {counts.id for counts in told[0].jobs} == set(jobs)
    last = {counts.id: counts.is_finished for message in told for counts in message.jobs}
    assert all(last[job] for job in started), "each that has ended is told, once it has"


def test_a_watch_that_nobody_listens_to_any_more_is_silent(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("one")
    number = alice.send(JobWatch(selection=parse_selection([str(job)])))
    room.tick()
    alice.send(JobUnwatch(request=number))
    room.tick()
    before = len(alice.all_of(JobProgress))
    alice.run(job)
    assert len(alice.all_of(JobProgress)) == before


def test_cancelling_waits_for_the_exec_server(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("sleep", "100")
    [(host, _)] = alice.orders()
    alice.report(host, job, RunKind.STARTED, pid=1)
    acted = alice.ask(JobAct(action="cancel", selection=parse_selection(["last"])), JobActed)
    assert [(result.id, result.is_done) for result in acted.results] == [(str(job), True)]
    [stop] = alice.all_of(RunStop)
    assert stop.host == host and stop.runs[0].job == job


def test_groups_of_live_and_ended_jobs_are_counted_together(room: Room) -> None:
    alice, bob = room.user("alice"), room.user("bob")
    first = alice.submit("one", wishes=Wishes(group="g"))
    alice.submit("two", wishes=Wishes(group="g"))
    alice.run(first)
    [row] = alice.ask(GroupQuery(group="g"), GroupRows).rows
    assert row.jobs == 2 and row.tasks["finished"] == 1
    assert "no group" in bob.refused(GroupQuery(group="g"))


def test_state_survives_a_restart(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("sleep", "100")
    room.admin("deactivatehost:one")
    room.admin("drain", "two", "new", "disk")
    room.start()
    # the old connection is told to come in anew
    assert "hello" in alice.answers(JobQuery(selection=Selection()))[0].reason  # type: ignore[attr-defined]
    alice.hello()
    [row] = alice.ask(JobQuery(selection=Selection()), JobRows).rows
    assert row.id == job
    table = {cells[0]: cells[1] for cells in room.admin("lscluster").rows}
    assert table == {"one": "inactive", "two": "draining"}
    assert [order.job for _, order in alice.orders()].count(job) == 2  # asked for again: the user-server knows the attempt


class FailingStore:
    """A store that cannot be reached while `is_away`."""

    def __init__(self, store: object) -> None:
        self._store = store
        self.is_away = threading.Event()

    def write(self, changes: Changes, epoch: int | None = None, *, batch: str = "") -> None:
        if self.is_away.is_set():
            raise UnavailableError("the state database is away")
        self._store.write(changes, epoch, batch=batch)  # type: ignore[attr-defined]

    def close(self) -> None:
        """As Store.close."""


def test_with_the_database_away_nothing_is_acknowledged_and_nothing_lost(tmp_path: Path) -> None:
    stores: list[FailingStore] = []

    def writer(store: object) -> Writer:
        stores.append(FailingStore(store))
        return Writer(stores[-1])  # type: ignore[arg-type]

    room = Room(tmp_path, writer=writer)
    assert isinstance(room.writer, Writer)
    alice = UserServer(room, "alice")
    alice.send(alice.hello_message())
    until(lambda: room.tick() and alice.all_of(PeerWelcome))
    stores[-1].is_away.set()
    alice.send(JobSubmit(items=(alice.item("true"),)))
    until(lambda: room.tick() and room.writer.trouble)
    alice.send(JobQuery(selection=Selection(is_all=True)))
    assert until(lambda: room.tick() and alice.all_of(JobRows))  # what is live can be seen all the same
    assert not alice.all_of(JobSubmitted) and not alice.orders()
    status = room.client("carol-admin")
    assert any("away" in str(row[1]) for row in status.ask(AdminRun(words=("status",)), AdminAnswer).rows)
    room.tick(9.0)
    (problem,) = alice.all_of(Problem)
    assert problem.is_transient and "away" in problem.text and "carries it out afterwards" in problem.text
    room.tick(3.0)
    assert len(alice.all_of(Problem)) == 1, "it is said once"
    stores[-1].is_away.clear()
    until(lambda: room.tick() and alice.all_of(JobSubmitted) and alice.orders())
    room.writer.close()
    room.close()


def test_a_commit_that_the_database_refuses_is_nobodys_but_its_own(room: Room) -> None:
    alice = room.user("alice")
    kept = alice.submit("kept")
    assert isinstance(room.writer, InlineWriter)
    room.writer.error = DatabaseError("a value does not fit")
    answer = alice.answers(JobSubmit(items=(alice.item("refused"),)), ticks=1)
    room.writer.error = None
    room.tick()
    alice.receive()
    problems = [message for message in answer if isinstance(message, Problem)]
    assert problems and "does not fit" in problems[0].text
    alice.hello()
    assert [row.id for row in alice.ask(JobQuery(selection=Selection()), JobRows).rows] == [kept]
    assert alice.submit("next") > kept


def test_links_and_hosts_are_told(room: Room) -> None:
    alice = room.user("alice")
    alice.link("one", LinkState.FAILED)
    assert [cells[10] for cells in room.admin("lscluster").rows] == ["alice:failed", ""]
    room.admin("addhost", "three:8:local", "additional_info=new")
    text = (room.etc / "cluster.tab").read_text()
    assert "# the big one" in text and "three" in text
    assert "read again: 3 hosts" in room.admin("reload").text
    room.admin("removehost:three")
    assert "three" not in (room.etc / "cluster.tab").read_text()
    assert [cells[0] for cells in room.admin("lscluster").rows] == ["one", "two"]
