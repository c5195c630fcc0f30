"""Questions about what has ended: listings, one job, histories, audit. Live jobs are the core's; these read history, by index.

Everything is scoped by `user` (None: everybody's), so that another user's job looks exactly like none. Every function raises
UnavailableError or DatabaseError.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Select, and_, false, func, or_, select, true, union_all
from sqlalchemy.sql.elements import ColumnElement

from hq.db import convert
from hq.db.engine import reached
from hq.db.tables import audit, host_load, job, job_history, task_event, task_history
from hq.model.changes import AuditRecord
from hq.model.host import LoadSample
from hq.model.ids import PLAIN, TaskKey
from hq.model.job import JobRecord, TaskRecord, exit_code_of
from hq.model.restored import Cancel
from hq.model.rows import CANCELLED_REST, GroupRow, JobCounts, Moment, Row
from hq.model.selection import Selection
from hq.model.states import Outcome, TaskState
from hq.model.text import printable

#: Names or ranges in one statement.
CHUNK = 200

_OUTCOMES = msgspec.json.Decoder(dict[str, int])
_FINISHED = TaskState.FINISHED.value


def _by_state(outcomes: str) -> dict[str, int]:
    """Counts as listings show them, from the column `outcomes`."""
    counts = _OUTCOMES.decode(outcomes)
    return {_FINISHED: sum(counts.values())} | {f"{_FINISHED}:{name}": count for name, count in counts.items()}


# --- listings ---


def ended_rows(engine: Engine, selection: Selection, user: str | None, by_task: bool, limit: int | None) -> list[Row]:
    """Ended jobs that `selection` means, by falling id, at most `limit` (the last to end). `is_last` must be made an id before.

    With `by_task` ended tasks instead, those of live arrays included; tasks that are named by themselves always come as tasks.
    `since` counts from the submission; an array passes a filter of outcomes if one of its tasks does.
    """
    owner = user if user is not None else selection.user
    named = [key for key in dict.fromkeys(selection.tasks) if key.index != PLAIN]
    ranges = _ranges(selection)
    rows: dict[str, Row] = {}
    with reached(engine), engine.connect() as connection:
        wanted: Iterator[ColumnElement[bool] | None] = iter([None]) if ranges is None else _named(connection, ranges, by_task)
        for names in wanted:
            for row in _task_rows(connection, selection, owner, names, limit) if by_task else _job_rows(connection, selection, owner, names, limit):
                rows[row.task] = row
        if named and ranges is not None:
            for row in _named_tasks(connection, selection, owner, named):
                rows[row.task] = row
    ordered = sorted(rows.values(), key=lambda row: row.ended or 0.0, reverse=True)[:limit]
    return sorted(ordered, key=_newest, reverse=True)


def _newest(row: Row) -> tuple[int, int]:
    return (row.id, -int(row.task.partition("_")[2] or PLAIN))


def _ranges(selection: Selection) -> list[tuple[int, int]] | None:
    """The whole jobs that are named, as sorted ranges without overlap; None: all."""
    if selection.is_empty or selection.is_all:
        return None
    merged: list[tuple[int, int]] = []
    for first, last in sorted([*selection.ranges, *((key.job, key.job) for key in selection.tasks if key.index == PLAIN)]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _named(connection: Connection, ranges: list[tuple[int, int]], by_task: bool) -> Iterator[ColumnElement[bool]]:
    """Conditions for the named jobs, a bounded number of names each."""
    column = task_history.c.job if by_task else job_history.c.id
    single = [first for first, last in ranges if first == last]
    wide = [(first, last) for first, last in ranges if first != last]
    for start in range(0, len(single), CHUNK):
        yield column.in_(single[start : start + CHUNK])
    for start in range(0, len(wide), CHUNK):
        yield or_(*(column.between(first, last) for first, last in wide[start : start + CHUNK]))


def _matches(connection: Connection, table: Any, selection: Selection, owner: str | None) -> list[ColumnElement[bool]]:
    """The filters on a job."""
    c = table.c
    conditions: list[ColumnElement[bool]] = [] if owner is None else [c.user == owner]
    if selection.group is not None:
        conditions.append(c.group_name == selection.group)
    if selection.since is not None:
        conditions.append(c.submitted >= selection.since)
    if selection.text is not None:
        is_sqlite = connection.dialect.name == "sqlite"
        fold, needle = (func.hq_fold, selection.text.casefold()) if is_sqlite else (func.lower, selection.text.lower())
        conditions.append(
            or_(*(fold(column).contains(needle, autoescape=True) for column in (c.name, c.command, c.group_name, c.info)))
        )
    return conditions


def _outcomes_wanted(selection: Selection) -> list[str] | None:
    """The outcomes that pass the filter of states; None: all."""
    if not selection.states or _FINISHED in selection.states:
        return None
    known = {outcome.value for outcome in Outcome}
    return [state for state in selection.states if state in known]


def _job_rows(connection: Connection, selection: Selection, owner: str | None, names: ColumnElement[bool] | None, limit: int | None) -> Iterator[Row]:
    conditions = _matches(connection, job_history, selection, owner)
    if names is not None:
        conditions.append(names)
    outcomes = _outcomes_wanted(selection)
    if outcomes is not None:
        conditions.append(or_(false(), *(job_history.c.outcomes.contains(f'"{name}":') for name in outcomes)))
    columns = [column for column in job_history.columns if column.name not in ("signature", "wishes", "body")]
    query = select(*columns).where(and_(true(), *conditions)).order_by(job_history.c.ended.desc()).limit(limit)
    for row in connection.execute(query):
        yield _job_row(row)


def _job_row(row: Any) -> Row:
    is_array = bool(row.is_array)
    return Row(
        id=row.id, task=str(row.id), name=printable(row.name), group=printable(row.group_name), user=row.user, command=row.command,
        state=_FINISHED, outcome=row.outcome, exit_code=row.exit_code, signal=row.signal_number, host=row.host or None, attempt=row.attempt,
        slots=row.slots, priority=row.priority, submitted=row.submitted, started=row.started, ended=row.ended, max_rss=row.max_rss,
        cpu_seconds=row.cpu_seconds, reason=printable(row.reason), info=printable(row.info), **_native(row),
        array=row.indices or None, tasks=_by_state(row.outcomes) if is_array else {},
    )  # fmt: skip


def _task_rows(connection: Connection, selection: Selection, owner: str | None, names: ColumnElement[bool] | None, limit: int | None) -> Iterator[Row]:
    t = task_history.c
    conditions: list[ColumnElement[bool]] = [] if owner is None else [t.user == owner]
    if names is not None:
        conditions.append(names)
    outcomes = _outcomes_wanted(selection)
    if outcomes is not None:
        conditions.append(t.outcome.in_(outcomes))
    if selection.group is not None or selection.since is not None or selection.text is not None:
        conditions.append(
            t.job.in_(
                union_all(*(select(table.c.id).where(*_matches(connection, table, selection, owner)) for table in (job_history, job)))
            )
        )
    query = select(task_history).where(and_(true(), *conditions)).order_by(t.ended.desc()).limit(limit)
    yield from _with_jobs(connection, connection.execute(query).all())


def _named_tasks(connection: Connection, selection: Selection, owner: str | None, keys: Sequence[TaskKey]) -> Iterator[Row]:
    """Tasks named by themselves. One that was cancelled with the rest of its array has no row: the job's stands for it."""
    ids = list({key.job for key in keys})
    t = task_history.c
    outcomes = _outcomes_wanted(selection)
    jobs: dict[int, Any] = {}
    found: list[Any] = []
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        for table in (job_history, job):
            jobs.update((row.id, row) for row in connection.execute(select(table).where(table.c.id.in_(some), *_matches(connection, table, selection, owner))))
    for start in range(0, len(keys), CHUNK):
        some_keys = [key for key in keys[start : start + CHUNK] if key.job in jobs]
        if some_keys:
            found += connection.execute(select(task_history).where(or_(*(and_(t.job == key.job, t.idx == key.index) for key in some_keys)))).all()
    for task in found:
        if outcomes is None or task.outcome in outcomes:
            yield _task_row(task, jobs[task.job])
    there = {TaskKey(task.job, task.idx) for task in found}
    for key in keys:
        row = jobs.get(key.job)
        if row is None or key in there or not hasattr(row, "outcomes") or not (outcomes is None or "cancelled" in outcomes):
            continue
        indices = convert.job_record(row).index_set()
        if indices is not None and key.index in indices:
            yield _row_without_task(row, key)


def _with_jobs(connection: Connection, tasks: Sequence[Any]) -> Iterator[Row]:
    """Rows of tasks, with what their jobs know."""
    ids = sorted({task.job for task in tasks})
    wanted = ("id", "user", "name", "group_name", "info", "command", "slots", "priority", "submitted")
    jobs: dict[int, Any] = {}
    for start in range(0, len(ids), 1000):
        for table in (job_history, job):
            query = select(*(table.c[name] for name in wanted)).where(table.c.id.in_(ids[start : start + 1000]))
            jobs.update((row.id, row) for row in connection.execute(query))
    for task in tasks:
        if task.job in jobs:
            yield _task_row(task, jobs[task.job])


def _task_row(task: Any, row: Any) -> Row:
    return Row(
        id=row.id, task=str(TaskKey(task.job, task.idx)), name=printable(row.name), group=printable(row.group_name), user=row.user,
        command=row.command, state=_FINISHED, outcome=task.outcome, exit_code=task.exit_code, signal=task.signal_number, host=task.host or None,
        attempt=task.attempt, slots=task.slots, priority=row.priority, submitted=row.submitted, started=task.started, ended=task.ended,
        max_rss=task.max_rss, cpu_seconds=task.cpu_seconds, reason=printable(task.reason), info=printable(row.info), **_native(task),
    )  # fmt: skip


def _native(row: Any) -> dict[str, Any]:
    """The fields of a Row about its job at a batch system, where that has ended."""
    if row.native_since is None:
        return {"native_id": printable(row.native_id or "") or None}
    until = row.ended if row.started is None else row.started
    return {"native_id": printable(row.native_id or "") or None, "native_since": row.native_since, "native_wait_seconds": max(0.0, until - row.native_since)}


def _row_without_task(row: Any, key: TaskKey) -> Row:
    return Row(
        id=row.id, task=str(key), name=printable(row.name), group=printable(row.group_name), user=row.user, command=row.command,
        state=_FINISHED, outcome=Outcome.CANCELLED.value, slots=row.slots, priority=row.priority, submitted=row.submitted, ended=row.ended,
        info=printable(row.info), reason=CANCELLED_REST,
    )  # fmt: skip


# --- one job ---


def ended_counts(engine: Engine, ids: Iterable[int], user: str | None) -> dict[int, JobCounts]:
    """How those of the jobs that have ended came out, by id."""
    wanted = list(ids)
    c = job_history.c
    found: dict[int, JobCounts] = {}
    with reached(engine), engine.connect() as connection:
        for start in range(0, len(wanted), 1000):
            query = select(c.id, c.user, c.is_array, c.outcome, c.exit_code, c.signal_number, c.reason, c.outcomes).where(
                c.id.in_(wanted[start : start + 1000]), *([] if user is None else [c.user == user])
            )
            for row in connection.execute(query):
                code = row.exit_code if row.is_array else exit_code_of(Outcome(row.outcome), row.exit_code, row.signal_number)
                found[row.id] = JobCounts(row.id, _by_state(row.outcomes), True, code, printable(row.reason))
    return found


def find_ended(engine: Engine, key: TaskKey) -> tuple[JobRecord, TaskRecord | None] | None:
    """A job that has ended, or a task that has, of an ended or a live job. The task is None for a whole array and for a task that
    was cancelled with the rest of its array. The caller checks whose it is."""
    t = task_history.c
    with reached(engine), engine.connect() as connection:
        row = connection.execute(select(task_history).where(t.job == key.job, t.idx == key.index)).one_or_none()
        task = None if row is None else convert.task_record(row, is_ended=True)
        ended = connection.execute(select(job_history).where(job_history.c.id == key.job)).one_or_none()
        if ended is not None:
            record = convert.job_record(ended)
            indices = record.index_set()
            if task is None and key.index != PLAIN and (indices is None or key.index not in indices):
                return None
            return record, task
        if task is None:
            return None
        live = connection.execute(select(job).where(job.c.id == key.job)).one_or_none()
        return None if live is None else (convert.job_record(live), task)


def history(engine: Engine, id: int, index: int | None, limit: int = 1000) -> list[Moment]:
    """The last states that a job's tasks (or one of them) entered, oldest first."""
    c = task_event.c
    query = select(task_event).where(c.job == id, *([] if index is None else [c.idx == index])).order_by(c.id.desc()).limit(limit)
    with reached(engine), engine.connect() as connection:
        rows = connection.execute(query).all()
    return [Moment(row.at, str(TaskKey(row.job, row.idx)), row.attempt, row.state, row.host, printable(row.reason)) for row in reversed(rows)]


def last_job(engine: Engine, user: str | None) -> int | None:
    """The latest submission of a user (None: of anybody), live or ended; None if there is none."""
    with reached(engine), engine.connect() as connection:
        ids = [
            connection.execute(select(func.max(table.c.id)).where(*([] if user is None else [table.c.user == user]))).scalar()
            for table in (job, job_history)
        ]
    return max((int(id) for id in ids if id is not None), default=None)


# --- groups, audit, loads ---


def group_rows(engine: Engine, user: str, group: str | None) -> list[GroupRow]:
    """The user's groups of ended jobs (or the one named), by name. Jobs without a group are left out."""
    c = job_history.c
    condition = c.group_name != "" if group is None else c.group_name == group
    query = select(c.group_name, c.outcomes, func.count()).where(c.user == user, condition).group_by(c.group_name, c.outcomes)
    jobs: dict[str, int] = {}
    tasks: dict[str, dict[str, int]] = {}
    with reached(engine), engine.connect() as connection:
        for name, outcomes, count in connection.execute(query):
            jobs[name] = jobs.get(name, 0) + count
            mine = tasks.setdefault(name, {})
            for state, number in _by_state(outcomes).items():
                mine[state] = mine.get(state, 0) + number * count
    return [GroupRow(name, jobs[name], tasks[name]) for name in sorted(jobs)]


def audit_rows(engine: Engine, owner: str | None, limit: int = 1000) -> list[AuditRecord]:
    """The last audit rows about things of `owner` (None: of everybody), the latest first."""
    c = audit.c
    query = select(audit).where(*([] if owner is None else [c.owner == owner])).order_by(c.id.desc()).limit(limit)
    with reached(engine), engine.connect() as connection:
        return [
            AuditRecord(at=row.at, actor=row.actor, role=row.role, action=row.action, owner=row.owner, target=row.target, detail=row.detail)
            for row in connection.execute(query)
        ]


def admin_cancels(engine: Engine, owner: str, above: int, limit: int) -> tuple[list[Cancel], int]:
    """What administrators have cancelled of a user's, by the audit rows above this number; and the number up to which that is all, or the limit."""
    query = select(audit.c.id, audit.c.target).where(audit.c.owner == owner, audit.c.id > above, audit.c.action == "cancel").order_by(audit.c.id).limit(limit)
    with reached(engine), engine.connect() as connection:
        rows = [(row.id, *row.target.partition("_")[::2]) for row in connection.execute(query)]
        ids = {int(id) for _, id, _ in rows if id.isdigit()}
        jobs: dict[int, tuple[str, bool]] = {}
        for table in (job, job_history):
            asked = select(table.c.id, table.c.submission, table.c.is_array).where(table.c.id.in_(ids), table.c.user == owner)
            jobs |= {row.id: (row.submission, row.is_array) for row in connection.execute(asked)}
    found = [(jobs[int(id)], index) for _, id, index in rows if id.isdigit() and int(id) in jobs]
    return [Cancel(key, int(index) if index.isdigit() else None, is_array) for (key, is_array), index in found], max((row[0] for row in rows), default=above)


def load_rows(engine: Engine, host: str | None, limit: int = 1000) -> list[LoadSample]:
    """The last load samples of a host (None: of all), the latest first."""
    c = host_load.c
    query: Select[Any] = select(host_load).where(*([] if host is None else [c.host == host])).order_by(c.id.desc()).limit(limit)
    with reached(engine), engine.connect() as connection:
        return [
            LoadSample(
                host=row.host, user=row.user, at=row.at, load1=row.load1, load5=row.load5, load15=row.load15, cores=row.cores,
                memory_total=row.memory_total, memory_free=row.memory_free,
            )
            for row in connection.execute(query)
        ]  # fmt: skip
