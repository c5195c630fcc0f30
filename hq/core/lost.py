"""What becomes of runs on a host that is lost to their user, and what their owner may then decide."""

from __future__ import annotations

from dataclasses import replace

from hq.core.events import HostLost, JobsActedOn
from hq.core.jobs import LiveJob
from hq.core.reports import MAX_LOST, finish, order_stop_of, wait_again
from hq.core.state import State
from hq.errors import InputError
from hq.model.job import TaskRecord
from hq.model.states import Outcome, TaskState

#: What an owner may say of a run whose host is lost.
VERDICTS = ("ok", "failed", "lost", "requeue")


def host_lost(state: State, event: HostLost) -> None:
    """The lease is over: what may run again waits again, the rest stays with its host until that is heard or its owner decides."""
    host = state.hosts.get(event.host)
    state.lost.add((event.user, event.host))
    for key in sorted(host.by_user.get(event.user, ())) if host is not None else ():
        job = state.jobs[key.job]
        task = job.tasks[key.index]
        if task.outcome is Outcome.CANCELLED:
            finish(state, job, task, Outcome.CANCELLED, f"{task.reason}; {event.reason}")
        elif task.outcome is Outcome.LOST:
            wait_again(state, job, task, task.reason)
        elif job.record.spec.is_rerunnable:
            _again(state, job, task, event.reason)
        elif task.state is TaskState.STARTING:
            # it may not have begun; if its host has not got the order, the same attempt is ordered once more
            state.put(job, replace(task, reason=event.reason))
        elif task.state is not TaskState.HOST_LOST:
            state.move(job, replace(task, state=TaskState.HOST_LOST, since=state.now, reason=event.reason))


def _again(state: State, job: LiveJob, task: TaskRecord, reason: str) -> None:
    if task.attempt <= job.record.spec.retries + MAX_LOST:
        wait_again(state, job, task, f"attempt {task.attempt} was lost: {reason}")
    else:
        finish(state, job, task, Outcome.LOST, f"attempt {task.attempt} was lost, as others before: {reason}")


def is_undecided(state: State, task: TaskRecord) -> bool:
    """Whether the task is where nobody can look, so that its owner may decide."""
    return task.state is TaskState.HOST_LOST or (task.state.is_placed and (task.user, task.host) in state.lost)


def check_verdict(event: JobsActedOn) -> str:
    """The owner's word in `changes`. Raises InputError."""
    verdict = event.changes.get("as", "")
    if verdict not in VERDICTS:
        raise InputError(f"what became of it? --as {', '.join(VERDICTS)}")
    return verdict


def resolve(state: State, event: JobsActedOn, job: LiveJob, task: TaskRecord) -> tuple[bool, str]:
    """The owner decides. What its host says later changes nothing; a process that still runs there is stopped when it is heard."""
    if not is_undecided(state, task):
        return False, f"is {task.state.value}: its host is heard, so there is nothing to decide"
    verdict = check_verdict(event)
    reason = f"its host {task.host} was lost; {event.actor} decided: {verdict}" + (f" ({event.reason})" if event.reason else "")
    if verdict == "requeue":
        order_stop_of(state, replace(task, outcome=Outcome.LOST, reason=reason))
        wait_again(state, job, task, reason)
        return True, "waits again"
    finish(state, job, replace(task, exit_code=None, signal=None), Outcome(verdict), reason)
    return True, f"is finished now: {verdict}"
