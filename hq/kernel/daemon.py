"""What every daemon is to the loop that drives it, and how it runs things that block.

The loop (`hq.kernel.loop`) waits for sockets, signals, finished background work or the next deadline, then calls `tick`.
Tests call `tick` themselves, on the bus in memory and a clock that they move.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from hq.kernel.clock import Now


class Daemon(Protocol):
    """A daemon: everything happens in `tick`, in one thread."""

    def tick(self, now: Now) -> float | None:
        """Take all that has arrived, act on it, and return when to be called at the latest (CLOCK_BOOTTIME), None: no deadline."""
        ...

    def stop(self, now: Now) -> None:
        """Say goodbye and let go of everything, in good order."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether the daemon has nothing more to do and the loop should end."""
        ...


class Done(NamedTuple):
    """The outcome of background work: what it was called, and its value or its exception."""

    token: Any
    value: Any
    error: BaseException | None


class Background(Protocol):
    """Runs blocking calls beside the loop. Outcomes come back by `finished`, in the daemon's own thread."""

    def run(self, token: Any, function: Callable[[], Any]) -> None:
        """Start a call. The loop wakes when it has ended."""
        ...

    def finished(self) -> list[Done]:
        """Calls that have ended since the last time."""
        ...


class InlineBackground:
    """For tests: runs the call at once, in the caller's thread."""

    def __init__(self) -> None:
        self._done: list[Done] = []

    def run(self, token: Any, function: Callable[[], Any]) -> None:
        """As Background.run."""
        try:
            self._done.append(Done(token, function(), None))
        except Exception as error:  # noqa: BLE001 - handed to the daemon as an outcome
            self._done.append(Done(token, None, error))

    def finished(self) -> list[Done]:
        """As Background.finished."""
        done, self._done = self._done, []
        return done
