"""How a run at a batch system ended, from what hq's runner wrote and what the batch system says. Pure but for the runner's last words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from signal import SIGKILL
from typing import Any

from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.batchfiles import Group, last_words
from hq.execserver.batchmembers import Member
from hq.execserver.noderun import ALREADY
from hq.model.batch import BatchSettings
from hq.model.states import Outcome

#: What slurmstepd and pbs_mom write when memory was the reason for a KILL.
_MEMORY_WORDS = re.compile(r"exceeded .{0,40}memory|oom[-_ ]?kill|out[- ]of[- ]memory|mem .{0,40}exceeded limit", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cause` None: exit code or signal decide. `never`: it did not begin, for this reason."""

    cause: tuple[Outcome, str] | None = None
    exit_code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    at: float | None = None
    never: str = ""


def judge(member: Member, boot: float, settings: BatchSettings, where: str) -> Verdict | None:
    """What became of an attempt, once that can be said: the runner's words, then the batch system's; absence alone says nothing for long."""
    if member.exit is not None:
        is_explained = not (member.exit.get("told") or member.exit.get("killed")) or member.is_stopped
        waited = member.final is not None or (member.absent is not None and boot - member.absent > settings.exit_grace)
        said = last_words(member.group) if member.exit.get("killed") else ""
        return judge_exit(member.exit, member.job, where, said) if is_explained or waited else None
    if member.final is not None and boot - member.final > settings.exit_grace:
        assert member.job is not None
        return judge_native(member.job, member.has_begun, where, member.group)
    if member.absent is not None and boot - member.absent > settings.unknown_after:
        return Verdict((Outcome.LOST, f"{where} does not know job {member.id} any more, and nothing says how it ended"))
    return None


def judge_exit(words: dict[str, Any], job: NativeJob | None, where: str, said: str = "") -> Verdict:
    """The runner's own words; where it was told to end, or the run was killed, the batch system says why (`said`: on the job's own output)."""
    outcome = Outcome(words["outcome"])
    reason = str(words.get("reason", ""))
    if words.get("told") and outcome in (Outcome.CANCELLED, Outcome.FAILED):
        native = job if job is not None and job.state is NativeState.ENDED else None
        otherwise = (outcome, f"it was ended at {where}" if outcome is Outcome.CANCELLED else reason)
        outcome, reason = native_cause(native, where) or otherwise
    elif words.get("killed") and (_MEMORY_WORDS.search(said) or (job is not None and job.outcome is Outcome.MEMORY)):
        outcome, reason = Outcome.MEMORY, f"ran into its memory limit at {where}{f' ({said})' if said else ''}"
    cause = None if outcome is Outcome.OK else (outcome, reason)
    return Verdict(cause, words.get("exit_code"), words.get("signal"), words.get("max_rss"), words.get("cpu"), words.get("at"))


def native_cause(job: NativeJob | None, where: str) -> tuple[Outcome, str] | None:
    """What the batch system did to a job, None if nothing."""
    if job is None or job.outcome is None:
        return None
    why = f" ({job.reason})" if job.reason else ""
    text = {
        Outcome.TIMEOUT: f"ran into the time limit of {where}",
        Outcome.MEMORY: f"ran into its memory limit at {where}",
        Outcome.CANCELLED: f"was cancelled at {where}",
    }.get(job.outcome, f"{where}: {job.word}")
    return job.outcome, text + why


def judge_native(job: NativeJob, has_begun: bool, where: str, group: Group) -> Verdict:
    """The batch system's word alone: the runner could not write, or never ran."""
    cause = native_cause(job, where)
    said = last_words(group)
    if not has_begun and (cause is None or cause[0] is Outcome.LOST):
        if job.exit_code == 0:
            hint = f"hq's runner did nothing there: is {group.directory} on a file system that the nodes share?"
        else:
            hint = f"hq's runner did not begin: {said or job.reason or job.word}"
        return Verdict(never=f"{where}: {hint}")
    if cause is None and has_begun and (job.signal == SIGKILL or job.exit_code == 128 + SIGKILL) and _MEMORY_WORDS.search(said):
        cause = (Outcome.MEMORY, f"ran into its memory limit at {where} ({said})")
    if has_begun and cause is None and job.exit_code == ALREADY:
        return Verdict((Outcome.LOST, f"{where} started job {job.id} once more after it had begun; what became of the first time is not known"))
    if cause is None and job.exit_code is None and job.signal is None:
        outcome = Outcome.LOST if has_begun else Outcome.CANCELLED
        cause = (outcome, f"{where}: {job.word}{', ' + job.reason if job.reason else ''}{': ' + said if said else ''}")
    return Verdict(cause, job.exit_code, job.signal)
