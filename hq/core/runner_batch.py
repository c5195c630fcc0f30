"""What happens to runs of an exec-server that a batch system has: they wait there, are suspended or held there. Part of `runner`, and pure like it."""

from __future__ import annotations

from signal import SIGTERM
from typing import TYPE_CHECKING

from hq.core.runner_events import HoldAsked, HoldRun, Moment, RecallRun, RunHalted, RunnerStep, RunNoted, RunWaits, SignalRun
from hq.core.runner_run import Phase, Run, run_report
from hq.model.runs import RETURNED
from hq.model.states import RunKind

if TYPE_CHECKING:
    from hq.core.runner import Runner


def noted(runner: Runner, event: RunNoted, now: Moment, out: RunnerStep) -> None:
    """Its owner should read something."""
    run = runner.runs.get(event.key)
    if run is not None and event.note not in run.notes:
        run.notes.append(event.note)


def waits(runner: Runner, event: RunWaits, now: Moment, out: RunnerStep) -> None:
    """It waits there, or how it stands there is told."""
    run = runner.runs.get(event.key)
    if run is None or run.phase not in (Phase.STARTING, Phase.RUNNING):
        return
    if run.phase is Phase.STARTING and not run.is_submitted:
        run.is_submitted = True
        if run.cause is not None:
            out.actions.append(SignalRun(run.key, SIGTERM, is_ending=True))
    run.native = event.native or run.native
    if event.reason or run.phase is Phase.RUNNING:
        out.reports.append(run_report(run, RunKind.WAITS, now.wall, event.reason or "; ".join(run.notes)))


def halted(runner: Runner, event: RunHalted, now: Moment, out: RunnerStep) -> None:
    """The batch system suspended it, or let it go on."""
    run = runner.runs.get(event.key)
    if run is not None and run.phase is Phase.RUNNING and run.is_suspended != event.is_suspended:
        run.is_suspended = event.is_suspended
        out.reports.append(run_report(run, RunKind.SUSPENDED if event.is_suspended else RunKind.RESUMED, now.wall, event.reason))


def hold_asked(runner: Runner, event: HoldAsked, now: Moment, out: RunnerStep) -> None:
    """What waits for our own slots is given back, hq-server holds it; what waits at a batch system is held there. What has begun goes on."""
    run = runner.runs.get(event.key)
    if run is None:
        if event.is_held and not runner.is_known(event.key):
            runner.never(event.key, RETURNED, now, out)
    elif not run.is_live:
        if event.is_held:
            runner.never(event.key, RETURNED, now, out)
    elif run.phase is Phase.STARTING and run.is_submitted and run.cause is None:
        out.actions.append(HoldRun(event.key, event.is_held))


def recall(run: Run, out: RunnerStep) -> None:
    """hq-server has a better place for it: what waits at a batch system is taken back, what runs or is about to goes on."""
    if run.phase is Phase.STARTING and run.is_submitted and run.cause is None:
        out.actions.append(RecallRun(run.key))
