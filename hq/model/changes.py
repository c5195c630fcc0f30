"""What one step of hq-server's core changed, keyed so that the database needs one statement a table.

The core fills it, `hq.db.store` writes it in one transaction, in the order of the fields. A record that changed twice in a
step stands here once, as it is now.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hq.model.host import HostRecord, LoadSample
from hq.model.ids import TaskKey
from hq.model.job import JobRecord, TaskRecord
from hq.model.user import KeyRecord, UserRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """Who did what to whose thing. The owner can read the rows about him."""

    at: float
    actor: str
    role: str
    action: str
    owner: str  # whose job, key or host it was; empty: the instance's
    target: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What may go from the database: blobs of live jobs stay, and history that ended at `before` or later (None: all of it)."""

    blobs_needed: frozenset[tuple[str, str]]  # digest and owner
    before: float | None = None


@dataclass(slots=True)
class Changes:
    """All changes of one step. Empty fields cost nothing."""

    users: dict[str, UserRecord] = field(default_factory=dict)  # upsert
    users_removed: set[str] = field(default_factory=set)
    keys: dict[str, KeyRecord] = field(default_factory=dict)  # upsert by public key
    hosts: dict[str, HostRecord] = field(default_factory=dict)  # upsert
    hosts_removed: set[str] = field(default_factory=set)
    settings: dict[str, str] = field(default_factory=dict)  # upsert
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)  # digest → (owner, sealed bytes); insert if absent
    jobs: dict[int, JobRecord] = field(default_factory=dict)  # upsert of live jobs
    tasks: dict[TaskKey, TaskRecord] = field(default_factory=dict)  # upsert of live tasks
    tasks_ended: list[TaskRecord] = field(default_factory=list)  # out of the live table, into history
    jobs_ended: dict[int, JobRecord] = field(default_factory=dict)  # out of the live table, into history
    events: list[tuple[float, int, int, int, str, str, str]] = field(default_factory=list)  # at, job, index, attempt, state, host, reason
    loads: list[LoadSample] = field(default_factory=list)
    audit: list[AuditRecord] = field(default_factory=list)
    cleaning: Cleaning | None = None

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in self.__slots__)
