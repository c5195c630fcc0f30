"""The core from what the database holds. What runs where is believed until a roll call says otherwise."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from hq.core import quarantine, restored
from hq.core.ahead import note_queued
from hq.core.drains import restore_deadlines
from hq.core.fairshare import AVERAGES
from hq.core.jobs import LiveJob
from hq.core.owners import CLUSTER_ACTIVE
from hq.core.state import State
from hq.model.host import HostRecord, HostSpec
from hq.model.job import exit_code_of
from hq.model.snapshot import Snapshot
from hq.model.states import Outcome, TaskState


def restore(state: State, snapshot: Snapshot) -> None:
    """Fill an empty state."""
    state.users = {user.name: user for user in snapshot.users}
    state.keys = {key.public: key for key in snapshot.keys}
    for host in snapshot.hosts:
        state.add_host(host)
    state.is_active = snapshot.settings.get(CLUSTER_ACTIVE, "1") != "0"
    restore_deadlines(state, snapshot.settings)
    restored.restore(state, snapshot.settings)
    state.share.restore(snapshot.settings.get(AVERAGES, ""))
    state.submissions = dict(snapshot.submissions)
    for (user, _), id in snapshot.submissions.items():
        state.last_of[user] = max(id, state.last_of.get(user, 0))
    for record in sorted(snapshot.jobs, key=lambda record: record.id):
        state.add_job(replace(record, wishes=state.common(record.wishes)))
        state.submissions.setdefault((record.user, record.spec.key), record.id)
    # a restored database does not know all ids that were given
    given = int(snapshot.settings.get("last_job_id", "0"))
    state.last_id = max([snapshot.last_job, given, *state.jobs, *snapshot.submissions.values()])
    for task in sorted(snapshot.tasks, key=lambda task: task.key):
        job = state.jobs.get(task.job)
        if job is not None and job.has(task.index):
            job.unfold()
            job.tasks[task.index] = task
    for job in list(state.jobs.values()):
        _restore_job(state, job, snapshot)
    quarantine.restore(state, snapshot.settings)
    state.touched.clear()


def _restore_job(state: State, job: LiveJob, snapshot: Snapshot) -> None:
    if job.id in snapshot.outcomes or job.id in snapshot.left:
        job.unfold()
        job.outcomes = dict(snapshot.outcomes.get(job.id, {}))
        job.worst = snapshot.worst.get(job.id)
    if job.record.cancelled_rest:
        job.worst = max(job.worst or 0, exit_code_of(Outcome.CANCELLED, None, None))
    if job.is_unfolded:
        job.cursor, job.ahead = _cursor(job, snapshot.left.get(job.id, len(job.tasks)))
    for task in job.tasks.values():
        if task.state is TaskState.FINISHED:
            assert task.outcome is not None
            job.note_outcome(task.outcome, exit_code_of(task.outcome, task.exit_code, task.signal))
            continue
        job.states[task.state] = job.states.get(task.state, 0) + 1
        if task.is_held:
            job.held_there.add(task.index)
        if task.state.is_placed:
            if task.host not in state.hosts:
                spec = HostSpec(name=task.host, address=task.host, total=1, slots=1, is_active=False)
                state.add_host(HostRecord(spec=spec, is_active=False, is_listed=False))
            host = state.hosts[task.host]
            if task.slots:
                host.occupy(task.key, task.user, job.record.spec, state.now)
                state.share.took(task.user, job.shape.slots, state.now)
                state.note_room(host)
            else:
                host.queue(task.key, task.user)
                note_queued(state, task)
            job.placed += 1
        elif task.state is TaskState.WAITING:
            job.make_ready(task.index)
    state.enqueue(job)


def _cursor(job: LiveJob, left: int) -> tuple[int, set[int]]:
    """The cursor and who stands ahead of it, from how many tasks ever left and where the live ones stand.

    Whoever left out of order is live until the cursor has passed him, so those at or behind the cursor are all among the live ones:
    the cursor is where its own position and the live ones from there on add up to `left`.
    """
    if job.indices is None:
        return min(left, 1), set()
    order = sorted((job.position(index), index) for index in job.tasks)
    positions = [position for position, _ in order]
    low, high = 0, job.total
    while low < high:
        middle = (low + high + 1) // 2
        if middle + len(positions) - bisect_left(positions, middle) <= left:
            low = middle
        else:
            high = middle - 1
    return low, {index for position, index in order if position >= low}
