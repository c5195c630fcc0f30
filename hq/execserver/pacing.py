"""What many short runs share, so that none pays for it alone: messages upward, and writes that wait for the disk.

While more orders wait here ahead of their slots than reports are held, nobody above waits for the single report, so reports are held for a moment
and go together: a queue is filled up again before it is half empty.
A run that may not be run twice begins only after a record of that is on the disk; one such write covers those that come next as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hq.core.runner_events import Spawn
from hq.core.runner_run import Run
from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.model.states import RunKind

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer

HOLD = 0.1  # seconds
#: That something has begun may wait so long (seconds) for its end: one commit for both is the sooner end of the two.
HOLD_STARTS = 0.005
MOST = 500  # reports
#: Runs that one write to the disk covers. After a crash of the host it is not known of any of these whether it had begun.
ARM = 64


class HeldReports:
    """Reports that have not left the core's step yet. Not in the journal: it has the statuses that they are made of."""

    def __init__(self) -> None:
        self._held: list[RunReport] = []
        self.due: float | None = None

    def __len__(self) -> int:
        return len(self._held)

    def take(self, reports: Iterable[RunReport], boot: float, may_wait: bool, is_last: bool = False) -> list[RunReport]:
        """Add reports; what is to be sent now, in order. Of a run that has ended meanwhile the end alone, which says when it began."""
        self._held.extend(reports)
        if not self._held:
            return []
        is_short = not may_wait and all(report.kind is RunKind.STARTED for report in self._held)
        if self.due is None or (is_short and self.due > boot + HOLD_STARTS):
            self.due = boot + (HOLD_STARTS if is_short else HOLD)
        if not is_last and (may_wait or is_short) and boot < self.due and len(self._held) < MOST:
            return []
        taken, self._held, self.due = self._held, [], None
        ended = {report.key for report in taken if report.kind is RunKind.ENDED and report.started is not None}
        return [report for report in taken if report.kind is not RunKind.STARTED or report.key not in ended]


class Armed:
    """Runs of which the disk knows that they may have begun."""

    def __init__(self) -> None:
        self._keys: set[AttemptKey] = set()

    def to_arm(self, spawns: Iterable[Spawn], upcoming: Iterable[Run]) -> list[AttemptKey] | None:
        """None: nothing has to be on the disk before these begin. Else what of the `upcoming` to write down as armed with them."""
        if all(spawn.spec.is_rerunnable or spawn.order.key in self._keys for spawn in spawns):
            return None
        more = []
        for run in upcoming:
            if not run.spec.is_rerunnable and run.key not in self._keys:
                more.append(run.key)
            if len(more) >= ARM:
                break
        self._keys.update(more)
        return more

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def forget(self, key: AttemptKey) -> None:
        """The run is over."""
        self._keys.discard(key)


def spool_reports(server: ExecServer, reports: Iterable[RunReport] = (), boot: float = 0.0, *, may_wait: bool = False) -> None:
    """Put reports, with those that were held, into spool and journal, which is to be written before they are sent.

    `may_wait`: they may be held for a moment more; without `boot` none is.
    """
    taken = server.held.take(reports, boot, may_wait, is_last=not boot)
    if taken:
        sequence = server.spool.add(taken)
        server.journal.note(t="batch", sequence=sequence, reports=server.spool.batches[sequence])
