"""What the core of an exec-server is told (events, past tense) and what it asks for (actions, orders).

`Runner.step(events, now) -> RunnerStep`. Moments called `at` are Unix time of this machine; deadlines are CLOCK_BOOTTIME.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from hq.model.ids import AttemptKey
from hq.model.job import JobSpec
from hq.model.runs import NativeRun, RunReport, StartOrder
from hq.model.states import Outcome


class Moment(Protocol):
    """A moment on both clocks: `boot` for deadlines (CLOCK_BOOTTIME), `wall` for records (Unix time)."""

    @property
    def boot(self) -> float:
        """Seconds of CLOCK_BOOTTIME."""
        ...

    @property
    def wall(self) -> float:
        """Unix time."""
        ...


# --- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order came whose spec carries the user's signature."""

    order: StartOrder
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class Granted:
    """An order that came ahead of its slots is repeated with slots."""

    order: StartOrder


@dataclass(frozen=True, slots=True)
class OrderRefused:
    """An order came that must never run here: a wrong signature, another user's or instance's job."""

    order: StartOrder
    reason: str


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A run is to end (or, if it has not begun, never to begin) and becomes `outcome`. `is_only_queued`: one that has begun goes on, and one
    that waits at a batch system is taken back if that does not start it meanwhile."""

    key: AttemptKey
    outcome: Outcome = Outcome.CANCELLED
    reason: str = ""
    is_only_queued: bool = False


@dataclass(frozen=True, slots=True)
class SignalAsked:
    """Somebody sends a signal to a run."""

    key: AttemptKey
    signal: int


@dataclass(frozen=True, slots=True)
class HoldAsked:
    """A run that has not begun is to be held where it waits, or let go on."""

    key: AttemptKey
    is_held: bool


@dataclass(frozen=True, slots=True)
class BlobsArrived:
    """Sealed environments and scripts are at hand now, or nobody has them."""

    present: frozenset[str]
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The process of a run exists. `native`: its job at a batch system."""

    key: AttemptKey
    pid: int
    at: float
    native: NativeRun | None = None


@dataclass(frozen=True, slots=True)
class StartFailed:
    """No process could be made. `exit_code` as a shell gives it (127, 126) or 125; None: transient, to be tried again.

    `is_final`: it is not tried again here. `is_refused`: nor anywhere else.
    """

    key: AttemptKey
    reason: str
    at: float
    exit_code: int | None = None
    is_final: bool = False
    is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The main process of a run ended. Neither `exit_code` nor `signal`: nobody saw its status, `reason` says why.

    `has_leftovers`: other processes of the run live on and have been left alone, because the run was being stopped.
    `is_memory`: the kernel killed it at the memory limit of its control group. `cause`: what was done to it where it ran.
    `heir`: the first of those that came ahead with the same demands, whose process was made at once; how that went is told next.
    """

    key: AttemptKey
    at: float
    exit_code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    reason: str = ""
    has_leftovers: bool = False
    is_memory: bool = False
    cause: tuple[Outcome, str] | None = None
    heir: AttemptKey | None = None


@dataclass(frozen=True, slots=True)
class LeftoversGone:
    """No process of a run is left, after its main process had ended."""

    key: AttemptKey


@dataclass(frozen=True, slots=True)
class MemorySeen:
    """All processes of a run together held so many bytes."""

    key: AttemptKey
    size: int


@dataclass(frozen=True, slots=True)
class OutputExceeded:
    """A stream grew past its limit and the run is to be stopped for it."""

    key: AttemptKey
    reason: str


@dataclass(frozen=True, slots=True)
class RunNoted:
    """Something that the owner should read in the reason of the run."""

    key: AttemptKey
    note: str


@dataclass(frozen=True, slots=True)
class RunWaits:
    """A run that is being started waits at a batch system, for this reason; one that runs cannot be asked after. Empty: that is over."""

    key: AttemptKey
    reason: str
    native: NativeRun | None = None


@dataclass(frozen=True, slots=True)
class RunHalted:
    """Somebody else suspended a run, or let it go on."""

    key: AttemptKey
    is_suspended: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SlotsSet:
    """So many slots may be in use at once from now on."""

    slots: int


Event = (
    Ordered | Granted | OrderRefused | StopAsked | SignalAsked | HoldAsked | BlobsArrived | RunStarted | StartFailed | RunEnded | LeftoversGone
    | MemorySeen | OutputExceeded | RunNoted | RunWaits | RunHalted | SlotsSet
)  # fmt: skip


# --- actions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchBlobs:
    """Ask upward for these blobs, or find them here; answered by BlobsArrived."""

    digests: frozenset[str]


@dataclass(frozen=True, slots=True)
class Spawn:
    """Make the process; answered by RunStarted or StartFailed. Asked for once an attempt, again only after a transient StartFailed."""

    order: StartOrder
    spec: JobSpec


@dataclass(frozen=True, slots=True)
class SignalRun:
    """Send a signal to every process of the run. `is_ending`: the run is being ended, so that its stopped processes are continued too."""

    key: AttemptKey
    signal: int
    is_ending: bool = False


@dataclass(frozen=True, slots=True)
class HoldRun:
    """Let the batch system hold what waits there, or release it."""

    key: AttemptKey
    is_held: bool


@dataclass(frozen=True, slots=True)
class RecallRun:
    """Take back what waits at a batch system: it is given back unless it has begun."""

    key: AttemptKey


@dataclass(frozen=True, slots=True)
class Forget:
    """The run is over: let go of what was kept for it, and write its summary. `report` is its last."""

    key: AttemptKey
    report: RunReport


Action = FetchBlobs | Spawn | SignalRun | HoldRun | RecallRun | Forget


@dataclass(slots=True)
class RunnerStep:
    """What one step came to: actions, reports for the spool, and when to step again even without an event (CLOCK_BOOTTIME)."""

    actions: list[Action] = field(default_factory=list)
    reports: list[RunReport] = field(default_factory=list)
    wake: float | None = None
