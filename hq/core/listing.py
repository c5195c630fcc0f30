"""The live jobs, hosts, groups and users as rows. Jobs that have ended are the database's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import merge
from itertools import islice

from hq.core.dependencies import waits_for
from hq.core.jobs import LiveJob
from hq.core.selecting import Named, command_of, named_jobs, passes
from hq.core.state import State
from hq.model.job import JobRecord, TaskRecord
from hq.model.rows import CANCELLED_REST, GroupRow, HostRow, Row
from hq.model.selection import Selection
from hq.model.states import Outcome, TaskState
from hq.model.text import printable
from hq.model.user import UserRecord

#: The state of an array is the first of these that one of its tasks is in.
LIVELIEST = (
    TaskState.RUNNING, TaskState.STARTING, TaskState.SUSPENDED, TaskState.HOST_LOST, TaskState.WAITING, TaskState.HELD, TaskState.FINISHED,
)  # fmt: skip
_LIVELIEST_WORDS = tuple(state.value for state in LIVELIEST)


def job_rows(cluster: State, selection: Selection, user: str | None, by_task: bool, limit: int | None = None) -> list[Row]:
    """Live jobs that `selection` means, newest first, at most `limit`; `user` None: of everybody.

    With `by_task` a row for each task that is live or waits, in the order of the array, and for each that was named.
    """
    return list(islice(_job_rows(cluster, selection, user, by_task), limit))


def _job_rows(cluster: State, selection: Selection, user: str | None, by_task: bool) -> Iterator[Row]:
    named = Named(selection)
    for job in reversed(list(named_jobs(cluster, selection, user))):
        if not passes(job, selection):
            continue
        indices: Iterable[int] | None = named.indices(job)
        if indices is None and not by_task:
            yield job_row(job, cluster.now)
            continue
        if indices is None:
            waits = not selection.states or job.untouched_state.value in selection.states
            indices = map(job.index_at, merge(sorted(map(job.position, job.tasks)), job.untouched_positions() if waits else ()))
        yield from (task_row(job, index, cluster.now) for index in indices if job.has(index) and _is_meant(job, index, selection))


def _is_meant(job: LiveJob, index: int, selection: Selection) -> bool:
    if not selection.states:
        return True
    task = job.tasks.get(index)
    outcome = task.outcome.value if task is not None and task.outcome is not None and task.state is TaskState.FINISHED else None
    state = task.shown_state if task is not None else job.state_of(index)
    return state.value in selection.states or outcome in selection.states


def job_row(job: LiveJob, now: float) -> Row:
    """The row of a live job."""
    if job.indices is None:
        return task_row(job, job.index_at(0), now)
    counts = job.counts()
    state = next((each for each in _LIVELIEST_WORDS if each in counts), TaskState.FINISHED.value)
    live = [task for task in job.tasks.values() if task.state.is_placed]
    return _row(
        job.record,
        str(job.id),
        state,
        live[0] if len(live) == 1 else None,
        now,
        array=job.record.spec.indices,
        tasks=counts,
        exit_code=job.worst,
        started=min((task.started for task in job.tasks.values() if task.started is not None), default=None),
    )


def task_row(job: LiveJob, index: int, now: float) -> Row:
    """The row of one task of a live job."""
    task = job.tasks.get(index)
    if task is None and job.is_cancelled_rest(index):
        row = _row(job.record, str(job.key(index)), TaskState.FINISHED.value, None, now)
        return replace(row, outcome=Outcome.CANCELLED.value, reason=CANCELLED_REST)
    if task is None:
        return _row(job.record, str(job.key(index)), job.state_of(index).value, None, now)
    state = task.shown_state.value
    code = None if task.outcome is None or task.state is not TaskState.FINISHED else task.exit_code
    return _row(job.record, str(task.key), state, task, now, exit_code=code, started=task.started)


def _row(
    record: JobRecord,
    name: str,
    state: str,
    task: TaskRecord | None,
    now: float,
    *,
    array: str | None = None,
    tasks: dict[str, int] | None = None,
    exit_code: int | None = None,
    started: float | None = None,
) -> Row:
    spec, wishes = record.spec, record.wishes
    is_ended = task is not None and task.state is TaskState.FINISHED
    waits = waits_for(wishes) if task is None else ""
    return Row(
        id=record.id,
        task=name,
        name=printable(spec.name),
        group=printable(wishes.group),
        user=record.user,
        command=command_of(record),
        state=state,
        outcome=task.outcome.value if task is not None and is_ended and task.outcome is not None else None,
        exit_code=exit_code,
        signal=task.signal if task is not None else None,
        host=(task.host or None) if task is not None else None,
        attempt=task.attempt if task is not None else 0,
        slots=spec.slots,
        priority=wishes.priority,
        submitted=record.submitted,
        started=started,
        ended=task.ended if task is not None and is_ended else None,
        max_rss=task.max_rss if task is not None else None,
        cpu_seconds=task.cpu if task is not None else None,
        reason=printable(task.reason) if task is not None else waits and f"waits {waits}",
        info=printable(wishes.info),
        native_id=(printable(task.native_id) or None) if task is not None else None,
        native_state=(printable(task.native_state) or None) if task is not None and not is_ended else None,
        native_reason=(printable(task.native_reason) or None) if task is not None and not is_ended else None,
        native_since=task.native_since if task is not None else None,
        native_wait_seconds=task.native_wait(now) if task is not None else None,
        array=array,
        tasks=tasks or {},
    )


def host_rows(cluster: State, user: str | None) -> list[HostRow]:
    """All hosts, in the order of cluster.tab. With a user, `link` says how his own exec-server there stands."""
    rows = []
    for host in sorted(cluster.hosts.values(), key=lambda host: host.order):
        record, spec = host.record, host.record.spec
        if not record.is_listed:
            state = "removed"
        elif record.drain_reason is not None:
            state = "draining"
        else:
            state = "active" if record.is_active else "inactive"
        reachable = True if host.alive else (host.unreachable is None) if host.probed else None
        sample = host.fresh_sample(cluster.now)
        link = cluster.link(user, host.name) if user is not None else None
        aside = f"in quarantine: {host.quarantine}" if host.quarantine is not None else None
        why = (record.drain_reason, aside, None if host.alive else host.unreachable, link.reason if link else None)
        reasons = [printable(text) for text in why if text]
        rows.append(
            HostRow(
                name=host.name,
                address=spec.address,
                state=state,
                reachable=reachable,
                slots=spec.slots,
                occupied=host.occupied,
                total=spec.total,
                load1=sample.load1 if sample else None,
                load5=sample.load5 if sample else None,
                load15=sample.load15 if sample else None,
                memory=spec.memory if spec.memory is not None else sample.memory_total if sample else None,
                memory_free=sample.memory_free if sample else None,
                transport=spec.transport,
                backend=spec.backend,
                queue=spec.queue,
                info=printable(spec.info),
                reason="; ".join(reasons),
                link=link.state.value if link is not None else "",
            )
        )
    return rows


def group_rows(cluster: State, user: str, group: str | None) -> list[GroupRow]:
    """The user's groups with live jobs, or the one named; live jobs only."""
    found: dict[str, tuple[int, dict[str, int]]] = {}
    for id in cluster.jobs_of.get(user, {}):
        job = cluster.jobs[id]
        name = job.record.wishes.group
        if not name or (group is not None and name != group):
            continue
        jobs, tasks = found.get(name, (0, {}))
        for state, count in job.counts().items():
            tasks[state] = tasks.get(state, 0) + count
        found[name] = (jobs + 1, tasks)
    return [GroupRow(name, jobs, tasks) for name, (jobs, tasks) in sorted(found.items())]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRow:
    """A user in a listing. `placed` and `waiting` count tasks."""

    record: UserRecord
    is_present: bool  # his user-server is here
    jobs: int
    placed: int
    waiting: int


def user_rows(cluster: State) -> list[UserRow]:
    """All users by name."""
    rows = []
    for name, user in sorted(cluster.users.items()):
        jobs = [cluster.jobs[id] for id in cluster.jobs_of.get(name, {})]
        waiting = sum(job.counts().get(TaskState.WAITING.value, 0) for job in jobs)
        placed = sum(job.placed for job in jobs)
        rows.append(UserRow(record=user, is_present=name in cluster.present, jobs=len(jobs), placed=placed, waiting=waiting))
    return rows


#: The fact that names the users whose ledgers are awaited after a restore.
LEDGERS_AWAITED = "ledgers awaited"


def facts(cluster: State) -> dict[str, str | int]:
    """The cluster in a few figures, in the order in which they should be shown."""
    hosts = list(cluster.hosts.values())
    tasks: dict[str, int] = {}
    for job in cluster.jobs.values():
        for state, count in job.counts().items():
            tasks[state] = tasks.get(state, 0) + count
    found: dict[str, str | int] = {
        "instance": cluster.instance,
        "cluster": "active" if cluster.is_active else "not active",
        "users": len(cluster.users),
        "user-servers": len(cluster.present),
        "hosts": len(hosts),
        "hosts open": sum(host.closed() is None for host in hosts),
        "slots": sum(host.record.spec.slots for host in hosts if host.record.is_listed),
        "slots occupied": sum(host.occupied for host in hosts),
        "jobs not ended": len(cluster.jobs),
    }
    # what has finished is in the database, and counted there by listings: a few of it here would only mislead
    found.update({f"tasks {state}": tasks.get(state, 0) for state in _LIVELIEST_WORDS if state != TaskState.FINISHED.value})
    if cluster.restored.awaited:
        found[LEDGERS_AWAITED] = ", ".join(sorted(cluster.restored.awaited))
    return found
