"""Which hq-server of an instance is the active one, as each of them knows it: the one that has the seat, and those that wait for it.

The seat is a row in the state database with an epoch and a counter. Who has it raises the counter again and again; who waits takes the
seat when the counter has stood still for the patience that stands in the row. Each counts on its own CLOCK_BOOTTIME: no two clocks are
ever compared, neither of hosts nor of the database. Pure; what asks the database is `hq.db.seat`.
"""

from __future__ import annotations

from enum import Enum

#: The counter is raised so often in the time of the patience.
BEATS = 5.0
#: Who waits looks so often in that time.
LOOKS = 10.0


class Hold(Enum):
    """How sure the active hq-server is of its seat."""

    SURE = "sure"  # nobody else can have it
    DOUBTFUL = "doubtful"  # somebody else may have it: nothing is heard, nothing is said
    ASTRAY = "astray"  # that has lasted: whoever asks is sent to the other one
    LOST = "lost"  # somebody else has it


class Seat:
    """What the active hq-server knows. A beat counts from the moment before it was sent, so that it never believes for longer than others wait."""

    def __init__(self, seconds: float, asked: float) -> None:
        self.seconds = seconds
        self.lost_to = ""  # who has it now; empty: nobody that we know of
        self._until = asked + seconds
        self._failed = asked  # when the latest beat that did not reach the database was sent
        self._has_rival = False

    def beaten(self, asked: float, has_rival: bool) -> None:
        """A beat is in the database. `has_rival`: somebody waits for the seat."""
        self._until, self._has_rival = max(self._until, asked + self.seconds), has_rival

    def failed(self, asked: float) -> None:
        """A beat did not reach the database."""
        self._failed = max(self._failed, asked)

    def lost(self, to: str) -> None:
        """The database says that another one has the seat."""
        self.lost_to = to or "another hq-server"

    def hold(self, boot: float) -> Hold:
        """How sure it is at this moment (CLOCK_BOOTTIME)."""
        if self.lost_to:
            return Hold.LOST
        if boot < self._until:
            return Hold.SURE
        if self._failed < self._until:
            return Hold.DOUBTFUL  # it slept, or the database is slow: a beat that is sent now will tell
        if not self._has_rival:
            return Hold.SURE  # the database is away, and nobody was there to take the seat when it went
        return Hold.DOUBTFUL if boot < self._until + self.seconds else Hold.ASTRAY


class Vigil:
    """What one that waits for the seat has seen of it."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since = 0.0

    def saw(self, epoch: int, beat: int, asked: float, answered: float) -> float:
        """The row as it was read between two moments. Returns for how many seconds it has stood still under our eyes at least."""
        if self._seen != (epoch, beat):
            self._seen, self._since = (epoch, beat), answered
        return max(0.0, asked - self._since)

    def blind(self) -> None:
        """The row could not be read: neither could it be raised, perhaps. Time counts anew."""
        self._seen = None
