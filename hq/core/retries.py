"""Whether a task whose attempt ended badly starts again, and after which pause. Pure rules; `hq.core.reports` applies them."""

from __future__ import annotations

from heapq import heappush

from hq.core.jobs import LiveJob
from hq.core.state import State
from hq.model.ids import TaskKey
from hq.model.job import JobSpec, TaskRecord, exit_code_of
from hq.model.runs import RunReport
from hq.model.states import Outcome, TaskState

#: So often may its exec-server or host be lost under a task, then it is stopped: it may be what brings them down.
CRASH_LIMIT = 5
#: Pauses before the next attempt after failures, in seconds: the first is at once, for a hiccup.
_PAUSES = (0.0, 2.0, 10.0, 30.0, 60.0, 120.0, 300.0)


def is_retried(spec: JobSpec, attempt: int, report: RunReport) -> bool:
    """Whether a failure is tried again: retries are left, and the exit code (128+n for signal n) is one that its owner named, if he named any."""
    if report.outcome is not Outcome.FAILED or attempt > spec.retries:
        return False
    return not spec.retry_on or exit_code_of(Outcome.FAILED, report.exit_code, report.signal) in spec.retry_on


def pause_after(attempt: int) -> float:
    """Seconds until the attempt that follows this one."""
    return _PAUSES[min(attempt, len(_PAUSES)) - 1]


def defer(state: State, job: LiveJob, key: TaskKey, pause: float) -> None:
    """Let a task that waits again do so for a pause at least."""
    if pause and key.job in state.jobs and job.tasks[key.index].state is TaskState.WAITING:
        job.ready_set.discard(key.index)
        job.deferred[key.index] = state.now + pause
        heappush(state.deferred, (state.now + pause, key))


def is_crash_limit(state: State, task: TaskRecord) -> bool:
    """Count one more loss under this task. Whether that was one too many."""
    count = state.crashes[task.key] = state.crashes.get(task.key, 0) + 1
    return count >= CRASH_LIMIT


def crash_reason(task: TaskRecord, reason: str) -> str:
    """Why a task that reached the limit is stopped."""
    return f"its exec-server or host was lost under it {CRASH_LIMIT} times, last on {task.host}: {reason or 'no reason was given'}"
