"""What is written is what is loaded, whatever the bytes; history moves; batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from hq.db import bulk, tables
from hq.db.bulk import moment_text
from hq.db.store import Store
from hq.db.types import to_datetime, to_moment
from hq.errors import DatabaseError, FencedError
from hq.model.changes import AuditRecord, Changes
from hq.model.host import HostRecord, HostSpec, LoadSample
from hq.model.job import JobRecord, TaskRecord, Wishes
from hq.model.states import Outcome, TaskState
from hq.model.user import UserRecord
from tests.support import dbrecords
from tests.support.dbrecords import T0, clean, end_task, ended_job, make_job, make_task, take_seat, tasks_of

_slow = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])


@_slow
@given(data=st.data())
def test_what_is_written_is_loaded(store: Store, data: st.DataObject) -> None:
    clean(store.engine)
    changes = Changes()
    changes.users = {each.name: each for each in data.draw(st.lists(dbrecords.users, max_size=3))}
    changes.keys = {each.public: each for each in data.draw(st.lists(dbrecords.key_records, max_size=3))}
    changes.hosts = {each.name: each for each in data.draw(st.lists(dbrecords.host_records, max_size=3))}
    changes.settings = data.draw(st.dictionaries(dbrecords.names, dbrecords.texts, max_size=3))
    changes.jobs = {each.id: each for each in data.draw(st.lists(dbrecords.jobs, max_size=3))}
    for record in changes.jobs.values():
        changes.tasks.update({each.key: each for each in data.draw(st.lists(tasks_of(record), max_size=3))})
    bodies = data.draw(st.lists(dbrecords.blobs, max_size=3))
    changes.blobs = {f"{number:032x}": ("alice", body) for number, body in enumerate(bodies)}

    for _ in range(2):  # written twice it is the same
        store.write(changes)
        found = store.load()
        assert {each.name: each for each in found.users} == changes.users
        assert {each.public: each for each in found.keys} == changes.keys
        assert {each.name: each for each in found.hosts} == changes.hosts
        assert found.settings == changes.settings
        assert {each.id: each for each in found.jobs} == changes.jobs
        assert {each.key: each for each in found.tasks} == changes.tasks
        assert store.blobs(changes.blobs) == {digest: body for digest, (_, body) in changes.blobs.items()}
        assert found.left == {job: n for job in changes.jobs if (n := sum(key.job == job for key in changes.tasks))}


@given(micro=st.integers(1, 253402300799_000000 - 1))
def test_both_ways_of_writing_a_moment_agree(micro: int) -> None:
    moment = micro / 1e6
    assert moment_text(moment) == to_datetime(moment).isoformat(" ", "microseconds")
    if micro < 4_102_444_800_000_000:
        assert to_moment(to_datetime(moment)) == moment


@pytest.mark.parametrize("moment", [float("nan"), -5.0, 1e300, float("inf"), float("-inf"), 0.0])
def test_no_absurd_moment_stops_a_batch(store: Store, moment: float) -> None:
    changes = Changes(jobs={1: make_job(1)})
    task = make_task(1, started=moment, max_rss=2**80, cpu=float("nan"), exit_code=-(2**40))
    changes.tasks[task.key] = task
    store.write(changes)
    (found,) = store.load().tasks
    assert found.started is not None and 0 <= found.started < 253402300800
    assert found.cpu is None and found.max_rss == 2**63 - 1


def test_changed_records_replace_the_old(store: Store) -> None:
    job, task = make_job(1), make_task(1, state=TaskState.STARTING)
    store.write(Changes(jobs={1: job}, tasks={task.key: task}))
    job = job.with_wishes(group="g", info="i", priority=7, is_held=True, hosts=("node2",))
    task = replace(task, state=TaskState.RUNNING, attempt=2, pid=77, host="node2")
    store.write(Changes(jobs={1: job}, tasks={task.key: task}))
    found = store.load()
    assert found.jobs == [job] and found.tasks == [task]


def test_removed_users_and_hosts_are_gone(store: Store) -> None:
    changes = Changes()
    for name in ("alice", "bob"):
        changes.users[name] = UserRecord(name=name)
        changes.hosts[name] = HostRecord(spec=HostSpec(name=name, address=name, total=1, slots=1))
    store.write(changes)
    store.write(Changes(users_removed={"bob", "nobody"}, hosts_removed={"alice"}))
    found = store.load()
    assert [each.name for each in found.users] == ["alice"] and [each.name for each in found.hosts] == ["bob"]


def test_blobs_are_kept_as_first_written_and_by_owner(store: Store) -> None:
    store.write(Changes(blobs={"aa": ("alice", b"\x00\xff first")}))
    store.write(Changes(blobs={"aa": ("alice", b"second"), "bb": ("bob", b"of bob")}))
    assert store.blobs(["aa", "bb", "cc"]) == {"aa": b"\x00\xff first", "bb": b"of bob"}
    assert store.blobs(["aa", "bb"], "alice") == {"aa": b"\x00\xff first"}
    store.write(Changes(blobs={"aa": ("bob", b"in his way")}))
    assert store.blobs(["aa"], "alice") == {"aa": b"\x00\xff first"}


def test_ended_tasks_and_jobs_move_to_history(store: Store) -> None:
    job, task = make_job(5), make_task(5)
    store.write(Changes(jobs={5: job}, tasks={task.key: task}))
    store.write(ended_job(job, end_task(task, max_rss=4096, cpu=1.5)))
    found = store.load()
    assert not found.jobs and not found.tasks and not found.left
    assert found.last_job == 5 and found.submissions == {("alice", "key-5"): 5}
    with store.engine.connect() as connection:
        (row,) = connection.execute(select(tables.job_history))
        assert (row.outcome, row.exit_code, row.host, row.attempt, row.max_rss, row.cpu_seconds) == ("ok", 0, "node1", 1, 4096, 1.5)
        assert (row.started, row.ended) == (T0 + 1, T0 + 10)
        assert len(connection.execute(select(tables.task_history)).all()) == 1


def test_a_restart_knows_how_many_tasks_have_left_waiting(store: Store) -> None:
    job = make_job(3, indices="1-10")
    live = [make_task(3, index) for index in (6, 7)]
    ended = [end_task(make_task(3, index)) for index in (1, 2, 3)]
    ended += [end_task(make_task(3, 4), Outcome.FAILED, exit_code=9), end_task(make_task(3, 5), Outcome.FAILED, exit_code=None, signal=11)]
    store.write(Changes(jobs={3: job}, tasks={each.key: each for each in live}, tasks_ended=ended))
    found = store.load()
    assert found.left == {3: 7} and found.outcomes == {3: {"ok": 3, "failed": 2}} and found.worst == {3: 139}
    assert sorted(found.tasks, key=lambda task: task.index) == live


def test_an_array_is_summed_up_over_all_batches(store: Store) -> None:
    job = make_job(3, indices="1-10")
    store.write(Changes(jobs={3: job}, tasks_ended=[end_task(make_task(3, index), cpu=1.0, max_rss=index) for index in (1, 2, 3)]))
    last = end_task(make_task(3, 4), Outcome.TIMEOUT, reason="too long", cpu=0.5, started=None)
    store.write(ended_job(replace(job, cancelled_rest=6), last))
    with store.engine.connect() as connection:
        (row,) = connection.execute(select(tables.job_history))
    assert (row.outcome, row.exit_code, row.reason, row.max_rss, row.cpu_seconds, row.started) == ("timeout", 124, "too long", 3, 3.5, T0 + 1)
    assert row.outcomes == '{"ok":3,"timeout":1,"cancelled":6}'


def test_a_job_that_was_cancelled_before_any_start_says_why(store: Store) -> None:
    job = make_job(4)
    store.write(Changes(jobs={4: job}))
    changes = ended_job(replace(job, cancelled_rest=1))
    changes.events.append((T0, 4, -1, 0, "finished", "", "cancelled by alice"))
    store.write(changes)
    with store.engine.connect() as connection:
        (row,) = connection.execute(select(tables.job_history))
    assert (row.outcome, row.exit_code, row.reason, row.host) == ("cancelled", None, "cancelled by alice", "")


def _batch(first: int, count: int, state: TaskState) -> Changes:
    changes = Changes()
    for index in range(first, first + count):
        task = make_task(1, index, state, pid=index)
        if state is TaskState.FINISHED:
            changes.tasks_ended.append(end_task(task))
        else:
            changes.tasks[task.key] = task
        changes.events.append((T0, 1, index, 1, state.value, "node1", ""))
    return changes


def test_a_batch_of_a_thousand_takes_few_statements(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write(Changes(jobs={1: make_job(1, indices="0-9999")}))
    statements: list[str] = []

    class Cursor:
        """A driver's cursor that notes what it is told."""

        def __init__(self, cursor: Any) -> None:
            self._cursor = cursor

        def __getattr__(self, name: str) -> Any:
            if name.startswith("execute"):
                return lambda statement, *rest: (statements.append(statement[:40]), getattr(self._cursor, name)(statement, *rest))[1]
            return getattr(self._cursor, name)

    cursor_of = bulk._cursor
    monkeypatch.setattr(bulk, "_cursor", lambda connection: Cursor(cursor_of(connection)))
    store.write(_batch(0, 1000, TaskState.RUNNING), 0, batch="one")
    store.write(_batch(0, 1000, TaskState.FINISHED), 0, batch="two")
    monkeypatch.undo()
    assert 6 <= len(statements) <= 8, statements
    found = store.load()
    assert found.left == {1: 1000} and not found.tasks
    with store.engine.connect() as connection:
        assert len(connection.execute(select(tables.task_event.c.id)).all()) == 2000


def test_rows_beyond_one_statement_all_arrive(store: Store) -> None:
    jobs = {id: make_job(id, argv=(b"\xff" * 100_000,)) for id in range(1, 21)}
    store.write(Changes(jobs=jobs))
    assert {each.id: each for each in store.load().jobs} == jobs


def test_a_repeated_batch_is_written_once(store: Store) -> None:
    changes = Changes(audit=[AuditRecord(at=T0, actor="root", role="admin", action="x", owner="", target="t")])
    store.write(changes, batch="b1")
    store.write(changes, batch="b1")
    store.write(changes, batch="b2")
    with store.engine.connect() as connection:
        assert len(connection.execute(select(tables.audit)).all()) == 2


def test_an_older_epoch_may_not_write(store: Store) -> None:
    ours = take_seat(store.engine)
    store.write(Changes(settings={"a": "1"}), ours)
    theirs = take_seat(store.engine, "there:/var")
    assert theirs == ours + 1
    with pytest.raises(FencedError, match="another hq-server has taken"):
        store.write(Changes(settings={"a": "2"}), ours)
    assert store.load().settings == {"a": "1"}


def test_a_setting_has_room_for_the_longest_host_name(store: Store) -> None:
    settings = {f"drain_deadline.{'h' * 255}": "1.0"}
    store.write(Changes(settings=settings))
    assert store.load().settings == settings


def test_a_refused_batch_leaves_nothing(store: Store) -> None:
    orphan = make_task(404)
    with pytest.raises(DatabaseError):
        store.write(Changes(settings={"a": "1"}, tasks={orphan.key: orphan}))
    assert store.load().settings == {}


def test_text_that_no_database_takes_is_refused(store: Store) -> None:
    with pytest.raises(DatabaseError):
        store.write(Changes(settings={"a": "\ud800"}))


def test_a_body_of_another_version_is_named(store: Store) -> None:
    job = make_job(8)
    store.write(Changes(jobs={8: replace(job, signed=replace(job.signed, body=b"\xc1"))}))
    with pytest.raises(DatabaseError, match="job 8 .*cannot be read"):
        store.load()


def test_only_the_last_load_samples_of_a_host_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hq.db.store.LOADS_KEPT", 20)
    for number in range(100):
        sample = LoadSample(host="a", user="alice", at=T0 + number, load1=number, load5=0, load15=0, cores=4, memory_total=1, memory_free=1)
        other = replace(sample, host="b") if number == 0 else None
        store.write(Changes(loads=[sample] if other is None else [sample, other]))
    with store.engine.connect() as connection:
        rows = connection.execute(select(tables.host_load).order_by(tables.host_load.c.id)).all()
    kept = [row.load1 for row in rows if row.host == "a"]
    assert 20 <= len(kept) <= 22 and kept[-1] == 99 and sum(row.host == "b" for row in rows) == 1


def test_a_blob_beyond_the_packet_is_refused_and_not_retried(store: Store, mariadb: object) -> None:
    if store.engine.dialect.name == "sqlite":
        store.write(Changes(blobs={"aa": ("alice", b"x" * 20_000_000)}))
        assert len(store.blobs(["aa"])["aa"]) == 20_000_000
    else:
        with pytest.raises(DatabaseError, match="max_allowed_packet"):
            store.write(Changes(blobs={"aa": ("alice", b"x" * 20_000_000)}))
        store.write(Changes(blobs={"aa": ("alice", b"\xff" * 5_000_000)}))
        assert len(store.blobs(["aa"])["aa"]) == 5_000_000


@pytest.mark.parametrize("text", ["it's; \"x\"\n\\", "😀", "a\0b", "%s %(x)s", "`", "', 1); DROP TABLE job; --"])
def test_names_are_never_sql(store: Store, engine: Engine, text: str) -> None:
    job = make_job(1, name=text, argv=(b"echo", text.encode(), b"\xff\xfe"), wishes=Wishes(group=text, info=text))
    task = make_task(1, reason=text)
    store.write(Changes(jobs={1: job}, tasks={task.key: task}, settings={"x": text}))
    found = store.load()
    jobs: list[JobRecord] = found.jobs
    tasks: list[TaskRecord] = found.tasks
    assert (jobs, tasks, found.settings) == ([job], [task], {"x": text})


def test_only_the_tasks_that_ended_leave_the_live_ones(store: Store) -> None:
    jobs = {1: make_job(1, indices="0-3"), 2: make_job(2, indices="0-3"), 3: make_job(3)}
    tasks = [make_task(job, index) for job in (1, 2) for index in range(4)] + [make_task(3)]
    store.write(Changes(jobs=jobs, tasks={task.key: task for task in tasks}))
    gone = {(1, 0), (2, 1), (3, -1)}
    store.write(Changes(tasks_ended=[end_task(task) for task in tasks if task.key in gone]))
    assert {task.key for task in store.load().tasks} == {task.key for task in tasks} - gone
