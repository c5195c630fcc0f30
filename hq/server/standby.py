"""Waiting for the seat: the standby's daemon, and how a hq-server that starts comes to be the active one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from hq import VERSION
from hq.core.seat import BEATS, LOOKS, Vigil
from hq.db.seat import SeatRow, SeatRows
from hq.db.store import Store
from hq.errors import HqError, UnavailableError
from hq.kernel.clock import Clock, Now
from hq.kernel.daemon import Background
from hq.kernel.detach import Starting
from hq.kernel.log import Log
from hq.kernel.loop import Loop, ThreadBackground
from hq.server.active import Place, Taken
from hq.server.notify import notify

#: The jobs are read beforehand so often (seconds).
READ_AHEAD = 30.0


class Standby:
    """Waits for the seat; done when it was `taken`, or when it is told to end."""

    def __init__(self, rows: SeatRows, log: Log, clock: Clock, background: Background, *, address: str, seconds: float,
                 get_ready: Callable[[], int], on_waiting: Callable[[], None] = lambda: None) -> None:  # fmt: skip
        self.taken: Taken | None = None
        self._rows = rows
        self._files = log
        self._log = log.category("system")
        self._clock = clock
        self._background = background
        self._address = address
        self._seconds = seconds
        self._get_ready = get_ready
        self._on_waiting = on_waiting
        self._vigil = Vigil()
        self._active = ""
        self._trouble = ""
        self._pause = seconds / LOOKS
        self._next_word = self._next_reading = 0.0
        self._is_reading = False
        self._is_done = False

    def tick(self, now: Now) -> float | None:
        """As Daemon.tick."""
        for done in self._background.finished():
            self._is_reading = False
            self._next_reading = now.boot + READ_AHEAD
            if done.error is not None:
                self._log.warning("the jobs could not be read beforehand: %s", done.error)
        try:
            self._look()
            if self.taken is None and now.boot >= self._next_word:
                self._rows.stand_by(VERSION)
                self._next_word = now.boot + self._seconds / BEATS
        except HqError as error:
            self._vigil.blind()
            if str(error) != self._trouble:
                self._log.warning("the state database cannot be asked who is active: %s", error)
            self._trouble = str(error)
        else:
            if self._trouble:
                self._log.info("the state database answers again")
            self._trouble = ""
            if not self._is_reading and self.taken is None and now.boot >= self._next_reading:
                self._is_reading = True
                self._background.run("jobs", self._get_ready)
        return self._clock.now().boot + self._pause

    def stop(self, now: Now) -> None:
        """As Daemon.stop."""
        self._is_done = True
        try:
            self._rows.leave()
        except HqError:
            pass  # its beat stands still from now on
        self._log.info("the standby ends")

    def reload(self, now: Now) -> None:
        """SIGHUP: begin a new log file, if the old one was moved away."""
        self._files.reopen()

    @property
    def is_done(self) -> bool:
        """As Daemon.is_done."""
        return self._is_done or self.taken is not None

    def _look(self) -> None:
        asked = self._clock.now().boot
        seen = self._rows.look()
        still = self._vigil.saw(seen.epoch, seen.beat, asked, self._clock.now().boot)
        self._pause = seen.seconds / LOOKS
        if is_free(seen, self._rows.name) or still >= seen.seconds:
            asked = self._clock.now().boot
            epoch = self._rows.take(seen, self._address, self._seconds)
            if epoch is not None:
                why = f"{seen.holder} has said nothing for {still:.1f} s" if seen.holder not in ("", self._rows.name) else "nobody has the seat"
                self._log.warning("this standby is the active hq-server from now on, epoch %d: %s", epoch, why)
                self.taken = Taken(epoch, asked)
        elif seen.holder != self._active:
            self._active = seen.holder
            self._log.info("standing by: %s is active at %s, epoch %d", seen.holder, seen.address, seen.epoch)
            self._on_waiting()


def is_free(seen: SeatRow, name: str) -> bool:
    """Whether nobody else has the seat: it was given back, or is that of an earlier life of ours, whose lock we hold."""
    return seen.holder in ("", name)


def take_seat(place: Place, rows: SeatRows, store: Store, log: Log, clock: Clock, starting: Starting, *, is_standby: bool) -> Taken | None:
    """Come to be the active hq-server; a standby waits for that as long as it takes. None: it was told to end before.

    Raises UnavailableError if another one is active and this is no standby.
    """
    address = place.client.server if len(place.client.servers) == 1 else f"{os.uname().nodename}:{place.port}"
    if is_standby:
        return _stand_by(place, rows, store, log, clock, starting, address)
    asked = clock.now().boot
    seen = rows.look()
    if rows.can_move and not is_free(seen, rows.name):
        # a moment's patience: it may be dead
        end = asked + seen.seconds
        while clock.now().boot < end:
            time.sleep(seen.seconds / LOOKS)
            if (now := rows.look())[:4] != seen[:4]:
                raise UnavailableError(
                    f"another hq-server of {place.config.instance} is the active one: {now.holder} at {now.address}. Stop that one first, or "
                    "start this one with --standby, and it takes the other one's place when that ends or dies"
                )
        asked = clock.now().boot
    epoch = rows.take(seen, address, place.config.failover)
    if epoch is None:
        raise UnavailableError("another hq-server has just begun: look which one runs (hq-admin status)")
    return Taken(epoch, asked)


def _stand_by(place: Place, rows: SeatRows, store: Store, log: Log, clock: Clock, starting: Starting, address: str) -> Taken | None:
    place.listen().close()  # a port that is taken is told now, and not when it is needed
    background = ThreadBackground(1)

    def waits() -> None:
        notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=standing by")
        starting.up()

    standby = Standby(rows, log, clock, background, address=address, seconds=place.config.failover, get_ready=store.get_ready, on_waiting=waits)
    loop = Loop(standby, clock, (), background)
    log.category("system").info("hq-server %s of %s stands by as %s, process %d", VERSION, place.config.instance, rows.name, os.getpid())
    try:
        loop.run()
    finally:
        loop.close()
    return standby.taken
