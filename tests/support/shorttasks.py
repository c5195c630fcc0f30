"""Exec-servers of many users on one host, without processes: short tasks, queued ahead, each the heir of the one that ended before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hq.core.events import JobsSubmitted, LinkChanged, RunsReported
from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.model.states import LinkState, Outcome, RunKind
from tests.support.coreworld import World, host, submission

#: Seconds between two looks at what has ended, reports and orders on the way included.
TICK = 0.02


class ShortTasks:
    """A host of so many slots; each task takes `seconds` (of `TICK` or less). `ends`: whose tasks have ended, in order."""

    def __init__(self, users: Sequence[str], slots: int = 2, seconds: float = TICK) -> None:
        self.world = World([host("n1", slots)], users)
        self.users = users
        self.ends: list[str] = []
        self._per_tick = round(TICK / seconds)
        self._seconds = seconds
        self._running: dict[AttemptKey, str] = {}
        self._queues: dict[str, deque[AttemptKey]] = {user: deque() for user in users}
        self._submitted = 0
        self.world.step(*(LinkChanged(user=user, host="n1", state=LinkState.ALIVE) for user in users))

    def submit(self, user: str, tasks: int) -> None:
        """An array for a user."""
        self._submitted += 1
        self.world.step(JobsSubmitted(token=None, user=user, jobs=(submission(user, f"k{self._submitted}", indices=f"1-{tasks}"),)))
        self._take_orders()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / TICK)):
            self._tick()

    def run_out(self) -> None:
        """Until all have ended."""
        while self._running:
            self._tick()

    def _tick(self) -> None:
        now = self.world.now + TICK
        reports: dict[str, list[RunReport]] = {}
        for key, user in list(self._running.items()):
            del self._running[key]
            for number in range(self._per_tick):
                queue = self._queues[user]
                heir = queue.popleft() if queue else None
                at = self.world.now + (number + 1) * self._seconds
                reports.setdefault(user, []).append(RunReport(
                    job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.ENDED, at=at, started=at - self._seconds,
                    outcome=Outcome.OK, exit_code=0, heir=heir))  # fmt: skip
                self.ends.append(user)
                if heir is None:
                    break
                key = heir
            else:
                self._running[key] = user
        self.world.step(*(RunsReported(user=user, host="n1", reports=tuple(some)) for user, some in reports.items()), after=now - self.world.now)
        self._take_orders()

    def _take_orders(self) -> None:
        assert not self.world.stops, "nothing is asked back here"
        for _, order in self.world.starts:
            user = self.world.cluster.jobs[order.job].record.user
            if order.is_ahead:
                self._queues[user].append(order.key)
            elif order.key not in self._running:
                if order.key in self._queues[user]:
                    self._queues[user].remove(order.key)
                self._running[order.key] = user
