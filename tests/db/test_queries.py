"""Listings and single looks at what has ended: selection, filters, ownership, arrays, plans."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Engine, event

from hq.db import queries
from hq.db.store import Store
from hq.model.changes import AuditRecord, Changes
from hq.model.host import LoadSample
from hq.model.ids import TaskKey
from hq.model.job import Wishes
from hq.model.rows import Row
from hq.model.selection import Selection, parse_selection
from hq.model.states import Outcome
from tests.support.dbrecords import T0, end_task, ended_job, make_job, make_task


@pytest.fixture
def filled(store: Store) -> Engine:
    """alice: 1 ok, 2 failed in group g, 3 an array that ended, 5 a live array with ended tasks; bob: 4."""
    store.write(ended_job(make_job(1, name="first"), end_task(make_task(1))))
    two = make_job(2, name="Zweiter Müller", wishes=Wishes(group="g", info="a 50% note", priority=3), submitted=T0 + 100, ended=T0 + 120)
    store.write(ended_job(two, end_task(make_task(2, host="node2"), Outcome.FAILED, exit_code=3, reason="exit code 3", ended=T0 + 120)))
    three = make_job(3, indices="1-4", wishes=Wishes(group="g"), ended=T0 + 130, cancelled_rest=1)
    array = [end_task(make_task(3, index), ended=T0 + 100 + index) for index in (1, 2)]
    array.append(end_task(make_task(3, 3), Outcome.FAILED, exit_code=None, signal=9, ended=T0 + 130))
    store.write(Changes(jobs={3: make_job(3, indices="1-4")}, tasks_ended=array[:1]))
    store.write(ended_job(three, *array[1:]))
    store.write(ended_job(make_job(4, user="bob", ended=T0 + 140), end_task(make_task(4, user="bob"), ended=T0 + 140)))
    five = make_job(5, indices="1-9", wishes=Wishes(group="h"))
    store.write(Changes(jobs={5: five}, tasks_ended=[end_task(make_task(5, 1), ended=T0 + 150)]))
    return store.engine


def _ids(rows: list[Row]) -> list[str]:
    return [row.task for row in rows]


def _ask(engine: Engine, words: str = "", user: str | None = "alice", by_task: bool = False, limit: int | None = 100, **filters: object) -> list[str]:
    selection = replace(parse_selection(words.split()), **filters)  # type: ignore[arg-type]
    return _ids(queries.ended_rows(engine, selection, user, by_task, limit))


def test_a_row_says_everything(filled: Engine) -> None:
    (row,) = queries.ended_rows(filled, parse_selection(["2"]), "alice", False, None)
    assert row == Row(
        id=2, task="2", name="Zweiter Müller", group="g", user="alice", command="true", state="finished", outcome="failed", exit_code=3,
        host="node2", attempt=1, slots=1, priority=3, submitted=T0 + 100, started=T0 + 1, ended=T0 + 120, reason="exit code 3", info="a 50% note",
    )  # fmt: skip


def test_an_array_is_one_row_with_counts(filled: Engine) -> None:
    (row,) = queries.ended_rows(filled, parse_selection(["3"]), "alice", False, None)
    assert row.array == "1-4" and row.exit_code == 137 and row.outcome == "failed"
    assert row.tasks == {"finished": 4, "finished:ok": 2, "finished:failed": 1, "finished:cancelled": 1}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ["3", "2", "1"]), ("1", ["1"]), ("1-3", ["3", "2", "1"]), ("4", []), ("1,2 3-3", ["3", "2", "1"]), ("99", []),
        ("3_3", ["3_3"]), ("3_1 1", ["3_1", "1"]), ("5_1", ["5_1"]), ("3_4", ["3_4"]), ("3_77", []), ("4_1", []), ("5", []), ("all", ["3", "2", "1"]),
    ],
)  # fmt: skip
def test_names(filled: Engine, words: str, expected: list[str]) -> None:
    assert _ask(filled, words) == expected


def test_another_users_jobs_look_like_none(filled: Engine) -> None:
    assert _ask(filled, user="bob") == ["4"] and _ask(filled, "1-3", user="bob") == [] and _ask(filled, "3_1", user="bob") == []
    assert _ask(filled, user="bob", by_task=True) == ["4"]
    assert _ask(filled, user=None) == ["4", "3", "2", "1"]
    assert queries.ended_counts(filled, [1, 4], "bob").keys() == {4}
    assert queries.group_rows(filled, "bob", None) == [] and queries.last_job(filled, "bob") == 4


def test_tasks_of_live_arrays_are_among_the_tasks(filled: Engine) -> None:
    assert _ask(filled, by_task=True) == ["5_1", "3_1", "3_2", "3_3", "2", "1"]
    assert _ask(filled, "5", by_task=True) == ["5_1"]
    assert _ask(filled, "1-4", by_task=True, states=("failed",)) == ["3_3", "2"]
    assert _ask(filled, by_task=True, group="h") == ["5_1"]
    assert _ask(filled, by_task=True, limit=2) == ["5_1", "3_3"]


def test_filters(filled: Engine) -> None:
    assert _ask(filled, states=("failed",)) == ["3", "2"]
    assert _ask(filled, states=("ok",)) == ["3", "1"]
    assert _ask(filled, states=("running",)) == []
    assert _ask(filled, states=("running", "finished")) == ["3", "2", "1"]
    assert _ask(filled, group="g") == ["3", "2"] and _ask(filled, group="G") == []
    assert _ask(filled, since=T0 + 50) == ["2"]
    assert _ask(filled, text="MÜLLER") == ["2"] and _ask(filled, text="50%") == ["2"] and _ask(filled, text="5_%") == []
    assert _ask(filled, text="true") == ["3", "2", "1"]
    assert _ask(filled, "1", group="g") == []
    assert _ask(filled, "3_1", states=("failed",)) == []


def test_a_limit_keeps_the_last_to_end(filled: Engine) -> None:
    assert _ask(filled, limit=2) == ["3", "2"] and _ask(filled, limit=None) == ["3", "2", "1"] and _ask(filled, limit=0) == []


def test_thousands_of_names_are_no_problem(filled: Engine) -> None:
    keys = tuple(TaskKey(id) for id in range(1, 20_000, 2))
    ranges = tuple((id, id + 1) for id in range(30_000, 60_000, 3))
    rows = queries.ended_rows(filled, Selection(tasks=keys, ranges=ranges), "alice", False, 10)
    assert _ids(rows) == ["3", "1"]
    assert _ids(queries.ended_rows(filled, Selection(tasks=tuple(TaskKey(3, n) for n in range(10_000))), "alice", True, None)) == [
        "3_1", "3_2", "3_3", "3_4",
    ]  # fmt: skip


def test_counts_give_the_code_that_a_waiting_command_returns(filled: Engine) -> None:
    found = queries.ended_counts(filled, [1, 2, 3, 5, 77], "alice")
    assert {id: (each.exit_code, each.is_finished) for id, each in found.items()} == {1: (0, True), 2: (3, True), 3: (137, True)}
    assert found[2].tasks == {"finished": 1, "finished:failed": 1} and found[2].reason == "exit code 3"


def test_one_job_or_task_is_found(filled: Engine) -> None:
    job, task = queries.find_ended(filled, TaskKey(2)) or (None, None)
    assert job is not None and job.spec.name == "Zweiter Müller" and job.ended == T0 + 120 and task is not None and task.exit_code == 3
    job, task = queries.find_ended(filled, TaskKey(5, 1)) or (None, None)
    assert job is not None and job.ended is None and task is not None and task.index == 1
    job, task = queries.find_ended(filled, TaskKey(3)) or (None, None)
    assert job is not None and job.cancelled_rest == 1 and task is None
    assert queries.find_ended(filled, TaskKey(3, 4)) == (job, None)
    for nothing in (TaskKey(3, 5), TaskKey(5), TaskKey(5, 2), TaskKey(99), TaskKey(1, 1)):
        assert queries.find_ended(filled, nothing) is None


def test_last_job_counts_live_and_ended(filled: Engine) -> None:
    assert queries.last_job(filled, "alice") == 5 and queries.last_job(filled, "carol") is None and queries.last_job(filled, None) == 5


def test_groups(filled: Engine) -> None:
    (group,) = queries.group_rows(filled, "alice", None)
    assert (group.group, group.jobs, group.tasks) == ("g", 2, {"finished": 5, "finished:ok": 2, "finished:failed": 2, "finished:cancelled": 1})
    assert queries.group_rows(filled, "alice", "none") == []


def test_history_audit_and_loads(store: Store) -> None:
    changes = Changes()
    changes.events += [(T0, 7, 1, 1, "starting", "n", ""), (T0 + 1, 7, 1, 1, "running", "n", "line\none"), (T0, 7, 2, 1, "starting", "n", "")]
    changes.audit += [AuditRecord(at=T0, actor="root", role="admin", action="cancel", owner=who, target="7", detail="d") for who in ("alice", "bob")]
    sample = LoadSample(host="n", user="alice", at=T0, load1=1.5, load5=0.1, load15=0.2, cores=8, memory_total=2**40, memory_free=1)
    changes.loads.append(sample)
    store.write(changes)
    moments = queries.history(store.engine, 7, 1)
    assert [(each.at, each.task, each.state, each.reason) for each in moments] == [(T0, "7_1", "starting", ""), (T0 + 1, "7_1", "running", "line\\none")]
    assert len(queries.history(store.engine, 7, None)) == 3
    assert queries.audit_rows(store.engine, "bob") == [changes.audit[1]]
    assert queries.audit_rows(store.engine, None, 1) == [changes.audit[1]]
    assert queries.load_rows(store.engine, "n") == [sample] and queries.load_rows(store.engine, "m") == []


def test_listings_use_indexes(filled: Engine) -> None:
    """The plan of each statement of a listing names an index of history, never a scan."""
    seen: list[tuple[str, object]] = []

    def note(connection: object, cursor: object, statement: str, parameters: object, *rest: object) -> None:
        seen.append((statement, parameters))

    event.listen(filled, "before_cursor_execute", note)
    try:
        _ask(filled)
        _ask(filled, by_task=True)
        _ask(filled, "1")
        queries.find_ended(filled, TaskKey(3, 1))
        queries.history(filled, 3, 1)
        queries.last_job(filled, "alice")
    finally:
        event.remove(filled, "before_cursor_execute", note)
    is_sqlite = filled.dialect.name == "sqlite"
    with filled.connect() as connection:
        if not is_sqlite:
            connection.exec_driver_sql("ANALYZE TABLE job_history, task_history, task_event").all()
        for statement, parameters in seen:
            if "FROM job_history" not in statement and "FROM task_history" not in statement and "FROM task_event" not in statement:
                continue
            plan = connection.exec_driver_sql(("EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN ") + statement, parameters).mappings().all()  # type: ignore[arg-type]
            for row in plan:
                if is_sqlite:
                    assert not row["detail"].startswith("SCAN"), (statement, plan)
                else:
                    assert row["possible_keys"] or row["table"] is None or row["key"], (statement, plan)
