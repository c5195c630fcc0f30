"""The end of a combined log (`--logfile`): what ran where, from when to when, and how it ended. Appended once the run is over."""

from __future__ import annotations

import os
import time

from hq.execserver.launch import Launcher
from hq.execserver.outputs import append
from hq.model.job import JobSpec
from hq.model.quantities import format_bytes, format_seconds
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome
from hq.model.text import printable

LONGEST_COMMAND = 1000


def summary_text(spec: JobSpec, host: str, report: RunReport) -> str:
    """A few lines, each beginning with `hq: `."""
    words = " ".join(os.fsdecode(word) for word in spec.argv) if spec.argv or not spec.script else ""
    command = printable(f"script {spec.name} {words}".strip() if spec.script else words)
    if len(command) > LONGEST_COMMAND:
        command = command[:LONGEST_COMMAND] + " ..."
    how = "ok" if report.outcome is Outcome.OK else f"{report.outcome.value if report.outcome else 'lost'}: {report.reason}"
    used = report.at - report.started if report.started is not None else None
    lines = [
        f"command: {command}",
        f"host: {host}, task {report.key.task}, attempt {report.attempt}",
        f"started: {_moment(report.started)}, finished: {_moment(report.at)}, running time: {format_seconds(used)}, "
        f"cpu time: {format_seconds(report.cpu)}, memory: {format_bytes(report.max_rss)}",
        f"outcome: {how}",
    ]
    return "".join(f"hq: {line}\n" for line in lines)


def write_summary(launcher: Launcher, spec: JobSpec, order: StartOrder, report: RunReport) -> None:
    """Append the summary to the run's log file, if it has one. Raises OSError."""
    if not spec.logfile:
        return
    path = launcher.paths(spec, order).logfile
    append(path, summary_text(spec, launcher.host, report).encode("utf-8", "backslashreplace"), spec.umask)


def _moment(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
