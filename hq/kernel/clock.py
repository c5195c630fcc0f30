"""The two clocks of a daemon, and the one that tests move by hand."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol


class Now(NamedTuple):
    """A moment: `boot` for deadlines and leases (CLOCK_BOOTTIME, seconds, counts through suspend), `wall` for records (Unix time)."""

    boot: float
    wall: float


class Clock(Protocol):
    """Where a daemon gets the time."""

    def now(self) -> Now:
        """This moment."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Now:
        """This moment."""
        return Now(time.clock_gettime(time.CLOCK_BOOTTIME), time.time())


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, boot: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = Now(boot, wall)

    def now(self) -> Now:
        """The moment that was set."""
        return self._now

    def move(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        assert seconds >= 0
        self._now = Now(self._now.boot + seconds, self._now.wall + seconds)
