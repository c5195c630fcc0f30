"""Where hq-server is active: when a user-server gives up one address and tries the next. Pure; moments are CLOCK_BOOTTIME in seconds."""

from __future__ import annotations

#: So long may a connection take; after many rounds in vain longer, for each costs something.
CONNECT = 0.6
CONNECT_LATER = 3.0
EAGER = 20
#: So long may the answer to a hello take on a connection that is up.
ANSWER = 6.0
#: So long may a link that was up be without a connection.
BREAK = 1.5
#: After so many heartbeats of silence another one is looked for.
SILENT_BEATS = 1.5


class Turns:
    """The tries on the present address."""

    def __init__(self, now: float) -> None:
        self._since = now  # when the present state began: no connection, or no answer
        self._is_connected = False
        self._turns = 0

    def is_over(self, now: float, *, is_connected: bool) -> bool:
        """While hq-server has not let us in: whether to try the next address."""
        if is_connected != self._is_connected:
            self._is_connected, self._since = is_connected, now
        patience = ANSWER if is_connected else CONNECT if self._turns < EAGER else CONNECT_LATER
        return now - self._since >= patience

    def is_broken(self, now: float, *, is_connected: bool, heard: float, heartbeat: float) -> bool:
        """While it has: whether to look for another one. `heard`: when it was heard last."""
        if is_connected:
            self._since = now
        if not is_connected and now - self._since >= BREAK:
            return True
        return now - heard >= SILENT_BEATS * heartbeat + 1.0

    def turned(self, now: float) -> None:
        """The next address is dialled."""
        self._since, self._is_connected = now, False
        self._turns += 1

    def welcomed(self, now: float) -> None:
        """hq-server let us in."""
        self._since, self._is_connected, self._turns = now, True, 0
