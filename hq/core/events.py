"""What hq-server's core is told (events, past tense) and what it asks for (actions, orders).

`Cluster.step(events, now) -> Step`. `token` in an event is opaque to the core and comes back in the `Reply`. `user` in an
event is the identity of the connection; `is_admin` widens what may be touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hq.errors import HqError
from hq.model.changes import Changes
from hq.model.host import HostSpec, LoadSample
from hq.model.ids import AttemptKey
from hq.model.job import JobSpec, SignedSpec, Wishes
from hq.model.restored import JobWord
from hq.model.rows import JobCounts
from hq.model.runs import RunReport, StartOrder
from hq.model.selection import Selection
from hq.model.states import LinkState, Outcome
from hq.model.user import KeyRecord, UserRecord


@dataclass(frozen=True, slots=True)
class Submission:
    """One job of a JobsSubmitted."""

    key: str
    spec: JobSpec
    signed: SignedSpec
    wishes: Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsSubmitted:
    """Jobs came in, all or none. The reply is a list of `Accepted`, in order, or an HqError.

    `ended`: how jobs of the user's came out that these are to start after and that are live no more; tasks by state.
    """

    token: object
    user: str
    jobs: tuple[Submission, ...]
    blobs: dict[str, bytes] = field(default_factory=dict)
    is_dry_run: bool = False
    ended: dict[int, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job that was taken in (or, in a dry run, could be). `note`: a warning, or where it would start."""

    key: str
    id: int
    tasks: int
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsActedOn:
    """Somebody acted on jobs: cancel, hold, release, requeue, signal, modify, resolve (`changes["as"]`). The reply is a list of (id text, is_done, text)."""

    token: object
    actor: str
    is_admin: bool
    action: str
    selection: Selection
    signal: int | None = None
    changes: dict[str, str] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsReported:
    """An exec-server of `user` on `host` reported. `skew`: our clock minus its clock. Older attempts are ignored.

    `is_past`: long ago, as a ledger tells; it says nothing about the host as it is now.
    """

    user: str
    host: str
    reports: tuple[RunReport, ...]
    skew: float = 0.0
    is_past: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RollCalled:
    """The exec-server of `user` on `host` is there (again) and has these attempts, no others."""

    user: str
    host: str
    runs: frozenset[AttemptKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserServerCame:
    """The user-server of `user` has said hello. `last_job`: the highest id that it has ever seen."""

    user: str
    last_job: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCompared:
    """What the ledger of `user` says, or a piece of it, after the database was restored. The reply is a `Tally`.

    `since`: from when on (Unix time, our clock) the ledger knows of every start; 0: not known. `skew` as in RunsReported.
    """

    token: object
    user: str
    jobs: tuple[JobWord, ...]
    blobs: dict[str, bytes] = field(default_factory=dict)
    since: float = 0.0
    skew: float = 0.0
    is_last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerGivenUp:
    """An administrator waits no longer for the ledger of `user`: his jobs are held. The reply is a sentence or an HqError."""

    token: object
    actor: str
    user: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserServerWent:
    """The user-server of `user` said goodbye or fell silent. Nothing of his is marked lost."""

    user: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkChanged:
    """How the exec-server of `user` on `host` stands now."""

    user: str
    host: str
    state: LinkState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLost:
    """The exec-server of `user` on `host` has not been heard for the lease and its margin, while his user-server was here."""

    user: str
    host: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadsSampled:
    """Load samples arrived."""

    samples: tuple[LoadSample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostsProbed:
    """Host name → None if it could be reached from hq-server, else why not."""

    results: dict[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationRead:
    """`cluster.tab` and `users` as they are now (start, reload). None: unchanged. Hosts that are not listed any more are removed, or unlisted while runs are there.
    `half_life`: of fair shares, in seconds."""

    hosts: tuple[HostSpec, ...] | None = None
    users: tuple[UserRecord, ...] | None = None
    half_life: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSwitched:
    """An administrator changed a host: `is_active`, or `drain_reason` (not None: draining; activating ends it). The reply is a sentence or an HqError."""

    token: object
    actor: str
    host: str
    is_active: bool | None = None
    drain_reason: str | None = None
    deadline: float | None = None  # Unix time: then what may run again leaves a draining host


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRowChanged:
    """addhost / removehost by an administrator: `spec` None removes. The reply is a sentence or an HqError."""

    token: object
    actor: str
    host: str
    spec: HostSpec | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSwitched:
    """An administrator switched scheduling on or off."""

    token: object
    actor: str
    is_active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSwitched:
    """adduser, enableuser, disableuser: the user as he should be."""

    token: object
    actor: str
    user: UserRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEnrolled:
    """A key was proven (the handlers did the proof)."""

    token: object
    key: KeyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotsRecounted:
    """updateslots: count occupied slots from the tasks; the reply is a sentence that says whether it differed."""

    token: object
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Somebody wants progress of jobs. Replies (the first at once, then whenever something changed) are `Progress`, until `is_done`.

    `only`: jobs of which no more than these tasks count. How such a task came out is told by the database, not by the core.
    """

    token: object
    user: str
    selection: Selection
    only: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unwatched:
    """Nobody listens to this token any more."""

    token: object


@dataclass(frozen=True, slots=True)
class CleaningDue:
    """What nobody needs any more is to go from the database; history that ended before this moment too. No reply."""

    before: float | None


Event = (
    JobsSubmitted | JobsActedOn | RunsReported | RollCalled | UserServerCame | UserServerWent | LinkChanged | HostLost | LoadsSampled
    | HostsProbed | ConfigurationRead | HostSwitched | HostRowChanged | ClusterSwitched | UserSwitched | KeyEnrolled
    | SlotsRecounted | Watched | Unwatched | LedgerCompared | LedgerGivenUp | CleaningDue
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """News for a watcher."""

    jobs: tuple[JobCounts, ...]
    is_done: bool


# --- actions: performed after the commit, idempotent by attempt -----------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRuns:
    """Send run.start to the user's user-server."""

    user: str
    host: str
    specs: dict[int, SignedSpec]
    orders: tuple[StartOrder, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRuns:
    """Send run.stop. `is_only_queued`: only what has not begun is to be stopped, and comes back."""

    user: str
    host: str
    runs: tuple[AttemptKey, ...]
    outcome: Outcome
    reason: str
    is_only_queued: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRuns:
    """Send run.signal."""

    user: str
    host: str
    runs: tuple[AttemptKey, ...]
    signal: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRuns:
    """Send run.hold: what has not begun is to be held where it waits, or let go on."""

    user: str
    host: str
    runs: tuple[AttemptKey, ...]
    is_held: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to the event that carried `token`: a value of the type that the event's docstring names, or an error to be shown."""

    token: object
    value: object | HqError


@dataclass(frozen=True, slots=True)
class AnnounceHosts:
    """Send host.listed to every user-server."""


@dataclass(frozen=True, slots=True)
class DropKeys:
    """Keys that are out from now on: their connections are told so and forgotten."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TellCancels:
    """An administrator has cancelled jobs of this user: the audit has them, and his user-server is to note them."""

    user: str


Action = StartRuns | StopRuns | SignalRuns | HoldRuns | Reply | AnnounceHosts | DropKeys | TellCancels


@dataclass(slots=True)
class Step:
    """What one step came to: changes for one transaction, actions for after the commit, and when to step again even without an event (Unix time)."""

    changes: Changes
    actions: list[Action]
    wake: float | None = None
