"""Backup and restore: all rows come back, and a new incarnation begins in which nothing starts by itself."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from hq.core.cluster import Cluster
from hq.db import tables
from hq.db.backup import BACKED_UP, back_up, begin_anew, restore
from hq.db.engine import create_tables, open_engine
from hq.db.store import Store
from hq.errors import InputError, RefusedError
from hq.model.changes import Changes
from hq.model.ids import TaskKey
from hq.model.restored import AWAITS, ID_GAP, INCARNATION, RESTORED_ABOVE, RESTORED_AT
from hq.model.states import TaskState
from hq.model.user import UserRecord
from tests.support.dbrecords import clean, end_task, ended_job, make_job, make_task, take_seat


def fill(engine: Engine) -> None:
    store = Store(engine)
    changes = Changes(settings={"instance": "test-0badcafe"}, users={"alice": UserRecord(name="alice")}, blobs={"ab" * 16: ("alice", b"\x00sealed\xff")})
    changes.jobs = {1: make_job(1), 2: make_job(2, indices="1-4"), 3: make_job(3)}
    changes.tasks = {TaskKey(2, 1): make_task(2, 1, TaskState.WAITING), TaskKey(3, -1): make_task(3)}
    store.write(changes)
    store.write(ended_job(make_job(4), end_task(make_task(4))))
    assert take_seat(engine) >= 1


def rows(engine: Engine) -> dict[str, list[tuple[object, ...]]]:
    with engine.connect() as connection:
        return {
            table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr) for table in tables.metadata.sorted_tables
        }


def open_store(path: Path) -> Store:
    return Store(open_engine(f"sqlite:///{path}"))


def test_all_rows_come_back(engine: Engine, tmp_path: Path) -> None:
    clean(engine)
    fill(engine)
    path = tmp_path / "backup"
    assert back_up(engine, str(path)) > 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    copy = open_engine(f"sqlite:///{path}")
    try:
        copied = rows(copy)
        copied["setting"] = [row for row in copied["setting"] if row[0] != BACKED_UP]
        assert copied == rows(engine)
    finally:
        copy.dispose()
    with pytest.raises(InputError, match="choose another"):
        back_up(engine, str(path))
    with pytest.raises(RefusedError, match="empty tables"):
        restore(engine, str(path))


def test_a_restored_database_starts_nothing_by_itself(engine: Engine, tmp_path: Path) -> None:
    clean(engine)
    fill(engine)
    back_up(engine, str(tmp_path / "backup"))
    fresh = open_engine(f"sqlite:///{tmp_path}/fresh.db")
    try:
        create_tables(fresh)
        before = float(open_store(tmp_path / "backup").load().settings[BACKED_UP])
        assert restore(fresh, str(tmp_path / "backup"))[1] == ["alice"]
        store = Store(fresh)
        snapshot = store.load()
        assert not any(job.wishes.is_held for job in snapshot.jobs), "what its owner had not held is not held for him"
        settings = snapshot.settings
        assert (settings[AWAITS + "alice"], settings[RESTORED_ABOVE], float(settings[RESTORED_AT])) == ("1", "4", before)
        epoch = take_seat(fresh)
        assert epoch > int(settings[INCARNATION]) > 1_500_000_000, "above any epoch that a user-server has seen"
        core = Cluster("test-0badcafe", snapshot, 0.0)
        assert core.last_id == 4 + ID_GAP and core.restored.awaited == {"alice"}
        assert begin_anew(fresh) == ["alice"], "harmless to repeat"
        core = Cluster("test-0badcafe", store.load(), 0.0)
        assert (core.last_id, core.restored.above) == (4 + 2 * ID_GAP, 4)
    finally:
        fresh.dispose()
