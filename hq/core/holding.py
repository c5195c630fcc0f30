"""Hold and release. What waits in hq is held by hq; what is placed and has not begun is held where it waits.

A placed task that is held keeps its place and its host: it stays `starting`, marked `is_held`, and is shown as held. Its exec-server lets
the batch system hold it, or gives it back if only hq's own slots keep it waiting: then it waits here, held. The mark is durable, and the
order is repeated at each roll, so that it does not matter which daemon was away. One that begins before the order came runs on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hq.core.events import HoldRuns
from hq.core.jobs import LiveJob
from hq.core.state import State
from hq.model.ids import PLAIN, AttemptKey
from hq.model.job import TaskRecord
from hq.model.runs import NativeRun
from hq.model.states import TaskState


def hold_whole(state: State, job: LiveJob, reason: str) -> tuple[bool, str]:
    """Hold all of a job that has not begun. Returns whether it was done, and what to say of it."""
    if job.record.wishes.is_held:
        return False, "is held already"
    waiting = [task for task in job.tasks.values() if task.state is TaskState.WAITING]
    there = [task for task in job.tasks.values() if _may_be_held_there(task)]
    if not waiting and not there and not job.untouched:
        return False, "nothing of it waits, and only what waits can be held"
    state.save_job(job, job.record.with_wishes(is_held=True))
    _note_untouched(state, job, "held")
    for task in waiting:
        state.move(job, replace(task, state=TaskState.HELD, since=state.now))
    _mark(state, job, there, True, reason)
    state.requeue_entry(job)
    running = job.placed - len(there)
    parts = [f"{len(there):,} waiting on {_hosts(there)} {'is' if len(there) == 1 else 'are'} being held there" if there else "",
             f"{running:,} task{'s' if running > 1 else ''} run{'s' if running == 1 else ''} on" if running else ""]  # fmt: skip
    return True, ", ".join(["held", *filter(None, parts)])


def release_whole(state: State, job: LiveJob) -> tuple[bool, str]:
    """Let a job go on. Returns as `hold_whole`."""
    held = [task for task in job.tasks.values() if task.state is TaskState.HELD]
    there = [task for task in job.tasks.values() if task.shown_state is TaskState.HELD and task.state.is_placed]
    if not job.record.wishes.is_held and not held and not there:
        return False, "is not held"
    if job.record.wishes.is_held:
        state.save_job(job, job.record.with_wishes(is_held=False))
        _note_untouched(state, job, "released")
    for task in held:
        state.move(job, replace(task, state=TaskState.WAITING, since=state.now))
    _mark(state, job, there, False, "released")
    state.requeue_entry(job)
    return True, "released"


def hold_one(state: State, job: LiveJob, index: int, reason: str) -> tuple[bool, str]:
    """Hold one task. Returns as `hold_whole`."""
    task = job.tasks.get(index)
    now = job.state_of(index)
    if task is not None and task.is_held:
        return False, "is held already"
    if task is not None and _may_be_held_there(task):
        _mark(state, job, [task], True, reason)
        return True, f"is being held on {task.host}"
    if now is not TaskState.WAITING:
        return False, f"is {now.value}: only what waits can be held"
    state.move(job, replace(task or fresh(state, job, index, now), state=TaskState.HELD, since=state.now, reason=reason))
    return True, "held"


def release_one(state: State, job: LiveJob, index: int) -> tuple[bool, str]:
    """Let one task go on. Returns as `hold_whole`."""
    task = job.tasks.get(index)
    now = job.state_of(index)
    if task is not None and task.state.is_placed and task.shown_state is TaskState.HELD:
        _mark(state, job, [task], False, "released")
        return True, "released"
    if now is not TaskState.HELD:
        return False, f"is {now.value}, not held"
    state.move(job, replace(task or fresh(state, job, index, now), state=TaskState.WAITING, since=state.now))
    return True, "released"


def fresh(state: State, job: LiveJob, index: int, to: TaskState, reason: str = "") -> TaskRecord:
    """A record for a task that has none yet."""
    slots, user = job.record.spec.slots, job.record.user
    return TaskRecord(job=job.id, index=index, attempt=0, state=to, user=user, slots=slots, since=state.now, reason=reason)


def order_again(state: State, tasks: Iterable[TaskRecord]) -> None:
    """Repeat what was ordered about placed tasks of one user on one host that have not begun; both, for the last word may have been lost."""
    starting = [task for task in tasks if task.state is TaskState.STARTING and task.outcome is None]
    for is_held in (True, False):
        _order(state, [task for task in starting if task.is_held is is_held and (is_held or task.native_id)], is_held)


def native_told(state: State, job: LiveJob, task: TaskRecord, native: NativeRun | None, skew: float) -> TaskRecord:
    """The record with what its batch system says of it; a hold that was refused there is none."""
    if native is None:
        return task
    since = task.native_since if task.native_id == native.id and task.native_since is not None else native.since and native.since + skew
    task = replace(task, native_id=native.id, native_state=native.state, native_reason=native.reason, native_since=since)
    if task.is_held and not native.is_held and native.refusal:
        task = replace(task, is_held=False)
        _note(state, task, native.refusal)
    return task


def _may_be_held_there(task: TaskRecord) -> bool:
    return task.state is TaskState.STARTING and task.outcome is None and not task.is_held


def _mark(state: State, job: LiveJob, tasks: list[TaskRecord], is_held: bool, reason: str) -> None:
    for task in tasks:
        marked = replace(task, is_held=is_held, reason=reason if is_held else "")
        state.put(job, marked)
        job.held_there.add(task.index)
        state.touched.add(job.id)
        _note(state, marked, reason)
        if not is_held:
            state.order_start(marked)  # what is held is not ordered again, so the first order may never have arrived
    for host in {task.host for task in tasks}:
        _order(state, [task for task in tasks if task.host == host], is_held)


def _order(state: State, tasks: list[TaskRecord], is_held: bool) -> None:
    if tasks:
        runs = tuple(AttemptKey(task.job, task.index, task.attempt) for task in tasks)
        state.actions.append(HoldRuns(user=tasks[0].user, host=tasks[0].host, runs=runs, is_held=is_held))


def _note(state: State, task: TaskRecord, reason: str) -> None:
    """A line of the task's history: it is held, or no more."""
    state.changes.events.append((state.now, task.job, task.index, task.attempt, task.shown_state.value, task.host, reason))


def _note_untouched(state: State, job: LiveJob, reason: str) -> None:
    """The history of tasks that have no row yet is their job's: one line for all of them."""
    if job.untouched:
        state.changes.events.append((state.now, job.id, PLAIN, 0, job.untouched_state.value, "", reason))


def _hosts(tasks: list[TaskRecord]) -> str:
    return ", ".join(sorted({task.host for task in tasks}))
