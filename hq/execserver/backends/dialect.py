"""What a batch system is to hq: argument lists to submit, ask, find and cancel, and readers of what its commands print. All of it pure.

A dialect runs nothing, keeps nothing and knows no clock; `hq.execserver.batch` does. A new batch system is one file with one class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from hq.errors import RefusedError
from hq.model.batch import BatchSettings
from hq.model.quantities import format_bytes, format_seconds
from hq.model.states import Outcome

#: What the native limit is longer than the job's own, so that hq's TERM and grace come first.
TIME_MARGIN = 60.0


class CommandResult(NamedTuple):
    """What a command said. `code` None: it did not end in time, so whether it took effect is not known."""

    code: int | None
    out: str
    err: str

    @property
    def words(self) -> str:
        """Its own words on one line, for people."""
        text = " ".join((self.err.strip() or self.out.strip()).split())
        return text[:600] or (f"exit status {self.code}" if self.code is not None else "it did not answer in time")


class NativeState(Enum):
    """Where a native job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    ENDING = "ending"  # its processes are being ended; what it came to follows
    ENDED = "ended"
    UNKNOWN = "unknown"  # a word that we do not know: nothing is concluded from it


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeJob:
    """One native job (or element of a native array) as a listing shows it.

    `word` is the batch system's own. For ENDED: `outcome` None means that exit code and signal decide; both None: not known.
    """

    id: str
    state: NativeState
    word: str = ""
    reason: str = ""
    tag: str = ""
    nodes: str = ""
    exit_code: int | None = None
    signal: int | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a task needs of the batch system. `time` in seconds with the grace, None: the batch system's default. `memory` in bytes a node."""

    slots: int = 1
    memory: int | None = None
    time: float | None = None
    resources: tuple[tuple[str, int], ...] = ()

    def count(self, name: str) -> int:
        """How many of a resource."""
        return dict(self.resources).get(name, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One native job, or with `count` > 1 a native array with the indices 0 to count-1."""

    tag: str
    name: str
    script: str
    directory: str
    output: str
    count: int
    demand: Demand
    settings: BatchSettings = field(default_factory=BatchSettings)


class Dialect(Protocol):
    """One batch system."""

    name: str
    #: The variable of a native job's environment with the index in its array.
    index_variable: str
    has_accounting: bool

    def submit_argv(self, submission: Submission) -> list[str]:
        """To submit. Raises RefusedError for a demand that cannot be said to this batch system."""
        ...

    def parse_submitted(self, result: CommandResult) -> str:
        """The native id in the output of a submission that went well. Raises ValueError."""
        ...

    def element_id(self, id: str, index: int, count: int) -> str:
        """The id of one element, as listings show it and cancelling takes it."""
        ...

    def query_argv(self, ids: list[str], user: str) -> list[str]:
        """To ask how all jobs of a user stand."""
        ...

    def parse_query(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """What a listing shows, by id. None: it is no listing (controller away), so nothing follows from it."""
        ...

    def final_argv(self, ids: list[str]) -> list[str]:
        """To ask the accounting how jobs ended that are listed no more."""
        ...

    def parse_final(self, result: CommandResult) -> dict[str, NativeJob] | None:
        """What the accounting shows, by id. None: there is none."""
        ...

    def find_by_tag_argv(self, tag: str, user: str) -> list[str]:
        """To ask for a submission whose answer was not heard."""
        ...

    def parse_found(self, result: CommandResult, tag: str) -> tuple[bool, str]:
        """(whether the answer can be believed, the id of the submission with this tag or an empty text)."""
        ...

    def cancel_argv(self, ids: list[str]) -> list[str]:
        """To end native jobs, waiting or running."""
        ...

    def hold_argv(self, ids: list[str]) -> list[str]:
        """To keep waiting jobs from starting."""
        ...

    def release_argv(self, ids: list[str]) -> list[str]:
        """To let held jobs start."""
        ...

    def signal_argv(self, ids: list[str], number: int) -> list[str]:
        """To send a signal to the first process of running jobs."""
        ...

    def is_transient(self, result: CommandResult) -> bool:
        """Whether a refusal may be different later: controller away, a limit on how many may be submitted."""
        ...


def check_demand(demand: Demand, settings: BatchSettings, known: frozenset[str] = frozenset({"gpu", "nodes"})) -> None:
    """Refuse what the settings do not allow, or no option can say. Raises RefusedError."""
    cores, nodes = demand.slots, demand.count("nodes") or 1
    if settings.max_cores is not None and cores > settings.max_cores:
        raise RefusedError(f"{cores} slots were asked for; its limit is {settings.max_cores} cores (max_cores in backends.yaml)")
    if settings.max_nodes is not None and nodes > settings.max_nodes:
        raise RefusedError(f"{nodes} nodes were asked for; its limit is {settings.max_nodes} (max_nodes in backends.yaml)")
    if settings.max_memory is not None and demand.memory is not None and demand.memory > settings.max_memory:
        raise RefusedError(
            f"{format_bytes(demand.memory)} of memory were asked for; its limit is {format_bytes(settings.max_memory)} (max_memory in backends.yaml)"
        )
    if settings.max_time is not None and demand.time is not None and demand.time > settings.max_time:
        raise RefusedError(
            f"a time limit of {format_seconds(demand.time)} was asked for; the longest there is {format_seconds(settings.max_time)} (max_time in backends.yaml)"
        )
    for name, _ in demand.resources:
        if name not in known and name not in settings.resources:
            raise RefusedError(f"the resource '{name}' cannot be asked for there: backends.yaml says nothing under resources for it")


def native_time(demand: Demand, settings: BatchSettings) -> float | None:
    """Seconds for the native limit: a little longer than the job's, never longer than the longest there; None: say nothing."""
    if demand.time is None:
        return settings.default_time
    wanted = math.ceil((demand.time + TIME_MARGIN) / 60) * 60
    return wanted if settings.max_time is None else min(float(wanted), settings.max_time)


def resource_words(demand: Demand, settings: BatchSettings) -> list[str]:
    """The options that backends.yaml gives for resources, `{count}` replaced."""
    return [settings.resources[name].replace("{count}", str(count)) for name, count in demand.resources if name in settings.resources]


def clock(seconds: float) -> str:
    """`HH:MM:SS`, hours as many as there are."""
    whole = math.ceil(seconds)
    return f"{whole // 3600:02}:{whole % 3600 // 60:02}:{whole % 60:02}"


def plain_name(name: str, most: int) -> str:
    """A job's name as every batch system takes it: letters, digits and a few marks, beginning with a letter."""
    kept = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in name)
    return (kept if kept[:1].isalpha() else f"j{kept}")[:most]
