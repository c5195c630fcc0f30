"""log.read: output from the host that has it, piece by piece, followed while the task lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import UnavailableError
from hq.model.job import SignedSpec
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.protocol.base import Problem
from hq.protocol.jobs import (
    LogData,
    LogFetch,
    LogLocate,
    LogLocated,
    LogRead,
)
from hq.protocol.peers import PeerAsk, PeerHeartbeat
from hq.protocol.runs import RunReported
from tests.support.userserver_rig import Client, Rig, host


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two hosts, hq-server has let us in."""
    made = Rig(tmp_path, [host("n1"), host("n2")])
    made.welcome()
    return made


def located(attempt: int = 1, name: str = "n1", *, is_live: bool) -> LogLocated:
    return LogLocated(task="1", host=name, attempt=attempt, signed=SignedSpec(b"b", b"s"), is_live=is_live)


def asks(rig: Rig) -> Client:
    """A client who asks for the output of a job on n1; its exec-server is about to be asked."""
    rig.exec_comes("n1")
    client = rig.client()
    rig.ask(client, LogRead(task="1"))
    rig.reply(rig.take_request(LogLocate)[0], located(is_live=False))
    rig.tick()
    return client


def test_output_is_read_piece_by_piece(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, LogRead(task="1"))
    request, _ = rig.take_request(LogLocate)
    rig.reply(request, located(is_live=False))
    rig.tick()
    rig.exec_comes("n1")
    rig.move(1)
    for piece, offset in ((b"abc", 0), (b"de", 3)):
        rig.tick()
        number, fetch = rig.exec_request("n1", LogFetch)
        assert (fetch.job, fetch.index, fetch.attempt, fetch.offset, fetch.signed) == (1, -1, 1, offset, SignedSpec(b"b", b"s"))
        rig.exec_says("n1", LogData(data=piece, offset=offset, size=5, is_end=False), re=number)
    answers = client.answers()
    assert [(answer.data, answer.is_end) for answer in answers] == [(b"abc", False), (b"de", True)]  # type: ignore[attr-defined]
    rig.ask(client, PeerAsk(what="ping"))
    assert len(client.answers()) == 1, "the connection is free again"


def test_output_is_followed_until_the_task_has_ended(rig: Rig) -> None:
    rig.exec_comes("n1")
    client = rig.client()
    rig.ask(client, LogRead(task="1", is_following=True))
    rig.reply(rig.take_request(LogLocate)[0], located(is_live=True))
    rig.tick()
    number, _ = rig.exec_request("n1", LogFetch)
    rig.exec_says("n1", LogData(data=b"one\n", offset=0, size=4, is_end=False), re=number)
    assert client.answers() == [LogData(data=b"one\n", offset=0, size=4, is_end=False)]
    rig.clock.move(0.3)
    rig.tick()
    number, fetch = rig.exec_request("n1", LogFetch)
    assert fetch.offset == 4
    rig.exec_says("n1", LogData(data=b"", offset=4, size=4, is_end=False), re=number)
    rig.exec_says("n1", RunReported(host="n1", sequence=1, sent=1.0, reports=(
        RunReport(job=1, index=-1, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.OK, exit_code=0),)))  # fmt: skip
    rig.clock.move(0.3)
    rig.tick()
    rig.reply(rig.take_request(LogLocate)[0], located(is_live=False))
    rig.tick()
    number, fetch = rig.exec_request("n1", LogFetch)
    assert client.answers() == []
    rig.exec_says("n1", LogData(data=b"two\n", offset=4, size=8, is_end=True), re=number)
    assert client.answers() == [LogData(data=b"two\n", offset=4, size=8, is_end=True)]


def test_a_question_that_was_lost_with_its_link_is_asked_again(rig: Rig) -> None:
    client = asks(rig)
    rig.exec_request("n1", LogFetch)
    rig.exec_comes("n1")
    rig.clock.move(0.3)
    rig.tick()
    number, _ = rig.exec_request("n1", LogFetch)
    assert client.answers() == []
    rig.exec_says("n1", LogData(data=b"one\n", offset=0, size=4, is_end=True), re=number)
    assert client.answers() == [LogData(data=b"one\n", offset=0, size=4, is_end=True)]


def test_a_host_that_does_not_answer_is_told(rig: Rig) -> None:
    client = asks(rig)
    for _ in range(30):
        rig.exec_says("n1", PeerHeartbeat())
        rig.move(1)
    (problem,) = client.answers()
    assert isinstance(problem, Problem) and "the exec-server on n1 has not answered" in problem.text


def test_output_of_a_host_that_cannot_be_reached(rig: Rig) -> None:
    rig.transport.trouble["n1"] = UnavailableError("No route to host")
    client = rig.client()
    rig.ask(client, LogRead(task="1"))
    rig.reply(rig.take_request(LogLocate)[0], located(is_live=False))
    rig.tick()
    rig.move(1)
    (problem,) = client.answers()
    assert isinstance(problem, Problem) and "No route to host" in problem.text
    rig.ask(client, LogRead(task="7x"))
    rig.ask(client, LogRead(task="1", stream="/etc/passwd"))
    assert all(isinstance(answer, Problem) for answer in client.answers())


def test_output_of_what_has_not_started(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, LogRead(task="1"))
    rig.reply(rig.take_request(LogLocate)[0], located(0, "", is_live=True))
    rig.tick()
    assert "has not started yet" in client.answers()[0].text  # type: ignore[attr-defined]
