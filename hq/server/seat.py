"""The active hq-server and its seat: a thread that raises the beat in the database, and what the daemon does when the seat is in doubt.

Who has the seat is `hq.core.seat`'s and the database's business. With SQLite there is nobody to give the seat to, and no thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from hq.core.seat import BEATS, Hold, Seat
from hq.db.seat import SeatRows, StandbyRow
from hq.errors import HqError
from hq.kernel.clock import Clock, Now
from hq.protocol.peers import PeerBye

if TYPE_CHECKING:
    from hq.server.daemon import Server

#: In doubt, looked at again so often (seconds).
PAUSE = 0.2


class Keeper:
    """Raises the beat. `wake` is called, in the thread, when there is news for the daemon."""

    def __init__(self, rows: SeatRows, epoch: int, seat: Seat, clock: Clock, wake: Callable[[], None] = lambda: None) -> None:
        self.standbys: tuple[str, ...] = ()  # names of those that wait for the seat and are alive
        self.epoch = epoch
        self._rows = rows
        self._seat = seat
        self._clock = clock
        self._wake = wake
        self._beats: dict[str, tuple[int, int]] = {}  # standby → its beat, and for how many of ours it has stood still
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hq-seat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """End, and leave the seat to whoever waits for it."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        if not self._seat.lost_to:
            try:
                self._rows.give_back(self.epoch)
            except HqError:
                pass  # it is taken when it has stood still for long enough

    def beat(self) -> None:
        """Raise the beat once, and note what came of it."""
        asked = self._clock.now().boot
        try:
            waiting = self._rows.beat(self.epoch)
            if waiting is None:
                now = self._rows.look()
                self._seat.lost(f"{now.holder or 'another hq-server'} at {now.address}, epoch {now.epoch}")
        except HqError:
            self._seat.failed(asked)
            self._wake()
            return
        if waiting is None:
            self._wake()
            return
        self.standbys = self._alive(waiting)
        self._seat.beaten(asked, bool(self.standbys))

    def _alive(self, waiting: list[StandbyRow]) -> tuple[str, ...]:
        before, self._beats = self._beats, {}
        for row in waiting:
            beat, still = before.get(row.name, (-1, 0))
            self._beats[row.name] = (row.beat, still + 1 if row.beat == beat else 0)
        return tuple(name for name, (_, still) in self._beats.items() if still <= 2 * BEATS)

    def _run(self) -> None:
        while not self._end.wait(self._seat.seconds / BEATS):
            self.beat()
            if self._seat.lost_to:
                return


class Standing:
    """Whether the daemon may act now. Without a keeper it always may."""

    def __init__(self, seat: Seat | None = None, keeper: Keeper | None = None) -> None:
        self.seat = seat
        self.keeper = keeper
        self._hold = Hold.SURE

    @property
    def standbys(self) -> tuple[str, ...]:
        """Those that wait for the seat."""
        return self.keeper.standbys if self.keeper is not None else ()

    @property
    def is_lost(self) -> bool:
        """Whether another hq-server has the seat."""
        return self._hold is Hold.LOST

    @property
    def is_refused(self) -> bool:
        """Whether the seat is known to be lost, although nobody was told yet."""
        return self.seat is not None and bool(self.seat.lost_to)

    def fenced(self, reason: str) -> None:
        """The database refused a commit, for another hq-server has the seat."""
        if self.seat is None:
            self.seat = Seat(0.0, 0.0)
        if not self.seat.lost_to:
            self.seat.lost(reason)

    def may_act(self, server: Server, now: Now) -> bool:
        """Whether to go on with this tick; what is to be said when that changes is logged, and told to those who are here."""
        before, self._hold = self._hold, self.seat.hold(now.boot) if self.seat is not None else Hold.SURE
        if self._hold is not before:
            self._turn(server, before)
        if self._hold is Hold.ASTRAY:
            for received in server.outbox.port.receive():
                server.outbox.tell(received.peer, PeerBye(reason="this hq-server does not know whether it is the active one: the state database is away"))
        if self._hold in (Hold.ASTRAY, Hold.LOST):
            server.outbox.flush()
        return self._hold is Hold.SURE

    def _turn(self, server: Server, before: Hold) -> None:
        log = server.log.category("system")
        if self._hold is Hold.SURE:
            log.warning("hq-server has its seat still (epoch %d), and goes on", server.epoch)
        elif self._hold is Hold.DOUBTFUL:
            log.warning("hq-server holds still: for %g s it could not tell the state database that it is here, and another one may have its place",
                        self.seat.seconds if self.seat is not None else 0.0)  # fmt: skip
        elif self._hold is Hold.ASTRAY:
            log.error("the state database is away, and another hq-server waits for this place: users are sent there")
            server.dismiss("the state database cannot be reached from this hq-server")
        else:
            assert self.seat is not None
            server.failure = f"another hq-server is the active one ({self.seat.lost_to}; our epoch was {server.epoch}): this one writes nothing more and orders nothing"
            log.error("%s", server.failure)
            server.dismiss("another hq-server is the active one")
