"""A user-server that moves: hq-server's part, the ledger that goes along, and one that comes back on the same machine at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hq.client.takeover import keep_lines
from hq.db.backup import back_up, restore
from hq.kernel.clock import Now
from hq.model.ids import PLAIN, TaskKey
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.base import Problem
from hq.protocol.peers import BookAsk, BookTold, LedgerAsk, LedgerTold, PeerRefused, PeerWelcome
from hq.protocol.runs import RunReported, RunStart
from hq.userserver.book import read_book
from hq.userserver.ledger import LedgerFile
from hq.userserver.requests import BOOK_PATIENCE
from tests.daemons.test_userserver_ledger import SPEC, run
from tests.support.dbrecords import clean
from tests.support.house import history, house_at
from tests.support.serverroom import Room, UserServer
from tests.support.userserver_rig import Rig, host, order


def report(job: int, outcome: Outcome) -> RunReport:
    return RunReport(job=job, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=outcome, exit_code=int(outcome is not Outcome.OK))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


def test_another_machine_is_let_in_when_its_user_says_so_and_the_first_is_told(room: Room) -> None:
    first = room.user("alice")
    second = UserServer(room, "alice", boot="boot-2")
    refused = second.ask(second.hello_message(machine="other"), PeerRefused)
    assert "is up on login" in refused.reason
    second.ask(second.hello_message(machine="other", takeover=True), PeerWelcome)
    room.tick()
    (told,) = first.all_of(PeerRefused)
    assert "moved his user-server to other" in told.reason and not told.may_change
    session = room.server.sessions.of("alice")
    assert session is not None and session.boot == "boot-2"


def test_who_holds_the_lock_is_let_in_at_once(room: Room) -> None:
    first = UserServer(room, "alice", boot="boot-1")
    first.ask(first.hello_message(lock="boot:1:2"), PeerWelcome)
    other = UserServer(room, "alice", boot="boot-2")
    other.ask(other.hello_message(lock="boot:1:3"), PeerRefused)
    other.ask(other.hello_message(), PeerRefused)
    again = UserServer(room, "alice", boot="boot-3")
    again.ask(again.hello_message(lock="boot:1:2"), PeerWelcome)


def test_the_ledger_goes_along(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")])
    rig.welcome()
    rig.exec_comes("n1")
    rig.tell(run("n1", order(1)))
    client = rig.client()
    rig.ask(client, LedgerAsk())
    (answer,) = client.answers()
    assert isinstance(answer, LedgerTold)
    rig.exec_got("n1", RunStart)
    rig.tell(run("n1", order(2)))
    assert not rig.exec_got("n1", RunStart), "the other one decides from now on"
    rig.move(2.0)
    assert rig.us.is_done
    path = tmp_path / "elsewhere"
    keep_lines(str(path), [answer.data])
    moved = LedgerFile(str(path), logging.getLogger("test"), Now(wall=1.0, boot=1.0))
    verdict = moved.admit({9: SPEC}, [StartOrder(9, PLAIN, 2, (0,))])
    assert verdict.refused and not verdict.orders


def moved_book(rig: Rig, path: Path) -> None:
    """Ask for all pieces, as the command does."""
    client, pieces = rig.client(), [b""]
    for _ in range(1000):
        rig.ask(client, BookAsk(offset=sum(map(len, pieces))))
        answer = client.answers()[-1]
        assert isinstance(answer, BookTold)
        pieces.append(answer.data)
        if answer.is_last:
            break
    keep_lines(str(path), pieces)


def test_the_run_book_goes_along_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path, [host("n1")])
    rig.welcome()
    rig.exec_comes("n1")
    client = rig.client()
    rig.ask(client, BookAsk(offset=0))
    (refused,) = client.answers()
    assert isinstance(refused, Problem) and "after its ledger" in refused.text
    rig.links.ledger.book._max_size = 100  # so that there are two files
    for job in range(1, 5):
        rig.tell(run("n1", order(job)))
        rig.exec_says("n1", RunReported(host="n1", sequence=job, sent=1.0, reports=(report(job, Outcome.FAILED),)))
        rig.move(1.0)
    expected = read_book(rig.links.ledger.book.paths(), (), 0)[0]
    assert set(expected) > {4} and os.path.exists(rig.links.ledger.book.paths()[0])
    rig.ask(client, LedgerAsk(with_book=True))
    told = client.answers()[-1]
    assert isinstance(told, LedgerTold) and told.has_book
    rig.move(20.0)
    assert not rig.us.is_done, "it waits to be asked for the book"
    rig.server_got(RunReported)
    rig.exec_says("n1", RunReported(host="n1", sequence=9, sent=1.0, reports=(report(9, Outcome.OK),)))
    assert rig.server_got(RunReported) == [], "neither ledger nor book would know of it: its exec-server tells it to the other one"
    monkeypatch.setattr("hq.userserver.book.PIECE", 7)
    path = tmp_path / "elsewhere"
    path.write_bytes(b"a line that was cut")
    moved_book(rig, path)
    assert read_book((str(path),), (), 0)[0] == expected
    rig.move(2.0)
    assert rig.us.is_done


def test_one_whose_book_nobody_asks_for_ends_all_the_same(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")])
    rig.welcome()
    rig.ask(rig.client(), LedgerAsk(with_book=True))
    rig.move(BOOK_PATIENCE + 1)
    assert rig.us.is_done


def test_a_restore_after_a_takeover_still_knows_how_things_ended(tmp_path: Path, engine: Engine) -> None:
    with house_at(tmp_path / "house", engine) as house:
        asked = house.submit(("1", "0"), ("1", "5"), ("1000", "0"))
        house.until(lambda: bool(asked.answers), "the ids")
        back_up(engine, str(tmp_path / "backup"))
        well, badly, long = (TaskKey(id) for id in house.ids(asked))
        house.until(lambda: {well, badly} == set(history(house)), "the ends")
        ended = history(house)
        ledger, book = house.ask(LedgerAsk(with_book=True)), house.ask(BookAsk(offset=0))
        house.round()
        assert isinstance(ledger.answers[0], LedgerTold) and isinstance(book.answers[0], BookTold) and book.answers[0].is_last
        house.lose_user_disk()
        (tmp_path / "house" / "user").mkdir()
        keep_lines(str(tmp_path / "house" / "user" / "ledger"), [ledger.answers[0].data])
        keep_lines(str(tmp_path / "house" / "user" / "ledger-book"), [book.answers[0].data])
        house.restart_server()
        clean(engine)
        restore(engine, str(tmp_path / "backup"))
        house.until(lambda: house.is_server_up and "alice" not in house.room.server.cluster.restored.awaited, "the comparison")
        house.round()
        assert history(house) == ended
        assert [key.task for key in house.machine.starts] == [well, badly, long]
        stop = house.act("cancel", long)
        house.until(lambda: bool(stop.answers) and not house.room.server.cluster.jobs, "the end of the long one")


def test_an_empty_start_makes_a_new_user_server_look_for_its_exec_server(tmp_path: Path) -> None:
    rig = Rig(tmp_path, [host("n1")])
    rig.welcome()
    rig.tell(run("n1"))
    assert [bootstrap.host for bootstrap in rig.transport.started] == ["n1"]
