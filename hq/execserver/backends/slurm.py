"""Slurm (20.11 and later; seen working with 22.05): sbatch, squeue, scancel, sacct, scontrol.

States as squeue(1) and sacct(1) give them, with the manual's words:

| state          | the manual says                                                                       | is      |
|----------------|---------------------------------------------------------------------------------------|---------|
| PENDING        | Job is awaiting resource allocation.                                                   | pending |
| CONFIGURING    | Job has been allocated resources, but are waiting for them to become ready for use.    | pending |
| REQUEUED       | Job was requeued. (REQUEUE_HOLD, REQUEUE_FED, SPECIAL_EXIT, RESV_DEL_HOLD likewise)    | pending |
| RUNNING        | Job currently has an allocation. (SIGNALING, STAGE_OUT likewise)                       | running |
| RESIZING       | Job is about to change size.                                                           | running |
| SUSPENDED      | Job has an allocation, but execution has been suspended. (STOPPED likewise)            | suspended |
| COMPLETING     | Job is in the process of completing. Some processes on some nodes may still be active. | ending  |
| COMPLETED      | Job has terminated all processes on all nodes with an exit code of zero.               | ok      |
| FAILED         | Job terminated with non-zero exit code or other failure condition.                     | failed  |
| TIMEOUT        | Job terminated upon reaching its time limit. (DEADLINE: on deadline)                   | timeout |
| OUT_OF_MEMORY  | Job experienced out of memory error.                                                   | memory  |
| CANCELLED      | Job was explicitly cancelled by the user or system administrator.                      | cancelled |
| NODE_FAIL      | Job terminated due to failure of one or more allocated nodes. (BOOT_FAIL likewise)     | lost    |
| PREEMPTED      | Job terminated due to preemption. (REVOKED: sibling started elsewhere)                 | lost    |
"""

from __future__ import annotations

import math
import os

from hq.execserver.backends.dialect import (
    CommandResult,
    NativeJob,
    NativeState,
    Submission,
    check_demand,
    native_time,
    plain_name,
    resource_words,
)
from hq.model.states import Outcome

STATES: dict[str, NativeState] = {
    "PENDING": NativeState.PENDING,
    "CONFIGURING": NativeState.PENDING,
    "REQUEUED": NativeState.PENDING,
    "REQUEUE_HOLD": NativeState.PENDING,
    "REQUEUE_FED": NativeState.PENDING,
    "SPECIAL_EXIT": NativeState.PENDING,
    "RESV_DEL_HOLD": NativeState.PENDING,
    "RUNNING": NativeState.RUNNING,
    "SIGNALING": NativeState.RUNNING,
    "STAGE_OUT": NativeState.RUNNING,
    "RESIZING": NativeState.RUNNING,
    "SUSPENDED": NativeState.SUSPENDED,
    "STOPPED": NativeState.SUSPENDED,
    "COMPLETING": NativeState.ENDING,
    "COMPLETED": NativeState.ENDED,
    "FAILED": NativeState.ENDED,
    "TIMEOUT": NativeState.ENDED,
    "DEADLINE": NativeState.ENDED,
    "OUT_OF_MEMORY": NativeState.ENDED,
    "CANCELLED": NativeState.ENDED,
    "NODE_FAIL": NativeState.ENDED,
    "BOOT_FAIL": NativeState.ENDED,
    "PREEMPTED": NativeState.ENDED,
    "REVOKED": NativeState.ENDED,
}
OUTCOMES: dict[str, Outcome] = {
    "TIMEOUT": Outcome.TIMEOUT,
    "DEADLINE": Outcome.TIMEOUT,
    "OUT_OF_MEMORY": Outcome.MEMORY,
    "CANCELLED": Outcome.CANCELLED,
    "NODE_FAIL": Outcome.LOST,
    "BOOT_FAIL": Outcome.LOST,
    "PREEMPTED": Outcome.LOST,
    "REVOKED": Outcome.LOST,
}
#: What FAILED means by its reason, where there is no status of the command. A command killed by a signal has JobLaunchFailure, too.
_REASONS = {"JobLaunchFailure": Outcome.LOST, "BadConstraints": Outcome.REFUSED}

# columns of fixed width: a reason may hold blanks and commas, a separator could stand in any field
_COLUMNS = (("JobArrayID", 48), ("State", 24), ("Reason", 80), ("exit_code", 16), ("NodeList", 120), ("Comment", 80))
_FORMAT = ",".join(f"{name}:{width}" for name, width in _COLUMNS)

#: Words of sbatch for what may be different later (slurm_errno.c).
_TRANSIENT = (
    "unable to contact slurm controller", "connect failure", "socket timed out", "temporarily unable to accept job", "slurm backup controller",
    "limit violated", "qosmaxsubmit", "assocmaxsubmit", "zero bytes were transmitted", "communication connection failure", "resource temporarily unavailable",
    "job/step already completing", "message receive failure", "slurm protocol", "controller is in standby", "munge", "protocol authentication error",
)  # fmt: skip


class Slurm:
    """See `dialect.Dialect` for the methods."""

    name = "slurm"
    index_variable = "SLURM_ARRAY_TASK_ID"
    has_accounting = True

    def submit_argv(self, submission: Submission) -> list[str]:
        """As Dialect.submit_argv."""
        demand, settings = submission.demand, submission.settings
        check_demand(demand, settings)
        nodes = demand.count("nodes")
        argv = [
            "sbatch", "--parsable", f"--job-name={plain_name(submission.name, 64)}", f"--comment={submission.tag}",
            f"--chdir={submission.directory}", f"--output={submission.output}", "--open-mode=append", "--input=none",
            # ours, and sbatch itself is run in a small one: NONE would run a login shell on the node
            "--export=ALL",
            # it is hq that starts again what may be run again, as a new attempt
            "--no-requeue",
        ]  # fmt: skip
        if nodes > 1:
            argv += [f"--nodes={nodes}", f"--ntasks={max(demand.slots, nodes)}"]
        else:
            argv += ["--nodes=1", "--ntasks=1", f"--cpus-per-task={demand.slots}"]
        if demand.memory is not None:
            argv.append(f"--mem={math.ceil(demand.memory / (1 << 20))}M")
        seconds = native_time(demand, settings)
        if seconds is not None:
            argv.append(f"--time={max(1, math.ceil(seconds / 60))}")
        if demand.count("gpu") and "gpu" not in settings.resources:
            argv.append(f"--gres=gpu:{demand.count('gpu')}")
        argv += resource_words(demand, settings)
        for option, value in (("--partition", settings.partition), ("--account", settings.account), ("--qos", settings.qos)):
            if value:
                argv.append(f"{option}={value}")
        if submission.count > 1:
            argv.append(f"--array=0-{submission.count - 1}")
        return [*argv, *settings.extra, submission.script]

    def parse_submitted(self, result: CommandResult) -> str:
        """As Dialect.parse_submitted. `--parsable` prints `ID` or `ID;CLUSTER`, after what plugins of the site may print."""
        lines = result.out.split()
        id = lines[-1].partition(";")[0] if lines else ""
        if not (id.isascii() and id.isdigit()):
            raise ValueError(f"sbatch printed no job id: {result.out[:200]!r}")
        return id

    def element_id(self, id: str, index: int, count: int) -> str:
        """As Dialect.element_id."""
        return f"{id}_{index}" if count > 1 else id

    def query_argv(self, ids: list[str], user: str) -> list[str]:
        """As Dialect.query_argv. By user, not by ids: an id that squeue has forgotten would make the whole answer an error."""
        return ["squeue", "--noheader", "--array", "--states=all", f"--user={user}", f"--Format={_FORMAT}"]

    def parse_query(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """As Dialect.parse_query."""
        if result.code != 0:
            return None
        found = {}
        for line in result.out.splitlines():
            cells, start = [], 0
            for _, width in _COLUMNS:
                cells.append(line[start : start + width].strip())
                start += width
            if cells[0][:1].isdigit() and cells[1].isupper():
                job = _job(cells[0], cells[1], cells[2], cells[4], cells[5], cells[3])
                found[job.id] = job
        # something was said, and none of it is a job: a notice of the site is no listing
        return found if found or not result.out.strip() else None

    def final_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.final_argv."""
        jobs = dict.fromkeys(id.partition("_")[0] for id in ids)
        return ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State,ExitCode,Reason,NodeList", f"--jobs={','.join(jobs)}"]

    def parse_final(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """As Dialect.parse_final. `Slurm accounting storage is disabled` comes with exit status 1."""
        if result.code != 0 or "accounting storage is disabled" in result.err.lower():
            return None
        found = {}
        for line in result.out.splitlines():
            cells = line.split("|")
            if len(cells) < 5:
                continue
            code, _, number = cells[2].partition(":")
            raw = (int(code) << 8 | int(number)) if code.isdigit() and number.isdigit() else None
            job = _job(cells[0], cells[1], cells[3], cells[4], "", "" if raw is None else str(raw))
            found[job.id] = job
        return found

    def find_by_tag_argv(self, tag: str, user: str) -> list[str]:
        """As Dialect.find_by_tag_argv."""
        return self.query_argv([], user)

    def parse_found(self, result: CommandResult, tag: str) -> tuple[bool, str]:
        """As Dialect.parse_found."""
        jobs = self.parse_query(result)
        if jobs is None:
            return False, ""
        return True, next((job.id.partition("_")[0] for job in jobs.values() if job.tag == tag), "")

    def cancel_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.cancel_argv."""
        return ["scancel", *ids]

    def hold_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.hold_argv."""
        return ["scontrol", "hold", *ids]

    def release_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.release_argv."""
        return ["scontrol", "release", *ids]

    def signal_argv(self, ids: list[str], number: int) -> list[str]:
        """As Dialect.signal_argv: to the batch script, which is hq's runner, not to its children."""
        return ["scancel", "--batch", f"--signal={number}", *ids]

    def is_transient(self, result: CommandResult) -> bool:
        """As Dialect.is_transient."""
        words = (result.err + result.out).lower()
        return result.code is None or any(word in words for word in _TRANSIENT)


def _job(id: str, state: str, reason: str, nodes: str, tag: str, raw: str) -> NativeJob:
    """A job from cells. `raw` is the wait status: exit code 7 is 1792."""
    word = state.split()[0].rstrip("+") if state else ""  # sacct: `CANCELLED by 1001`
    kind = STATES.get(word, NativeState.UNKNOWN)
    outcome = code = number = None
    if kind is NativeState.ENDED:
        outcome = OUTCOMES.get(word)
        if raw.isdigit():
            status = os.waitstatus_to_exitcode(int(raw)) if int(raw) & 0x7F != 0x7F else 0
            code, number = (status, None) if status >= 0 else (None, -status)
        if word == "FAILED" and not code and not number:
            code, number = None, None  # failed, and 0: not the command's own status
            outcome = _REASONS.get(reason)
    if reason.lower() == "none":
        reason = ""
    tag = "" if tag == "(null)" else tag
    return NativeJob(id=id, state=kind, word=word, reason=reason, tag=tag, nodes=nodes, exit_code=code, signal=number, outcome=outcome)
