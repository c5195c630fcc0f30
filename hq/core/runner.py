"""The runs of one user on one host: which orders wait for slots, what is started, stopped, and how it ended.

Pure: the exec-server's daemon tells it what happened and performs what it asks for. It knows no process, only their names.
What it promises: an attempt is started at most once, and each that it took in gets exactly one last report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, SIGTSTP
from typing import Any

from hq.core import runner_batch
from hq.core.leases import LEASE_GRACE
from hq.core.runner_events import (
    BlobsArrived,
    Event,
    FetchBlobs,
    Forget,
    Granted,
    HoldAsked,
    LeftoversGone,
    MemorySeen,
    Moment,
    Ordered,
    OrderRefused,
    OutputExceeded,
    RunEnded,
    RunHalted,
    RunnerStep,
    RunNoted,
    RunStarted,
    RunWaits,
    SignalAsked,
    SignalRun,
    SlotsSet,
    Spawn,
    StartFailed,
    StopAsked,
)  # fmt: skip
from hq.core.runner_fence import Fence
from hq.core.runner_queue import RunQueue
from hq.core.runner_run import Phase, Run, last_report, run_report, wanted_blobs
from hq.model.ids import AttemptKey
from hq.model.quantities import format_bytes, format_seconds
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind

ASK_AGAIN = 20.0  # seconds without an answer until a blob is asked for again
GIVE_UP_BLOBS = 600.0  # seconds until an order without its blobs is given back
SPAWN_AGAIN = 1.0  # seconds until a start that failed for want of processes or memory is tried again
GIVE_UP_SPAWN = 60.0
KILL_AGAIN = 5.0  # seconds until KILL is repeated: somebody may have forked meanwhile
GIVE_UP_LEFTOVERS = 30.0  # seconds after KILL until processes that do not die (disk sleep) are no longer waited for


class Runner:
    """All runs of one exec-server. `step` is the one front door to its state."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.used = 0
        self.runs: dict[AttemptKey, Run] = {}
        self.queue = RunQueue()
        self._fence = Fence()
        self._blobs: set[str] = set()
        self._timers: list[tuple[float, AttemptKey]] = []

    # --- for the daemon ---------------------------------------------------------------------------------------------

    def step(self, events: Sequence[Event], now: Moment) -> RunnerStep:
        """Take in what happened and say what is to be done. The same order or stop twice changes nothing."""
        out = RunnerStep()
        for event in events:
            _HANDLERS[type(event)](self, event, now, out)
        self._let_time_pass(now, out)
        self._dispatch(now, out)
        while self._timers and not self._is_current(self._timers[0]):
            heappop(self._timers)
        out.wake = self._timers[0][0] if self._timers else None
        return out

    def is_known(self, key: AttemptKey) -> bool:
        """Whether the attempt was ever taken in (or refused, or stopped before it came)."""
        return key in self.runs or key in self._fence

    def seen(self) -> Iterable[AttemptKey]:
        """Attempts that are over, oldest first."""
        return self._fence.seen()

    @property
    def is_idle(self) -> bool:
        """Whether there is no run and no order."""
        return not self.runs

    def restore(self, run: Run, now: Moment) -> None:
        """Put back a run that an earlier process of this exec-server had: queued, or with a live process (RUNNING).

        Its time limit counts on from its start.
        """
        self.runs[run.key] = run
        self._fence.note(run.key)
        if run.is_live:
            self.used += run.weight
            if run.phase is Phase.RUNNING and run.spec.time_limit is not None:
                passed = max(0.0, now.wall - run.started) if run.started is not None else 0.0
                self._set_due(run, now.boot + (run.alarm(passed) or 0.0))
        else:
            run.missing = wanted_blobs(run.spec)
            run.phase = Phase.FETCHING if run.missing else Phase.QUEUED
            if run.missing:
                self._set_due(run, now.boot)
            else:
                self.queue.add(run)

    def restore_seen(self, key: AttemptKey) -> None:
        """Remember an attempt that is over."""
        self._fence.done(key)

    # --- events -----------------------------------------------------------------------------------------------------

    def _on_ordered(self, event: Ordered, now: Moment, out: RunnerStep) -> None:
        key = event.order.key
        if self.is_known(key):
            self._on_granted(event, now, out)
            return
        latest = self._fence.latest(key.task)
        if key.attempt < latest:
            self.never(key, f"attempt {latest} of the same task is known here already", now, out)
            return
        self._fence.note(key)
        for attempt in range(max(1, latest), key.attempt):
            # the older one was given up by the server; two at a time must not be
            self._stop(AttemptKey(key.job, key.index, attempt), Outcome.CANCELLED, f"attempt {key.attempt} takes its place", now, out)
        missing = wanted_blobs(event.spec) - self._blobs
        run = Run(event.order, event.spec, Phase.FETCHING if missing else Phase.QUEUED, now.boot, missing=missing)
        self.runs[key] = run
        if missing:
            out.actions.append(FetchBlobs(frozenset(missing)))
            self._set_due(run, now.boot + ASK_AGAIN)
        else:
            self.queue.add(run)

    def _on_granted(self, event: Granted | Ordered, now: Moment, out: RunnerStep) -> None:
        if (run := self.runs.get(event.order.key)) is not None and not event.order.is_ahead:
            self.queue.grant(run, event.order)

    def _on_refused(self, event: OrderRefused, now: Moment, out: RunnerStep) -> None:
        key = event.order.key
        if self.is_known(key):
            return
        self._done(key)
        out.reports.append(
            RunReport(job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.ENDED, at=now.wall,
                      outcome=Outcome.REFUSED, reason=event.reason)
        )  # fmt: skip

    def _on_stop(self, event: StopAsked, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(event.key)
        if event.is_only_queued and run is not None and run.is_live:
            runner_batch.recall(run, out)
            return
        if not self.is_known(event.key):
            self.never(event.key, event.reason or "stopped before the order to start it came", now, out)
            return
        self._stop(event.key, event.outcome, event.reason, now, out)

    def _stop(self, key: AttemptKey, outcome: Outcome, reason: str, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(key)
        if run is None or run.cause is not None:
            return
        if not run.is_live:
            self.never(key, reason, now, out)
            return
        run.cause = (outcome, reason)
        if run.phase is Phase.RUNNING:
            self._terminate(run, now, out)
        elif run.is_submitted:
            out.actions.append(SignalRun(run.key, SIGTERM, is_ending=True))

    def _terminate(self, run: Run, now: Moment, out: RunnerStep) -> None:
        """TERM now, KILL after the grace."""
        run.phase = Phase.STOPPING
        run.is_suspended = False
        out.actions.append(SignalRun(run.key, SIGTERM, is_ending=True))
        is_lost = run.cause is not None and run.cause[0] is Outcome.LOST  # somebody counts on its end by then
        self._set_due(run, now.boot + max(0.0, min(run.spec.grace, LEASE_GRACE) if is_lost else run.spec.grace))

    def _on_signal(self, event: SignalAsked, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(event.key)
        if run is None or run.phase not in (Phase.RUNNING, Phase.STOPPING):
            return
        out.actions.append(SignalRun(run.key, event.signal))
        if run.phase is Phase.RUNNING and event.signal in (SIGSTOP, SIGTSTP, SIGCONT):
            is_stop = event.signal != SIGCONT
            if is_stop != run.is_suspended:
                run.is_suspended = is_stop
                out.reports.append(run_report(run, RunKind.SUSPENDED if is_stop else RunKind.RESUMED, now.wall))

    def _on_blobs(self, event: BlobsArrived, now: Moment, out: RunnerStep) -> None:
        self._blobs |= event.present
        for run in [run for run in self.runs.values() if run.phase is Phase.FETCHING]:
            run.missing -= self._blobs
            lost = run.missing & event.missing
            if lost:
                self.never(run.key, f"its environment or script ({', '.join(sorted(lost))}) is nowhere to be had", now, out)
            elif not run.missing:
                run.phase = Phase.QUEUED
                self._set_due(run, None)
                self.queue.add(run)

    def _on_started(self, event: RunStarted, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(event.key)
        assert run is not None and run.phase is Phase.STARTING
        run.phase, run.pid, run.started, run.native = Phase.RUNNING, event.pid, event.at, event.native or run.native
        out.reports.append(run_report(run, RunKind.STARTED, event.at, "; ".join(run.notes)))
        if run.cause is not None:
            self._terminate(run, now, out)
        elif (alarm := run.alarm(0.0)) is not None:
            self._set_due(run, now.boot + alarm)

    def _on_start_failed(self, event: StartFailed, now: Moment, out: RunnerStep) -> None:
        run = self.runs[event.key]
        assert run.phase is Phase.STARTING or run.pid is None  # without a pid: an earlier worker was about to make it
        if event.exit_code is not None or event.is_refused:
            if run.cause is None:
                run.cause = (Outcome.REFUSED if event.is_refused else Outcome.FAILED, event.reason)
            self._finish(run, RunEnded(key=run.key, at=event.at, exit_code=event.exit_code, reason=event.reason), now, out)
            return
        self.used -= run.weight
        run.phase, run.is_submitted = Phase.QUEUED, False
        if run.cause is not None or event.is_final or now.boot - run.since > GIVE_UP_SPAWN:
            self.never(run.key, run.cause[1] if run.cause else event.reason, now, out)
        else:
            self._set_due(run, now.boot + SPAWN_AGAIN)
            self.queue.add(run)

    def _on_ended(self, event: RunEnded, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(event.key)
        if run is None or run.phase is Phase.LINGERING:
            return
        if event.has_leftovers and run.phase is Phase.STOPPING:
            run.phase, run.ended = Phase.LINGERING, event
        else:
            self._finish(run, event, now, out)

    def _on_leftovers_gone(self, event: LeftoversGone, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(event.key)
        if run is not None and run.phase is Phase.LINGERING:
            assert run.ended is not None
            self._finish(run, run.ended, now, out)

    def _on_memory(self, event: MemorySeen, now: Moment, out: RunnerStep) -> None:
        run = self.runs.get(event.key)
        if run is None:
            return
        run.peak = max(run.peak, event.size)
        limit = run.spec.memory
        if limit is not None and event.size > limit and run.phase is Phase.RUNNING:
            run.cause = (Outcome.MEMORY, f"its processes held {format_bytes(event.size)}, over the limit of {format_bytes(limit)}")
            # no grace: what grows past its memory takes it from others
            run.phase = Phase.STOPPING
            self._kill(run, now, out)

    def _on_output(self, event: OutputExceeded, now: Moment, out: RunnerStep) -> None:
        self._stop(event.key, Outcome.FAILED, event.reason, now, out)

    def _on_slots(self, event: SlotsSet, now: Moment, out: RunnerStep) -> None:
        self.slots = event.slots

    # --- time, queue, end -------------------------------------------------------------------------------------------

    def _let_time_pass(self, now: Moment, out: RunnerStep) -> None:
        ask: set[str] = set()
        while self._timers and self._timers[0][0] <= now.boot:
            entry = heappop(self._timers)
            if not self._is_current(entry):
                continue
            run = self.runs[entry[1]]
            run.due = None
            if run.phase is Phase.FETCHING:
                if now.boot - run.since > GIVE_UP_BLOBS:
                    self.never(run.key, "its environment or script did not come", now, out)
                else:
                    ask |= run.missing
                    self._set_due(run, now.boot + ASK_AGAIN)
            elif run.phase is Phase.RUNNING and (rest := run.warning()) is not None:
                out.actions.append(SignalRun(run.key, run.spec.warn_signal))
                self._set_due(run, now.boot + rest)
            elif run.phase is Phase.RUNNING:
                run.cause = (Outcome.TIMEOUT, f"ran into its time limit of {format_seconds(run.spec.time_limit)}")
                self._terminate(run, now, out)
            elif run.phase is Phase.LINGERING and run.kills * KILL_AGAIN >= GIVE_UP_LEFTOVERS:
                assert run.ended is not None
                run.notes.append("some of its processes do not die, even of KILL")
                self._finish(run, run.ended, now, out)
            elif run.phase in (Phase.STOPPING, Phase.LINGERING):
                self._kill(run, now, out)
        if ask:
            out.actions.append(FetchBlobs(frozenset(ask)))

    def _kill(self, run: Run, now: Moment, out: RunnerStep) -> None:
        run.kills += 1
        out.actions.append(SignalRun(run.key, SIGKILL, is_ending=True))
        self._set_due(run, now.boot + KILL_AGAIN)

    def _dispatch(self, now: Moment, out: RunnerStep) -> None:
        """Start what fits, in order. A run with more slots than there are starts when nothing else runs."""
        started = []
        for key in self.queue:
            run = self.runs[key]
            if (self.used and self.used + run.weight > self.slots) or self.slots < 1:
                break
            if run.due is not None or self._is_older_live(key):
                continue
            run.phase = Phase.STARTING
            self.used += run.weight
            started.append(key)
            out.actions.append(Spawn(run.order, run.spec))
        for key in started:
            self.queue.discard(self.runs[key])

    def _is_older_live(self, key: AttemptKey) -> bool:
        return key.attempt > 1 and any(AttemptKey(key.job, key.index, older) in self.runs for older in range(1, key.attempt))

    def _finish(self, run: Run, ended: RunEnded, now: Moment, out: RunnerStep) -> None:
        """The last report of a run that had (or may have had) a process."""
        report = last_report(run, ended, self.queue.inherit(run, ended.heir))
        self.used -= run.weight
        self._done(run.key)
        if ended.heir is not None:
            heir = self.runs[ended.heir]
            heir.phase = Phase.STARTING
            self.used += heir.weight
            self.queue.discard(heir)
        out.reports.append(report)
        out.actions.append(Forget(run.key, report))

    def never(self, key: AttemptKey, reason: str, now: Moment, out: RunnerStep) -> None:
        """No process was made of an attempt, and none will be: its last report."""
        run = self.runs.get(key)
        assert run is None or not run.is_live
        self._done(key)
        report = RunReport(
            job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.NEVER_STARTED, at=now.wall, reason=reason
        )
        out.reports.append(report)
        out.actions.append(Forget(key, report))

    def _done(self, key: AttemptKey) -> None:
        run = self.runs.pop(key, None)
        if run is not None:
            self.queue.discard(run)
        self._fence.done(key, self.runs)

    def _set_due(self, run: Run, due: float | None) -> None:
        run.due = due
        if due is not None:
            heappush(self._timers, (due, run.key))

    def _is_current(self, entry: tuple[float, AttemptKey]) -> bool:
        run = self.runs.get(entry[1])
        return run is not None and run.due == entry[0]


_HANDLERS: dict[type, Callable[[Runner, Any, Moment, RunnerStep], None]] = {
    Ordered: Runner._on_ordered,
    Granted: Runner._on_granted,
    OrderRefused: Runner._on_refused,
    StopAsked: Runner._on_stop,
    SignalAsked: Runner._on_signal,
    BlobsArrived: Runner._on_blobs,
    RunStarted: Runner._on_started,
    StartFailed: Runner._on_start_failed,
    RunEnded: Runner._on_ended,
    LeftoversGone: Runner._on_leftovers_gone,
    MemorySeen: Runner._on_memory,
    OutputExceeded: Runner._on_output,
    RunNoted: runner_batch.noted,
    RunWaits: runner_batch.waits,
    RunHalted: runner_batch.halted,
    HoldAsked: runner_batch.hold_asked,
    SlotsSet: Runner._on_slots,
}
