"""What was seen to go wrong by a little: a report that lay somewhere, an order that came twice at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from hq.db import tables
from hq.execserver.handlers import on_start
from hq.model.ids import PLAIN, TaskKey
from hq.model.job import Wishes
from hq.model.runs import RunReport, StartOrder
from hq.model.selection import Selection
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.codec import envelope
from hq.protocol.jobs import JobAct
from hq.protocol.peers import PeerBye
from hq.protocol.runs import RunReported, RunStart
from tests.support.house import house_at
from tests.support.serverroom import Room


def test_an_end_that_is_told_late_ended_when_it_did(tmp_path: Path) -> None:
    room = Room(tmp_path)
    alice = room.user("alice")
    alice.link("one", LinkState.ALIVE)
    job = alice.submit("true", wishes=None)
    (host, _) = alice.orders()[0]
    begun = room.clock.now().wall
    alice.report(host, job, RunKind.STARTED, started=begun, pid=4711)
    room.clock.move(10.0)
    ended = room.clock.now().wall
    report = RunReport(job=job, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=ended, started=begun, outcome=Outcome.OK, exit_code=0)
    late = RunReported(host=host, sequence=1, sent=ended, reports=(report,))
    room.tick(3600.0)
    alice.hello()
    alice.send(late)
    room.tick()
    with room.engine.connect() as connection:
        row = connection.execute(select(tables.task_history.c.started, tables.task_history.c.ended)).one()
    assert (row.started, row.ended) == (pytest.approx(begun, abs=0.01), pytest.approx(ended, abs=0.01))
    room.close()


def test_a_word_that_was_meant_for_an_earlier_hq_server_changes_nothing(tmp_path: Path) -> None:
    room = Room(tmp_path)
    alice = room.user("alice")
    job = alice.submit("true", wishes=Wishes(is_held=True))
    room.server.epoch = room.server.outbox.epoch = 9
    cancel = JobAct(action="cancel", selection=Selection(tasks=(TaskKey(job),)))
    alice.port.send(envelope(cancel, id=77, epoch=8))
    room.tick()
    assert [message.reason for message in alice.all_of(PeerBye)] == ["say hello first: this was meant for an earlier hq-server"]
    assert room.server.cluster.job(job) is not None
    alice.port.send(envelope(cancel, id=78, epoch=9))
    room.tick()
    assert room.server.cluster.job(job) is None
    room.close()


def test_an_order_that_comes_twice_at_once_leaves_nothing_behind(tmp_path: Path, engine: Engine) -> None:
    with house_at(tmp_path / "house", engine) as house:
        ask = house.submit(("3", "0"))
        house.until(lambda: house.worker is not None and bool(house.worker.specs), "the order")
        worker = house.worker
        assert worker is not None
        (job,) = house.ids(ask)
        order = StartOrder(job, PLAIN, 7, (0,))
        message = RunStart(host="one", specs=dict(worker.specs), orders=(order, order))
        worker.events.extend(on_start(worker, message, house.room.clock.now()))
        house.until(lambda: not worker.runner.runs and not house.room.server.cluster.jobs, "the end")
        assert worker.live_of == {} and worker.specs == {}
