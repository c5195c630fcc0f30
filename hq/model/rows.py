"""The row of every listing: one stable schema, version 1, the same for the table, `--json` and REST.

`schema` of the documented JSON is `hq.rows.1`: fields may be added, none is renamed or removed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ROWS_SCHEMA = "hq.rows.1"

#: The reason of a task that was cancelled with all others of its array that waited, and has no record of its own.
CANCELLED_REST = "cancelled while it waited"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job, or with `task` set one task of it.

    `state` of an array is the liveliest of its tasks' states (running > starting > suspended > host_lost > waiting > held >
    finished), `tasks` counts them by state, and outcomes of finished ones as `finished:OUTCOME`. Moments are Unix time
    (seconds), `max_rss` bytes, `cpu_seconds` seconds; None where there is none. `reason` says why it waits, failed or was refused.

    `native_…`: its job at a batch system; `native_state` and `native_reason` are that system's own words while it is there, `native_since`
    is when it took the job, `native_wait_seconds` how long it waited there (so far).
    """

    id: int
    task: str  # "1234" or "1234_7"
    name: str
    group: str
    user: str
    command: str  # one line, control characters escaped
    state: str
    outcome: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    attempt: int = 0
    slots: int = 1
    priority: int = 0
    submitted: float = 0.0
    started: float | None = None
    ended: float | None = None
    max_rss: int | None = None
    cpu_seconds: float | None = None
    reason: str = ""
    info: str = ""
    native_id: str | None = None
    native_state: str | None = None
    native_reason: str | None = None
    native_since: float | None = None
    native_wait_seconds: float | None = None
    array: str | None = None  # the index set, for the row of an array job
    tasks: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRow:
    """A host in a listing. `state` is active, draining, inactive or removed; `reachable` None where nobody tried."""

    name: str
    address: str
    state: str
    reachable: bool | None
    slots: int
    occupied: int
    total: int
    load1: float | None
    load5: float | None
    load15: float | None
    memory: int | None
    memory_free: int | None
    transport: str
    backend: str
    queue: str
    info: str
    reason: str = ""
    link: str = ""  # for a user's listing: how his own exec-server there stands


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Where the tasks of one job stand: counts by state, and `finished:OUTCOME`. `exit_code`: the worst of its finished tasks
    (`hq.model.job.exit_code_of`), None before one has finished. `only`: the tasks that were asked for by name, where that is not the whole job."""

    id: int
    tasks: dict[str, int]
    is_finished: bool
    exit_code: int | None = None
    reason: str = ""
    only: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of one user: how many jobs, and tasks by state."""

    group: str
    jobs: int
    tasks: dict[str, int]


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a task's history: the state that it entered, when (Unix time), where and why."""

    at: float
    task: str
    attempt: int
    state: str
    host: str
    reason: str
