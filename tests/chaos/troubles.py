"""What was done to the witnesses of runs and to the ways of their reports, and what that explains. Facts of the injector; pure.

Who saw a run: the worker that started it (its parent), after that worker's death its supervisor (the run's parent then). So:

- how a run ended can be *unseen* only if its host lost its power, or if the worker that started it and the supervisor of that worker
  were both killed while it ran or before its end was written down. The death of one of the two explains nothing.
- it can be *silenced* (ended by its exec-server for want of anybody above, to be run elsewhere) only if it may be run again and for
  the lease nobody above was to be heard: its host was cut off, its worker was stopped or dead, or both hq-server and its user's
  user-server were.
- what an exec-server has written down is on its disk; only where the disk went with the reboot is an end unseen until it is recorded.

All moments are on the clock of the ledger (/proc/uptime), in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: By which the moment of a fault and what it hits may be off: a busy machine signals late.
SLACK = 1.0
#: After a trouble somebody above is heard again within this.
DIALLING = 3.0
#: After a trouble everything that waited for its end is told and recorded within this and the half of its length: there are back-offs.
RECOVERY = 6.0
FOR_EVER = float("inf")
#: So long may a report need where nothing is in its way: the machine is busy.
REPORT = 5.0


@dataclass(slots=True)
class Trouble:
    """One fault as it really was. `what`: host, cut, worker, supervisor, user-server, server, database, spool, output.

    `host`, `user`: empty for all. `is_death`: killed, else stopped, cut or full. `is_last`: a worker that was killed when its supervisor was
    dead, so that nobody took over its runs. `is_wiped`: what was on the disk is gone, too. `end` is when it was over or made good.
    """

    what: str
    start: float
    end: float = FOR_EVER
    host: str = ""
    user: str = ""
    is_death: bool = False
    is_last: bool = False
    is_wiped: bool = False

    def hits(self, user: str, host: str) -> bool:
        """Whether this user's runs on this host were concerned."""
        return self.host in ("", host) and self.user in ("", user)


class Troubles:
    """All of a run. `lease`: seconds of silence after which an exec-server ends what may run again."""

    def __init__(self, all: Iterable[Trouble], lease: float) -> None:
        self._all: Sequence[Trouble] = sorted(all, key=lambda each: each.start)
        self._lease = lease

    def is_unseen(self, user: str, host: str, start: float, end: float) -> bool:
        """Whether every witness of a run of these moments was killed before its end was written down."""
        mine = [each for each in self._all if each.hits(user, host) and each.is_death and each.start >= start - SLACK]
        noted = self._past(user, host, end, ("worker", "supervisor", "spool"))
        mine = [each for each in mine if each.start <= noted or (each.is_wiped and each.start <= self._past(user, host, end + REPORT, ()))]
        if any(each.what == "host" for each in mine):
            return True
        workers = [each for each in mine if each.what == "worker"]
        return any(worker.is_last or any(each.what == "supervisor" and each.start >= worker.start for each in mine) for worker in workers)

    def is_silenced(self, user: str, host: str, start: float, end: float) -> bool:
        """Whether for the lease nobody above could be heard there, in a silence that touches these moments."""
        mine = [each for each in self._all if each.hits(user, host)]
        ways = [(each.start, each.end + DIALLING) for each in mine if each.what in ("host", "cut", "worker")]
        servers = [(each.start, each.end + DIALLING) for each in mine if each.what == "server"]
        own = [(each.start, each.end + DIALLING) for each in mine if each.what == "user-server"]
        both = [(max(a, c), min(b, d)) for a, b in _merged(servers) for c, d in _merged(own) if max(a, c) < min(b, d)]
        return any(b - a >= self._lease and a <= end + SLACK and b >= start - SLACK for a, b in _merged(ways + both))

    def is_cut_for_ever(self, host: str, moment: float) -> bool:
        """Whether the host never came back from a cut that had begun by then."""
        return any(each.what == "cut" and each.host == host and each.end == FOR_EVER and each.start <= moment for each in self._all)

    def is_full(self, what: str, user: str, start: float, end: float) -> bool:
        """Whether the user's disk for `what` was full at some moment of these."""
        return any(each.what == what and each.user == user and each.start - SLACK <= end and each.end + SLACK >= start for each in self._all)

    def _past(self, user: str, host: str, moment: float, whats: tuple[str, ...]) -> float:
        """When what happened at `moment` was written down: at once, but for who was stopped or had no room; with no kinds: was recorded above."""
        until = moment + SLACK
        for each in self._all:
            is_in_the_way = each.what in whats and not each.is_death if whats else True
            if each.hits(user, host) and is_in_the_way and each.start <= until:
                until = max(until, self._recovered(each))
        return until

    @staticmethod
    def _recovered(trouble: Trouble) -> float:
        return trouble.end + min(30.0, RECOVERY + (trouble.end - trouble.start) / 2) if trouble.end != FOR_EVER else FOR_EVER


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
