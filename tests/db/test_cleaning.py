"""What nobody needs any more goes from the database, and nothing else does."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from hq.db import cleaning, tables
from hq.db.store import Store
from hq.model.changes import Changes, Cleaning
from tests.support.dbrecords import T0, end_task, ended_job, make_job, make_task

DAY = 86400.0


def count(store: Store, table: str) -> int:
    """Rows of a table."""
    with store.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(tables.metadata.tables[table])).scalar_one())


def clean(store: Store, *needed: tuple[str, str], before: float | None = None) -> None:
    """One turn of the loop."""
    store.write(Changes(cleaning=Cleaning(frozenset(needed), before)))


def test_blobs_of_live_jobs_stay_and_each_owner_has_his_own(store: Store) -> None:
    digests = [f"{number:032x}" for number in range(1200)]
    store.write(Changes(blobs=dict.fromkeys(digests, ("alice", b"sealed"))))
    store.write(Changes(blobs={digests[0]: ("bob", b"his")}))
    clean(store, (digests[7], "alice"), (digests[0], "bob"))
    assert count(store, "blob") == 2
    assert store.blobs([digests[7]], "alice") and store.blobs([digests[0]], "bob") and not store.blobs([digests[0]], "alice")


def test_what_comes_in_with_the_same_commit_is_known_to_be_needed(store: Store) -> None:
    store.write(Changes(blobs={"a" * 32: ("alice", b"1")}, cleaning=Cleaning(frozenset({("a" * 32, "alice")}))))
    assert count(store, "blob") == 1


def test_a_part_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "BLOBS", 3)
    store.write(Changes(blobs={f"{number:032x}": ("alice", b"x") for number in range(5)}))
    clean(store)
    assert count(store, "blob") == 2
    clean(store)
    assert count(store, "blob") == 0


def fill_history(store: Store) -> None:
    """Job 1 ended long ago, job 2 with 10 tasks too, job 3 lately; job 4 lives and has an ended task."""
    jobs = {1: make_job(1), 2: make_job(2, indices="1-10"), 3: make_job(3), 4: make_job(4, indices="1-2")}
    ended = {1: [end_task(make_task(1))], 2: [end_task(make_task(2, index)) for index in range(1, 11)],
             3: [end_task(make_task(3), ended=T0 + 30 * DAY)]}  # fmt: skip
    store.write(Changes(jobs=jobs, tasks={task.key: task for tasks in ended.values() for task in tasks}))
    for id, tasks in ended.items():
        changes = ended_job(jobs[id], *tasks)
        if id == 3:
            changes.jobs_ended[3] = make_job(3, ended=T0 + 30 * DAY)
        changes.events.append((T0, id, -1, 1, "finished", "node1", ""))
        store.write(changes)
    store.write(Changes(tasks_ended=[end_task(make_task(4, 1))]))


def test_history_before_a_moment_goes_and_what_lives_keeps_its_ended_tasks(store: Store) -> None:
    fill_history(store)
    clean(store)
    assert (count(store, "job_history"), count(store, "task_history"), count(store, "task_event")) == (3, 13, 3)
    clean(store, before=T0 + DAY)
    assert (count(store, "job_history"), count(store, "task_history"), count(store, "task_event")) == (1, 2, 1)
    found = store.load()
    assert ({job.id for job in found.jobs}, found.left[4], found.last_job) == ({4}, 1, 4)


def test_a_job_larger_than_what_goes_at_once_goes_a_part_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "ROWS", 4)
    fill_history(store)
    seen = []
    for _ in range(6):
        clean(store, before=T0 + DAY)
        seen.append((count(store, "job_history"), count(store, "task_history")))
    assert seen == [(2, 12), (2, 8), (2, 4), (1, 2), (1, 2), (1, 2)]
