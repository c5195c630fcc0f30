"""What the backend of synthetic hosts knows of one attempt and of one submission, and what a submission asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hq.execserver.backends.base import Launch, Waits
from hq.execserver.backends.dialect import Demand, NativeJob, NativeState, Submission
from hq.execserver.batchfiles import Group
from hq.model.batch import BatchSettings
from hq.model.ids import AttemptKey
from hq.model.runs import NativeRun


@dataclass(slots=True)
class Member:
    """One attempt of a submission."""

    key: AttemptKey
    group: Group
    index: int
    id: str = ""  # of its native job, once that is known
    job: NativeJob | None = None  # as last listed
    reason: str = ""  # why it waits, as last told upward
    told: Waits | None = None
    since: float = 0.0  # CLOCK_BOOTTIME when it was taken in
    submitted: float = 0.0  # Unix time; 0: not yet
    listable: float = 0.0  # CLOCK_BOOTTIME from which on a listing must show it, and, if it has begun, not as waiting
    absent: float | None = None  # CLOCK_BOOTTIME since when it is listed no more
    final: float | None = None  # CLOCK_BOOTTIME since when it is known to be over there
    exit: dict[str, Any] | None = None
    has_begun: bool = False
    is_stopped: bool = False
    is_halted: bool = False
    is_held: bool = False  # for its owner, by hq
    refusal: str = ""  # the batch system's words against holding or releasing it
    cancelled: float = 0.0
    skew: float = 0.0  # our clock minus its node's

    @property
    def native(self) -> NativeRun:
        """How it stands at the batch system."""
        job = self.job
        if job is not None and self.has_begun and job.state is NativeState.PENDING:
            job = None  # a listing from before
        return NativeRun(
            id=self.id, state=job.word if job is not None else "", reason=job.reason if job is not None else "", since=self.submitted or None,
            is_held=self.is_held, refusal=self.refusal,
        )  # fmt: skip

    def waits(self, where: str) -> Waits:
        """What is to be told of it while it goes on as it is."""
        job = f" (job {self.id})" if self.id else ""
        how = "" if self.has_begun else "held at " if self.is_held else "waiting at "
        words = f"; {self.refusal}" if self.refusal else ""
        return Waits(self.key, f"{how}{where}: {self.reason}{job}{words}" if self.reason else "", self.native)


@dataclass(slots=True)
class Pending:
    """A submission that is not accepted yet."""

    group: Group
    name: str
    demand: Demand
    next_try: float = 0.0
    tries: int = 0
    must_look: bool = False
    is_under_way: bool = False


def submission_of(pending: Pending, settings: BatchSettings) -> Submission:
    """What is submitted."""
    group = pending.group
    return Submission(tag=group.tag, name=pending.name, script=group.path("job.sh"), directory=group.directory, output=group.path("native.out"),
                      count=len(group.keys), demand=pending.demand, settings=settings)  # fmt: skip


def count_members(members: Iterable[Member]) -> str:
    """How they stand, for people."""
    every = list(members)
    begun = sum(1 for member in every if member.has_begun)
    waiting = sum(1 for member in every if member.id and not member.has_begun)
    return f"{begun} running, {waiting} waiting there, {len(every) - begun - waiting} not submitted yet"


def demand_of(launch: Launch) -> Demand:
    """What a batch system must give for a launch."""
    time_limit = None if launch.time_limit is None else launch.time_limit + launch.grace
    return Demand(slots=launch.slots, memory=launch.memory, time=time_limit, resources=tuple(sorted(launch.resources.items())))


def alike(launches: Iterable[Launch], most: int) -> list[tuple[Demand, list[Launch]]]:
    """Launches of one job that ask for the same, together, at most so many."""
    found: dict[tuple[int, Demand], list[Launch]] = {}
    for launch in launches:
        found.setdefault((launch.key.job, demand_of(launch)), []).append(launch)
    return [(demand, some[start : start + most]) for (_, demand), some in found.items() for start in range(0, len(some), most)]


def demand_of_words(words: dict[str, Any]) -> Demand:
    """The same from a spec file."""
    limit = words.get("time_limit")
    resources = tuple(sorted((words.get("resources") or {}).items()))
    return Demand(slots=words.get("slots", 1), memory=words.get("memory"), time=None if limit is None else limit + words.get("grace", 0), resources=resources)
