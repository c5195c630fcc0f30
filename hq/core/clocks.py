"""How far the clock of another machine is behind ours, from the moments at which it says that it sent its messages.

A message takes its time, so each shows a difference that is too large by that: the smallest of the latest ones is nearest to the truth.
One that lay somewhere for an hour changes nothing; a clock that was set is believed once the older messages are past. Pure.
"""

from __future__ import annotations

from collections import deque

#: So many of the latest differences count.
LATEST = 16
#: Clocks that are remembered.
MAX_CLOCKS = 20_000


class Clocks:
    """The differences by name of the clock: ours minus theirs, in seconds."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], deque[float]] = {}

    def difference(self, clock: tuple[str, str], seen: float) -> float:
        """A message showed a difference. Returns the best guess at the true one, never more than `seen`."""
        latest = self._seen.get(clock)
        if latest is None:
            if len(self._seen) >= MAX_CLOCKS:
                del self._seen[next(iter(self._seen))]
            latest = self._seen[clock] = deque(maxlen=LATEST)
        latest.append(seen)
        return min(latest)
