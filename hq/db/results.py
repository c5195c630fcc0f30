"""What an ended job came to: its ended tasks summed up once, so that no listing ever counts a million rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from hq.db.tables import task_history
from hq.model.changes import Changes
from hq.model.job import JobRecord, TaskRecord, exit_code_of
from hq.model.states import Outcome

#: From the mildest to the gravest: an array's outcome is the gravest of its tasks.
GRAVITY = (Outcome.OK, Outcome.CANCELLED, Outcome.REFUSED, Outcome.LOST, Outcome.MEMORY, Outcome.TIMEOUT, Outcome.FAILED)

_COUNTS = msgspec.json.Encoder()


class Part(NamedTuple):
    """Ended tasks of one job that ended alike. `host` and `attempt` mean something for a plain job only."""

    job: int
    outcome: str
    exit_code: int | None
    signal: int | None
    tasks: int
    started: float | None
    max_rss: int | None
    cpu: float | None
    reason: str
    host: str
    attempt: int
    native_id: str | None = None
    native_since: float | None = None


def part_of(task: TaskRecord) -> Part:
    """A task alone."""
    outcome = Outcome.LOST if task.outcome is None else task.outcome
    return Part(
        task.job, outcome.value, task.exit_code, task.signal, 1, task.started, task.max_rss, task.cpu, task.reason, task.host, task.attempt,
        task.native_id or None, task.native_since,
    )  # fmt: skip


def parts_in_history(connection: Connection, jobs: Sequence[int]) -> list[Part]:
    """The ended tasks of some jobs, counted by the database."""
    t = task_history.c
    query = (
        select(
            t.job, t.outcome, t.exit_code, t.signal_number, func.count(), func.min(t.started), func.max(t.max_rss), func.sum(t.cpu_seconds),
            func.min(t.reason), func.min(t.host), func.max(t.attempt), func.min(t.native_id), func.min(t.native_since),
        )
        .where(t.job.in_(jobs))
        .group_by(t.job, t.outcome, t.exit_code, t.signal_number)
    )  # fmt: skip
    return [Part(*row) for row in connection.execute(query)]


def worst_of(parts: Iterable[Part], cancelled_rest: int = 0) -> int | None:
    """The largest code that a waiting command would return for any of the tasks; None if there is none."""
    codes = [exit_code_of(Outcome(part.outcome), part.exit_code, part.signal) for part in parts]
    if cancelled_rest:
        codes.append(exit_code_of(Outcome.CANCELLED, None, None))
    return max(codes, default=None)


def counts_of(parts: Iterable[Part], cancelled_rest: int = 0) -> dict[str, int]:
    """Tasks by outcome."""
    counts: dict[str, int] = {}
    for part in parts:
        counts[part.outcome] = counts.get(part.outcome, 0) + part.tasks
    if cancelled_rest:
        counts["cancelled"] = counts.get("cancelled", 0) + cancelled_rest
    return counts


def result_row(record: JobRecord, parts: Sequence[Part], reason: str) -> dict[str, Any]:
    """The columns of `job_history` that a job has beyond those of `job`. `reason` counts where no task gives one.

    The exit code of an array is the worst of its tasks, as a waiting command returns it; of a plain job its own.
    """
    counts = counts_of(parts, record.cancelled_rest)
    outcome = max((Outcome(name) for name in counts), key=GRAVITY.index, default=Outcome.CANCELLED)
    grave = next((part for part in parts if part.outcome == outcome.value), None)
    only = parts[0] if parts and not record.is_array else None
    return {
        "outcome": outcome.value,
        "exit_code": worst_of(parts, record.cancelled_rest) if record.is_array else only and only.exit_code,
        "signal_number": only and only.signal,
        "max_rss": max((part.max_rss for part in parts if part.max_rss is not None), default=None),
        "cpu_seconds": sum(part.cpu for part in parts if part.cpu is not None) if any(part.cpu is not None for part in parts) else None,
        "reason": (grave.reason if grave is not None else "") or reason,
        "started": min((part.started for part in parts if part.started is not None), default=None),
        "host": only.host if only else "",
        "attempt": only.attempt if only else 0,
        "native_id": only and only.native_id,
        "native_since": only and only.native_since,
        "outcomes": _COUNTS.encode(counts).decode(),
    }


def ended_job_parts(connection: Connection, changes: Changes) -> dict[int, list[Part]]:
    """The tasks of the jobs that end in these changes. Their `tasks_ended` must stand in history already."""
    parts: dict[int, list[Part]] = {job: [] for job in changes.jobs_ended}
    for task in changes.tasks_ended:
        if task.job in parts and not changes.jobs_ended[task.job].is_array:
            parts[task.job] = [part_of(task)]
    asked = [job for job, found in parts.items() if not found]
    for start in range(0, len(asked), 1000):
        for part in parts_in_history(connection, asked[start : start + 1000]):
            parts[part.job].append(part)
    return parts
