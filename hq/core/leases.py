"""For how long a user's exec-server on a host has not been heard, on the clock of who listens (CLOCK_BOOTTIME), and when that is too long.

Time counts only while the user's user-server is here: what cannot be asked is unknown, not gone. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Beyond the lease, for an exec-server that ends what may run again: to notice, to send TERM, to wait and to send KILL (seconds).
MARGIN = 60.0
#: At most so long has a run between TERM and KILL that is ended because nobody was heard (seconds).
LEASE_GRACE = 30.0


class Leases:
    """Silent links by (user, host), each with the moment since when."""

    def __init__(self) -> None:
        self._silent: dict[tuple[str, str], float] = {}
        self._told: set[tuple[str, str]] = set()

    def look(self, silent: Iterable[tuple[str, str]], boot: float, lease: float) -> list[tuple[str, str, float]]:
        """The links that are not heard now, and have runs. Returns those whose lease has run out, once each, with how long they are silent."""
        before, self._silent = self._silent, {}
        over = []
        for link in silent:
            since = self._silent[link] = before.get(link, boot)
            if boot - since >= lease + MARGIN and link not in self._told:
                over.append((*link, boot - since))
                self._told.add(link)
        self._told &= self._silent.keys()
        return over

    def clear(self) -> None:
        """Nothing is known any more: time counts from now on."""
        self._silent.clear()
        self._told.clear()
