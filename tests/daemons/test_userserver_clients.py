"""Commands at the user-server's socket, or by CURVE: submissions, questions, watches, output, and who is let in."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from hq.errors import UnavailableError
from hq.kernel.keys import Sealer, Verifier
from hq.model.ids import AttemptKey
from hq.model.rows import Row
from hq.model.selection import Selection
from hq.protocol.base import Problem
from hq.protocol.codec import MAX_FRAME, envelope
from hq.protocol.jobs import (
    JobAct,
    JobAsk,
    JobExplain,
    JobExplained,
    JobQuery,
    JobRequest,
    JobRows,
    JobSubmit,
    JobSubmitted,
    SubmittedItem,
)
from hq.protocol.peers import HostCheck, HostChecked, PeerAsk, PeerBye, PeerFacts, PeerHello, PeerRefused, PeerShutdown
from hq.protocol.runs import BlobGet, BlobPut, RunReported, RunStart
from hq.protocol.specs import decode_spec
from tests.support.userserver_rig import ALICE, INSTANCE, Rig, host, mode_of, order, start, stranger_key


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two hosts, hq-server has let us in."""
    made = Rig(tmp_path, [host("n1"), host("n2")])
    made.welcome()
    return made


def job(**fields: object) -> JobRequest:
    return JobRequest(**{"argv": (b"/bin/echo", b"\xff"), "env": (b"A=1", b"B=2"), **fields})  # type: ignore[arg-type]


def accepted(message: JobSubmit) -> JobSubmitted:
    return JobSubmitted(items=tuple(SubmittedItem(item.key, 7 + place, 1) for place, item in enumerate(message.items)))


def test_a_submission_is_sealed_signed_and_answered(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobAsk(key="k", jobs=(job(), job(script=b"#!/bin/sh\n", indices="1-3"))))
    request, message = rig.take_request(JobSubmit)
    assert [item.key for item in message.items] == ["k-0", "k-1"]
    plain, array = (decode_spec(item.signed.body) for item in message.items)
    for item in message.items:
        Verifier(rig.keyring.sign_public).check(item.signed.body, item.signed.signature)
    assert (plain.user, plain.instance, plain.name, plain.is_rerunnable) == ("alice", INSTANCE, "echo", False)
    assert (array.is_rerunnable, array.argv) == (True, (b"/bin/echo", b"\xff"))
    sealer = Sealer(rig.keyring.seal_key)
    assert sealer.open(message.blobs[plain.env], plain.env) == b"A=1\0B=2"
    assert sealer.open(message.blobs[array.script], array.script) == b"#!/bin/sh\n"
    assert client.answers() == [], "not before it is committed"
    rig.reply(request, accepted(message))
    rig.tick()
    assert client.answers() == [accepted(message)]


def test_sealed_contents_are_sent_once_and_again_when_refused(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobAsk(key="a", jobs=(job(),)))
    request, message = rig.take_request(JobSubmit)
    rig.reply(request, accepted(message))
    rig.tick()
    rig.ask(client, JobAsk(key="b", jobs=(job(),)))
    request, message = rig.take_request(JobSubmit)
    assert message.blobs == {}
    rig.reply(request, Problem(text="a blob is missing"))
    rig.tick()
    request, message = rig.take_request(JobSubmit)
    assert len(message.blobs) == 1
    rig.reply(request, Problem(text="no host has 99 slots"))
    rig.tick()
    assert client.answers()[1:] == [Problem(text="no host has 99 slots")]


def test_what_was_submitted_is_there_for_the_exec_servers(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobAsk(key="a", jobs=(job(),)))
    request, message = rig.take_request(JobSubmit)
    rig.reply(request, accepted(message))
    rig.exec_comes("n1")
    digest = decode_spec(message.items[0].signed.body).env
    rig.exec_says("n1", BlobGet(digests=(digest,)))
    assert rig.exec_got("n1", BlobPut) == [BlobPut(blobs=message.blobs)]


def test_bad_jobs_are_refused_here_with_their_line(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobAsk(key="k", jobs=(job(), job(slots=0, line=17))))
    (problem,) = client.answers()
    assert isinstance(problem, Problem) and problem.exit_code == 2 and "line 17" in problem.text
    rig.ask(client, JobAsk(key="k", jobs=()))
    assert isinstance(client.answers()[0], Problem)
    assert not rig.server_got(JobSubmit), "all or none"


def test_many_jobs_are_signed_beside_the_loop(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobAsk(key="k", jobs=(job(),) * 500))
    _, message = rig.take_request(JobSubmit)
    assert len(message.items) == 500 and len(message.blobs) == 1
    rig.ask(rig.client(), JobAsk(key="l", jobs=(job(),) * 500 + (job(slots=0, line=3),)))
    assert not rig.server_got(JobSubmit)


def test_root_is_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hq.userserver.submit.is_in_container", lambda root="/": False)
    rig = Rig(tmp_path, [host("n1")], uid=0)
    rig.welcome()
    client = rig.client()
    rig.ask(client, JobAsk(key="k", jobs=(job(),)))
    assert "--allow-root" in client.answers()[0].text  # type: ignore[attr-defined]
    rig.ask(client, JobAsk(key="k", jobs=(job(),), allow_root=True))
    rig.take_request(JobSubmit)
    rig.tell(start("n1", order(1)))
    assert rig.transport.started[0].allow_root


def test_bob_is_refused_at_the_socket(rig: Rig) -> None:
    rig.socket_uid = ALICE + 1
    bob = rig.client()
    rig.tick()
    (problem,) = bob.answers()
    assert isinstance(problem, Problem) and str(ALICE + 1) in problem.text
    assert bob.is_closed
    rig.socket_uid = ALICE
    alice = rig.client()
    rig.ask(alice, PeerAsk(what="ping"))
    assert isinstance(alice.answers()[0], PeerFacts)


def test_messages_that_are_not_a_clients_are_refused_and_noted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    client = rig.client()
    rig.exec_comes("n1")
    rig.ask(client, start("n1", order(1)))
    rig.ask(client, RunReported(host="n1", sequence=1, sent=1.0, reports=()))
    assert all(isinstance(answer, Problem) for answer in client.answers())
    assert not rig.exec_got("n1", RunStart) and not rig.server_got(RunReported)
    assert "run.start" in caplog.text
    client.sock.sendall(b"{not json\n")
    rig.tick()
    assert isinstance(client.answers()[0], Problem)
    rig.ask(client, PeerAsk())
    assert isinstance(client.answers()[0], PeerFacts), "nonsense does not end the conversation"


def test_two_clients_at_once_and_a_slow_one_blocks_nobody(rig: Rig) -> None:
    slow, quick = rig.client(), rig.client()
    half = b'{"type":"peer.ask",'
    slow.sock.sendall(half)
    rig.tick()
    rig.ask(quick, JobQuery(selection=Selection(is_all=True)))
    request, _ = rig.take_request(JobQuery)
    slow.sock.sendall(b'"what":"ping"}\n')
    rig.tick()
    assert slow.answers()[0].facts["answer"] == "pong"  # type: ignore[attr-defined]
    rows = JobRows(rows=tuple(Row(id=n, task=str(n), name="x" * 1000, group="", user="alice", command="c", state="waiting") for n in range(1, 3000)))
    rig.reply(request, rows)
    rig.tick(1)
    rig.ask(slow, PeerAsk(what="ping"))
    assert len(slow.answers()) == 1, "while the other one has not read its three megabytes"
    got = []
    while not got:
        got = quick.answers()
        rig.tick(1)
    assert got == [rows]


def test_requests_on_one_connection_are_answered_in_order(rig: Rig) -> None:
    client = rig.client()
    client.send(JobQuery(selection=Selection(is_all=True)))
    client.send(PeerAsk(what="ping"))
    rig.tick()
    assert client.answers() == []
    request, _ = rig.take_request(JobQuery)
    rig.reply(request, JobRows(rows=()))
    rig.tick()
    assert [type(answer) for answer in client.answers()] == [JobRows, PeerFacts]


def test_a_client_that_ends_its_side_gets_its_answer(rig: Rig) -> None:
    client = rig.client()
    client.send(JobQuery(selection=Selection(is_all=True)))
    client.sock.shutdown(socket.SHUT_WR)
    rig.tick()
    request, _ = rig.take_request(JobQuery)
    rig.reply(request, JobRows(rows=()))
    rig.tick()
    assert client.answers() == [JobRows(rows=())] and client.is_closed


def test_a_server_that_is_away_is_said_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.bus.is_delivered = lambda source, target, frame: target != "server"
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    rig.move(3)
    assert client.answers() == []
    rig.move(4)
    (problem,) = client.answers()
    assert isinstance(problem, Problem) and problem.is_transient
    assert problem.text.startswith("hq-server at tcp://server:1 does not answer (since ") and problem.text.endswith("is it running?")
    rig.ask(client, PeerAsk(what="status"))
    assert "does not answer" in str(client.answers()[0].facts["server_state"])  # type: ignore[attr-defined]
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    rig.bus.is_delivered = lambda source, target, frame: True
    rig.move(2)
    rig.welcome()
    request, _ = rig.take_request(JobQuery)
    rig.reply(request, JobRows(rows=()))
    rig.tick()
    assert client.answers() == [JobRows(rows=())]


def test_what_may_be_repeated_is_asked_again_after_a_break(rig: Rig) -> None:
    asking, acting = rig.client(), rig.client()
    rig.ask(asking, JobAsk(key="k", jobs=(job(),)))
    rig.ask(acting, JobAct(action="signal", selection=Selection(is_last=True), signal=10))
    first, _ = rig.take_request(JobSubmit)
    rig.tell(PeerBye(reason="stops"))
    (problem,) = acting.answers()
    assert isinstance(problem, Problem) and "look whether it was done" in problem.text
    rig.move(2)
    rig.welcome(epoch=2)
    again, message = rig.take_request(JobSubmit)
    assert again == first and message.items[0].key == "k-0"
    rig.reply(again, accepted(message), epoch=2)
    rig.tick()
    assert isinstance(asking.answers()[0], JobSubmitted)


def test_another_user_server_is_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    request, _ = rig.take_request(PeerHello)
    rig.reply(request, PeerRefused(reason="another user-server of alice is up on login2 (login2:7001)", address="login2:7001"))
    rig.tick()
    late = rig.client()
    rig.ask(late, JobQuery(selection=Selection(is_all=True)))
    for each in (client, late):
        (problem,) = each.answers()
        assert isinstance(problem, Problem) and "login2:7001" in problem.text and not problem.is_transient
    assert not rig.us.is_done and not rig.access_path.exists()
    rig.move(6)
    assert rig.us.is_done and rig.us.exit_code == 1


def test_a_user_who_was_disabled_is_told_so_and_goes_on_once_he_is_enabled(rig: Rig) -> None:
    rig.tell(PeerRefused(reason="the user alice is disabled", may_change=True))
    rig.move(3)
    for is_enabled in (False, True):
        client = rig.client()
        rig.ask(client, JobQuery(selection=Selection(is_all=True)))
        if is_enabled:
            rig.welcome()
            rig.reply(rig.take_request(JobQuery)[0], JobRows(rows=()))
        else:
            rig.reply(rig.take_request(PeerHello)[0], PeerRefused(reason="the user alice is disabled", may_change=True))
        rig.tick()
        assert client.answers() == [JobRows(rows=()) if is_enabled else Problem(text="the user alice is disabled")]
        rig.move(3)
    assert not rig.us.is_done


def test_explain_adds_what_is_known_here(rig: Rig) -> None:
    rig.transport.trouble["n1"] = UnavailableError("Permission denied (publickey).")
    rig.tell(start("n1", order(1)))
    client = rig.client()
    rig.ask(client, JobExplain(task="1"))
    request, _ = rig.take_request(JobExplain)
    rig.reply(request, JobExplained(task="1", sentences=("It waits.",)))
    rig.tick()
    rig.reply(rig.take_request(JobQuery)[0], JobRows(rows=(Row(id=1, task="1", name="", group="", user="alice", command="c", state="waiting"),)))
    rig.tick()
    (answer,) = client.answers()
    assert isinstance(answer, JobExplained)
    assert answer.sentences[0] == "It waits." and "Permission denied (publickey)." in answer.sentences[1] and answer.sentences[-1] == "not kept up"


def test_the_user_server_that_was_here_before_is_waited_out(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    for _ in range(12):
        request, _ = rig.take_request(PeerHello)
        rig.reply(request, PeerRefused(reason="another user-server of alice is up on login1 (login1:6999)", address="login1:6999"))
        rig.tick()
        rig.move(1)
    assert client.answers() == [] and not rig.us.is_done, "we hold the lock of this machine: that one is dead"
    rig.welcome()
    rig.reply(rig.take_request(JobQuery)[0], JobRows(rows=()))
    rig.tick()
    assert client.answers() == [JobRows(rows=())]


def test_explain_of_what_is_over_adds_nothing(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobExplain(task="1"))
    rig.reply(rig.take_request(JobExplain)[0], JobExplained(task="1", sentences=("It ended well.",)))
    rig.tick()
    row = Row(id=1, task="1", name="", group="", user="alice", command="c", state="finished", outcome="ok")
    rig.reply(rig.take_request(JobQuery)[0], JobRows(rows=(row,)))
    rig.tick()
    assert client.answers() == [JobExplained(task="1", sentences=("It ended well.",))]


def test_host_check(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, HostCheck(host="n1"))
    (answer,) = client.answers()
    assert isinstance(answer, HostChecked) and answer.host == "n1" and answer.steps[0].is_ok
    rig.ask(client, HostCheck(host="n9"))
    assert "no host 'n9'" in client.answers()[0].text  # type: ignore[attr-defined]


def test_commands_on_another_machine_come_by_the_access_file(rig: Rig) -> None:
    assert mode_of(rig.access_path) == 0o600
    access = json.loads(rig.access_path.read_text())
    assert (access["host"], access["port"], access["boot"], access["public"], access["client_public"]) == (
        "login1", 7000, "boot-1", rig.keyring.public, rig.client_key)  # fmt: skip
    known, stranger = rig.bus_client(), rig.bus_client(stranger_key())
    for port in (known, stranger):
        port.send(envelope(PeerAsk(what="ping"), id=3))
    rig.tick()
    (received,) = known.receive()
    assert received.letter is not None and received.letter.re == 3 and isinstance(received.letter.messages[0], PeerFacts)
    assert stranger.receive() == []
    rig.us.stop(rig.clock.now())
    assert not rig.access_path.exists()


def test_shutdown_takes_idle_exec_servers_along_when_asked(rig: Rig) -> None:
    rig.exec_comes("n1", [AttemptKey(1, -1, 1)])
    rig.exec_comes("n2")
    client = rig.client()
    rig.ask(client, PeerShutdown(and_hosts=True))
    assert isinstance(client.answers()[0], PeerBye)
    assert rig.us.is_done
    assert rig.exec_got("n2", PeerShutdown) and not rig.exec_got("n1", PeerShutdown)
    assert rig.server_got(PeerBye)


def test_a_line_without_end_is_cut_off(rig: Rig) -> None:
    client = rig.client()
    client.sock.setblocking(False)
    sent = 0
    piece = b"x" * (1 << 20)
    while sent <= MAX_FRAME and not client.is_closed:
        try:
            sent += client.sock.send(piece)
        except BlockingIOError:
            rig.tick(1)
        except OSError:
            break
    rig.tick(5)
    assert len(rig.door) == 0
