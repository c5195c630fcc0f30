"""Compares what tasks wrote themselves with what hq recorded, task by task. Pure; `Findings.line` is the verdict.

lost     an acknowledged submission whose job is not there, or a task of a finished job that is not recorded
double   an attempt that started twice; a task that must not be repeated and was; an attempt that ran although an earlier one had
         ended well, or still ran, and nothing that happened to its host explains why hq could not know
wrong    a recorded outcome or exit code that is not what the task itself wrote, or `lost` for no reason
stuck    a task that has not ended when everything has been well again for long
unknown  recorded as lost, or waiting for its owner's word, where every witness of the run was killed (the supervisor, or its machine)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PLAIN = -1
#: Seconds by which a moment of a fault and one of a task may be off.
SLACK = 3.0


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


@dataclass(frozen=True, slots=True)
class Record:
    """What the database says of a task: live (`outcome` None) or ended."""

    job: int
    index: int
    attempt: int
    state: str
    outcome: str | None
    exit_code: int | None
    host: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Harm:
    """What was done to the witnesses of runs on a host: `kills_witness`, or only kept hq from hearing of them. `user` None: all."""

    start: float
    end: float
    host: str
    user: str | None
    kills_witness: bool


@dataclass(slots=True)
class Findings:
    """Texts by what they mean."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    rerun: int = 0  # attempts of rerunnable tasks that were repeated for a good reason

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
          ledger: Iterable[Line], harms: Sequence[Harm]) -> Findings:  # fmt: skip
    """Compare. `live_jobs`: jobs that have not ended, `known_jobs`: all that the database knows."""
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
            name = f"task {job.id}" + (f"_{index}" if index != PLAIN else "")
            mine = _Task(name, job, lines.pop((job.id, index), []), recorded.get((job.id, index)), harms)
            mine.look(found, is_live=job.id in live_jobs)
    found.wrong += [f"task {job}_{index} ran, and nobody asked for it" for job, index in lines]
    return found


class _Task:
    def __init__(self, name: str, job: Job, lines: list[Line], record: Record | None, harms: Sequence[Harm]) -> None:
        self.name = name
        self.job = job
        self.record = record
        self.harms = harms
        self.starts: dict[int, Line] = {}
        self.ends: dict[int, Line] = {}
        self.twice: list[Line] = []
        for line in lines:
            place = self.starts if line.code is None else self.ends
            if line.attempt in place and line.code is None:
                self.twice.append(line)
            place[line.attempt] = line

    def look(self, found: Findings, *, is_live: bool) -> None:
        record = self.record
        found.double += [f"{self.name}: attempt {line.attempt} started twice on {line.host}, at {line.at:.2f} again" for line in self.twice]
        self._look_at_repeats(found)
        if record is None or record.outcome is None:
            state = record.state if record is not None else "waiting"
            if state == "host_lost" and record is not None and self._is_excused(record.attempt, record.host):
                found.unknown.append(f"{self.name} waits for its owner's word: {record.reason}")
            elif is_live:
                found.stuck.append(f"{self.name} is {state} ({record.reason if record is not None else 'never left waiting'})")
            else:
                found.lost.append(f"{self.name} of an ended job is not recorded")
            return
        self._look_at_outcome(found, record, record.outcome)

    def _look_at_outcome(self, found: Findings, record: Record, outcome: str) -> None:
        end = self.ends.get(record.attempt)
        told = f"{self.name}, attempt {record.attempt} on {record.host}: recorded as {outcome} (exit code {record.exit_code}; {record.reason})"
        if outcome == "lost":
            if self._is_excused(record.attempt, record.host):
                found.unknown.append(told)
            else:
                wrote = "it wrote no end" if end is None else f"it wrote its end with code {end.code} at {end.at:.2f}"
                began = f"began at {self.starts[record.attempt].at:.2f}" if record.attempt in self.starts else "wrote no start"
                found.wrong.append(f"{told}; it {began}, {wrote}, and its witnesses lived")
        elif outcome not in ("ok", "failed"):
            found.wrong.append(f"{told}; nobody asked for that")
        elif end is None:
            found.wrong.append(f"{told}; it {'never wrote its end' if record.attempt in self.starts else 'never ran'}")
        elif (end.code == 0) != (outcome == "ok") or record.exit_code != end.code:
            found.wrong.append(f"{told}; it wrote code {end.code}")

    def _look_at_repeats(self, found: Findings) -> None:
        attempts = sorted(self.starts)
        for earlier, later in zip(attempts, attempts[1:], strict=False):
            end = self.ends.get(earlier)
            is_over = end is not None and end.at <= self.starts[later].at + 0.05
            if is_over and end is not None and end.code != 0 and earlier <= self.job.retries:
                continue
            text = f"{self.name}: attempt {later} started at {self.starts[later].at:.2f}, attempt {earlier} on {self.starts[earlier].host} "
            text += "wrote no end" if end is None else f"ended at {end.at:.2f} with code {end.code}"
            if self.job.is_rerunnable and (end is None or self._is_excused(earlier, self.starts[earlier].host, witness_only=False)):
                found.rerun += 1
            else:
                found.double.append(text)

    def _is_excused(self, attempt: int, host: str, *, witness_only: bool = True) -> bool:
        """Whether what happened to the host while the attempt ran (or was about to start) explains that its end is not known."""
        start, end = self.starts.get(attempt), self.ends.get(attempt)
        since = start.at - SLACK if start is not None else 0.0
        until = end.at + SLACK if end is not None else float("inf")
        return any(
            harm.host == host and harm.user in (None, self.job.user) and harm.start <= until and harm.end >= since
            for harm in self.harms
            if harm.kills_witness or not witness_only
        )
