"""What the user-server itself reports of attempts: orders that cannot be delivered, starts that its ledger does not permit, ends that are forgotten elsewhere.

Such a report has sequence 0 and stands in no spool: it is told again after each welcome for a while, which the fence of the attempt makes harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hq.core.agent_orders import GivenBack, LiveRuns, never_started
from hq.kernel.clock import Now
from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.protocol.runs import RunReported
from hq.userserver.doubts import Doubts
from hq.userserver.ends import lost_or_ended, refused_or_ended
from hq.userserver.ledger import LedgerFile

#: Own reports are told again after a welcome for so long (seconds).
RETELL = 600.0


class OwnReports:
    """`now` is set at each tick."""

    def __init__(self, ledger: LedgerFile, live: LiveRuns, doubts: Doubts, tell: Callable[[RunReported], object]) -> None:
        self.now = Now(0.0, 0.0)
        self._ledger = ledger
        self._live = live
        self._doubts = doubts
        self._tell = tell
        self._told = GivenBack(RETELL)

    def __contains__(self, key: object) -> bool:
        return key in self._told

    def tell(self, host: str, reports: tuple[RunReport, ...]) -> None:
        """Report these."""
        if reports:
            self._ledger.reported(reports, host)
            self._live.report(host, reports)
            self._told.add(host, reports, self.now.boot)
            self._send(host, reports)

    def never(self, host: str, keys: Iterable[AttemptKey], reason: str) -> None:
        """No process was made for these, nor will be; but of those that their exec-server may have only that can speak."""
        keys = [key for key in keys if not self._doubts.may_be_there(host, key)]
        self.tell(host, never_started(keys, self.now.wall, reason))

    def refused(self, host: str, refused: Mapping[AttemptKey, str]) -> None:
        """The ledger does not let these start."""
        self.tell(host, refused_or_ended(self._ledger, refused, self.now.wall))

    def lost(self, host: str, keys: Iterable[AttemptKey]) -> None:
        """These may have begun on the host before it lost its memory."""
        self.tell(host, lost_or_ended(self._ledger, host, keys, self.now.wall))

    def again(self, host: str, keys: Iterable[AttemptKey]) -> None:
        """Tell once more what was told of these."""
        self._send(host, self._told.of(keys))

    def retell(self) -> None:
        """hq-server is back, and may have lost what was told."""
        for host, reports in self._told.all(self.now.boot).items():
            self._send(host, reports)

    def _send(self, host: str, reports: tuple[RunReport, ...]) -> None:
        self._tell(RunReported(host=host, sequence=0, sent=self.now.wall, reports=reports))
