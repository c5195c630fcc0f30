"""Reports that hq-server has not yet recorded, in numbered batches. Pure; `hq.execserver.journal` keeps it over a crash."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.model.states import RunKind


class Spool:
    """Batches of reports by rising sequence. A batch leaves it only when the server has committed it."""

    def __init__(self, last: int) -> None:
        """`last`: the highest sequence that was ever used on this host; a new spool begins with the time in milliseconds."""
        self.last = last
        self.batches: dict[int, tuple[RunReport, ...]] = {}

    def add(self, reports: Sequence[RunReport]) -> int:
        """Take in one batch; returns its sequence."""
        self.last += 1
        self.batches[self.last] = merged(reports)
        return self.last

    def restore(self, sequence: int, reports: tuple[RunReport, ...]) -> None:
        """Put back a batch from before a restart."""
        self.batches[sequence] = reports
        self.last = max(self.last, sequence)

    def recorded(self, sequence: int) -> bool:
        """Forget all batches up to `sequence`; whether there were any. A sequence that was never used is nonsense and changes nothing."""
        if sequence > self.last:
            return False
        gone = [each for each in self.batches if each <= sequence]
        for each in gone:
            del self.batches[each]
        return bool(gone)

    def attempts(self) -> Iterable[AttemptKey]:
        """Attempts that ended (or never began) and are not yet recorded."""
        for reports in self.batches.values():
            for report in reports:
                if report.kind in (RunKind.ENDED, RunKind.NEVER_STARTED):
                    yield report.key


def merged(reports: Sequence[RunReport]) -> tuple[RunReport, ...]:
    """The reports without those that a later one of the same batch makes superfluous: STARTED before ENDED says nothing more."""
    ended = {report.key for report in reports if report.kind is RunKind.ENDED}
    return tuple(report for report in reports if report.kind is RunKind.ENDED or report.key not in ended)
