"""What travels between hq-server, a user-server and an exec-server about runs."""

from __future__ import annotations

from dataclasses import dataclass

from hq.model.ids import AttemptKey
from hq.model.states import Outcome, RunKind


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Start one attempt. `slots` are the indices of the slots given to it on the host."""

    job: int
    index: int
    attempt: int
    slots: tuple[int, ...]

    @property
    def key(self) -> AttemptKey:
        """The attempt's name."""
        return AttemptKey(self.job, self.index, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """The exec-server's word about one attempt. Moments are ITS clock; `sent` on the message lets them be moved.

    For ENDED: `outcome` is OK, FAILED, TIMEOUT, MEMORY or CANCELLED; LOST where the truth cannot be known, with the reason.
    """

    job: int
    index: int
    attempt: int
    kind: RunKind
    at: float
    pid: int | None = None
    started: float | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    max_rss: int | None = None
    cpu: float | None = None
    reason: str = ""

    @property
    def key(self) -> AttemptKey:
        """The attempt's name."""
        return AttemptKey(self.job, self.index, self.attempt)
