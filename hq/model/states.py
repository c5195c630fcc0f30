"""The states of a task and of a host, the outcomes, and the one table of legal moves.

Nothing else in hq decides what may follow what.
"""

from __future__ import annotations

from enum import Enum


class TaskState(str, Enum):
    """Where a task stands. Stored in SQL by value."""

    HELD = "held"
    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    HOST_LOST = "host_lost"
    FINISHED = "finished"

    @property
    def is_placed(self) -> bool:
        """True while the task holds slots of a host."""
        return self in _PLACED


_PLACED = frozenset({TaskState.STARTING, TaskState.RUNNING, TaskState.SUSPENDED, TaskState.HOST_LOST})


class Outcome(str, Enum):
    """How a finished task ended."""

    OK = "ok"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    LOST = "lost"
    REFUSED = "refused"


#: From each state, the states that may follow. The way back to WAITING makes a new attempt.
MOVES: dict[TaskState, frozenset[TaskState]] = {
    TaskState.HELD: frozenset({TaskState.WAITING, TaskState.FINISHED}),
    TaskState.WAITING: frozenset({TaskState.HELD, TaskState.STARTING, TaskState.FINISHED}),
    TaskState.STARTING: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.HOST_LOST, TaskState.FINISHED}),
    TaskState.RUNNING: frozenset({TaskState.SUSPENDED, TaskState.WAITING, TaskState.HOST_LOST, TaskState.FINISHED}),
    TaskState.SUSPENDED: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.HOST_LOST, TaskState.FINISHED}),
    TaskState.HOST_LOST: frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.FINISHED}),
    TaskState.FINISHED: frozenset(),
}


def is_legal_move(before: TaskState, after: TaskState) -> bool:
    """Whether `after` may follow `before`."""
    return after in MOVES[before]


class LinkState(str, Enum):
    """How one user's exec-server on one host stands, seen from hq-server."""

    UNKNOWN = "unknown"  # never asked for
    STARTING = "starting"  # the user-server is starting it
    ALIVE = "alive"
    SUSPECT = "suspect"  # silent: nothing new is placed
    FAILED = "failed"  # could not be started; tried again after a pause


class RunKind(str, Enum):
    """What a report from an exec-server says about a run."""

    STARTED = "started"
    ENDED = "ended"
    NEVER_STARTED = "never_started"  # the exec-server's word that no process was made
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    WAITS = "waits"  # it goes on as it was; why it has not started, or cannot be asked after


class OutputAction(str, Enum):
    """What happens when a stream of a job grows past its limit."""

    TRIM = "trim"  # the middle is punched out, head and tail stay
    STOP = "stop"
    WARN = "warn"
