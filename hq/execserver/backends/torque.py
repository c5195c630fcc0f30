"""Torque and, with its differences, OpenPBS: qsub, qstat, qdel, qsig.

States as qstat(1) gives them, with the manual's words (T: Torque, O: OpenPBS):

| state | the manual says                                                       | is        |
|-------|-----------------------------------------------------------------------|-----------|
| Q     | job is queued, eligible to run or routed                              | pending   |
| H     | Job is held                                                           | pending   |
| W     | job is waiting for its execution time to be reached                   | pending   |
| T     | job is being moved to new location                                    | pending   |
| R     | job is running                                                        | running   |
| B     | O: array job has at least one subjob running                          | running   |
| S     | job is suspended                                                      | suspended |
| U     | O: cycle-harvesting job is suspended due to keyboard activity         | suspended |
| E     | Job is exiting after having run                                       | ending    |
| C     | T: Job is completed after having run                                  | by its exit status |
| F     | O: Job is finished                                                    | by its exit status |
| X     | O: Expired or deleted subjob                                          | by its exit status |
| M     | O: Job was moved to another server                                    | not known |

Exit statuses: below 256 the command's own; above, 256 + signal (271: TERM, by qdel); below 0 the server's own words, `EXITS`.
"""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

from hq.errors import RefusedError
from hq.execserver.backends.dialect import (
    CommandResult,
    NativeJob,
    NativeState,
    Submission,
    check_demand,
    clock,
    native_time,
    plain_name,
    resource_words,
)
from hq.model.batch import BatchSettings
from hq.model.states import Outcome

STATES: dict[str, NativeState] = {
    "Q": NativeState.PENDING,
    "H": NativeState.PENDING,
    "W": NativeState.PENDING,
    "T": NativeState.PENDING,
    "R": NativeState.RUNNING,
    "B": NativeState.RUNNING,
    "S": NativeState.SUSPENDED,
    "U": NativeState.SUSPENDED,
    "E": NativeState.ENDING,
    "C": NativeState.ENDED,
    "F": NativeState.ENDED,
    "X": NativeState.ENDED,
}
#: JOB_EXEC_* of pbs_job.h / job.h: what the server says where the command has no status of its own.
EXITS: dict[int, tuple[Outcome, str]] = {
    -1: (Outcome.LOST, "job exec failed, before files"),
    -2: (Outcome.LOST, "job exec failed, after files"),
    -3: (Outcome.LOST, "job exec failed, to be tried again"),
    -4: (Outcome.LOST, "job aborted on mom initialization"),
    -5: (Outcome.LOST, "job aborted on mom initialization, checkpoint"),
    -6: (Outcome.LOST, "job aborted on mom initialization, restart"),
    -10: (Outcome.MEMORY, "exceeded a memory limit"),
    -11: (Outcome.TIMEOUT, "exceeded its walltime"),
    -12: (Outcome.TIMEOUT, "exceeded its cpu time"),
    -24: (Outcome.MEMORY, "exceeded its vmem limit"),
    -27: (Outcome.MEMORY, "exceeded its mem limit"),
    -28: (Outcome.TIMEOUT, "exceeded its cput limit"),
    -29: (Outcome.TIMEOUT, "exceeded its walltime limit"),
}
_CANCELLED = 271  # 256 + TERM: what qdel leaves

_TRANSIENT = (
    "cannot connect to server", "connection refused", "unable to communicate", "no route to host", "timeout", "timed out", "end of file",
    "maximum number of jobs already in queue", "would exceed", "server shutting down", "server is busy", "trqauthd", "premature end of message",
)  # fmt: skip


class Torque:
    """See `dialect.Dialect` for the methods."""

    name = "torque"
    index_variable = "PBS_ARRAYID"
    has_accounting = False  # finished jobs stay in qstat for keep_completed seconds

    def submit_argv(self, submission: Submission) -> list[str]:
        """As Dialect.submit_argv."""
        demand, settings = submission.demand, submission.settings
        check_demand(demand, settings)
        argv = [
            "qsub", "-N", plain_name(submission.name, 15), "-S", "/bin/sh", "-d", submission.directory, "-o", submission.output, "-j", "oe",
            "-r", "n", "-v", f"HQ_BATCH={submission.tag}", "-l", self._resources(submission),
        ]  # fmt: skip
        argv += _common(submission)
        if submission.count > 1:
            argv += ["-t", f"0-{submission.count - 1}"]
        return [*argv, *settings.extra, submission.script]

    def _resources(self, submission: Submission) -> str:
        demand, settings = submission.demand, submission.settings
        nodes = demand.count("nodes") or 1
        if demand.slots % nodes:
            raise RefusedError(f"{demand.slots} slots cannot be spread evenly over {nodes} nodes")
        place = f"nodes={nodes}:ppn={demand.slots // nodes}"
        if demand.count("gpu") and "gpu" not in settings.resources:
            place += f":gpus={demand.count('gpu')}"
        return ",".join([place, *_limits(submission)])

    def parse_submitted(self, result: CommandResult) -> str:
        """As Dialect.parse_submitted: `7.server`, an array `7[].server`."""
        words = result.out.split()
        id = words[-1] if words else ""
        if not id[:1].isdigit():
            raise ValueError(f"qsub printed no job id: {result.out[:200]!r}")
        return id

    def element_id(self, id: str, index: int, count: int) -> str:
        """As Dialect.element_id."""
        return id.replace("[]", f"[{index}]", 1) if count > 1 else id

    def query_argv(self, ids: list[str], user: str) -> list[str]:
        """As Dialect.query_argv. Without ids: one that the server has forgotten would make the whole answer an error."""
        return ["qstat", "-t", "-x"]

    def parse_query(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """As Dialect.parse_query. With no jobs at all Torque prints nothing."""
        if result.code != 0:
            return None
        if not result.out.strip():
            return {}
        try:
            root = ElementTree.fromstring(result.out)
        except ElementTree.ParseError:
            return None
        found = {}
        for element in root.iter("Job"):
            cells = {child.tag: (child.text or "") for child in element}
            variables = dict(part.partition("=")[::2] for part in cells.get("Variable_List", "").split(","))
            status = cells.get("exit_status", "")
            job = _job(cells.get("Job_Id", ""), cells.get("job_state", ""), _number(status), cells.get("comment", ""), cells.get("exec_host", ""),
                       variables.get("HQ_BATCH", ""), cells.get("Hold_Types", "n"))  # fmt: skip
            found[job.id] = job
        return found

    def final_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.final_argv: there is no accounting for users."""
        return []

    def parse_final(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """As Dialect.parse_final."""
        return None

    def find_by_tag_argv(self, tag: str, user: str) -> list[str]:
        """As Dialect.find_by_tag_argv."""
        return self.query_argv([], user)

    def parse_found(self, result: CommandResult, tag: str) -> tuple[bool, str]:
        """As Dialect.parse_found. An element's id is brought back to its array's."""
        jobs = self.parse_query(result)
        if jobs is None:
            return False, ""
        for job in jobs.values():
            if job.tag == tag:
                head, bracket, rest = job.id.partition("[")
                return True, f"{head}[]{rest.partition(']')[2]}" if bracket else job.id
        return True, ""

    def cancel_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.cancel_argv."""
        return ["qdel", *ids]

    def hold_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.hold_argv."""
        return ["qhold", *ids]

    def release_argv(self, ids: list[str]) -> list[str]:
        """As Dialect.release_argv."""
        return ["qrls", *ids]

    def signal_argv(self, ids: list[str], number: int) -> list[str]:
        """As Dialect.signal_argv."""
        return ["qsig", "-s", str(number), *ids]

    def is_transient(self, result: CommandResult) -> bool:
        """As Dialect.is_transient. 111 and 162: no server."""
        words = (result.err + result.out).lower()
        return result.code is None or result.code in (111, 162) or any(word in words for word in _TRANSIENT)


class OpenPbs(Torque):
    """OpenPBS where it differs: arrays by -J, `select`, JSON, finished jobs only with -x."""

    name = "openpbs"
    index_variable = "PBS_ARRAY_INDEX"

    def submit_argv(self, submission: Submission) -> list[str]:
        """As Dialect.submit_argv. There is no -d: the script goes to its directory itself. -r y, for arrays must be rerunnable there."""
        demand, settings = submission.demand, submission.settings
        check_demand(demand, settings)
        argv = [
            "qsub", "-N", plain_name(submission.name, 64), "-S", "/bin/sh", "-o", submission.output, "-j", "oe",
            "-r", "y" if submission.count > 1 else "n", "-v", f"HQ_BATCH={submission.tag}",
        ]  # fmt: skip
        for words in self._select(submission):
            argv += ["-l", words]
        argv += _common(submission)
        if submission.count > 1:
            argv += ["-J", f"0-{submission.count - 1}"]
        return [*argv, *settings.extra, submission.script]

    def _select(self, submission: Submission) -> list[str]:
        demand, settings = submission.demand, submission.settings
        nodes = demand.count("nodes") or 1
        if demand.slots % nodes:
            raise RefusedError(f"{demand.slots} slots cannot be spread evenly over {nodes} nodes")
        chunk = f"select={nodes}:ncpus={demand.slots // nodes}"
        if demand.memory is not None:
            chunk += f":mem={math.ceil(demand.memory / (1 << 20))}mb"
        if demand.count("gpu") and "gpu" not in settings.resources:
            chunk += f":ngpus={demand.count('gpu')}"
        seconds = native_time(demand, settings)
        return [chunk, *([f"walltime={clock(seconds)}"] if seconds is not None else []), *resource_words(demand, settings)]

    def query_argv(self, ids: list[str], user: str) -> list[str]:
        """As Dialect.query_argv."""
        return ["qstat", "-t", "-x", "-f", "-F", "json"]

    def parse_query(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """As Dialect.parse_query."""
        if result.code != 0:
            return None
        try:
            told = json.loads(result.out)
        except ValueError:
            return None
        found: dict[str, NativeJob] = {}
        for id, cells in (told.get("Jobs") or {}).items():
            variables = cells.get("Variable_List") or {}
            job = _job(id, str(cells.get("job_state", "")), _number(cells.get("Exit_status")), str(cells.get("comment", "")),
                       str(cells.get("exec_host", "")), str(variables.get("HQ_BATCH", "")), str(cells.get("Hold_Types", "n")))  # fmt: skip
            found[id] = job
        return found


def dialect_of(settings: BatchSettings, version: CommandResult | None) -> Torque:
    """The dialect that backends.yaml names, or that `qstat --version` betrays."""
    if settings.dialect == "openpbs" or (settings.dialect == "auto" and version is not None and "pbs_version" in (version.out + version.err).lower()):
        return OpenPbs()
    return Torque()


def _limits(submission: Submission) -> list[str]:
    demand, settings = submission.demand, submission.settings
    words = [f"mem={math.ceil(demand.memory / (1 << 20))}mb"] if demand.memory is not None else []
    seconds = native_time(demand, settings)
    if seconds is not None:
        words.append(f"walltime={clock(seconds)}")
    return [*words, *resource_words(demand, settings)]


def _common(submission: Submission) -> list[str]:
    settings = submission.settings
    argv: list[str] = []
    for option, value in (("-q", settings.partition), ("-A", settings.account)):
        if value:
            argv += [option, value]
    return [*argv, "-W", f"x=qos:{settings.qos}"] if settings.qos else argv


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _job(id: str, word: str, status: int | None, comment: str, nodes: str, tag: str, hold: str) -> NativeJob:
    kind = STATES.get(word, NativeState.UNKNOWN)
    outcome, code, number, reason = None, None, None, comment
    if kind is NativeState.ENDED and status is not None:
        if status in EXITS:
            outcome, reason = EXITS[status]
        elif status < 0:
            outcome, reason = Outcome.LOST, f"exit status {status} of the server"
        elif status == _CANCELLED:
            outcome, reason, number = Outcome.CANCELLED, "deleted with qdel", status - 256
        elif status > 256:
            number = status - 256
        elif 128 < status < 128 + 65:
            number = status - 128  # the batch system's own shell says it so
        else:
            code = status
    if kind is NativeState.PENDING:
        reason = {"H": f"held ({hold})", "W": "waits for its time", "T": "is being moved"}.get(word, comment or "queued")
    return NativeJob(id=id, state=kind, word=word, reason=reason, tag=tag, nodes=nodes, exit_code=code, signal=number, outcome=outcome)
