"""The views: what analysts may rely on, and what they must never see."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine, select, text

from hq.db import tables
from hq.db.queries import ended_rows
from hq.db.store import Store
from hq.db.views import VIEWS
from hq.model.changes import AuditRecord, Changes
from hq.model.host import LoadSample
from hq.model.ids import PLAIN, TaskKey
from hq.model.job import Wishes
from hq.model.selection import Selection
from hq.model.states import Outcome, TaskState
from tests.support.dbrecords import T0, end_task, ended_job, make_job, make_task

#: Version 1. A column may be added, none may go.
COLUMNS = {
    "v_job": "job user_name name group_name queue slots priority is_array task_count state outcome exit_code signal_number submitted started "
    "ended wall_seconds cpu_seconds max_rss old_state",
    "v_task": "job idx attempt user_name host slots state outcome exit_code signal_number since started ended wall_seconds cpu_seconds max_rss "
    "native_id native_wait_seconds old_state",
    "v_usage_by_user_day": "day user_name tasks tasks_ok slot_seconds cpu_seconds",
    "v_host_load": "host at user_name load1 load5 load15 cores memory_total memory_free",
    "v_wait_time": "job idx user_name queue slots priority submitted started wait_seconds native_wait_seconds",
    "v_audit": "id at actor role action owner target",
}


@pytest.fixture
def filled(store: Store) -> Engine:
    """One job in each of some states."""
    store.write(ended_job(make_job(1), end_task(make_task(1, slots=4, native_id="77", native_since=T0 + 0.25), cpu=2.5)))
    store.write(ended_job(make_job(2), end_task(make_task(2), Outcome.FAILED, exit_code=3)))
    changes = Changes(jobs={id: make_job(id, wishes=Wishes(is_held=id == 6)) for id in (3, 4, 5, 6)})
    for id, state in ((3, TaskState.RUNNING), (4, TaskState.STARTING)):
        task = make_task(id, state=state, started=T0 + 1.25 if state is TaskState.RUNNING else None)
        changes.tasks[task.key] = task
    changes.audit.append(AuditRecord(at=T0, actor="root", role="admin", action="cancel", owner="alice", target="1", detail="/home/alice/x"))
    changes.loads.append(LoadSample(host="node1", user="alice", at=T0, load1=1, load5=2, load15=3, cores=4, memory_total=5, memory_free=6))
    store.write(changes)
    return store.engine


def _all(engine: Engine, sql: str) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(sql)).mappings()]


def test_every_view_is_there_with_its_columns_and_told_about(filled: Engine) -> None:
    with filled.connect() as connection:
        info = {row.name: row for row in connection.execute(select(tables.view_info))}
        assert info.keys() == COLUMNS.keys() == {view.name for view in VIEWS}
        for name, columns in COLUMNS.items():
            assert list(connection.execute(text(f"SELECT * FROM {name}")).keys()) == columns.split(), name
            assert info[name].version == 1 and len(info[name].about) > 40


def test_no_view_shows_commands_paths_or_blobs(filled: Engine) -> None:
    secret = {"command", "body", "signature", "wishes", "detail", "reason", "cwd", "stdout", "script", "env", "argv"}
    assert not secret & set(" ".join(COLUMNS.values()).split())
    for name in COLUMNS:
        assert "/home" not in str(_all(filled, f"SELECT * FROM {name}"))


def test_states_of_today_and_of_the_older_systems(filled: Engine) -> None:
    rows = _all(filled, "SELECT job, state, old_state, outcome FROM v_job ORDER BY job")
    assert [tuple(row.values()) for row in rows] == [
        (1, "finished", "finished", "ok"), (2, "finished", "finished", "failed"), (3, "running", "running", None),
        (4, "starting", "pending", None), (5, "waiting", "waiting", None), (6, "held", "waiting", None),
    ]  # fmt: skip
    assert [row["old_state"] for row in _all(filled, "SELECT old_state FROM v_task ORDER BY job")] == ["finished", "finished", "running", "pending"]


def test_the_state_of_an_array_is_its_liveliest(store: Store) -> None:
    changes = Changes(jobs={id: make_job(id, indices="1-3") for id in (1, 2, 3)})
    rows = [make_task(1, 2, TaskState.HELD), make_task(2, 3, TaskState.FINISHED, outcome=Outcome.CANCELLED)]
    rows += [make_task(3, index, TaskState.HELD) for index in (1, 2)]
    changes.tasks = {task.key: task for task in rows}
    changes.tasks_ended = [end_task(make_task(3, 3))]
    store.write(changes)
    assert [row["state"] for row in _all(store.engine, "SELECT state FROM v_job ORDER BY job")] == ["waiting", "waiting", "held"]


def test_times_are_seconds(filled: Engine) -> None:
    (row,) = _all(filled, "SELECT wall_seconds, cpu_seconds FROM v_job WHERE job = 1")
    assert (float(row["wall_seconds"]), row["cpu_seconds"]) == (9.0, 2.5)
    waits = _all(filled, "SELECT job, wait_seconds FROM v_wait_time ORDER BY job")
    assert [(row["job"], float(row["wait_seconds"])) for row in waits] == [(1, 1.0), (2, 1.0), (3, 1.25)]


def test_what_waited_at_a_batch_system_is_counted_apart(filled: Engine, store: Store) -> None:
    for view in ("v_task", "v_wait_time"):
        rows = _all(filled, f"SELECT native_wait_seconds FROM {view} ORDER BY job")
        assert [None if row["native_wait_seconds"] is None else float(row["native_wait_seconds"]) for row in rows][:3] == [0.75, None, None], view
    held = make_task(4, state=TaskState.STARTING, started=None, native_id="78", is_held=True)
    store.write(Changes(tasks={held.key: held}))
    (row,) = _all(filled, "SELECT t.native_id, t.state, t.old_state, j.state AS job_state FROM v_task t JOIN v_job j ON j.job = t.job WHERE t.job = 4")
    assert tuple(row.values()) == ("78", "held", "waiting", "held")
    (listed,) = ended_rows(filled, Selection(tasks=(TaskKey(1, PLAIN),)), "alice", False, 10)
    assert (listed.native_id, listed.native_since, listed.native_wait_seconds) == ("77", T0 + 0.25, 0.75)


def test_usage_by_user_and_day(filled: Engine) -> None:
    (row,) = _all(filled, "SELECT * FROM v_usage_by_user_day")
    assert str(row["day"]) == datetime.fromtimestamp(T0, None).strftime("2023-11-14") and row["user_name"] == "alice"
    assert (int(row["tasks"]), int(row["tasks_ok"]), float(row["slot_seconds"]), float(row["cpu_seconds"])) == (2, 1, 45.0, 2.5)


def test_a_view_by_job_reads_by_index(filled: Engine) -> None:
    is_sqlite = filled.dialect.name == "sqlite"
    for sql in ("SELECT * FROM v_task WHERE job = 1", "SELECT * FROM v_wait_time WHERE job = 1"):
        rows = _all(filled, ("EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ") + sql)
        if is_sqlite:
            details = [row["detail"] for row in rows]
            assert any("USING" in detail and "task_history" in detail or "USING" in detail for detail in details)
            assert not any(detail.startswith("SCAN") and detail.split()[1] in ("task", "t", "h", "task_history") and "USING" not in detail for detail in details)
        else:
            assert all(row["key"] or row["table"] is None or "<" in row["table"] for row in rows if row["rows"]), rows
