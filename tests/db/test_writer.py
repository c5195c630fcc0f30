"""The writer thread: order, troubles that pass, troubles that do not, and an answer that was lost."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from hq.db import tables
from hq.db.engine import create_tables, open_engine
from hq.db.store import Store
from hq.db.writer import Done, Writer
from hq.errors import DatabaseError, UnavailableError
from hq.model.changes import AuditRecord, Changes
from tests.support.dbrecords import T0, make_job, make_task
from tests.support.mariadb import MariaDB
from tests.support.wait import until


def _numbered(number: int) -> Changes:
    changes = Changes(settings={"last": str(number)})
    changes.audit.append(AuditRecord(at=T0, actor="a", role="r", action="x", owner="", target=str(number)))
    return changes


def _targets(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [row.target for row in connection.execute(select(tables.audit).order_by(tables.audit.c.id))]


def _wait_for(writer: Writer, count: int) -> list[Done]:
    done: list[Done] = []

    def all_there() -> bool:
        done.extend(writer.finished())
        return len(done) >= count

    until(all_there, timeout=60, what=f"{count} batches to be done")
    return done


def test_batches_are_committed_in_order_and_wake_the_loop(store: Store) -> None:
    woken = threading.Event()
    writer = Writer(store, woken.set)
    for number in range(50):
        writer.submit(number, _numbered(number))
    done = _wait_for(writer, 50)
    assert [each.token for each in done] == list(range(50)) and all(each.error is None for each in done)
    assert woken.is_set() and writer.trouble is None and writer.pending == 0
    assert writer.close()
    assert _targets(store.engine) == [str(number) for number in range(50)]


def test_data_that_is_refused_comes_back_and_the_next_goes_on(store: Store) -> None:
    writer = Writer(store)
    orphan = make_task(404)
    writer.submit("bad", Changes(tasks={orphan.key: orphan}))
    writer.submit("good", _numbered(1))
    bad, good = _wait_for(writer, 2)
    assert isinstance(bad.error, DatabaseError) and good.error is None
    assert writer.close()


def test_an_error_of_ours_comes_back_and_does_not_end_the_thread(store: Store) -> None:
    writer = Writer(store)
    nonsense: Any = {1: "not a job"}
    writer.submit("bad", Changes(jobs=nonsense))
    writer.submit("good", _numbered(1))
    bad, good = _wait_for(writer, 2)
    assert bad.error is not None and good.error is None
    assert writer.close()


def test_a_lost_answer_is_not_written_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Store.write
    calls = []

    def write_and_lose(self: Store, changes: Changes, epoch: int | None = None, *, batch: str = "") -> None:
        write(self, changes, epoch, batch=batch)
        calls.append(batch)
        if len(calls) == 1:
            raise UnavailableError("the connection was lost after the commit")

    monkeypatch.setattr(Store, "write", write_and_lose)
    writer = Writer(store)
    writer.submit(1, _numbered(1))
    writer.submit(2, _numbered(2))
    assert [each.error for each in _wait_for(writer, 2)] == [None, None]
    assert writer.close() and len(calls) == 3
    assert _targets(store.engine) == ["1", "2"]


def test_a_dead_database_loses_nothing(engine: Engine, mariadb: MariaDB) -> None:
    if engine.dialect.name == "sqlite":
        _lock_and_release(engine)
        return
    writer = Writer(Store(engine, is_writer=True))
    writer.submit(0, _numbered(0))
    assert _wait_for(writer, 1)[0].error is None
    mariadb.kill()
    try:
        for number in range(1, 6):
            writer.submit(number, _numbered(number))
        trouble = until(lambda: writer.trouble or "", what="the trouble to be noticed")
        assert "does not answer" in trouble and "hq_tests" in trouble and str(mariadb.port) in trouble
        assert writer.finished() == [] and writer.pending == 5
    finally:
        mariadb.start()
    done = _wait_for(writer, 5)
    assert [each.token for each in done] == [1, 2, 3, 4, 5] and all(each.error is None for each in done)
    assert writer.trouble is None and writer.close()
    assert _targets(engine) == [str(number) for number in range(6)]


def _lock_and_release(engine: Engine) -> None:
    assert engine.url.database is not None
    writer = Writer(Store(engine, is_writer=True))
    other = sqlite3.connect(engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer.submit(1, _numbered(1))
    trouble = until(lambda: writer.trouble or "", what="the lock to be noticed")
    assert "another process holds it locked" in trouble
    other.execute("ROLLBACK")
    other.close()
    assert _wait_for(writer, 1)[0].error is None and writer.close()
    assert _targets(engine) == ["1"]


def test_a_database_that_dies_in_the_midst_of_many_batches_has_each_once(mariadb: MariaDB) -> None:
    mariadb.execute("DROP DATABASE IF EXISTS hq_dies", "CREATE DATABASE hq_dies")
    engine = open_engine(mariadb.url("hq_dies"))
    create_tables(engine)
    writer = Writer(Store(engine, is_writer=True))
    for number in range(400):
        writer.submit(number, _numbered(number))
    done: list[Done] = []

    def some_are_done() -> bool:
        done.extend(writer.finished())
        return len(done) > 20

    until(some_are_done, what="some to be written")
    mariadb.kill()
    mariadb.start()
    done += _wait_for(writer, 400 - len(done))
    assert writer.close() and all(each.error is None for each in done)
    assert _targets(engine) == [str(number) for number in range(400)]
    engine.dispose()


def test_a_full_disk_is_waited_out(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/state.db")
    create_tables(engine)
    writer = Writer(Store(engine, is_writer=True))
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        # the limit holds for one connection: the pool hands this one to the writer next
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        connection.commit()
    writer.submit(1, Changes(blobs={"aa": ("alice", b"x" * 1_000_000)}))
    trouble = until(lambda: writer.trouble or "", what="the full disk to be noticed")
    assert "the disk is full" in trouble and str(tmp_path) in trouble
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
        connection.commit()
    assert _wait_for(writer, 1)[0].error is None and writer.close()
    engine.dispose()


def test_close_gives_back_what_could_not_be_written(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/state.db")
    create_tables(engine)
    other = sqlite3.connect(f"{tmp_path}/state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writer = Writer(Store(engine, is_writer=True))
    writer.submit(1, _numbered(1))
    writer.submit(2, _numbered(2))
    assert not writer.close(timeout=0.2)
    other.close()
    done = _wait_for(writer, 2)
    assert {each.token for each in done} == {1, 2}
    assert [each.error is None for each in sorted(done)].count(False) >= 1
    assert len(_targets(engine)) == sum(each.error is None for each in done)
    engine.dispose()


def test_jobs_written_by_the_thread_are_read_by_others(store: Store) -> None:
    writer = Writer(store)
    writer.submit(1, Changes(jobs={1: make_job(1)}))
    assert _wait_for(writer, 1)[0].error is None and writer.close()
    assert store.load().jobs == [make_job(1)]
