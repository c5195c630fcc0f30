"""What the backend of synthetic hosts knows of one attempt and of one submission, and what a submission asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hq.execserver.backends.base import Launch
from hq.execserver.backends.dialect import Demand, NativeJob
from hq.execserver.batchfiles import Group
from hq.model.ids import AttemptKey


@dataclass(slots=True)
class Member:
    """One attempt of a submission."""

    key: AttemptKey
    group: Group
    index: int
    id: str = ""  # of its native job, once that is known
    job: NativeJob | None = None  # as last listed
    reason: str = ""  # as last told upward
    since: float = 0.0  # CLOCK_BOOTTIME when it was taken in
    submitted: float = 0.0  # Unix time
    listable: float = 0.0  # CLOCK_BOOTTIME from which on a listing must show it
    absent: float | None = None  # CLOCK_BOOTTIME since when it is listed no more
    final: float | None = None  # CLOCK_BOOTTIME since when it is known to be over there
    exit: dict[str, Any] | None = None
    has_begun: bool = False
    is_stopped: bool = False
    is_halted: bool = False
    cancelled: float = 0.0


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


def demand_of(launch: Launch) -> Demand:
    """What a batch system must give for a launch."""
    time_limit = None if launch.time_limit is None else launch.time_limit + launch.grace
    return Demand(slots=launch.slots, memory=launch.memory, time=time_limit, resources=tuple(sorted(launch.resources.items())))


def demand_of_words(words: dict[str, Any]) -> Demand:
    """The same from a spec file."""
    limit = words.get("time_limit")
    resources = tuple(sorted((words.get("resources") or {}).items()))
    return Demand(slots=words.get("slots", 1), memory=words.get("memory"), time=None if limit is None else limit + words.get("grace", 0), resources=resources)
