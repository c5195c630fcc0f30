"""What people do to jobs: cancel, hold, release, requeue, signal, modify. Ownership is decided here and nowhere else."""

from __future__ import annotations

from dataclasses import replace

from hq.core.events import JobsActedOn, SignalRuns, TellCancels
from hq.core.holding import fresh, hold_one, hold_whole, release_one, release_whole
from hq.core.jobs import LiveJob
from hq.core.lost import check_verdict, is_undecided, resolve
from hq.core.modify import modify
from hq.core.reports import finish, order_stop_of, wait_again
from hq.core.selecting import NO_SUCH_JOB, Named, named_jobs, passes, unknown_names
from hq.core.state import State
from hq.errors import HqError, InputError, NotAllowedError, RefusedError
from hq.model.ids import AttemptKey
from hq.model.job import TaskRecord
from hq.model.states import LinkState, Outcome, TaskState

ACTIONS = ("cancel", "hold", "release", "requeue", "signal", "modify", "resolve")
#: What an administrator may do to the job of another.
_ADMIN_ACTIONS = frozenset({"cancel", "hold", "release", "requeue"})

Result = tuple[str, bool, str]


def acted_on(state: State, event: JobsActedOn) -> None:
    """Perform an action. Replies with a list of (id, is done, text), one for each job or task meant, or with an error."""
    try:
        state.reply(event.token, _act(state, event))
    except HqError as error:
        state.reply(event.token, error)


def _act(state: State, event: JobsActedOn) -> list[Result]:
    if event.action not in ACTIONS:
        raise InputError(f"there is no action '{event.action}': {', '.join(ACTIONS)}")
    if event.action == "signal" and (event.signal is None or not 1 <= event.signal <= 64):
        raise InputError("a signal number from 1 to 64 is expected")
    if event.action == "resolve":
        check_verdict(event)
    if event.action == "modify" and not event.changes:
        raise InputError("nothing to change was named")
    selection = event.selection
    is_filter_only = not (selection.tasks or selection.ranges)
    seen: str | None = event.actor
    if event.is_admin:
        # ids are unique, so an administrator's ids mean anybody's jobs; a filter means his own unless he names a user
        seen = selection.user if selection.user is not None else event.actor if is_filter_only else None
    has_filter = bool(selection.states) or any(each is not None for each in (selection.group, selection.text, selection.since))
    if selection.is_empty and not has_filter:
        raise InputError("no job was named: write ids, ranges, last or all")
    results: list[Result] = [(str(key), False, NO_SUCH_JOB) for key in unknown_names(state, selection, seen)]
    named = Named(selection)
    for job in list(named_jobs(state, selection, seen)):
        if passes(job, selection):
            results.extend(_act_on(state, event, job, named.indices(job)))
    return results


def _act_on(state: State, event: JobsActedOn, job: LiveJob, indices: list[int] | None) -> list[Result]:
    is_owner = job.record.user == event.actor
    names = [str(job.id)] if indices is None else [str(job.key(index)) for index in indices if job.has(index)]
    try:
        if not is_owner:
            _check_admin(event.action, job)
        if indices is None:
            results = [(names[0], *_whole(state, event, job, is_owner))]
        else:
            results = [(str(job.key(index)), *_one(state, event, job, index, is_owner)) for index in indices if job.has(index)]
    except HqError as error:
        return [(name, False, str(error)) for name in names]
    if not is_owner or event.is_admin:
        for name, is_done, text in results:
            if is_done:
                state.audit(event.actor, event.action, job.record.user, name, event.reason or text)
        if event.action == "cancel":
            state.actions.append(TellCancels(job.record.user))
    return results


def _check_admin(action: str, job: LiveJob) -> None:
    if action not in _ADMIN_ACTIONS:
        raise NotAllowedError(f"only the owner may {action} a job")
    if action == "requeue" and not job.record.spec.is_rerunnable:
        raise NotAllowedError("its owner did not sign it as rerunnable, so only he may requeue it")


def _whole(state: State, event: JobsActedOn, job: LiveJob, is_owner: bool) -> tuple[bool, str]:
    if event.action == "cancel":
        return cancel_job(state, job, _why(event, "cancelled"))
    if event.action == "hold":
        return hold_whole(state, job, _why(event, "held"))
    if event.action == "release":
        return release_whole(state, job)
    if event.action == "modify":
        return True, modify(state, job, event.changes)
    live = [task for task in job.tasks.values() if task.state.is_placed and (event.action != "resolve" or is_undecided(state, task))]
    if not live:
        return False, "no host of it is lost: there is nothing to decide" if event.action == "resolve" else "nothing of it runs"
    results = [_one(state, event, job, task.index, is_owner) for task in live]
    if len(results) == 1:
        return results[0]
    done = sum(is_done for is_done, _ in results)
    return bool(done), f"{event.action}: {done:,} of {len(live):,} tasks"


def _why(event: JobsActedOn, verb: str) -> str:
    return f"{verb} by {event.actor}" + (f": {event.reason}" if event.reason else "")


def cancel_job(state: State, job: LiveJob, reason: str) -> tuple[bool, str]:
    """Cancel all of a job that has not ended. Returns whether there was anything, and a word for its owner."""
    stopping = ended = 0
    is_single = job.indices is None and not job.tasks
    if is_single:
        _cancel_untouched(state, job, job.index_at(0), reason)
        return True, "cancelled"
    for task in list(job.tasks.values()):
        if task.state is TaskState.FINISHED:
            continue
        if _cancel_record(state, job, task, reason):
            ended += 1
        else:
            stopping += 1
    if job.id in state.jobs:
        ended += state.cancel_rest(job, reason)
    if not stopping:
        return True, "cancelled"
    return True, "is being stopped" + (f"; {ended:,} waiting tasks cancelled" if ended else "")


def cancel_task(state: State, job: LiveJob, index: int, reason: str) -> bool:
    """Cancel one task that has not ended. Returns whether it has by that."""
    task = job.tasks.get(index)
    if task is None:
        _cancel_untouched(state, job, index, reason)
        return True
    return _cancel_record(state, job, task, reason)


def _cancel_record(state: State, job: LiveJob, task: TaskRecord, reason: str) -> bool:
    """Cancel a task that has a record. Returns whether it has ended by that."""
    if not task.state.is_placed or task.state is TaskState.HOST_LOST:
        finish(state, job, task, Outcome.CANCELLED, reason)
        return True
    if task.outcome is not Outcome.CANCELLED:
        task = replace(task, outcome=Outcome.CANCELLED, reason=reason)
        state.put(job, task)
    order_stop_of(state, task)
    return False


def _cancel_untouched(state: State, job: LiveJob, index: int, reason: str) -> None:
    state.move(job, replace(fresh(state, job, index, TaskState.FINISHED, reason), outcome=Outcome.CANCELLED, ended=state.now))


def _one(state: State, event: JobsActedOn, job: LiveJob, index: int, is_owner: bool) -> tuple[bool, str]:
    """An action on one task of an array, or on a placed one."""
    if event.action == "modify":
        raise RefusedError("a job is changed as a whole: leave the task number away")
    task = job.tasks.get(index)
    now = job.state_of(index)
    if now is TaskState.FINISHED or job.id not in state.jobs:
        return False, "has ended"
    if event.action == "cancel":
        return True, "cancelled" if cancel_task(state, job, index, _why(event, "cancelled")) else "is being stopped"
    if event.action == "hold":
        return hold_one(state, job, index, _why(event, "held"))
    if event.action == "release":
        return release_one(state, job, index)
    if task is None or not task.state.is_placed:
        return False, f"is {now.value}: {event.action} needs a task that runs"
    if event.action == "signal":
        return _signal(state, event, task)
    if event.action == "resolve":
        return resolve(state, event, job, task)
    return _requeue(state, event, job, task, is_owner)


def _signal(state: State, event: JobsActedOn, task: TaskRecord) -> tuple[bool, str]:
    if task.state not in (TaskState.RUNNING, TaskState.SUSPENDED):
        return False, f"is {task.state.value}: a signal needs a process"
    assert event.signal is not None
    run = AttemptKey(task.job, task.index, task.attempt)
    state.actions.append(SignalRuns(user=task.user, host=task.host, runs=(run,), signal=event.signal))
    return True, f"signal {event.signal} was sent to {task.host}"


def _requeue(state: State, event: JobsActedOn, job: LiveJob, task: TaskRecord, is_owner: bool) -> tuple[bool, str]:
    assert is_owner or job.record.spec.is_rerunnable
    if task.outcome is Outcome.CANCELLED:
        return False, "is being cancelled"
    reason = _why(event, "requeued")
    marked = replace(task, outcome=Outcome.LOST, reason=reason)
    is_heard = task.user in state.present and state.link(task.user, task.host).state is LinkState.ALIVE
    if is_heard and task.state is not TaskState.HOST_LOST:
        # its host answers: it waits again once the old attempt has ended, so that two never run at once
        state.put(job, marked)
        order_stop_of(state, marked)
        return True, f"attempt {task.attempt} is being stopped, then it waits again"
    order_stop_of(state, marked)
    wait_again(state, job, task, reason)
    return True, "waits again"
