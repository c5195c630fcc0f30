"""What waits at a batch system comes back when a host of the cluster's own has room for it: a job starts wherever it would start first.

Only what its owner did not send there, what is not held there, and what has waited there for a while: a batch system with free nodes
needs some seconds to start a job, too. It is asked back as what is queued ahead is (`ahead.give_back`): if it has begun meanwhile, it goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hq.core import ahead
from hq.core.placement import Seat
from hq.model.batch import BATCH_BACKENDS
from hq.model.states import TaskState

if TYPE_CHECKING:
    from hq.core.state import State

#: So long a task waits at a batch system before it is asked back (seconds).
PATIENCE = 30.0
#: Looked at so often (seconds).
EVERY = 5.0


class Rerouting:
    """When it was looked at, and when it will be again."""

    def __init__(self) -> None:
        self._next = 0.0
        self._again: float | None = None

    def let_time_pass(self, state: State) -> float | None:
        """Ask back what could start here. Returns when to look again (Unix time), None: at no moment that is known."""
        if state.now < self._next:
            return self._again
        self._again = self._look(state) if state.is_active else None
        return self._again

    def _look(self, state: State) -> float | None:
        seats = [Seat(host, state.now) for host in state.roomy.values() if host.spec.backend not in BATCH_BACKENDS and host.closed() is None]
        if not seats:
            return None
        self._next = state.now + EVERY
        is_waiting = False
        for host in state.hosts.values():
            if host.spec.backend not in BATCH_BACKENDS:
                continue
            for key in list(host.tasks):
                task = state.jobs[key.job].tasks[key.index]
                if task.state is not TaskState.STARTING or task.outcome is not None or task.is_held or task.native_since is None:
                    continue
                is_waiting = True
                if task.since + PATIENCE > state.now:
                    continue
                shape, bad = state.jobs[key.job].shape, frozenset(state.bad.get(task.user, ()))
                seat = next((seat for seat in seats if seat.room >= shape.slots and seat.suits(shape, bad)), None)
                if seat is not None:
                    seat.take(shape)
                    ahead.give_back(state, task)
        return self._next if is_waiting else None
