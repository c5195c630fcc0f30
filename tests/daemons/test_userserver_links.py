"""The user-server between hq-server and exec-servers: starts, relays, silence, and who may say what."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import RefusedError, UnavailableError
from hq.kernel.bus import Peer
from hq.model.ids import AttemptKey
from hq.model.rows import Row
from hq.model.runs import RunReport
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.codec import envelope
from hq.protocol.jobs import JobQuery, JobRows
from hq.protocol.peers import HostLink, HostLoad, HostsListed, PeerBye, PeerHeartbeat, PeerHello
from hq.protocol.runs import BlobGet, BlobPut, ExecWelcome, RunRecorded, RunReported, RunRoll, RunSignal, RunStart, RunStop
from tests.support.userserver_rig import Rig, host, order, start, stranger_key


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two hosts, hq-server has let us in."""
    made = Rig(tmp_path, [host("n1"), host("n2")])
    made.welcome()
    return made


def ended(job: int, attempt: int = 1) -> RunReport:
    return RunReport(job=job, index=-1, attempt=attempt, kind=RunKind.ENDED, at=1.0, outcome=Outcome.OK, exit_code=0)


def states(rig: Rig) -> list[tuple[str, LinkState]]:
    return [(link.host, link.state) for link in rig.server_got(HostLink)]


def test_an_order_starts_the_exec_server_and_reaches_it_after_its_roll(rig: Rig) -> None:
    rig.tell(start("n1", order(1), order(2)))
    assert [bootstrap.host for bootstrap in rig.transport.started] == ["n1"]
    assert states(rig) == [("n1", LinkState.STARTING)]
    rig.exec_comes("n1", with_roll=False)
    assert rig.exec_got("n1", ExecWelcome)[0].slots == 4
    assert not rig.exec_got("n1", RunStart), "an order before the roll could be taken for lost and be run twice"
    rig.exec_says("n1", RunRoll(host="n1", runs=()))
    (told,) = rig.server_got(RunRoll)
    assert set(told.runs) == {AttemptKey(1, -1, 1), AttemptKey(2, -1, 1)}, "what waits here is not lost"
    (sent,) = rig.exec_got("n1", RunStart)
    assert sent == start("n1", order(1), order(2))
    assert states(rig) == [("n1", LinkState.ALIVE)]
    rig.tell(start("n1", order(3)))
    assert rig.exec_got("n1", RunStart) == [start("n1", order(3))]
    assert len(rig.transport.started) == 1


def test_reports_go_up_under_the_name_that_the_key_proves(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.exec_says("n1", RunReported(host="n2", sequence=7, sent=1.0, reports=(ended(1),)))
    assert rig.server_got(RunReported) == [RunReported(host="n1", sequence=7, sent=1.0, reports=(ended(1),))]
    load = HostLoad(host="n2", load1=1, load5=1, load15=1, cores=4, memory_total=8, memory_free=4)
    rig.exec_says("n1", load)
    assert [each.host for each in rig.server_got(HostLoad)] == ["n1"]
    rig.exec_says("n1", RunRoll(host="n2", runs=(AttemptKey(4, -1, 1),)))
    assert {each.host for each in rig.server_got(RunRoll)} == {"n1"}
    rig.tell(RunRecorded(host="n1", sequence=7))
    assert rig.exec_got("n1", RunRecorded) == [RunRecorded(host="n1", sequence=7)]


def test_a_failed_link_gives_orders_back_backs_off_and_says_why(rig: Rig) -> None:
    rig.transport.trouble["n1"] = UnavailableError("ssh: connect to host n1 port 22: No route to host")
    rig.tell(start("n1", order(1)))
    links = rig.server_got(HostLink)
    assert [(each.state, each.reason) for each in links][-1] == (LinkState.FAILED, "ssh: connect to host n1 port 22: No route to host")
    (report,) = rig.server_got(RunReported)
    assert (report.sequence, report.host) == (0, "n1")
    assert report.reports[0].kind is RunKind.NEVER_STARTED and "No route to host" in report.reports[0].reason
    rig.tell(start("n1", order(2)))
    assert rig.server_got(RunReported)[0].reports[0].key == AttemptKey(2, -1, 1), "while it waits, orders come back at once"
    assert len(rig.transport.started) == 1
    times = []
    for second in range(1, 60):
        before = len(rig.transport.started)
        rig.tell(PeerHeartbeat())
        rig.move(1)
        if len(rig.transport.started) > before:
            times.append(second)
    assert len(times) == 3, "5, 10, 20 s and then 40 s, a quarter more or less"
    assert 3 <= times[0] <= 7 and 7 <= times[1] - times[0] <= 14 and 14 <= times[2] - times[1] <= 26


def test_a_failed_link_that_works_again_is_told(rig: Rig) -> None:
    rig.transport.trouble["n1"] = RefusedError("Permission denied (publickey).")
    rig.tell(start("n1", order(1)))
    rig.server_got(HostLink)
    del rig.transport.trouble["n1"]
    rig.move(8)
    rig.exec_comes("n1")
    assert states(rig) == [("n1", LinkState.ALIVE)]


def test_a_start_without_a_hello_fails_after_a_while(rig: Rig) -> None:
    rig.tell(start("n1", order(1)))
    for _ in range(70):
        rig.tell(PeerHeartbeat())
        rig.move(1)
    failed = [each for each in rig.server_got(HostLink) if each.state is LinkState.FAILED]
    assert failed and "did not reach this user-server" in failed[0].reason
    assert rig.server_got(RunReported)[0].reports[0].kind is RunKind.NEVER_STARTED


def test_a_stop_finds_an_order_that_still_waits_here(rig: Rig) -> None:
    rig.tell(start("n1", order(1), order(2)))
    rig.tell(RunStop(host="n1", runs=(AttemptKey(1, -1, 1),), reason="cancelled by alice"))
    (report,) = rig.server_got(RunReported)
    (one,) = report.reports
    assert (one.key, one.kind, one.outcome, one.reason) == (AttemptKey(1, -1, 1), RunKind.NEVER_STARTED, Outcome.CANCELLED, "cancelled by alice")
    rig.exec_comes("n1")
    assert rig.exec_got("n1", RunStart) == [start("n1", order(2))]
    assert not rig.exec_got("n1", RunStop)


def test_a_stop_for_what_runs_there_waits_for_the_link(rig: Rig) -> None:
    stop = RunStop(host="n1", runs=(AttemptKey(9, -1, 1),))
    rig.tell(stop)
    assert len(rig.transport.started) == 1, "only the exec-server knows whether it runs"
    rig.exec_comes("n1", [AttemptKey(9, -1, 1)])
    assert rig.exec_got("n1", RunStop) == [stop]


def test_a_newer_attempt_ends_the_older_one(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.exec_comes("n2")
    rig.tell(start("n1", order(1)))
    rig.tell(start("n2", order(1, attempt=2)))
    (stop,) = rig.exec_got("n1", RunStop)
    assert stop.runs == (AttemptKey(1, -1, 1),)
    rig.tell(start("n1", order(1)))
    assert [each.orders for each in rig.exec_got("n1", RunStart)][1:] in ([], [()]), "an order that came late is not carried out"


def test_a_silent_exec_server_is_suspect_then_alive_again_with_its_roll(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.server_got(HostLink)
    for _ in range(16):
        rig.tell(PeerHeartbeat())
        rig.move(1)
    suspects = rig.server_got(HostLink)
    assert suspects[0].state is LinkState.SUSPECT and "silent" in suspects[0].reason
    assert not any(each.state is LinkState.FAILED for each in suspects)
    rig.tell(start("n1", order(5)))
    rig.exec_got("n1", ExecWelcome)
    assert not rig.exec_got("n1", RunStart)
    rig.exec_says("n1", PeerHeartbeat())
    assert rig.exec_got("n1", ExecWelcome), "the welcome makes it call its roll"
    rig.exec_says("n1", RunRoll(host="n1", runs=(AttemptKey(4, -1, 1),)))
    assert states(rig) == [("n1", LinkState.ALIVE)]
    assert rig.exec_got("n1", RunStart) == [start("n1", order(5))]
    assert set(rig.server_got(RunRoll)[-1].runs) == {AttemptKey(4, -1, 1), AttemptKey(5, -1, 1)}


def test_an_exec_server_under_a_new_route_is_welcomed_again(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.execs["n1"] = rig.bus.dial("tcp://127.0.0.1:7000", rig.exec_keys.of("n1")[0])
    rig.exec_says("n1", PeerHeartbeat())
    assert rig.exec_got("n1", ExecWelcome)
    rig.tell(start("n1", order(1)))
    assert not rig.exec_got("n1", RunStart)
    rig.exec_says("n1", RunRoll(host="n1", runs=()))
    assert rig.exec_got("n1", RunStart)


def test_goodbye_of_an_exec_server(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.server_got(HostLink)
    rig.exec_says("n1", PeerBye(reason="idle"))
    assert states(rig) == [("n1", LinkState.UNKNOWN)]
    rig.tell(start("n1", order(1)))
    assert len(rig.transport.started) == 1


def test_blobs_come_from_the_cache_or_from_above_once(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.exec_comes("n2")
    rig.exec_says("n1", BlobGet(digests=("a", "b")), id=5)
    rig.exec_says("n2", BlobGet(digests=("a",)), id=9)
    (request, asked) = rig.take_request(BlobGet)
    assert asked.digests == ("a", "b")
    assert not rig.server_got(BlobGet), "each is asked for once"
    rig.reply(request, BlobPut(blobs={"a": b"sealed"}, missing=("b",)))
    rig.tick()
    assert rig.exec_got("n1", BlobPut) == [BlobPut(blobs={"a": b"sealed"}, missing=("b",))]
    assert rig.exec_got("n2", BlobPut) == [BlobPut(blobs={"a": b"sealed"})]
    rig.exec_says("n2", BlobGet(digests=("a",)))
    assert rig.exec_got("n2", BlobPut) == [BlobPut(blobs={"a": b"sealed"})]
    assert not rig.server_got(BlobGet)


def test_strangers_and_wrong_roles_are_ignored(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.exec_comes("n1")
    rig.server_got(RunReported)
    other = rig.bus.dial("tcp://127.0.0.1:7000", stranger_key())
    other.send(envelope(RunReported(host="n1", sequence=1, sent=1.0, reports=(ended(1),)), id=1))
    rig.exec_says("n1", start("n2", order(1)))
    rig.tell(RunReported(host="n1", sequence=1, sent=1.0, reports=()))
    assert not rig.server_got(RunReported) and not rig.transport.started
    assert other.receive() == []
    text = caplog.text
    assert "stranger" in text and "exec-server" in text and "may not" in text


def test_a_newer_hq_server_is_obeyed_and_an_older_one_is_not(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.tell(PeerBye(reason="stops"))
    rig.move(2)
    rig.welcome(epoch=3)
    rig.tell(start("n1", order(1)), epoch=2)
    assert not rig.exec_got("n1", RunStart)
    rig.tell(start("n1", order(2)), epoch=3)
    assert rig.exec_got("n1", RunStart) == [start("n1", order(2))]


def test_after_hq_server_came_back_everything_is_told_again(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.transport.trouble["n2"] = UnavailableError("no route")
    rig.tell(start("n2", order(1)))
    rig.server_got(HostLink)
    rig.server_got(RunReported)
    rig.exec_got("n1", ExecWelcome)
    for _ in range(4):
        rig.exec_says("n1", PeerHeartbeat())
        rig.move(5)
    rig.welcome(epoch=2)
    assert sorted(states(rig)) == [("n1", LinkState.ALIVE), ("n2", LinkState.FAILED)]
    assert [each.reports[0].key for each in rig.server_got(RunReported)] == [AttemptKey(1, -1, 1)]
    assert rig.exec_got("n1", ExecWelcome)[-1].epoch == 2, "it calls its roll and sends what is not recorded"


def test_what_was_given_back_is_never_started(rig: Rig) -> None:
    rig.transport.trouble["n1"] = UnavailableError("no route")
    rig.tell(start("n1", order(1)))
    rig.server_got(RunReported)
    del rig.transport.trouble["n1"]
    rig.exec_comes("n1")
    rig.tell(start("n1", order(1), order(2)))
    assert [each.orders for each in rig.exec_got("n1", RunStart)] == [(order(2),)], "its next attempt may run elsewhere"
    assert rig.server_got(RunReported)[0].reports[0].key == AttemptKey(1, -1, 1)
    rig.tell(start("n1", order(1, attempt=2)))
    assert [each.orders for each in rig.exec_got("n1", RunStart)] == [(order(1, attempt=2),)]


def test_a_user_server_that_restarts_finds_its_exec_servers(rig: Rig, tmp_path: Path) -> None:
    rig.tell(start("n1", order(1)))
    rig.exec_comes("n1")
    again = Rig(tmp_path, rig.hosts)
    again.welcome()
    assert [bootstrap.host for bootstrap in again.transport.started] == ["n1"]
    assert again.transport.started[0].public == rig.transport.started[0].public
    again.exec_comes("n1", [AttemptKey(1, -1, 1)])
    assert again.server_got(RunRoll)[0].runs == (AttemptKey(1, -1, 1),)


def test_hosts_that_are_removed(rig: Rig) -> None:
    rig.tell(start("n1", order(1)))
    rig.tell(HostsListed(hosts=(host("n2"),)))
    assert rig.server_got(RunReported)[0].reports[0].kind is RunKind.NEVER_STARTED
    rig.tell(start("n1", order(2)))
    assert "no host n1" in rig.server_got(RunReported)[0].reports[0].reason


def test_a_few_starts_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host(f"n{number}") for number in range(30)])
    rig.welcome()
    rig.tell(*(start(f"n{number}", order(number + 1)) for number in range(30)))
    rig.tick(1)
    assert len(rig.transport.started) <= 30
    rig.tick(10)
    assert len(rig.transport.started) == 30


def test_signals_are_of_the_moment(rig: Rig) -> None:
    signal = RunSignal(host="n1", runs=(AttemptKey(1, -1, 1),), signal=10)
    rig.tell(signal)
    rig.exec_comes("n1")
    assert not rig.exec_got("n1", RunSignal)
    rig.tell(signal)
    assert rig.exec_got("n1", RunSignal) == [signal]


def test_nobody_speaks_for_hq_server(rig: Rig) -> None:
    assert rig.server_peer == Peer(rig.keyring.public, b"route-1")
    assert not rig.server_got(PeerHello)


def test_it_stops_when_there_is_nothing_to_do(rig: Rig) -> None:
    def wait(seconds: int) -> None:
        for _ in range(seconds // 5):
            rig.tell(PeerHeartbeat())
            rig.move(5)

    client = rig.client()
    wait(700)
    assert not rig.us.is_done, "a client is there"
    client.sock.close()
    wait(605)
    request, query = rig.take_request(JobQuery)
    assert query.selection.is_all and query.limit == 1
    rig.reply(request, JobRows(rows=(Row(id=1, task="1", name="", group="", user="alice", command="c", state="waiting"),)))
    rig.tick()
    wait(605)
    assert not rig.us.is_done, "a job waits at hq-server"
    rig.reply(rig.take_request(JobQuery)[0], JobRows(rows=()))
    rig.tick()
    assert rig.us.is_done and rig.us.exit_code == 0
    assert rig.server_got(PeerBye)[0].reason == "nothing to do"


def test_live_runs_keep_it_up(rig: Rig) -> None:
    rig.exec_comes("n1")
    rig.tell(start("n1", order(1)))
    for _ in range(200):
        rig.exec_says("n1", PeerHeartbeat())
        rig.tell(PeerHeartbeat())
        rig.move(5)
    assert not rig.us.is_done and not rig.server_got(JobQuery)
