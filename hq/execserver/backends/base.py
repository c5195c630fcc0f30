"""What a backend is: it makes runs from launches, tells which ended, sends signals, and measures. Not who decides that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hq.model.ids import AttemptKey
from hq.model.job import DEFAULT_GRACE, DEFAULT_OUTPUT_LIMIT
from hq.model.runs import NativeRun
from hq.model.states import Outcome, OutputAction

#: Exit codes of runs that never came to their command, as env(1) and docker give them.
CANNOT_PREPARE = 125  # the directory is missing, a file cannot be opened, the environment cannot be used
CANNOT_EXECUTE = 126  # the command is there and cannot be executed
NOT_FOUND = 127  # there is no such command


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that is needed to make the process of one attempt. Paths are absolute, stdin may be empty (/dev/null).

    `argv[0]` is looked up in the PATH of `env` unless it has a slash. `tag` is the value of HQ_RUN, unique to the attempt.
    `directory` is hq's own place for the output, to be made again if somebody has removed it; empty: the output goes elsewhere.
    From `name` on: what a batch system is asked for, and what is watched where the run is; backends that make processes leave that to the core.
    """

    key: AttemptKey
    tag: str
    argv: tuple[bytes, ...]
    env: dict[bytes, bytes]
    cwd: bytes
    umask: int
    stdin: bytes
    stdout: bytes
    stderr: bytes
    directory: bytes = b""
    nice: int = 0
    memory: int | None = None
    name: str = ""
    slots: int = 1
    resources: dict[str, int] = field(default_factory=dict)
    mode: str = ""
    time_limit: float | None = None
    grace: float = DEFAULT_GRACE
    output_limit: int = DEFAULT_OUTPUT_LIMIT
    output_action: OutputAction = OutputAction.TRIM


@dataclass(frozen=True, slots=True)
class Started:
    """The process exists. It began no later than `starttime` (clock ticks since boot), which tells it from a later one with the same pid.

    `outputs`: device and inode of the output files, as they were opened.
    """

    pid: int
    starttime: int
    outputs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NotStarted:
    """No process was made. `exit_code` None: for want of processes or memory, it may do later. `is_refused`: this host never will."""

    reason: str
    exit_code: int | None = None
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch system is being asked for it. What becomes of that comes out of `take_news`."""


@dataclass(frozen=True, slots=True)
class Waits:
    """It waits at the batch system (or on its way there), for this reason."""

    key: AttemptKey
    reason: str
    native: NativeRun | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """The batch system started it: `pid` on its node, `at` in Unix time, `note` for its owner."""

    key: AttemptKey
    pid: int
    at: float
    note: str = ""
    native: NativeRun | None = None


@dataclass(frozen=True, slots=True)
class NotBegun:
    """It did not begin and never will. `is_again`: it may be asked for again at once. `is_refused`: it must not be asked for again."""

    key: AttemptKey
    reason: str
    is_again: bool = False
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Halted:
    """The batch system suspended it, or let it go on."""

    key: AttemptKey
    is_suspended: bool
    reason: str = ""


News = Waits | Begun | NotBegun | Halted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The main process of a run ended. Neither code nor signal: nobody saw it, `reason` says why. `max_rss` bytes, `cpu` seconds.

    `has_leftovers`: other processes of the run live; they were left alone because the run is being ended by signals.
    """

    key: AttemptKey
    exit_code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    reason: str = ""
    has_leftovers: bool = False
    is_memory: bool = False
    cause: tuple[Outcome, str] | None = None  # what was done to it where it ran
    at: float | None = None  # Unix time, None: now
    is_never: bool = False  # no process of it was ever made: it may be started still


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a live run showed: memory of all its processes, in bytes."""

    key: AttemptKey
    memory: int


#: Called with (attempt, exit code, signal) before the status is taken from the system for good, so that it can be written down.
NoteStatus = Callable[[AttemptKey, int | None, int | None], None]


class Backend(Protocol):
    """One way of running things. All calls return at once and come from one thread."""

    def start(self, launch: Launch) -> Started | NotStarted | Submitted:
        """Make the process. Never repeated by the caller after Started."""
        ...

    def adopt(self, key: AttemptKey, tag: str, pid: int, starttime: int, since: int | None = None) -> None:
        """Take over a run that an earlier worker made, or was about to make (pid 0). What became of it comes out of `poll`, be it that nobody knows.

        `since`: the one who reaps our orphans is who he was when it was about to be made, which was not before this moment (clock ticks
        since boot). So what was made since is alive, or has left its status.
        """
        ...

    def poll(self, boot: float) -> tuple[list[Ended], list[AttemptKey]]:
        """Runs that ended since the last time, and runs whose last leftover has gone."""
        ...

    def signal(self, key: AttemptKey, number: int, is_ending: bool) -> None:
        """Send a signal to every process of a run. `is_ending`: also continue those that are stopped."""
        ...

    def look(self) -> list[Seen]:
        """Measure the live runs, and end processes of runs that are over. Once a second or so."""
        ...

    def forget(self, key: AttemptKey) -> None:
        """The run is over and reported."""
        ...

    @property
    def is_watching_leftovers(self) -> bool:
        """Whether `poll` should be called again very soon."""
        ...
