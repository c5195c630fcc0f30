"""The seat of the active hq-server in the database, on SQLite and MariaDB."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, select, update

from hq.db import tables
from hq.db.engine import open_engine
from hq.db.seat import SeatRows, StandbyRow
from hq.db.store import Store
from hq.errors import FencedError, UnavailableError
from hq.model.changes import Changes
from hq.model.job import Wishes
from tests.support.dbrecords import make_job, take_seat
from tests.support.mariadb import MariaDB


def test_the_seat_is_taken_once(engine: Engine) -> None:
    one, two = SeatRows(engine, "srv1:/var"), SeatRows(engine, "srv2:/var")
    seen = one.look()
    assert (seen.epoch, seen.holder) == (0, "")
    assert one.take(seen, "tcp://srv1:1", 5.0) == 1
    assert two.take(seen, "tcp://srv2:1", 5.0) is None, "it has moved since"
    now = two.look()
    assert (now.epoch, now.holder, now.address, now.seconds) == (1, "srv1:/var", "tcp://srv1:1", 5.0)
    assert one.beat(1) == [] and two.look().beat == now.beat + 1
    assert two.take(now, "tcp://srv2:1", 5.0) is None, "it is alive"


def test_a_beat_of_the_older_epoch_is_refused_and_so_is_its_commit(engine: Engine) -> None:
    one, two, store = SeatRows(engine, "srv1:/var"), SeatRows(engine, "srv2:/var"), Store(engine)
    first = one.take(one.look(), "", 5.0)
    second = two.take(two.look(), "", 5.0)
    assert first is not None and second == first + 1
    assert one.beat(first) is None and two.beat(second) == []
    with pytest.raises(FencedError, match="another hq-server"):
        store.write(Changes(settings={"a": "1"}), first)
    one.give_back(first)
    assert two.look().holder == "srv2:/var", "what one has not, one cannot give back"
    two.give_back(second)
    assert one.look().holder == ""


def test_those_that_stand_by_are_told_to_the_active_one(engine: Engine) -> None:
    one, two = SeatRows(engine, "srv1:/var"), SeatRows(engine, "srv2:/var")
    epoch = one.take(one.look(), "", 5.0)
    assert epoch is not None
    two.stand_by("1.0")
    two.stand_by("1.1")
    assert one.beat(epoch) == [StandbyRow("srv2:/var", "1.1", 2)]
    two.leave()
    assert one.beat(epoch) == []


def test_jobs_that_were_read_beforehand_are_as_they_are_now(engine: Engine) -> None:
    store, other = Store(engine), Store(engine)
    jobs = {id: make_job(id) for id in range(1, 6)}
    store.write(Changes(jobs=jobs))
    assert other.get_ready() == 5
    held = replace(jobs[2], wishes=Wishes(is_held=True))
    cancelled = replace(jobs[3], cancelled_rest=4)
    new = make_job(6, argv=(b"new",))
    ended = replace(jobs[4], ended=jobs[4].submitted + 5)
    store.write(Changes(jobs={2: held, 3: cancelled, 6: new}, jobs_ended={4: ended}))
    assert other.load().jobs == store.load().jobs == [jobs[1], held, cancelled, jobs[5], new]


def test_a_writer_that_was_stopped_in_a_transaction_does_not_keep_its_seat(mariadb: MariaDB, engine: Engine) -> None:
    """As after SIGSTOP or a cut cable: its locks would stay for hours."""
    if engine.dialect.name == "sqlite":
        assert not SeatRows(engine, "").can_move, "there is nobody else who could take it"
        return
    ours = take_seat(engine)
    other = open_engine(engine.url.render_as_string(hide_password=False))
    try:
        with engine.connect().execution_options(is_writer=True) as stopped:
            stopped.execute(update(tables.lease).where(tables.lease.c.id == 1).values(batch="half done"))
            rows = SeatRows(other, "srv2:/var")
            seen = rows.look()
            assert rows.take(seen, "", 5.0) == ours + 1
            stopped.invalidate()
    finally:
        other.dispose()


def test_a_long_commit_does_not_hold_a_beat_up(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        assert not SeatRows(engine, "").can_move
        return
    rows = SeatRows(engine, "here:/var")
    epoch = take_seat(engine)
    with engine.connect().execution_options(is_writer=True) as long:
        # it is kept up for as long as the beat takes: one that waited for it would be refused in the end
        long.exec_driver_sql("SET SESSION idle_write_transaction_timeout=0")
        long.execute(select(tables.lease.c.epoch).where(tables.lease.c.id == 1).with_for_update())
        assert rows.beat(epoch) == [], "a beat waits for nobody's commit"
        long.invalidate()


def test_a_database_that_is_away_is_said(mariadb: MariaDB) -> None:
    engine = open_engine("mysql+pymysql://root@127.0.0.1:1/none", silence=1.0)
    with pytest.raises(UnavailableError):
        SeatRows(engine, "x").look()
