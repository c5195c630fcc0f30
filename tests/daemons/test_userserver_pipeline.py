"""Submissions that follow each other on one connection go up without waiting for answers; answers and ids keep their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.model.selection import parse_selection
from hq.protocol.base import Problem
from hq.protocol.codec import encode_line
from hq.protocol.jobs import JobAct, JobActed, JobAsk, JobRequest, JobSubmit, JobSubmitted, SubmittedItem
from hq.userserver.requests import MANY
from hq.userserver.turns import MAX_TURNS
from tests.support.userserver_rig import Client, Rig, host


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """One host, hq-server has let us in."""
    made = Rig(tmp_path, [host("n1")])
    made.welcome()
    return made


def ask(key: str, count: int = 1, **more: object) -> JobAsk:
    return JobAsk(key=key, jobs=(JobRequest(argv=(b"true",), env=(b"A=1",), **more),) * count)  # type: ignore[arg-type]


def taken(message: JobSubmit, id: int) -> JobSubmitted:
    return JobSubmitted(items=tuple(SubmittedItem(item.key, id, 1) for item in message.items))


def at_server(rig: Rig) -> list[tuple[int, JobSubmit]]:
    """Submissions that came to hq-server, with their request numbers, taken out."""
    found = [(request, message) for request, message in rig.at_server if isinstance(message, JobSubmit)]
    rig.at_server = [each for each in rig.at_server if not isinstance(each[1], JobSubmit)]
    return found


def ids(client: Client) -> list[int | str]:
    """The ids that a client was told, or the text of a problem."""
    answers = client.answers()
    assert all(isinstance(each, JobSubmitted | Problem) for each in answers)
    return [each.items[0].id if isinstance(each, JobSubmitted) else str(getattr(each, "text", "")) for each in answers]


def test_they_go_up_in_order_before_any_answer_and_answers_come_in_order(rig: Rig) -> None:
    client = rig.client()
    client.sock.sendall(b"".join(encode_line(ask(f"k{number}")) for number in range(20)))
    rig.tick()
    went = at_server(rig)
    assert [message.items[0].key for _, message in went] == [f"k{number}-0" for number in range(20)]
    for number, (request, message) in reversed(list(enumerate(went))):
        rig.reply(request, taken(message, 100 + number))
    rig.tick()
    assert ids(client) == [100 + number for number in range(20)]


def test_a_refusal_stands_in_its_place(rig: Rig) -> None:
    client = rig.client()
    client.sock.sendall(encode_line(ask("a")) + encode_line(ask("b", slots=0)) + b"nonsense\n" + encode_line(ask("c")))
    rig.tick()
    (first, one), (last, two) = at_server(rig)
    assert ids(client) == [], "the first one is not answered yet"
    rig.reply(last, taken(two, 2))
    rig.reply(first, taken(one, 1))
    rig.tick()
    told = ids(client)
    assert (told[0], told[3]) == (1, 2) and "slots" in str(told[1]) and "not a message" in str(told[2])


def test_anything_else_waits_for_the_answers_before_it_and_holds_up_those_after_it(rig: Rig) -> None:
    client = rig.client()
    act = JobAct(action="cancel", selection=parse_selection(["last"]))
    client.sock.sendall(encode_line(ask("a")) + encode_line(act) + encode_line(ask("b")))
    rig.tick()
    ((request, message),) = at_server(rig)
    assert not rig.server_got(JobAct)
    rig.reply(request, taken(message, 1))
    rig.tick()
    number, _ = rig.take_request(JobAct)
    assert not at_server(rig)
    rig.reply(number, JobActed(results=()))
    rig.tick()
    ((request, message),) = at_server(rig)
    rig.reply(request, taken(message, 2))
    rig.tick()
    assert [type(each) for each in client.answers()] == [JobSubmitted, JobActed, JobSubmitted]


def test_a_submission_that_is_signed_beside_the_loop_is_not_overtaken(rig: Rig) -> None:
    client = rig.client()
    client.sock.sendall(encode_line(ask("many", MANY + 1)) + encode_line(ask("one")))
    rig.tick()
    ((request, message),) = at_server(rig)
    assert len(message.items) == MANY + 1
    rig.reply(request, taken(message, 1))
    rig.tick()
    ((_, message),) = at_server(rig)
    assert message.items[0].key == "one-0"


def test_only_so_many_are_worked_on_at_once(rig: Rig) -> None:
    client = rig.client()
    client.sock.settimeout(10)
    for number in range(MAX_TURNS + 10):
        client.send(ask(f"k{number}"))
        rig.tick()
    went = at_server(rig)
    assert len(went) == MAX_TURNS
    rig.reply(went[1][0], taken(went[1][1], 2))
    rig.tick()
    assert not at_server(rig), "its answer waits for the first one"
    rig.reply(went[0][0], taken(went[0][1], 1))
    rig.tick()
    assert [message.items[0].key for _, message in at_server(rig)] == [f"k{MAX_TURNS}-0", f"k{MAX_TURNS + 1}-0"]


def test_a_client_that_goes_away_in_the_middle_harms_nobody(rig: Rig) -> None:
    client, other = rig.client(), rig.client()
    client.sock.sendall(b"".join(encode_line(ask(f"k{number}")) for number in range(5)))
    rig.tick()
    client.sock.close()
    rig.tick()
    for number, (request, message) in enumerate(at_server(rig)):
        rig.reply(request, taken(message, number + 1))
    rig.ask(other, ask("other"))
    ((request, message),) = at_server(rig)
    rig.reply(request, taken(message, 9))
    rig.tick()
    assert ids(other) == [9] and len(rig.door) == 1


def test_a_client_that_sends_no_more_gets_all_its_answers(rig: Rig) -> None:
    client = rig.client()
    client.sock.sendall(encode_line(ask("a")) + encode_line(ask("b")))
    client.sock.shutdown(1)
    rig.tick()
    for number, (request, message) in enumerate(at_server(rig)):
        rig.reply(request, taken(message, number + 1))
    rig.tick()
    assert ids(client) == [1, 2] and client.is_closed and len(rig.door) == 0
