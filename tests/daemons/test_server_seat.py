"""An hq-server and its seat, on a clock that is moved by hand: when it goes on, holds still, sends its users away and ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.core.seat import Seat
from hq.db.seat import SeatRow, SeatRows, StandbyRow
from hq.errors import FencedError, UnavailableError
from hq.kernel.clock import ManualClock
from hq.kernel.daemon import InlineBackground
from hq.kernel.log import open_log
from hq.model.states import LinkState
from hq.protocol.jobs import JobSubmit
from hq.protocol.peers import PeerAsk, PeerBye, PeerFacts, PeerHeartbeat
from hq.server.seat import Keeper, Standing
from hq.server.standby import Standby
from tests.support.serverroom import Room

PATIENCE = 5.0


class FakeRows(SeatRows):
    """The seat's row in memory. `is_away`: the database cannot be reached."""

    def __init__(self, name: str, row: list[SeatRow] | None = None) -> None:
        self.name = name
        self.row = row if row is not None else [SeatRow(1, "srv1", "tcp://srv1:1", 0, PATIENCE)]
        self.waiting: list[StandbyRow] = []
        self.words = 0
        self.is_away = False

    def look(self) -> SeatRow:
        if self.is_away:
            raise UnavailableError("the state database is away")
        return self.row[0]

    def take(self, seen: SeatRow, address: str, seconds: float) -> int | None:
        now = self.look()
        if now[:4] != seen[:4]:
            return None
        self.row[0] = SeatRow(now.epoch + 1, self.name, address, now.beat + 1, seconds)
        return now.epoch + 1

    def beat(self, epoch: int) -> list[StandbyRow] | None:
        now = self.look()
        if now.epoch != epoch:
            return None
        self.row[0] = now._replace(beat=now.beat + 1)
        return self.waiting

    def stand_by(self, version: str) -> None:
        self.look()
        self.words += 1

    def leave(self) -> None:
        self.words = 0


class Site:
    """A room whose server has a seat."""

    def __init__(self, directory: Path) -> None:
        self.room = Room(directory)
        self.rows = FakeRows("srv1")
        now = self.room.clock.now()
        self.seat = Seat(PATIENCE, now.boot)
        self.keeper = Keeper(self.rows, 1, self.seat, self.room.clock)
        self.room.server.standing = Standing(self.seat, self.keeper)

    def rival(self) -> FakeRows:
        """Another one on the same row, known to the first."""
        self.rows.waiting = [StandbyRow("srv2", "1.0", self.rows.row[0].beat)]
        self.keeper.beat()
        return FakeRows("srv2", self.rows.row)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_while_it_beats_it_goes_on_and_says_who_stands_by(site: Site) -> None:
    site.rival()
    alice = site.room.user("alice")
    for beat in range(20):
        site.rows.waiting = [StandbyRow("srv2", "1.0", beat)]
        site.keeper.beat()
        alice.send(PeerHeartbeat())
        site.room.tick(1.0)
    alice.link("one", LinkState.ALIVE)
    job = alice.submit("true")
    assert alice.orders()[0][1].job == job
    text = dict(site.room.admin("status").rows)  # type: ignore[arg-type]
    assert (text["role"], text["standby"]) == ("active, epoch 1", "srv2")
    for _ in range(20):  # its beat stands still: it is dead
        site.keeper.beat()
    assert site.keeper.standbys == ()


def test_one_that_slept_orders_nothing_before_it_has_asked_and_nothing_after_it_was_told(site: Site) -> None:
    other = site.rival()
    alice = site.room.user("alice")
    alice.link("one", LinkState.ALIVE)
    alice.receive()
    alice.send(PeerAsk())
    site.room.clock.move(PATIENCE + 0.1)  # SIGSTOP; meanwhile the other one took the seat
    assert other.take(other.look(), "tcp://srv2:1", PATIENCE) == 2
    site.room.tick()
    assert alice.receive() == [], "it holds still"
    site.keeper.beat()
    commits = site.room.server.counts["commits"]
    site.room.tick()
    byes = [each for each in alice.receive() if isinstance(each, PeerBye)]
    assert [each.reason for each in byes] == ["another hq-server is the active one"]
    site.room.tick(1.0)
    server = site.room.server
    assert server.is_done and server.standing.is_lost and server.counts["commits"] == commits
    assert "srv2 at tcp://srv2:1, epoch 2" in str(server.failure) and "writes nothing more and orders nothing" in str(server.failure)


def test_one_that_slept_and_kept_its_seat_answers_what_came_meanwhile(site: Site) -> None:
    site.rival()
    alice = site.room.user("alice")
    alice.send(PeerAsk())
    site.room.clock.move(3600.0)
    site.room.tick()
    assert alice.receive() == []
    site.keeper.beat()
    site.room.tick()
    alice.receive()
    assert len(alice.all_of(PeerFacts)) == 1


def test_a_commit_that_is_refused_ends_it_at_once(site: Site) -> None:
    alice = site.room.user("alice")
    site.room.writer.error = FencedError("another hq-server has taken the state database over (epoch 2, ours was 1)")
    alice.link("one", LinkState.ALIVE)
    alice.send(JobSubmit(items=(alice.item("true"),)))
    site.room.tick()
    site.room.tick(1.0)
    assert site.room.server.is_done and site.room.server.standing.is_lost
    assert alice.orders() == []


def test_cut_off_from_the_database_it_sends_its_users_to_the_other_one(site: Site) -> None:
    site.rival()
    alice = site.room.user("alice")
    site.rows.is_away = True
    for _ in range(11):
        site.room.tick(1.0)
        site.keeper.beat()
    site.room.tick()
    assert "cannot be reached" in alice.all_of(PeerBye)[-1].reason
    count = len(alice.all_of(PeerBye))
    alice.send(alice.hello_message())
    site.room.tick()
    assert len(alice.all_of(PeerBye)) == count + 1, "whoever asks is told so"
    site.rows.is_away = False
    site.keeper.beat()
    site.room.tick()
    alice.hello()


def test_cut_off_from_the_database_alone_it_goes_on(site: Site) -> None:
    site.keeper.beat()
    alice = site.room.user("alice")
    site.rows.is_away = True
    for _ in range(30):
        site.room.tick(1.0)
        site.keeper.beat()
    alice.ask(PeerAsk(), PeerFacts)


def standby(rows: FakeRows, clock: ManualClock, directory: Path) -> Standby:
    return Standby(rows, open_log("hq-server", str(directory)), clock, InlineBackground(), address="tcp://srv2:1", seconds=PATIENCE, get_ready=lambda: 0)


def test_the_standby_takes_the_seat_when_the_beat_has_stood_still(tmp_path: Path) -> None:
    rows, clock = FakeRows("srv2"), ManualClock()
    waiting = standby(rows, clock, tmp_path)
    for _ in range(100):
        rows.beat(1)
        waiting.tick(clock.now())
        clock.move(0.5)
    assert not waiting.is_done and rows.words > 40
    died = clock.now().boot
    while not waiting.is_done:
        waiting.tick(clock.now())
        clock.move(0.5)
    assert waiting.taken is not None and waiting.taken.epoch == 2
    assert PATIENCE <= clock.now().boot - died <= PATIENCE + 1.5
    assert rows.row[0].holder == "srv2"


def test_the_standby_does_not_take_what_it_could_not_see(tmp_path: Path) -> None:
    rows, clock = FakeRows("srv2"), ManualClock()
    waiting = standby(rows, clock, tmp_path)
    for _ in range(6):
        waiting.tick(clock.now())
        clock.move(0.5)
    rows.is_away = True
    for _ in range(100):
        waiting.tick(clock.now())
        clock.move(0.5)
    rows.is_away = False
    waiting.tick(clock.now())
    assert not waiting.is_done, "the active one could not beat either"
    clock.move(1.0)
    rows.beat(1)
    waiting.tick(clock.now())
    clock.move(4.0)
    waiting.tick(clock.now())
    assert not waiting.is_done


def test_the_standby_takes_a_seat_that_was_given_back_at_once(tmp_path: Path) -> None:
    rows, clock = FakeRows("srv2"), ManualClock()
    waiting = standby(rows, clock, tmp_path)
    waiting.tick(clock.now())
    rows.row[0] = rows.row[0]._replace(holder="")
    clock.move(0.5)
    waiting.tick(clock.now())
    assert waiting.is_done and waiting.taken is not None


def test_of_two_standbys_one_takes_it(tmp_path: Path) -> None:
    first, clock = FakeRows("srv2"), ManualClock()
    second = FakeRows("srv3", first.row)
    both = [standby(first, clock, tmp_path), standby(second, clock, tmp_path)]
    for _ in range(30):
        for each in both:
            if not each.is_done:
                each.tick(clock.now())
        clock.move(0.5)
        if any(each.is_done for each in both):
            first.beat(2)
    assert [each.is_done for each in both] == [True, False]
