"""Bob against alice, at hq-server: what a connection may say and see is decided by its key alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hq.kernel.bus import Received
from hq.kernel.keys import digest_of
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec, Wishes
from hq.model.runs import RunReport
from hq.model.selection import Selection, parse_selection
from hq.model.states import LinkState, Outcome, RunKind
from hq.model.user import Role
from hq.protocol.admin import AdminRun
from hq.protocol.base import Message, Problem
from hq.protocol.codec import MESSAGES
from hq.protocol.jobs import (
    JobAct,
    JobActed,
    JobExplain,
    JobQuery,
    JobRows,
    JobShow,
    JobSubmit,
    JobSubmitted,
    JobWatch,
    LogLocate,
    SubmitItem,
)
from hq.protocol.peers import HostLink, HostLoad, HostQuery, HostRows, KeyEnrol, PeerAsk, PeerBye, PeerFacts, PeerHeartbeat, PeerRefused
from hq.protocol.runs import BlobGet, BlobPut, RunReported, RunRoll
from tests.support.serverroom import Room, UserServer


@pytest.fixture
def alice(room: Room) -> UserServer:
    return room.user("alice")


@pytest.fixture
def bob(room: Room) -> UserServer:
    return room.user("bob")


def state_of(alice: UserServer, job: int) -> str:
    [row] = alice.ask(JobQuery(selection=parse_selection([str(job)])), JobRows).rows
    return row.state


def test_another_users_job_answers_like_one_that_never_was(alice: UserServer, bob: UserServer) -> None:
    live, ended = alice.submit("secret", wishes=Wishes(group="plans")), alice.submit("secret too")
    alice.run(ended)
    for job in (live, ended):
        for make in (lambda task: JobShow(task=task), lambda task: JobExplain(task=task), lambda task: LogLocate(task=task)):
            assert bob.refused(make(str(job))).replace(str(job), "77") == bob.refused(make("77"))
        rows = bob.ask(JobQuery(selection=parse_selection([str(job)])), JobRows).rows
        assert rows == bob.ask(JobQuery(selection=parse_selection(["77"])), JobRows).rows == ()
        assert bob.refused(JobWatch(selection=parse_selection([str(job)]))).replace(str(job), "77") == bob.refused(
            JobWatch(selection=parse_selection(["77"]))
        )
    for selection in (Selection(), Selection(is_all=True), Selection(group="plans"), Selection(text="secret"), Selection(states=("finished",))):
        assert bob.ask(JobQuery(selection=selection), JobRows).rows == ()
    for selection in (Selection(user="alice"), Selection(user="alice", is_all=True)):
        assert "administrator" in bob.refused(JobQuery(selection=selection))
    assert "administrator" in bob.refused(JobQuery(selection=Selection(), every_user=True))


@pytest.mark.parametrize("action", ["cancel", "hold", "release", "requeue", "signal", "modify"])
def test_another_users_job_cannot_be_acted_on(alice: UserServer, bob: UserServer, action: str) -> None:
    job = alice.submit("sleep", "100")
    before = state_of(alice, job)
    answers = bob.answers(
        JobAct(action=action, selection=parse_selection([str(job), "1-100", "all"]), signal=9 if action == "signal" else None,
               changes={"priority": "5"} if action == "modify" else {})  # fmt: skip
    )
    for answer in answers:
        assert isinstance(answer, Problem) or (isinstance(answer, JobActed) and not any(result.is_done for result in answer.results))
    assert "administrator" in bob.refused(JobAct(action="cancel", selection=Selection(user="alice", is_all=True)))
    assert state_of(alice, job) == before


def test_a_job_of_another_cannot_be_submitted(room: Room, alice: UserServer, bob: UserServer) -> None:
    stolen = alice.item("rm", "-rf")
    assert "signed for alice" in bob.refused(JobSubmit(items=(stolen,)))
    forged = bob.item("true", user="alice")
    assert "signed for alice" in bob.refused(JobSubmit(items=(forged,)))
    elsewhere = bob.item("true", instance="other")
    assert "instance" in bob.refused(JobSubmit(items=(elsewhere,)))
    mine = bob.item("true")
    assert "key" in bob.refused(JobSubmit(items=(SubmitItem("another key", mine.signed, mine.wishes),)))
    assert "signature" in bob.refused(JobSubmit(items=(replace_signed(mine, SignedSpec(mine.signed.body, b"")),)))
    assert "cannot be read" in bob.refused(JobSubmit(items=(replace_signed(mine, SignedSpec(b"\xc1nonsense", b"0" * 64)),)))
    # the same submission key as alice's is bob's own affair
    job = bob.ask(JobSubmit(items=(bob.item("true", key=stolen.key),)), Problem)
    assert "key" in job.text
    assert bob.ask(JobQuery(selection=Selection()), JobRows).rows == ()


def replace_signed(item: SubmitItem, signed: SignedSpec) -> SubmitItem:
    return SubmitItem(item.key, signed, item.wishes)


def test_blobs_are_their_owners(alice: UserServer, bob: UserServer) -> None:
    sealed = b"alice's environment, sealed"
    alice.submit("env", blobs=(sealed,), env=digest_of(sealed))
    assert bob.ask(BlobGet(digests=(digest_of(sealed),)), BlobPut).blobs == {}
    assert alice.ask(BlobGet(digests=(digest_of(sealed),)), BlobPut).blobs == {digest_of(sealed): sealed}
    words = bob.refused(JobSubmit(items=(bob.item("x", env=digest_of(b"good")),), blobs={digest_of(b"good"): b"bad"}))
    assert "digest" in words


def test_reports_about_anothers_run_change_nothing(alice: UserServer, bob: UserServer) -> None:
    job = alice.submit("sleep", "100")
    [(host, _)] = alice.orders()
    for kind in RunKind:
        bob.report(host, job, kind, outcome=Outcome.OK, exit_code=0)
    bob.send(RunRoll(host=host, runs=()))
    bob.send(HostLink(host=host, state=LinkState.FAILED, reason="no"))
    bob.room.tick()
    assert state_of(alice, job) == "starting"
    alice.report(host, job, RunKind.STARTED, pid=1)
    bob.report(host, job, RunKind.ENDED, outcome=Outcome.OK, exit_code=0)
    assert state_of(alice, job) == "running"


def test_older_attempts_and_other_hosts_change_nothing(alice: UserServer) -> None:
    job = alice.submit("sleep", "100")
    [(host, _)] = alice.orders()
    other = "two" if host == "one" else "one"
    alice.report(other, job, RunKind.ENDED, outcome=Outcome.OK, exit_code=0)
    assert state_of(alice, job) == "starting"
    alice.report(host, job, RunKind.NEVER_STARTED, reason="full")
    for _ in range(15):
        alice.send(PeerHeartbeat())
        alice.room.tick(4.0)
    attempt = max(order.attempt for _, order in alice.orders())
    assert attempt == 2
    alice.report(host, job, RunKind.ENDED, attempt=1, outcome=Outcome.OK, exit_code=0)
    assert state_of(alice, job) in ("starting", "waiting")


def test_numbers_that_no_process_has_do_not_reach_the_database(alice: UserServer) -> None:
    job = alice.submit("true")
    [(host, _)] = alice.orders()
    wild = RunReport(job=job, index=-1, attempt=1, kind=RunKind.ENDED, at=float("nan"), pid=-5, started=float("inf"), outcome=Outcome.FAILED,
                     exit_code=10**15, signal=-3, max_rss=-1, cpu=float("nan"), reason="x" * 100_000)  # fmt: skip
    alien = replace(wild, job=2**62, attempt=0)
    alice.send(RunReported(host=host, sequence=1, sent=float("inf"), reports=(wild, alien)), HostLoad(
        host="one", load1=float("nan"), load5=0, load15=0, cores=1, memory_total=1, memory_free=1))  # fmt: skip
    alice.room.tick()
    assert state_of(alice, job) == "finished"
    assert alice.ask(HostQuery(), HostRows).rows[0].load1 is None


def test_a_stranger_may_only_ask_to_be_enrolled(room: Room, alice: UserServer) -> None:
    job = alice.submit("sleep", "100")
    stranger = room.client("stranger")
    for message in (JobQuery(selection=Selection()), JobAct(action="cancel", selection=parse_selection([str(job)])), PeerAsk(what="ping"),
                    AdminRun(words=("shutdown",)), alice.hello_message(), RunRoll(host="one", runs=())):  # fmt: skip
        assert "does not know this key" in stranger.refused(message)
    assert state_of(alice, job) == "starting" and not room.server.is_done


def test_each_role_may_send_its_messages_and_no_others(room: Room, alice: UserServer) -> None:
    assert "may not send admin.run" in alice.refused(AdminRun(words=("shutdown",)))
    admin = room.client("carol-admin")
    item = alice.item("true", user="carol")
    for message in (JobSubmit(items=(item,)), LogLocate(task="1"), BlobGet(digests=()), alice.hello_message(), RunRoll(host="one", runs=())):
        assert "may not send" in admin.refused(message)
    for tag, kind in MESSAGES.items():
        assert kind.sent_by, f"nobody may send {tag}"


def test_an_administrator_sees_no_output_and_no_paths(room: Room, alice: UserServer) -> None:
    job = alice.submit("secret", cwd=b"/home/alice/plans", stdout=b"/home/alice/out")
    admin = room.client("carol-admin")
    assert "may not send log.locate" in admin.refused(LogLocate(task=str(job)))
    [answer] = admin.answers(JobShow(task=str(job)))
    assert "/home/alice" not in repr(answer)
    listed = room.admin("lsjobs", "alice")
    assert str(job) in [cells[0] for cells in listed.rows]
    assert listed.jobs is not None and {row.command for row in listed.jobs if row.id == job} == {""}, "what she runs is hers"
    assert "no user" in room.client("carol-admin").refused(AdminRun(words=("lsjobs", "nobody")))
    # what he does to others is written down for them
    assert room.admin("cancel", str(job)).is_done
    [row] = [cells for cells in room.admin("audit", "alice").rows if cells[3] == "cancel"]
    assert row[1] == "carol" and str(job) in str(row[5])


def test_an_administrators_key_ends_with_his_role(room: Room) -> None:
    assert room.admin("ping").text == "pong"
    (room.etc / "users").write_text("alice user\nbob user\ncarol user\n")
    room.server.reload(room.clock.now())
    room.tick()
    assert "does not know this key" in room.client("carol-admin").refused(AdminRun(words=("ping",)))


def test_a_revoked_key_is_out_at_once(room: Room, alice: UserServer) -> None:
    job = alice.submit("sleep", "100")
    assert "revoked" in room.admin("revokekey", alice.key[:12]).text
    assert alice.all_of(PeerRefused)
    assert "does not know this key" in alice.refused(JobQuery(selection=Selection()))
    alice.report("one", job, RunKind.ENDED, outcome=Outcome.OK, exit_code=0)
    assert [cells[3] for cells in room.admin("lsjobs").rows] == ["starting"]
    assert "revoked" in alice.refused(KeyEnrol(public=alice.key, role=Role.USER_SERVER, user="alice"))
    assert [cells[3] for cells in room.admin("audit", "alice").rows] == ["revokekey"], "and nothing was enrolled"


def test_a_disabled_user_is_kept_out_and_let_in_again(room: Room, alice: UserServer) -> None:
    alice.submit("sleep", "100")
    assert "1 running" in room.admin("disableuser:alice").text
    assert "disabled" in alice.refused(JobSubmit(items=(alice.item("true"),)))
    assert "disabled" in alice.ask(alice.hello_message(), PeerRefused).reason
    room.admin("enableuser:alice")
    alice.hello()
    assert alice.submit("true")


def test_nonsense_is_noted_and_everybody_else_goes_on(room: Room, alice: UserServer, bob: UserServer) -> None:
    room.port._inbox.append(Received(bob.port._peer, None, "a frame of 3 bytes cannot be read"))
    strange: list[Message] = [
        HostLink(host="nowhere", state=LinkState.ALIVE), HostLoad(host="../etc", load1=1, load5=1, load15=1, cores=1, memory_total=1, memory_free=1),
        PeerAsk(what="password"), JobAct(action="explode", selection=Selection(is_all=True)), JobAct(action="signal", selection=Selection(is_all=True), signal=-9),
        JobQuery(selection=Selection(), limit=-1), JobQuery(selection=Selection(ranges=((5, 1),))), JobShow(task="1; DROP TABLE job"),
        JobWatch(selection=Selection(ranges=((1, 2**61),))), JobSubmit(items=()), RunReported(host="one", sequence=-1, sent=0.0, reports=()),
    ]  # fmt: skip
    for message in strange:
        assert isinstance(bob.answers(message)[0], Problem), message
    bob.send(RunRoll(host="nowhere", runs=(AttemptKey(0, -7, -1),)), PeerHeartbeat())
    room.tick()
    assert alice.submit("true")


def test_one_users_flood_does_not_delay_another(room: Room, alice: UserServer, bob: UserServer) -> None:
    for _ in range(1500):
        bob.send(PeerAsk(what="ping"))
    number = alice.send(PeerAsk(what="ping"))
    deadline = room.tick(times=1)
    alice.receive()
    assert [re for re, message in alice.got if isinstance(message, PeerFacts)] == [number]
    assert deadline is not None and deadline <= room.clock.now().boot and len(bob.all_of(PeerFacts)) < 1500
    room.tick(times=10)
    assert len(bob.all_of(PeerFacts)) == 1500


def test_strangers_have_little_patience_to_share(room: Room, alice: UserServer) -> None:
    stranger = room.client("stranger")
    for _ in range(500):
        stranger.send(PeerAsk(what="ping"))
    room.tick()
    assert len(stranger.all_of(Problem)) < 100
    assert alice.ask(PeerAsk(what="ping"), PeerFacts)
    room.tick(10.0)
    assert stranger.refused(PeerAsk(what="ping"))


def test_goodbye_is_taken_from_the_own_connection_only(room: Room, alice: UserServer, bob: UserServer) -> None:
    bob.send(PeerBye(reason="alice leaves"))
    room.tick()
    job = alice.submit("true")
    assert alice.orders() and alice.ask(JobSubmit(items=(alice.item("again"),)), JobSubmitted).items[0].id > job
