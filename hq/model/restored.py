"""A state database that was restored from a backup: what its settings say until the ledgers of all users have been compared with it.

`hq.db.backup` writes them, hq-server's core reads them. The ledger of a user-server is the witness: it has noted what was started, how it
ended and what was cancelled, whatever the database remembers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hq.model.job import JobSpec, SignedSpec, Wishes
from hq.model.runs import RunReport
from hq.model.snapshot import Snapshot
from hq.model.user import Role

#: Ids that are left out after a restore, at the least: more than were given since the backup.
ID_GAP = 1_000_000
#: No user-server is believed that knows ids so far beyond: nobody may use up the numbers of all.
MOST_BEYOND = 10**12
#: The setting that job ids go on above.
LAST_ID = "last_job_id"
#: The epoch that the present incarnation began with.
INCARNATION = "incarnation"
#: The last moment (Unix time, hq-server's clock) of which the restored database knows, and the last job.
RESTORED_AT, RESTORED_ABOVE = "restored_at", "restored_above"
#: Followed by a user: `1` while his ledger is awaited.
AWAITS = "awaits:"

Ranges = tuple[tuple[int, int], ...]


class Cancel(NamedTuple):
    """A cancellation, as a ledger knows jobs: by submission key. `task`: index of the one task that is meant; None: all of the job."""

    key: str
    task: int | None
    is_array: bool


@dataclass(slots=True)
class Restored:
    """What hq-server remembers of a restore: the last job and moment of which the database knew, and whose ledgers are awaited."""

    above: int = 0
    moment: float = 0.0
    awaited: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWord:
    """What a ledger says of a task: its newest attempt, where that was sent, and the reports about it that passed by."""

    index: int
    attempt: int
    host: str
    reports: tuple[RunReport, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWord:
    """What a ledger says of a job. Ranges are first and last index; a plain job's task has the index -1.

    `spent`: tasks that nothing of may start again; `well`, `failed`: of those it is known how they ended. `cancelled`: tasks that somebody has cancelled; `is_cancelled`: all of them.
    `signed` is there if the user-server still has it; `spec` once hq-server has read and checked it.
    """

    id: int
    key: str
    signed: SignedSpec | None = None
    wishes: Wishes = Wishes()
    submitted: float = 0.0
    tasks: tuple[TaskWord, ...] = ()
    spent: Ranges = ()
    cancelled: Ranges = ()
    is_cancelled: bool = False
    well: Ranges = ()
    failed: Ranges = ()
    spec: JobSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a comparison came to, in tasks (`ended`: recorded as they ended; `running`: believed to run) and jobs."""

    ended: int = 0
    running: int = 0
    taken_back: tuple[int, ...] = ()
    unknown: tuple[int, ...] = ()  # the ledger knows them, neither it nor the database what they were
    held: int = 0  # jobs, because the ledger does not reach back to the backup

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(ended=self.ended + other.ended, running=self.running + other.running, taken_back=self.taken_back + other.taken_back,
                     unknown=self.unknown + other.unknown, held=self.held + other.held)  # fmt: skip

    def __str__(self) -> str:
        words = [f"{self.ended:,} ended tasks recorded as they ended", f"{self.running:,} running ones found"]
        for label, ids in (("jobs taken back", self.taken_back), ("jobs that cannot be taken back", self.unknown)):
            if ids:
                more = f" and {len(ids) - 20:,} more" if len(ids) > 20 else ""
                words.append(f"{len(ids):,} {label}: {', '.join(map(str, ids[:20]))}{more}")
        if self.held:
            words.append(f"{self.held:,} jobs held, because the ledger does not reach back to the backup")
        return "; ".join(words)


def anew(snapshot: Snapshot, epoch: int, moment: float) -> dict[str, str]:
    """The settings with which a new incarnation begins. `moment`: the last one of which the database knows. Harmless to repeat."""
    last = max(snapshot.last_job, int(snapshot.settings.get(LAST_ID, "0")))
    users = {key.user for key in snapshot.keys if key.role is Role.USER_SERVER and key.is_enabled} | {job.user for job in snapshot.jobs}
    return {
        LAST_ID: str(last + ID_GAP), INCARNATION: str(epoch), RESTORED_AT: repr(moment), RESTORED_ABOVE: str(snapshot.last_job),
        **{AWAITS + user: "1" for user in sorted(users & {user.name for user in snapshot.users})},
    }  # fmt: skip
