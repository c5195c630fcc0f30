"""One attempt as an exec-server has it: what it is and where it stands. Only `hq.core.runner` changes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from signal import Signals

from hq.core.runner_events import RunEnded
from hq.model.ids import AttemptKey
from hq.model.job import JobSpec
from hq.model.quantities import format_bytes
from hq.model.runs import NativeRun, RunReport, StartOrder
from hq.model.states import Outcome, RunKind

Demands = tuple[int, int | None, tuple[tuple[str, int], ...]]


class Phase(Enum):
    """Where a run stands here."""

    FETCHING = "fetching"  # its environment or script is being asked for
    QUEUED = "queued"  # no slot is free
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"  # TERM was sent
    LINGERING = "lingering"  # its main process ended while it was being stopped, others have the rest of the grace


@dataclass(slots=True)
class Run:
    """One attempt as it stands. The daemon may read it; only the Runner changes it."""

    order: StartOrder
    spec: JobSpec
    phase: Phase
    since: float  # CLOCK_BOOTTIME when it was taken in
    pid: int | None = None
    started: float | None = None  # Unix time
    cause: tuple[Outcome, str] | None = None  # why it is being stopped, once it is
    is_suspended: bool = False
    is_submitted: bool = False  # while STARTING: a batch system has it
    peak: int = 0
    notes: list[str] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    due: float | None = None  # CLOCK_BOOTTIME of what comes next by time: asking again, the time limit, KILL
    kills: int = 0
    is_warned: bool = False  # the signal before its time limit was sent, or its moment has passed
    ended: RunEnded | None = None
    native: NativeRun | None = None  # as a batch system's backend last told
    key: AttemptKey = field(init=False)  # the attempt
    demands: Demands = field(init=False)  # what it takes of the host: runs that demand the same can follow each other

    def __post_init__(self) -> None:
        self.key = self.order.key
        self.demands = self.spec.slots, self.spec.memory, tuple(sorted(self.spec.resources.items())) if self.spec.resources else ()

    @property
    def weight(self) -> int:
        """Slots that it takes."""
        return max(1, len(self.order.slots))

    def alarm(self, passed: float) -> float | None:
        """While it runs, seconds until what comes by time, so many after its start: the signal before the limit, then the limit. None: nothing."""
        limit, before = self.spec.time_limit, self.spec.warn_before
        if limit is None:
            return None
        if self.spec.warn_signal and not self.is_warned and limit - before > passed:
            return limit - before - passed
        self.is_warned = True
        return max(0.0, limit - passed)

    def warning(self) -> float | None:
        """If its signal before the limit is due now: the seconds from then to the limit."""
        if self.is_warned or not self.spec.warn_signal:
            return None
        self.is_warned = True
        return self.spec.warn_before

    @property
    def is_live(self) -> bool:
        """Whether a process of it exists or is being made."""
        return self.phase in _LIVE


_LIVE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.LINGERING})


def wanted_blobs(spec: JobSpec) -> set[str]:
    """Digests without which a job cannot be started."""
    return {digest for digest in (spec.env, spec.script) if digest}


def run_report(run: Run, kind: RunKind, at: float, reason: str = "") -> RunReport:
    """News of a run that goes on."""
    return RunReport(job=run.order.job, index=run.order.index, attempt=run.order.attempt, kind=kind, at=at,
                     pid=run.pid, started=run.started, reason=reason, native=run.native)  # fmt: skip


def last_report(run: Run, ended: RunEnded, heir: AttemptKey | None = None) -> RunReport:
    """How a run that had (or may have had) a process ended: by what was done to it, else by its own status."""
    outcome, reason = run.cause or ended.cause or (None, "")
    if outcome is None:
        if ended.is_memory:
            outcome, reason = Outcome.MEMORY, f"killed at its memory limit of {format_bytes(run.spec.memory)}"
        elif ended.signal is not None:
            outcome, reason = Outcome.FAILED, f"killed by signal {signal_name(ended.signal)}"
        elif ended.exit_code is None:
            outcome, reason = Outcome.LOST, ended.reason
        elif ended.exit_code:
            outcome, reason = Outcome.FAILED, ended.reason or f"exit code {ended.exit_code}"
        else:
            outcome = Outcome.OK
    return RunReport(
        job=run.order.job, index=run.order.index, attempt=run.order.attempt, kind=RunKind.ENDED, at=ended.at, pid=run.pid,
        started=run.started, outcome=outcome, exit_code=ended.exit_code, signal=ended.signal,
        max_rss=max(ended.max_rss or 0, run.peak) or None, cpu=ended.cpu,
        reason="; ".join(part for part in (reason, *run.notes) if part), heir=heir, native=run.native,
    )  # fmt: skip


def signal_name(number: int) -> str:
    """`9 (SIGKILL)`."""
    try:
        return f"{number} ({Signals(number).name})"
    except ValueError:
        return str(number)
