"""The rows about who is the active hq-server, and who stands by. The rules are in `hq.core.seat`.

Each call is one small transaction; only the row of the seat is locked, so that a long commit of jobs does not hold a beat up.
Raising the epoch in `lease` fences whoever had the seat before: his next transaction is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Engine, delete, insert, select, update

from hq.db import tables
from hq.db.engine import reached
from hq.errors import DatabaseError


class SeatRow(NamedTuple):
    """Who has the seat. `holder` is empty if it was given back; `seconds`: how long the beat must stand still until another may take it."""

    epoch: int
    holder: str
    address: str
    beat: int
    seconds: float


class StandbyRow(NamedTuple):
    """One that waits. `beat` rises as long as it is there."""

    name: str
    version: str
    beat: int


class SeatRows:
    """The seat of one instance. All calls raise UnavailableError or DatabaseError."""

    def __init__(self, engine: Engine, name: str) -> None:
        """`name` is this hq-server's, the same at each start."""
        self.name = name
        self._engine = engine

    @property
    def can_move(self) -> bool:
        """Whether another machine's hq-server could have it: not with SQLite, whose file is on this one."""
        return self._engine.dialect.name != "sqlite"

    def look(self) -> SeatRow:
        """The row as it is now."""
        with reached(self._engine), self._engine.connect() as connection:
            c = tables.seat.c
            found = connection.execute(select(c.epoch, c.holder, c.address, c.beat, c.seconds).where(c.id == 1)).one_or_none()
        if found is None:
            raise DatabaseError("the table `seat` is empty: run hq-dbadmin --check")
        return SeatRow(*found)

    def take(self, seen: SeatRow, address: str, seconds: float) -> int | None:
        """Take the seat if it is still as it was `seen`. Returns the new epoch, None if somebody was faster or it moved."""
        seat, lease = tables.seat, tables.lease
        with reached(self._engine), self._engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            now = connection.execute(select(seat.c.epoch, seat.c.beat).where(seat.c.id == 1).with_for_update()).one()
            if tuple(now) != (seen.epoch, seen.beat):
                return None
            connection.execute(update(lease).where(lease.c.id == 1).values(epoch=lease.c.epoch + 1))
            epoch = int(connection.execute(select(lease.c.epoch).where(lease.c.id == 1)).scalar_one())
            values = {"epoch": epoch, "holder": self.name, "address": address, "beat": seat.c.beat + 1, "seconds": seconds}
            connection.execute(update(seat).where(seat.c.id == 1).values(values))
            connection.execute(delete(tables.standby).where(tables.standby.c.name == self.name))
        return epoch

    def beat(self, epoch: int) -> list[StandbyRow] | None:
        """Raise the beat. Returns those who stand by, None if another one has the seat."""
        seat, standby = tables.seat, tables.standby
        with reached(self._engine), self._engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            done = connection.execute(update(seat).where(seat.c.id == 1, seat.c.epoch == epoch).values(beat=seat.c.beat + 1))
            if not done.rowcount:
                return None
            rows = connection.execute(select(standby.c.name, standby.c.version, standby.c.beat).order_by(standby.c.name)).all()
        return [StandbyRow(*row) for row in rows]

    def give_back(self, epoch: int) -> None:
        """Leave the seat to whoever waits for it."""
        seat = tables.seat
        with reached(self._engine), self._engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            values = {"holder": "", "beat": seat.c.beat + 1}
            connection.execute(update(seat).where(seat.c.id == 1, seat.c.epoch == epoch, seat.c.holder == self.name).values(values))

    def stand_by(self, version: str) -> None:
        """Say that this one waits; to be repeated."""
        standby = tables.standby
        with reached(self._engine), self._engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            values = {"beat": standby.c.beat + 1, "version": version}
            if not connection.execute(update(standby).where(standby.c.name == self.name).values(values)).rowcount:
                connection.execute(insert(standby).values(name=self.name, version=version, beat=1))

    def leave(self) -> None:
        """This one does not wait any more."""
        standby = tables.standby
        with reached(self._engine), self._engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            connection.execute(delete(standby).where(standby.c.name == self.name))
