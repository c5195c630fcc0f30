"""How tasks ended lately, for a hq-server that has not recorded it and whose exec-server has forgotten it: the ledger tells it then.

Of those that ended long ago the ledger knows whether they ended well.
A task that has ended is told with its true outcome and exit code, under the attempt that hq-server asks for; only the moment is that of
the telling. So it is after a restored backup. What nobody knows is told as refused or lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from hq.core.agent_orders import refused_here
from hq.core.ledger import Slot
from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.userserver.doubts import lost_here

if TYPE_CHECKING:
    from hq.userserver.ledger import LedgerFile

#: So many ends are remembered, over a restart, too.
MAX_ENDS = 5_000


class End(NamedTuple):
    """How an attempt ended by itself. Attempt 0: which one it was is not known any more."""

    attempt: int
    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None

    @property
    def words(self) -> str:
        """As it stands in a line of the ledger: outcome and exit code, the signal as a negative number."""
        return f"{self.outcome.value} {-self.signal if self.signal else '' if self.exit_code is None else self.exit_code}".rstrip()


def parse_end(attempt: str, outcome: str, code: str = "") -> End:
    """From the words of a line. Raises ValueError."""
    number = int(code) if code else None
    is_signal = number is not None and number < 0
    return End(int(attempt), Outcome(outcome), None if is_signal else number, -number if number is not None and is_signal else None)


class Ends:
    """The last ones, by task; of a task that ends again the newest."""

    def __init__(self) -> None:
        self._ends: dict[Slot, End] = {}

    def note(self, slot: Slot, end: End) -> None:
        """A task ended."""
        self._ends.pop(slot, None)
        self._ends[slot] = end
        if len(self._ends) > MAX_ENDS:
            del self._ends[next(iter(self._ends))]

    def of(self, slot: Slot) -> End | None:
        """How a task ended."""
        return self._ends.get(slot)

    def items(self) -> Iterable[tuple[Slot, End]]:
        """All, oldest first."""
        return self._ends.items()


def report_of(key: AttemptKey, end: End, at: float) -> RunReport:
    """The end under the attempt that was ordered."""
    reason = "it ended before hq-server could record it, and is told by its user-server's ledger"
    if not end.attempt:
        reason += f": attempt {key.attempt} was not begun" + ("" if end.outcome is Outcome.OK else "; with which exit code it failed is not known any more")
    elif end.attempt != key.attempt:
        reason += f": attempt {end.attempt} ended so, attempt {key.attempt} was not begun"
    return RunReport(job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.ENDED, at=at, outcome=end.outcome, exit_code=end.exit_code,
                     signal=end.signal, reason=reason)  # fmt: skip


def refused_or_ended(ledger: LedgerFile, refused: Mapping[AttemptKey, str], at: float) -> tuple[RunReport, ...]:
    """Reports of attempts that the ledger does not let start: how their tasks ended, if it knows that, else that they never will start."""
    ends = {key: end for key, why in refused.items() if (end := ledger.end_of(key)) is not None and end.attempt <= key.attempt}
    rest = {key: why for key, why in refused.items() if key not in ends}
    return (*(report_of(key, end, at) for key, end in ends.items()), *refused_here(rest, at))


def lost_or_ended(ledger: LedgerFile, host: str, keys: Iterable[AttemptKey], at: float) -> tuple[RunReport, ...]:
    """Reports of attempts that may have begun on a host before it lost its memory: how they ended, if the ledger knows that, else that they are lost."""
    keys = tuple(keys)
    ends = {key: end for key in keys if (end := ledger.end_of(key)) is not None and end.attempt == key.attempt}
    return (*(report_of(key, end, at) for key, end in ends.items()), *lost_here(host, (key for key in keys if key not in ends), at))
