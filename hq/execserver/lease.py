"""For how long nobody above has been heard, and what ends for that: runs that may be run again, for they will be, elsewhere.

Counted on this machine's CLOCK_BOOTTIME alone. The moment is kept in a file, so that a worker that is started anew counts on. A goodbye
is an answer: after one the lease does not run, for nobody marks anything lost of a user whose user-server is away.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from hq.core.runner_events import Event, SlotsSet, StopAsked
from hq.kernel.clock import Now
from hq.model.quantities import format_seconds
from hq.model.states import Outcome

if TYPE_CHECKING:
    from hq.core.runner_run import Run
    from hq.execserver.app import ExecServer

#: How often the moment is written down (seconds).
WRITE_EVERY = 5.0
LONGEST_LEASE = 366 * 86400.0


def end_of_lease(server: ExecServer, now: Now) -> list[Event]:
    """What ends for want of anybody above, written down."""
    events = server.lease.events(server.runner.runs.values(), now)
    for event in events:
        if isinstance(event, StopAsked):
            server.journal.note(t="stop", key=event.key, outcome=event.outcome, reason=event.reason)
    return events


class Lease:
    """One lease for all upstreams: whoever answers holds it."""

    def __init__(self, path: str, boot_id: str, now: Now, warn: Callable[[str], None]) -> None:
        self.seconds = 0.0  # 0: none was ever given
        self._path = path
        self._boot_id = boot_id
        self._warn = warn
        self._heard = now.boot
        self._written = 0.0
        self._runs = True  # not after a goodbye
        self._is_over = False
        self._read(now)

    def heard(self, now: Now, *, is_second: bool = False) -> None:
        """Somebody above said something. `is_second`: it was hq-server, which does not take the user-server's goodbye back."""
        self._heard, self._is_over, self._runs = now.boot, False, self._runs or not is_second
        if now.boot - self._written >= WRITE_EVERY:
            self._write(now)

    def given(self, seconds: float, now: Now) -> None:
        """A welcome told the lease."""
        if 0 < seconds < LONGEST_LEASE and seconds != self.seconds:
            self.seconds = seconds
            self._write(now)

    def suspended(self, now: Now) -> None:
        """The other end said goodbye."""
        self._runs = False
        self._write(now)

    def events(self, runs: Iterable[Run], now: Now) -> list[Event]:
        """What ends now, once in a silence; and nothing new begins until somebody is heard."""
        if not self.seconds or not self._runs or self._is_over or now.boot - self._heard < self.seconds:
            return []
        self._is_over = True
        reason = f"ended here, for nobody above was heard for {format_seconds(now.boot - self._heard)}, so that it can run elsewhere"
        events: list[Event] = [SlotsSet(0)]
        events.extend(StopAsked(run.key, Outcome.LOST, reason) for run in runs if run.spec.is_rerunnable)
        self._warn(f"nobody above was heard for {now.boot - self._heard:.0f} s: {len(events) - 1} runs that may be run again are ended")
        return events

    def wake(self) -> float | None:
        """When `events` may have something (CLOCK_BOOTTIME)."""
        return None if not self.seconds or not self._runs or self._is_over else self._heard + self.seconds

    def _read(self, now: Now) -> None:
        try:
            with open(self._path, encoding="ascii") as file:
                boot_id, heard, seconds, runs = file.read().split()
            if boot_id == self._boot_id:
                self._heard, self.seconds, self._runs = min(float(heard), now.boot), float(seconds), runs == "1"
        except (OSError, ValueError):
            pass  # the lease begins now

    def _write(self, now: Now) -> None:
        self._written = now.boot
        try:
            with open(self._path + ".new", "w", encoding="ascii") as file:
                file.write(f"{self._boot_id} {self._heard:.3f} {self.seconds:g} {int(self._runs)}\n")
            os.replace(self._path + ".new", self._path)
        except OSError:
            pass  # it is only asked for after a crash
