"""What exec-servers say about runs: reports and roll calls. A word counts only for the right user, host and current attempt."""

from __future__ import annotations

from dataclasses import replace
from signal import SIGKILL, SIGTERM

from hq.core import ahead
from hq.core.events import RollCalled, RunsReported
from hq.core.holding import native_told, order_again
from hq.core.jobs import LiveJob
from hq.core.retries import crash_reason, defer, is_crash_limit, is_retried, pause_after
from hq.core.state import State
from hq.model.ids import AttemptKey
from hq.model.job import TaskRecord
from hq.model.runs import RETURNED, RunReport
from hq.model.states import Outcome, RunKind, TaskState

#: So many starts in a row may fail without a process, then the task is refused.
MAX_NEVER_STARTED = 5
#: Pauses before the next try, in seconds; the first is at once.
_PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
#: What a run that is to stop is sent.
_STOP_SIGNALS = (SIGTERM, SIGKILL)
#: So many attempts of a rerunnable task may be lost before it is given up.
MAX_LOST = 10
_NOT_WANTED = "this attempt is not wanted any more"


def reported(state: State, event: RunsReported) -> None:
    """Take reports in, in their order."""
    for report in event.reports:
        job = state.jobs.get(report.job)
        task = None if job is None else job.tasks.get(report.index)
        if job is None or task is None or not _is_current(task, event.user, event.host, report.attempt):
            continue  # about an older attempt, a finished task, or somebody else's: changes nothing
        told = native_told(state, job, task, report.native, event.skew)
        if told is not task:
            task = told
            state.put(job, told)
        if report.kind is RunKind.STARTED:
            _started(state, job, task, report, event.skew)
        elif report.kind is RunKind.ENDED:
            _ended(state, job, task, report, event.skew, is_past=event.is_past)
        elif report.kind is RunKind.NEVER_STARTED:
            _never_started(state, job, task, report)
        elif report.kind is RunKind.SUSPENDED:
            if task.state is TaskState.STARTING:
                task = _started(state, job, task, report, event.skew)
            if task.state is TaskState.RUNNING:
                state.move(job, replace(task, state=TaskState.SUSPENDED, since=state.now, reason=report.reason or task.reason))
        elif report.kind is RunKind.WAITS:
            _waits(state, job, task, report)
        elif report.kind is RunKind.RESUMED and task.state is TaskState.SUSPENDED:
            state.move(job, replace(task, state=TaskState.RUNNING, since=state.now))


def _is_current(task: TaskRecord, user: str, host: str, attempt: int) -> bool:
    return task.state.is_placed and task.user == user and task.host == host and task.attempt == attempt


def _started(state: State, job: LiveJob, task: TaskRecord, report: RunReport, skew: float) -> TaskRecord:
    if task.state not in (TaskState.STARTING, TaskState.HOST_LOST):
        return task
    if not task.slots:
        task = ahead.take_seat(state, job, task)
    state.never_started.pop(task.key, None)
    started = (report.at if report.started is None else report.started) + skew
    reason = task.reason if task.outcome is not None else report.reason
    task = replace(task, state=TaskState.RUNNING, since=state.now, started=started, pid=report.pid, reason=reason, is_held=False)
    state.move(job, task)
    return task


def _waits(state: State, job: LiveJob, task: TaskRecord, report: RunReport) -> None:
    """The state stays, its reason is another. Not a moment of the task's history: a batch system has many reasons in a night."""
    if task.state in (TaskState.STARTING, TaskState.RUNNING) and task.outcome is None:
        state.put(job, replace(task, reason=report.reason))
        state.touched.add(task.job)


def _ended(state: State, job: LiveJob, task: TaskRecord, report: RunReport, skew: float, *, is_past: bool) -> None:
    outcome = report.outcome or Outcome.LOST
    if not task.slots and outcome is not Outcome.REFUSED:
        task = ahead.take_seat(state, job, task)
    if report.started is not None and not is_past:
        ahead.note_end(state, job, report)
    if report.heir is not None:
        ahead.inherit(state, task, AttemptKey(*report.heir))
    state.never_started.pop(task.key, None)
    started = task.started if report.started is None else report.started + skew
    told = task.outcome  # what was ordered meanwhile
    if told is Outcome.CANCELLED and outcome is Outcome.FAILED and report.signal in _STOP_SIGNALS:
        # its exec-server died between the signal and the note of why it was sent
        outcome, report = told, replace(report, reason=task.reason)
    if told is None and not is_past:
        state.health.note_end(state, task, outcome)
        if state.hosts[task.host].quarantine is not None:
            ahead.give_back_all(state, state.hosts[task.host])
    if told is Outcome.LOST and outcome is not Outcome.OK:
        wait_again(state, job, task, task.reason)
    elif told is None and outcome is Outcome.LOST and job.record.spec.is_rerunnable and is_crash_limit(state, task):
        finish(state, job, task, Outcome.LOST, crash_reason(task, report.reason))
    elif told is None and outcome is Outcome.LOST and job.record.spec.is_rerunnable and task.attempt <= job.record.spec.retries + MAX_LOST:
        wait_again(state, job, task, f"attempt {task.attempt} was lost on {task.host}: {report.reason or 'no reason was given'}")
    elif told is None and is_retried(job.record.spec, task.attempt, report):
        code = f"signal {report.signal}" if report.signal else f"exit code {report.exit_code}"
        wait_again(state, job, task, f"attempt {task.attempt} failed with {code}; {job.record.spec.retries - task.attempt + 1} left")
        defer(state, job, task.key, pause_after(task.attempt))
    else:
        reason = report.reason or (task.reason if told is outcome else "")
        state.move(
            job,
            replace(
                task,
                state=TaskState.FINISHED,
                since=state.now,
                started=started,
                ended=report.at + skew,
                pid=task.pid if report.pid is None else report.pid,
                outcome=outcome,
                exit_code=None if report.signal else report.exit_code,
                signal=report.signal,
                max_rss=report.max_rss,
                cpu=report.cpu,
                reason=reason,
            ),
        )


def _never_started(state: State, job: LiveJob, task: TaskRecord, report: RunReport) -> None:
    if task.state is not TaskState.STARTING:
        return  # it did start: its own word stands against itself; the roll call settles it
    if task.outcome is Outcome.CANCELLED:
        finish(state, job, task, Outcome.CANCELLED, task.reason)
        return
    if task.outcome is Outcome.LOST:
        wait_again(state, job, task, task.reason)
        return
    if report.outcome is Outcome.REFUSED:
        finish(state, job, task, Outcome.REFUSED, report.reason)  # its owner's user-server never will
        return
    if report.reason == RETURNED:
        wait_again(state, job, task, "")
        return
    count = state.never_started.get(task.key, 0) + 1
    if count >= MAX_NEVER_STARTED:
        why = report.reason or "no reason was given"
        finish(state, job, task, Outcome.REFUSED, f"could not be started {count} times in a row, last on {task.host}: {why}")
        return
    state.never_started[task.key] = count
    wait_again(state, job, task, f"could not be started on {task.host}: {report.reason or 'no reason was given'}")
    defer(state, job, task.key, _PAUSES[min(count, len(_PAUSES)) - 1])


def wait_again(state: State, job: LiveJob, task: TaskRecord, reason: str) -> None:
    """Send a placed task back to waiting; a job that is held holds it. Its next start is a new attempt."""
    waiting = TaskRecord(
        job=task.job, index=task.index, attempt=task.attempt, state=TaskState.WAITING, user=task.user,
        slots=job.record.spec.slots, since=state.now, reason=reason,
    )  # fmt: skip
    state.move(job, waiting)
    if job.record.wishes.is_held or task.is_held:
        state.move(job, replace(waiting, state=TaskState.HELD))


def finish(state: State, job: LiveJob, task: TaskRecord, outcome: Outcome, reason: str, exit_code: int | None = None) -> None:
    """End a task by our own word."""
    ended = replace(task, state=TaskState.FINISHED, since=state.now, ended=state.now, outcome=outcome, reason=reason, exit_code=exit_code)
    state.move(job, ended)


def roll_called(state: State, event: RollCalled) -> None:
    """Compare what an exec-server has with what we believe, and put both right."""
    host = state.hosts.get(event.host)
    mine = sorted(host.by_user.get(event.user, ())) if host is not None else []
    for key in mine:
        job = state.jobs[key.job]
        task = job.tasks[key.index]
        if AttemptKey(key.job, key.index, task.attempt) in event.runs:
            if task.outcome is not None:
                order_stop_of(state, task)
            elif task.state is TaskState.STARTING and task.slots:
                state.order_start(task)  # it may be queued there without knowing that it has its slots now
            elif task.state is TaskState.STARTING:
                ahead.note_queued(state, task)
            if task.state is TaskState.HOST_LOST:
                state.move(job, replace(task, state=TaskState.RUNNING, since=state.now, reason="the host was heard again"))
        else:
            _missing(state, job, task)
    order_again(state, filter(None, map(state.task, mine)))
    for run in sorted(event.runs):
        known = state.task(run.task)
        if known is None or not _is_current(known, event.user, event.host, run.attempt):
            state.order_stop(event.user, event.host, run, Outcome.CANCELLED, _NOT_WANTED)


def _missing(state: State, job: LiveJob, task: TaskRecord) -> None:
    """A placed task that its exec-server does not know."""
    if task.outcome is Outcome.CANCELLED:
        finish(state, job, task, Outcome.CANCELLED, task.reason)
    elif task.outcome is Outcome.LOST:
        wait_again(state, job, task, task.reason)
    elif task.state is TaskState.STARTING:
        state.order_start(task)
    elif job.record.spec.is_rerunnable and is_crash_limit(state, task):
        finish(state, job, task, Outcome.LOST, crash_reason(task, "it came back and did not know it"))
    elif job.record.spec.is_rerunnable:
        wait_again(state, job, task, f"the exec-server on {task.host} came back and did not know attempt {task.attempt}; it runs again")
    else:
        reason = f"the exec-server on {task.host} came back and did not know it: how it ended is not known, and it may not be run twice"
        finish(state, job, task, Outcome.LOST, reason)


def order_stop_of(state: State, task: TaskRecord) -> None:
    """Order the stop of a placed task that is marked."""
    state.order_stop(task.user, task.host, AttemptKey(task.job, task.index, task.attempt), Outcome.CANCELLED, task.reason)
