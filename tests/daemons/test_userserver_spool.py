"""Submissions while hq-server is away: kept on the disk, sent when it is back, each once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.protocol.base import Problem
from hq.protocol.jobs import JobAsk, JobRequest, JobSubmit, JobSubmitted, SubmittedItem
from hq.protocol.peers import PeerAsk, PeerBye, PeerFacts
from tests.support.userserver_rig import Client, Rig, host


def ask(key: str, **more: object) -> JobAsk:
    return JobAsk(key=key, jobs=(JobRequest(argv=(b"true",), env=(b"A=1",)),), **more)  # type: ignore[arg-type]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """hq-server was there and has gone."""
    made = Rig(tmp_path, [host("n1")])
    made.welcome()
    made.tell(PeerBye(reason="stops"))
    return made


def kept(rig: Rig, client: Client, key: str = "k") -> JobSubmitted:
    client.send(ask(key))
    rig.move(8.0)
    (answer,) = client.answers()
    assert isinstance(answer, JobSubmitted)
    return answer


def taken(message: JobSubmit, id: int) -> JobSubmitted:
    return JobSubmitted(items=tuple(SubmittedItem(item.key, id, 1) for item in message.items))


def test_it_is_kept_and_the_user_is_told_where_and_why(rig: Rig, tmp_path: Path) -> None:
    answer = kept(rig, rig.client())
    assert [item.id for item in answer.items] == [0]
    (path,) = (tmp_path / "spool").iterdir()
    assert str(path) in answer.kept and "does not answer" in answer.kept
    assert path.stat().st_mode & 0o777 == 0o600
    client = rig.client()
    rig.ask(client, PeerAsk(what="status"))
    (facts,) = client.answers()
    assert isinstance(facts, PeerFacts) and "1 submissions wait" in str(facts.facts["spool"])


def test_it_is_sent_when_hq_server_is_back_in_order_and_once(rig: Rig, tmp_path: Path) -> None:
    kept(rig, rig.client(), "a")
    kept(rig, rig.client(), "b")
    rig.move(1.0)
    rig.move(5.0)
    rig.welcome()
    for id, key in ((1, "a-0"), (2, "b-0")):
        request, message = rig.take_request(JobSubmit)
        assert [item.key for item in message.items] == [key]
        assert message.blobs, "with all that it needs"
        rig.reply(request, taken(message, id))
        rig.tick()
    rig.move(30.0)
    assert not rig.server_got(JobSubmit)
    assert not list((tmp_path / "spool").iterdir())


def test_a_user_server_that_was_killed_finds_it_again(rig: Rig, tmp_path: Path) -> None:
    kept(rig, rig.client())
    again = Rig(tmp_path, [host("n1")])
    again.welcome()
    _, message = again.take_request(JobSubmit)
    assert [item.key for item in message.items] == ["k-0"]


def test_while_hq_server_says_later_it_is_tried_again(rig: Rig, tmp_path: Path) -> None:
    kept(rig, rig.client())
    rig.move(6.0)
    rig.welcome()
    for _ in range(2):
        request, message = rig.take_request(JobSubmit)
        rig.reply(request, Problem(text="the state database is away", is_transient=True))
        rig.tick()
        assert not rig.server_got(JobSubmit)
        for _ in range(11):
            rig.move(1.0)
            rig.tell()
    assert list((tmp_path / "spool").iterdir())


def test_what_is_refused_later_is_set_aside_with_its_reason(rig: Rig, tmp_path: Path) -> None:
    kept(rig, rig.client())
    rig.move(6.0)
    rig.welcome()
    request, _ = rig.take_request(JobSubmit)
    rig.reply(request, Problem(text="alice is disabled"))
    rig.tick()
    names = sorted(path.name.partition(".")[2] for path in (tmp_path / "spool").iterdir())
    assert names == ["kept.reason", "refused"]
    assert "1 were refused" in rig.us.spool.facts()


def test_a_dry_run_and_a_refusal_are_not_kept(rig: Rig, tmp_path: Path) -> None:
    client = rig.client()
    client.send(ask("k", is_dry_run=True))
    rig.move(8.0)
    (answer,) = client.answers()
    assert isinstance(answer, Problem)
    assert not list((tmp_path / "spool").iterdir())


def test_for_a_hq_server_that_never_let_anybody_in_nothing_is_kept(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")])
    client = rig.client()
    client.send(ask("k"))
    rig.move(8.0)
    (answer,) = client.answers()
    assert isinstance(answer, Problem)
    assert not list((tmp_path / "spool").iterdir())


def test_without_room_on_the_disk_it_says_that_nothing_was_submitted(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(rig.us.spool, "keep", full)
    client = rig.client()
    client.send(ask("k"))
    rig.move(8.0)
    (answer,) = client.answers()
    assert isinstance(answer, Problem) and "nothing was submitted" in answer.text


def test_a_user_server_with_a_spool_does_not_stop(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")], idle=10.0)
    rig.welcome()
    rig.tell(PeerBye(reason="stops"))
    client = rig.client()
    kept(rig, client)
    client.sock.close()
    rig.move(300.0)
    assert not rig.us.is_done


def test_without_room_for_the_reason_of_a_refusal_it_goes_on(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(rig, rig.client(), "a")
    kept(rig, rig.client(), "b")
    rig.move(6.0)

    def opened(path: str, mode: str = "r", **more: object) -> object:
        if "w" in mode:
            raise OSError(28, "No space left on device")
        return open(path, mode)

    monkeypatch.setattr("hq.userserver.spool.open", opened, raising=False)
    rig.welcome()
    request, _ = rig.take_request(JobSubmit)
    rig.reply(request, Problem(text="alice is disabled"))
    rig.tick()
    request, message = rig.take_request(JobSubmit)
    rig.reply(request, taken(message, 7))
    rig.tick()
    assert [path.suffix for path in (tmp_path / "spool").iterdir()] == [".refused"], "the reason stands in the log"


def test_a_submission_that_could_not_be_kept_leaves_nothing_behind(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = rig.client()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        client.send(ask("k"))
        rig.move(8.0)
    (answer,) = client.answers()
    assert isinstance(answer, Problem) and "No space left" in answer.text and "nothing was submitted" in answer.text
    assert not list((tmp_path / "spool").iterdir())
    kept(rig, client, "k")
