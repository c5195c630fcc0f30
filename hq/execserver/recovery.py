"""What a new worker makes of the journal of an earlier one, and the journal as it should be now."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Any

from hq.core.runner_events import RunEnded, StopAsked
from hq.core.runner_run import Phase, Run
from hq.execserver.backends.procs import boot_id, read_proc
from hq.execserver.journal import Known, Line, Recovered
from hq.kernel.clock import Now
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.states import Outcome

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer

_TICKS = os.sysconf("SC_CLK_TCK")
MAX_SEEN = 100_000  # attempts that a rewritten journal remembers as over


def reaper() -> str:
    """Who waits for our children when we die, so that their statuses are not lost: the parent, by pid and start time."""
    parent = read_proc(os.getppid())
    return "" if parent is None else f"{parent.pid}:{parent.starttime}"


def recover(server: ExecServer, recovered: Recovered, now: Now) -> None:
    """Take over what an earlier worker left."""
    boot = boot_id()
    is_same_reaper = bool(recovered.reaper) and recovered.reaper == reaper()
    is_same_boot = recovered.boot in ("", boot)
    if recovered.bad_lines:
        server.log.warning("%d lines of the journal could not be read", recovered.bad_lines)
    for sequence, reports in recovered.batches.items():
        server.spool.restore(sequence, reports)
    for key in recovered.seen:
        server.runner.restore_seen(key)
    for key, known in recovered.runs.items():
        _restore(server, key, known, recovered.specs.get(key.job), is_same_boot, is_same_reaper, now)
    server.flush()
    server.memory = recovered.memory or secrets.token_hex(8)
    try:
        server.journal.rewrite(journal_lines(server, boot))
    except OSError as error:
        # its name is written as soon as there is room, and nothing is started before
        server.journal.note(t="boot", boot=boot, memory=server.memory, sequence=server.spool.last)
        server.log.error("the journal cannot be rewritten: %s", error)
    if not any(known.tag for known in recovered.runs.values()):
        server.statuses.clear()


def _restore(server: ExecServer, key: AttemptKey, known: Known, signed: SignedSpec | None, is_same_boot: bool, is_same_reaper: bool, now: Now) -> None:
    spec = server.orders.admit(known.order, signed)
    if isinstance(spec, str):
        server.log.error("%s of the journal cannot be taken over: %s", key, spec)
        return
    assert signed is not None
    server.specs[key.job] = signed
    server.live_of.setdefault(key.job, set()).add(key)
    if not known.tag and (is_same_boot or not known.is_armed):
        server.runner.restore(Run(known.order, spec, Phase.QUEUED, now.boot), now)
    else:
        # a batch system may have had it for days before it begins
        is_waiting = server.batch is not None and not known.pid
        run = Run(known.order, spec, Phase.STARTING if is_waiting else Phase.RUNNING, known.since or now.boot, pid=known.pid or None,
                  started=None if is_waiting else known.started, is_submitted=is_waiting)  # fmt: skip
        server.runner.restore(run, now)
        server.tags[key] = (known.tag, known.pid, known.starttime, known.outputs)
        if known.ended is not None:
            server.events.append(RunEnded(key=key, at=now.wall, exit_code=known.ended.code, signal=known.ended.signal))
        elif not is_same_boot and server.batch is None:
            reason = "the host was restarted while it ran" if known.tag else "the host was restarted; whether it had begun is not known"
            server.events.append(RunEnded(key=key, at=now.wall, reason=reason))
        else:
            since = int(known.since * _TICKS) if is_same_reaper and known.since else None
            server.backend.adopt(key, known.tag, known.pid, known.starttime, since)
            paths = server.launcher.paths(spec, known.order)
            server.outputs.add(key, spec, paths.stdout, paths.stderr, known.outputs)
            server.log.info("%s taken over, pid %s", key, known.pid or "not known")
    if known.stop is not None:
        server.events.append(StopAsked(key, *known.stop))


def journal_lines(server: ExecServer, boot: str | None = None) -> list[Line]:
    """The whole journal as it should be now."""
    lines = [Line(t="boot", boot=boot or boot_id(), memory=server.memory, reaper=reaper(), sequence=server.spool.last)]
    if server.epochs.newest:
        lines.append(Line(t="epoch", sequence=server.epochs.newest))
    seen = list(server.runner.seen())[-MAX_SEEN:]
    lines.extend(Line(t="seen", key=key) for key in seen)
    lines.extend(Line(t="spec", job=job, body=signed.body, signature=signed.signature) for job, signed in server.specs.items())
    stops: dict[AttemptKey, tuple[Outcome, str]] = {
        event.key: (event.outcome, event.reason) for event in server.events if isinstance(event, StopAsked)
    }
    ends: dict[AttemptKey, Any] = {event.key: event for event in server.events if isinstance(event, RunEnded)}
    for key, run in server.runner.runs.items():
        lines.append(Line(t="order", key=key, slots=run.order.slots, ahead=run.order.is_ahead))
        if key in server.armed:
            lines.append(Line(t="armed", key=key))
        if key in server.tags:
            tag, pid, starttime, outputs = server.tags[key]
            lines.append(Line(t="starting", key=key, tag=tag, at=run.started or 0.0, since=0.0 if pid else run.since))
            if pid:
                lines.append(Line(t="started", key=key, pid=pid, starttime=starttime, at=run.started or 0.0, outputs=outputs))
        stop = run.cause or stops.get(key)
        if stop is not None:
            lines.append(Line(t="stop", key=key, outcome=stop[0], reason=stop[1]))
        end = run.ended or ends.get(key)
        if end is not None and (end.exit_code is not None or end.signal is not None):
            lines.append(Line(t="ended", key=key, code=end.exit_code, signal=end.signal))
    lines.extend(Line(t="batch", sequence=sequence, reports=reports) for sequence, reports in server.spool.batches.items())
    return lines
