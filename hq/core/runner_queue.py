"""The orders of an exec-server that have not begun: those that may begin when slots are free, and those that came ahead of their slots.

An order that came ahead begins only with the slots of a run of the same demands that has ended here, or when it is ordered again with
slots of its own: hq-server may have promised every other slot of the host to somebody else.
"""

from __future__ import annotations

from collections.abc import Iterator

from hq.core.runner_run import Demands, Phase, Run
from hq.model.ids import AttemptKey
from hq.model.runs import StartOrder


class RunQueue:
    """Both, in the order in which they came."""

    def __init__(self) -> None:
        self._ready: dict[AttemptKey, Run] = {}
        self._ahead: dict[Demands, dict[AttemptKey, Run]] = {}

    def __iter__(self) -> Iterator[AttemptKey]:
        return iter(self._ready)

    @property
    def ahead(self) -> int:
        """How many wait for the slots of another."""
        return sum(map(len, self._ahead.values()))

    def upcoming(self) -> Iterator[Run]:
        """All that waits, roughly in order."""
        yield from self._ready.values()
        for ahead in self._ahead.values():
            yield from ahead.values()

    def add(self, run: Run) -> None:
        """A run has all that it needs but slots."""
        if run.order.is_ahead:
            self._ahead.setdefault(run.demands, {})[run.key] = run
        else:
            self._ready[run.key] = run

    def discard(self, run: Run) -> None:
        """A run waits no more."""
        if run.key in self._ready:
            del self._ready[run.key]
            return
        ahead = self._ahead.get(run.demands)
        if ahead is not None and run.key in ahead:
            del ahead[run.key]
            if not ahead:
                del self._ahead[run.demands]

    def grant(self, run: Run, order: StartOrder) -> None:
        """hq-server has slots for a run that came ahead."""
        if run.order.is_ahead and not run.is_live:
            self.discard(run)
            run.order = order
            if run.phase is Phase.QUEUED:
                self.add(run)

    def followers(self, demands: Demands) -> Iterator[Run]:
        """Those that came ahead with these demands, in order, if nothing that has slots already waits to begin. Not over a change of the queue."""
        return iter(()) if self._ready else iter(self._ahead.get(demands, {}).values())

    def inherit(self, ended: Run, heir: AttemptKey | None = None) -> AttemptKey | None:
        """The slots of a run that has ended go to the first that came ahead with the same demands; its name. `heir`: they went there already."""
        if heir is not None:
            self.grant(self._ahead[ended.demands][heir], StartOrder(*heir, ended.order.slots))
            return heir
        for key, run in self._ahead.get(ended.demands, {}).items():
            # the older attempt may be what is ending
            if key[:2] != ended.key[:2] and run.due is None:
                self.grant(run, StartOrder(*key, ended.order.slots))
                return key
        return None
