"""Compares what tasks wrote themselves with what hq recorded, task by task. Pure; `Findings.line` is the verdict.

lost     an acknowledged submission whose job is not there, or a task of a finished job that is not recorded
double   an attempt that started twice; two attempts alive at once; a task that must not be repeated and was; an attempt of one that
         may be although an earlier one had ended or was alive, and nothing that was done to its witnesses or its ways up explains it
wrong    a recorded outcome or exit code that is not what the task itself wrote, or `lost` for no reason, or a run that never wrote
         its end although nobody had a reason to end it; or a daemon that met an error of its own, as its log says
stuck    a task that has not ended when everything has been well again for long, and its owner has been asked where hq asks him
unknown  recorded as lost where every witness of the run was killed (`tests.chaos.troubles` says who they are)

Where it is lenient, and why:

- an attempt of a task that *may* run again may follow one that ended, if the end was unseen, or if the earlier run was silenced: hq says
  that it may run again, so it prefers that to never. It must not be alive beside the next one even then.
- of an attempt that wrote no start nobody knows the moments (it may have been queued on its host, or on its way there): what was done to
  its witnesses between the submission and the end that is recorded counts.
- a task whose host was cut off for ever ends as its owner says. He is asked only for tasks that hq shows as undecided, and his word counts
  for the attempt that was undecided then; what that attempt wrote is not compared with it.
- a task whose output could not be opened because its disk was full ends with 125 and has written nothing.
- the moments of faults and of tasks may differ by `troubles.SLACK`, the time that a busy machine needs to deliver a signal; somebody above may be
  heard again only `troubles.DIALLING` after a trouble; and what was in the way of a report may hold it up for `troubles.RECOVERY` and the half of
  its length more, for back-offs grow with that (this counts only where a disk went with its host before the report was recorded).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.chaos.troubles import Troubles

PLAIN = -1
#: The exit code of what cannot be prepared.
CANNOT_PREPARE = 125
#: A task works for so long at most (seconds).
LONGEST = 2.0
#: What is said of an attempt that was asked for though one before it had ended: it is recorded as that one ended.
NOT_BEGUN = "was not begun"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger; `code` None at a start."""

    job: int
    index: int
    attempt: int
    host: str
    pid: int
    at: float
    code: int | None


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for: an acknowledged (or found) job. `indices` is (-1,) of a plain one."""

    id: int
    user: str
    indices: tuple[int, ...]
    retries: int
    is_rerunnable: bool
    is_acknowledged: bool = True
    submitted: float = 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """What the database says of a task: live (`outcome` None) or ended. `ended`: on the clock of the ledger."""

    job: int
    index: int
    attempt: int
    state: str
    outcome: str | None
    exit_code: int | None
    host: str
    reason: str = ""
    ended: float = float("inf")


@dataclass(frozen=True, slots=True)
class Decision:
    """What the owner of a task said when its host was lost, and of which attempt: ok, failed, lost or requeue."""

    attempt: int
    verdict: str


@dataclass(slots=True)
class Findings:
    """Texts by what they mean."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    rerun: int = 0  # attempts of rerunnable tasks that were repeated for a good reason
    decided: int = 0  # tasks that went as their owner said
    full: int = 0  # tasks whose output could not be opened

    @property
    def is_good(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.double or self.wrong or self.stuck)

    @property
    def line(self) -> str:
        """The closing line."""
        return " ".join(f"{name}={len(getattr(self, name))}" for name in ("lost", "double", "wrong", "stuck", "unknown"))


def read_ledger(text: str) -> list[Line]:
    """The lines of a ledger. Raises ValueError for a line that no task wrote."""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if (words[:1], len(words)) not in ((["S"], 7), (["E"], 8)):
            raise ValueError(f"line {number} of the ledger is none of a task: {line!r}")
        job, index, attempt = map(int, words[1:4])
        lines.append(Line(job, index, attempt, words[4], int(words[5]), float(words[6]), int(words[7]) if words[0] == "E" else None))
    return lines


def judge(jobs: Sequence[Job], records: Iterable[Record], live_jobs: frozenset[int], known_jobs: frozenset[int],
          ledger: Iterable[Line], troubles: Troubles, decisions: Mapping[tuple[int, int], Decision] | None = None) -> Findings:  # fmt: skip
    """Compare. `live_jobs`: jobs that have not ended, `known_jobs`: all that the database knows, `decisions`: of their owners."""
    found = Findings()
    recorded = {(record.job, record.index): record for record in records}
    lines: dict[tuple[int, int], list[Line]] = defaultdict(list)
    for line in ledger:
        lines[line.job, line.index].append(line)
    for job in jobs:
        if job.id not in known_jobs:
            if job.is_acknowledged:
                found.lost.append(f"job {job.id} of {job.user} was acknowledged, and is not there")
            continue
        for index in job.indices:
            key = (job.id, index)
            mine = _Task(job, index, lines.pop(key, []), recorded.get(key), troubles, (decisions or {}).get(key))
            mine.look(found, is_live=job.id in live_jobs)
    found.wrong += [f"task {job}_{index} ran, and nobody asked for it" for job, index in lines]
    return found


class _Task:
    def __init__(self, job: Job, index: int, lines: list[Line], record: Record | None, troubles: Troubles, decision: Decision | None) -> None:
        self.name = f"task {job.id}" + (f"_{index}" if index != PLAIN else "") + f" of {job.user} ({'may run again' if job.is_rerunnable else 'once'}, {job.retries} retries)"
        self.job = job
        self.record = record
        self.troubles = troubles
        self.decision = decision
        self.starts: dict[int, Line] = {}
        self.ends: dict[int, Line] = {}
        self.twice: list[Line] = []
        for line in lines:
            place = self.starts if line.code is None else self.ends
            if line.attempt in place:
                self.twice.append(line)
            place[line.attempt] = line

    def look(self, found: Findings, *, is_live: bool) -> None:
        record = self.record
        found.double += [
            f"{self.name}: attempt {line.attempt} {'started' if line.code is None else 'ended'} twice on {line.host}, at {line.at:.2f} again"
            for line in self.twice
        ]
        self._look_at_repeats(found)
        if record is None or record.outcome is None:
            state = record.state if record is not None else "waiting"
            if is_live:
                found.stuck.append(f"{self.name} is {state} ({record.reason if record is not None else 'never left waiting'})")
            else:
                found.lost.append(f"{self.name} of an ended job is not recorded")
            return
        late = [attempt for attempt in self.starts if attempt > record.attempt]
        if late:
            found.double.append(f"{self.name} is recorded with attempt {record.attempt}, and attempt {late[0]} started on {self.starts[late[0]].host}")
        if self.decision is not None and self.decision.attempt == record.attempt:
            self._look_at_decision(found, record, self.decision)
        else:
            self._look_at_outcome(found, record, record.outcome)

    def _look_at_decision(self, found: Findings, record: Record, decision: Decision) -> None:
        if record.outcome != decision.verdict:
            found.wrong.append(f"{self.name}, attempt {record.attempt}: its owner said {decision.verdict}, recorded is {record.outcome} ({record.reason})")
        elif not self.troubles.is_cut_for_ever(record.host, record.ended):
            found.wrong.append(f"{self.name}: its owner was asked, though {record.host} was not cut off for ever ({record.reason})")
        else:
            found.decided += 1

    def _look_at_outcome(self, found: Findings, record: Record, outcome: str) -> None:
        end = self.ends.get(max(self.starts, default=0) if NOT_BEGUN in record.reason else record.attempt)
        told = f"{self.name}, attempt {record.attempt} on {record.host}: recorded as {outcome} (exit code {record.exit_code}; {record.reason})"
        if outcome == "lost":
            if self._is_unseen(record.attempt, record.host) or (self.job.is_rerunnable and self._is_silenced(record.attempt, record.host)):
                found.unknown.append(told)
            else:
                wrote = "it wrote no end" if end is None else f"it wrote its end with code {end.code} at {end.at:.2f}"
                began = f"began at {self.starts[record.attempt].at:.2f}" if record.attempt in self.starts else "wrote no start"
                found.wrong.append(f"{told}; it {began}, {wrote}, and its witnesses lived")
        elif outcome not in ("ok", "failed"):
            found.wrong.append(f"{told}; nobody asked for that")
        elif end is None and not self.starts.get(record.attempt) and record.exit_code == CANNOT_PREPARE and self._is_full(record):
            found.full += 1
        elif end is None:
            found.wrong.append(f"{told}; it {'never wrote its end' if record.attempt in self.starts else 'never ran'}")
        elif (end.code == 0) != (outcome == "ok") or record.exit_code != end.code:
            found.wrong.append(f"{told}; it wrote code {end.code}")

    def _look_at_repeats(self, found: Findings) -> None:
        attempts = sorted(self.starts)
        for earlier, later in zip(attempts, attempts[1:], strict=False):
            start, end, host = self.starts[later].at, self.ends.get(earlier), self.starts[earlier].host
            if end is not None and end.at <= start + 0.05 and end.code != 0 and earlier <= self.job.retries:
                continue
            text = f"{self.name}: attempt {later} started at {start:.2f}, attempt {earlier} on {host} "
            text += f"began at {self.starts[earlier].at:.2f} and " + ("wrote no end" if end is None else f"ended at {end.at:.2f} with code {end.code}")
            is_beside = end is not None and end.at > start + 0.05
            decision = self.decision
            if decision is not None and (decision.attempt, decision.verdict) == (earlier, "requeue") and self.troubles.is_cut_for_ever(host, start):
                found.decided += 1
            elif self.job.is_rerunnable and not is_beside and (self._is_unseen(earlier, host) or self._is_silenced(earlier, host)):
                found.rerun += 1
            else:
                found.double.append(text)

    def _moments(self, attempt: int) -> tuple[float, float]:
        """When it ran, as far as it told."""
        start, end = self.starts.get(attempt), self.ends.get(attempt)
        if start is None:
            return self.job.submitted, self.record.ended if self.record is not None else float("inf")
        return start.at, end.at if end is not None else start.at + LONGEST

    def _is_unseen(self, attempt: int, host: str) -> bool:
        return self.troubles.is_unseen(self.job.user, host, *self._moments(attempt))

    def _is_silenced(self, attempt: int, host: str) -> bool:
        return self.troubles.is_silenced(self.job.user, host, *self._moments(attempt))

    def _is_full(self, record: Record) -> bool:
        return self.troubles.is_full("output", self.job.user, self.job.submitted, record.ended)
