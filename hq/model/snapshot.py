"""What the state database holds when hq-server starts: `hq.db` reads it, the core is built from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hq.model.host import HostRecord
from hq.model.job import JobRecord, TaskRecord
from hq.model.user import KeyRecord, UserRecord


@dataclass(slots=True, kw_only=True)
class Snapshot:
    """Live state only.

    Tasks leave `waiting` in the order of the index set, so `left[job]`, the number of its tasks that have ever left waiting
    (live and in history), says which still wait. `outcomes[job]` counts its finished tasks by outcome, `worst[job]` is the
    worst exit code among them. `submissions` maps (user, submission key) to the job id, of live and lately ended jobs.
    """

    users: list[UserRecord] = field(default_factory=list)
    keys: list[KeyRecord] = field(default_factory=list)
    hosts: list[HostRecord] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    jobs: list[JobRecord] = field(default_factory=list)
    tasks: list[TaskRecord] = field(default_factory=list)
    left: dict[int, int] = field(default_factory=dict)
    outcomes: dict[int, dict[str, int]] = field(default_factory=dict)
    worst: dict[int, int] = field(default_factory=dict)
    last_job: int = 0
    submissions: dict[tuple[str, str], int] = field(default_factory=dict)
