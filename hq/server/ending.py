"""How hq-server ends: after its goodbyes and the commit that is under way, but not after one that the database will not take.

Moments are CLOCK_BOOTTIME. Who is told what is the daemon's business.
"""

from __future__ import annotations

from collections.abc import Callable

#: Seconds that an administrator's order to stop waits for its own record, and a stop for a commit that is under way.
ORDER_PATIENCE = 4.0
STOP_PATIENCE = 10.0
#: And for one that the database is known not to take at the moment.
TROUBLE_PATIENCE = 2.0
#: Seconds between the last words and the end: a socket that is closed at once may lose them.
STOP_PAUSE = 0.2


class Ending:
    """Nothing of it is durable: who dies in between is started again."""

    def __init__(self) -> None:
        self.is_begun = False
        self.is_over = False
        self._from = self._by = 0.0
        self._order: tuple[float, Callable[[], None]] | None = None

    def order(self, now: float, give_up: Callable[[], None]) -> None:
        """A stop is ordered and is being recorded. `give_up` is called if that takes too long."""
        if self._order is None and not self.is_begun:
            self._order = (now + ORDER_PATIENCE, give_up)

    def begin(self, now: float, patience: float = STOP_PATIENCE) -> bool:
        """From now on it ends, at the latest after `patience`. False: it was ending already."""
        if self.is_begun:
            return False
        self.is_begun, self._order = True, None
        self._from, self._by = now + STOP_PAUSE, now + max(STOP_PAUSE, patience)
        return True

    def look(self, now: float, *, is_committing: bool) -> None:
        """Give up waiting where it is time for that, and say whether it is over."""
        if self._order is not None and now >= self._order[0]:
            _, give_up = self._order
            self._order = None
            give_up()
        if self.is_begun and ((not is_committing and now >= self._from) or now >= self._by):
            self.is_over = True

    def wake(self, *, is_committing: bool) -> float | None:
        """When to look again."""
        if self.is_begun:
            return self._by if is_committing else self._from
        return self._order[0] if self._order is not None else None
