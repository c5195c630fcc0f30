"""What travels between hq-server, a user-server and an exec-server about runs."""

from __future__ import annotations

from dataclasses import dataclass

from hq.model.ids import AttemptKey
from hq.model.states import Outcome, RunKind

#: What hq sets in the environment of each run. Neither a job nor a daemon that is started from within a job inherits them.
RUN_VARIABLES = (
    "HQ_JOB_ID", "HQ_TASK_ID", "HQ_ARRAY_INDEX", "HQ_ATTEMPT", "HQ_SLOTS", "HQ_SLOT_IDS", "HQ_HOST", "HQ_USER", "HQ_JOB_NAME",
    "HQ_SUBMIT_DIR", "HQ_INSTANCE", "HQ_RUN",
)  # fmt: skip


#: The reason of a NEVER_STARTED about a queued run that was asked back: no failure, it is placed anew.
RETURNED = "given back before it began"


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Start one attempt. `slots` are the indices of the slots given to it on the host.

    `is_ahead`: it has none yet; it starts with those of a run of the same demands that ends there, or when it is ordered again with slots.
    """

    job: int
    index: int
    attempt: int
    slots: tuple[int, ...]
    is_ahead: bool = False

    @property
    def key(self) -> AttemptKey:
        """The attempt's name."""
        return AttemptKey(self.job, self.index, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeRun:
    """How an attempt stands at a batch system: its job there, that system's own words for state and reason, and since when it has it (Unix time).

    `is_held`: it is kept from starting there, for hq asked so. `refusal`: the batch system's words against that.
    """

    id: str = ""
    state: str = ""
    reason: str = ""
    since: float | None = None
    is_held: bool = False
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The exec-server's word about one attempt. Moments are ITS clock; `sent` on the message lets them be moved.

    `heir`: the queued attempt that got the slots of this one, which has ended. `native`: where a batch system runs it.
    For ENDED: `outcome` is OK, FAILED, TIMEOUT, MEMORY or CANCELLED; LOST where the truth cannot be known, with the reason.
    """

    job: int
    index: int
    attempt: int
    kind: RunKind
    at: float
    pid: int | None = None
    started: float | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    reason: str = ""
    heir: AttemptKey | None = None
    native: NativeRun | None = None

    @property
    def key(self) -> AttemptKey:
        """The attempt's name."""
        return AttemptKey(self.job, self.index, self.attempt)
