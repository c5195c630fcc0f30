"""What an administrator has cancelled before it started is in its owner's ledger: a backup from before that does not start it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hq.db.backup import back_up, restore
from hq.errors import UnavailableError
from hq.model.ids import TaskKey
from hq.model.restored import Cancel
from hq.protocol.ledgers import LedgerCancelled
from hq.protocol.peers import PeerWelcome
from hq.server import cancels
from tests.support.dbrecords import clean
from tests.support.house import SERVER, USER, House, history, house_at
from tests.support.serverroom import Room, UserServer


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


def put_back(house: House, backup: Path) -> None:
    """hq-server stops, its database is the backup again, and is compared."""
    house.restart_server()
    clean(house.room.engine)
    restore(house.room.engine, str(backup))
    house.until(lambda: house.is_server_up and "alice" not in house.room.server.cluster.restored.awaited, "the comparison")


def live_through(house: House, cancel: Callable[[], None]) -> list[str]:
    """Jobs wait, a backup, something is cancelled, the backup is restored. Returns what is wrong."""
    house.room.admin("deactivatehost:one")
    first = house.submit(("1", "0"), ("1", "0"), key="plain")
    array = house.submit(("1", "0"), key="array", indices="1-3", is_rerunnable=True)
    house.until(lambda: bool(first.answers and array.answers), "the ids")
    assert house.ids(first) == [1, 2] and house.ids(array) == [3]
    back_up(house.room.engine, str(house.directory / "backup"))
    cancel()
    house.until(lambda: house.user is not None and house.user.upstream.is_up and house.user.execs.ledger.told[1] >= 2, "the ledger to know")
    put_back(house, house.directory / "backup")
    house.room.admin("activatehost:one")
    house.until(lambda: not house.room.server.cluster.jobs, "everything to end")
    wrong = [f"{key} was started" for key in house.machine.starts if key.task in (TaskKey(1), TaskKey(3, 2))]
    for key in (TaskKey(1), TaskKey(2), TaskKey(3, 1), TaskKey(3, 2), TaskKey(3, 3)):
        expected = "cancelled" if key in (TaskKey(1), TaskKey(3, 2)) else "ok"
        ended = history(house).get(key, ("nothing",))
        if ended[0] != expected:
            wrong.append(f"{key} is {ended[0]}, not {expected}")
    return wrong


def test_a_backup_does_not_start_what_an_administrator_cancelled(tmp_path: Path, engine: Engine) -> None:
    """His word reaches a user-server that is there, one that comes later, and one that is killed on the way, be it hq-server or he that dies."""

    def cancel(house: House) -> None:
        house.room.admin("cancel", "1", "3_2")

    def away(house: House) -> None:
        house._drop_user()
        cancel(house)

    with house_at(tmp_path / "there", engine) as house:
        assert live_through(house, lambda: cancel(house)) == []
    with house_at(tmp_path / "away", engine) as house:
        assert live_through(house, lambda: away(house)) == []
    for daemon in (SERVER, USER):
        for k in range(1, 8, 2):
            with house_at(tmp_path / f"{daemon}{k}", engine) as house:

                def crash(house: House = house, daemon: str = daemon, k: int = k) -> None:
                    cancel(house)
                    house.crash = (daemon, house.points[daemon] + k)

                assert live_through(house, crash) == [], f"{daemon} killed {k} points after it"
                assert house.crashes == 1


def test_the_owners_cancel_is_known_though_its_answer_was_lost(tmp_path: Path, engine: Engine) -> None:
    """hq-server dies after the commit: asked again it says that there is nothing to cancel."""
    for k in range(1, 4):
        with house_at(tmp_path / str(k), engine) as house:
            house.room.admin("deactivatehost:one")
            asked = house.submit(("1", "0"), key="plain")
            house.until(lambda asked=asked: bool(asked.answers), "the id")  # type: ignore[misc]
            back_up(engine, str(house.directory / "backup"))
            house.crash = (SERVER, house.points[SERVER] + k)
            cancelled = house.act("cancel", TaskKey(1))
            house.until(lambda cancelled=cancelled: bool(cancelled.answers), "the answer")  # type: ignore[misc]
            assert house.crashes == 1
            put_back(house, house.directory / "backup")
            house.room.admin("activatehost:one")
            house.until(lambda house=house: not house.room.server.cluster.jobs, "everything to end")  # type: ignore[misc]
            assert house.machine.starts == [] and history(house)[TaskKey(1)][0] == "cancelled", f"killed at point {k}"


def test_who_knows_is_not_told_again_and_who_takes_no_word_gets_none(room: Room) -> None:
    older = room.user("alice")
    first, second = older.submit("a"), older.submit("b")
    room.admin("cancel", str(first))
    assert older.all_of(LedgerCancelled) == [], "an earlier version would drop all that comes with it"
    newer = UserServer(room, "alice")
    newer.ask(newer.hello_message(told=(0, 0)), PeerWelcome)
    (told,) = newer.all_of(LedgerCancelled)
    assert told.cancels == (Cancel("boot-1-1", None, False),)
    newer.ask(newer.hello_message(told=told.told), PeerWelcome)
    assert newer.all_of(LedgerCancelled) == [told]
    room.admin("cancel", str(second))
    room.tick()
    assert [each.cancels for each in newer.all_of(LedgerCancelled)][1:] == [(Cancel("boot-1-2", None, False),)]
    newer.ask(newer.hello_message(told=(12345, 1 << 62)), PeerWelcome)
    assert [len(each.cancels) for each in newer.all_of(LedgerCancelled)] == [1, 1, 2], "numbers of another incarnation say nothing"


def test_an_administrator_who_cancels_his_own_as_one_is_noted_too(room: Room) -> None:
    """His command goes past his user-server."""
    carol = UserServer(room, "carol")
    carol.ask(carol.hello_message(told=(0, 0)), PeerWelcome)
    room.admin("cancel", str(carol.submit("a", indices="1-5")))
    room.tick()
    assert [each.cancels for each in carol.all_of(LedgerCancelled)] == [(Cancel("boot-1-1", None, True),)]


def test_many_come_in_pieces_and_a_database_that_is_away_is_asked_again(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = UserServer(room, "alice")
    alice.ask(alice.hello_message(told=(0, 0)), PeerWelcome)
    monkeypatch.setattr(cancels, "PIECE", 2)
    array, others = alice.submit("a", indices="1-9"), room.user("bob").submit("b")
    with monkeypatch.context() as away:

        def refuse(*args: object) -> None:
            raise UnavailableError("the database is away")

        away.setattr("hq.db.queries.admin_cancels", refuse)
        room.admin("cancel", *(f"{array}_{index}" for index in range(1, 6)), str(others))
        room.tick()
    assert alice.all_of(LedgerCancelled) == []
    room.tick(room.server.timers.intervals()["heartbeat"])
    pieces = [each.cancels for each in alice.all_of(LedgerCancelled)]
    assert pieces == [tuple(Cancel("boot-1-1", index, True) for index in part) for part in ((1, 2), (3, 4), (5,))]
