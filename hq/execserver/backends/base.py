"""What a backend is: it makes runs from launches, tells which ended, sends signals, and measures. Not who decides that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hq.model.ids import AttemptKey

#: Exit codes of runs that never came to their command, as env(1) and docker give them.
CANNOT_PREPARE = 125  # the directory is missing, a file cannot be opened, the environment cannot be used
CANNOT_EXECUTE = 126  # the command is there and cannot be executed
NOT_FOUND = 127  # there is no such command


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """All that is needed to make the process of one attempt. Paths are absolute, stdin may be empty (/dev/null).

    `argv[0]` is looked up in the PATH of `env` unless it has a slash. `tag` is the value of HQ_RUN, unique to the attempt.
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
    nice: int = 0
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The process exists. `starttime` (clock ticks since boot) tells it from a later one with the same pid.

    `outputs`: device and inode of the output files, as they were opened.
    """

    pid: int
    starttime: int
    outputs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NotStarted:
    """No process was made. `exit_code` None: for want of processes or memory, it may do later."""

    reason: str
    exit_code: int | None = None


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


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a live run showed: memory of all its processes, in bytes."""

    key: AttemptKey
    memory: int


#: Called with (attempt, exit code, signal) before the status is taken from the system for good, so that it can be written down.
NoteStatus = Callable[[AttemptKey, int | None, int | None], None]


class Backend(Protocol):
    """One way of running things. All calls return at once and come from one thread."""

    def start(self, launch: Launch) -> Started | NotStarted:
        """Make the process. Never repeated by the caller after Started."""
        ...

    def adopt(self, key: AttemptKey, tag: str, pid: int, starttime: int) -> None:
        """Take over a run that an earlier worker made. What became of it comes out of `poll`, be it that nobody knows."""
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
