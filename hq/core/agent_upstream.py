"""The user-server's link to hq-server: when to say hello, when to beat, when it counts as away. And the requests that wait for its answers.

Pure: moments are CLOCK_BOOTTIME in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Generic, TypeVar

from hq.core.agent import SILENT_BEATS, pause_after

FIRST_HELLO_PAUSE = 1.0
LONGEST_HELLO_PAUSE = 30.0

#: How long a request waits for a hq-server that is not there.
PATIENCE = 5.0
#: How long if another one may take its place.
STANDBY_PATIENCE = 20.0
#: How long a request waits for the answer of one that is.
ANSWER_PATIENCE = 120.0


class Phase(Enum):
    """Where the link stands."""

    AWAY = "away"  # a hello is due, or was sent and is not answered
    ENROLLING = "enrolling"  # the key is being proven
    TAKING_OVER = "taking over"  # an earlier user-server of this machine is dead, hq-server does not know it yet
    UP = "up"
    REFUSED = "refused"  # hq-server said no, for good


class Act(Enum):
    """What is to be done now."""

    HELLO = "hello"  # dial anew and say hello
    BEAT = "beat"


class Upstream:
    """The state of the link."""

    def __init__(self, now: float, heartbeat: float = 5.0, *, patience: float = PATIENCE) -> None:
        self.phase = Phase.AWAY
        self.patience = patience  # of requests, while hq-server is not there
        self.heartbeat = heartbeat
        self.since = now  # when the phase was entered
        self.epoch = 0
        self._heard = now
        self._spoke = now
        self._hellos = 0
        self._said = now
        self._next = now

    @property
    def is_up(self) -> bool:
        """Whether hq-server has let us in and is heard."""
        return self.phase is Phase.UP

    def due(self, now: float) -> Act | None:
        """What to do now, at most one thing. Call it again until None."""
        if self.phase is Phase.UP and now - self._heard >= SILENT_BEATS * self.heartbeat:
            self._enter(Phase.AWAY, self._heard)
            self._hellos, self._next = 0, now
        if self.phase in (Phase.AWAY, Phase.TAKING_OVER) and now >= self._next:
            self._hellos += 1
            self._said = now
            longest = LONGEST_HELLO_PAUSE if self.phase is Phase.AWAY else FIRST_HELLO_PAUSE
            self._next = now + pause_after(self._hellos, FIRST_HELLO_PAUSE, longest)
            return Act.HELLO
        if self.phase is Phase.UP and now - self._spoke >= self.heartbeat:
            self._spoke = now
            return Act.BEAT
        return None

    def wake(self) -> float | None:
        """When `due` has something to do."""
        if self.phase in (Phase.AWAY, Phase.TAKING_OVER):
            return self._next
        if self.phase is Phase.UP:
            return min(self._spoke + self.heartbeat, self._heard + SILENT_BEATS * self.heartbeat)
        return None

    def nudge(self, now: float) -> None:
        """Somebody asks for hq-server: do not wait out a long pause (but keep a second between hellos)."""
        if self.phase is Phase.AWAY and self._hellos > 1:
            self._hellos, self._next = 1, min(self._next, max(now, self._said + FIRST_HELLO_PAUSE))

    def welcomed(self, now: float, heartbeat: float, epoch: int) -> None:
        """hq-server let us in."""
        self.heartbeat, self.epoch, self._heard, self._spoke, self._hellos = heartbeat, epoch, now, now, 0
        self._enter(Phase.UP, now)

    def heard(self, now: float) -> None:
        """Anything arrived."""
        self._heard = now

    @property
    def last_heard(self) -> float:
        """When anything arrived last."""
        return self._heard

    def enrolling(self, now: float) -> None:
        """hq-server does not know the key; it is being proven."""
        self._enter(Phase.ENROLLING, now)

    def enrolled(self, now: float) -> None:
        """The key is known now: say hello again at once."""
        self._enter(Phase.AWAY, now)
        self._hellos, self._next = 0, now

    def put_off(self, now: float, pause: float) -> None:
        """hq-server said no for now: say hello again after a pause (seconds)."""
        self._enter(Phase.AWAY, now)
        self._hellos, self._next = max(self._hellos, 2), now + pause

    def taking_over(self, now: float) -> None:
        """hq-server still counts on an earlier user-server that cannot be any more: try again every second."""
        self._enter(Phase.TAKING_OVER, now)
        self._next = now + FIRST_HELLO_PAUSE

    def lost(self, now: float) -> None:
        """hq-server said goodbye."""
        if self.phase is Phase.UP:
            self._enter(Phase.AWAY, now)
            self._hellos, self._next = 1, now + FIRST_HELLO_PAUSE

    def refused(self, now: float) -> None:
        """hq-server said no for good."""
        self._enter(Phase.REFUSED, now)

    def _enter(self, phase: Phase, since: float) -> None:
        if phase is not self.phase:
            self.phase, self.since = phase, since


T = TypeVar("T")


@dataclass(slots=True)
class Pending(Generic[T]):
    """A request that is not answered yet. `content` is the caller's; `is_stream`: several answers come."""

    id: int
    content: T
    asked: float
    is_stream: bool = False
    is_repeatable: bool = True


class Requests(Generic[T]):
    """Requests by their number."""

    def __init__(self) -> None:
        self._last = 0
        self._pending: dict[int, Pending[T]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, content: T, now: float, *, is_stream: bool = False, is_repeatable: bool = True) -> Pending[T]:
        """A new request. `now`: infinite if it waits for ever."""
        self._last += 1
        pending = Pending(self._last, content, now, is_stream, is_repeatable)
        self._pending[pending.id] = pending
        return pending

    def answered(self, re: int, *, is_last: bool = True) -> Pending[T] | None:
        """The request that an answer belongs to; None if nobody waits for it any more. A stream stays until its last answer."""
        pending = self._pending.get(re)
        if pending is not None and (is_last or not pending.is_stream):
            del self._pending[re]
        return pending

    def drop(self, id: int) -> None:
        """Nobody waits any more."""
        self._pending.pop(id, None)

    def all(self) -> list[Pending[T]]:
        """Everything that waits, oldest first."""
        return list(self._pending.values())

    def take_overdue(self, now: float, upstream: Upstream) -> list[Pending[T]]:
        """Requests that have waited too long, which are forgotten here."""
        overdue = []
        for deadline, pending in self._deadlines(upstream):
            if now < deadline:
                break
            overdue.append(pending)
        for pending in overdue:
            del self._pending[pending.id]
        return overdue

    def wake(self, upstream: Upstream) -> float | None:
        """When the first request will have waited too long."""
        return next((deadline for deadline, _ in self._deadlines(upstream)), None)

    def _deadlines(self, upstream: Upstream) -> Iterator[tuple[float, Pending[T]]]:
        """When each will have waited too long, but for those that may wait for ever. In order: who asked later waits until later."""
        for pending in self._pending.values():
            deadline = self._deadline(pending, upstream)
            if deadline < inf:
                yield deadline, pending

    def _deadline(self, pending: Pending[T], upstream: Upstream) -> float:
        if upstream.phase is Phase.REFUSED:
            return pending.asked
        if upstream.is_up:
            return inf if pending.is_stream else pending.asked + ANSWER_PATIENCE
        patience = upstream.patience if upstream.phase is Phase.AWAY else 6 * upstream.patience
        return max(pending.asked, upstream.since) + patience


class IdleRule:
    """Whether a user-server has had nothing to do for long enough to stop. `after` in seconds; None: never."""

    def __init__(self, after: float | None, now: float) -> None:
        self.after = after
        self._busy = now

    def busy(self, now: float) -> None:
        """Something is to be done: a client, a watch, a live run, a waiting job."""
        self._busy = now

    def is_over(self, now: float) -> bool:
        """Whether it may stop, as far as is known here."""
        return self.after is not None and now - self._busy >= self.after

    def wake(self) -> float | None:
        """When it might be over."""
        return None if self.after is None else self._busy + self.after
