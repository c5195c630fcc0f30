"""What a user-server knows of runs: start orders that wait for a link, and attempts that may be alive on the hosts.

Pure bookkeeping; idempotent by attempt, as everything about runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hq.model.ids import AttemptKey, TaskKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind


class WaitingOrders:
    """Start orders that wait here until the exec-server of their host can be reached, in the order in which they came."""

    def __init__(self) -> None:
        self._hosts: dict[str, dict[AttemptKey, tuple[StartOrder, SignedSpec | None]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._hosts.values()))

    def hosts(self) -> list[str]:
        """Hosts for which something waits."""
        return list(self._hosts)

    def add(self, host: str, specs: Mapping[int, SignedSpec], orders: Iterable[StartOrder]) -> None:
        """Keep orders for `host`. One that waits already stays where it is."""
        waiting = self._hosts.setdefault(host, {})
        for order in orders:
            waiting.setdefault(order.key, (order, specs.get(order.job)))
        if not waiting:
            del self._hosts[host]

    def keys(self, host: str) -> tuple[AttemptKey, ...]:
        """The attempts that wait for `host`."""
        return tuple(self._hosts.get(host, ()))

    def take(self, host: str) -> tuple[dict[int, SignedSpec], tuple[StartOrder, ...]]:
        """Everything that waits for `host`, which is forgotten here."""
        taken = self._hosts.pop(host, {}).values()
        return {order.job: spec for order, spec in taken if spec is not None}, tuple(order for order, _ in taken)

    def remove(self, host: str, runs: Iterable[AttemptKey]) -> list[AttemptKey]:
        """Forget attempts that shall not start. Returns those that waited here: no process was made for them, and none will be."""
        waiting = self._hosts.get(host, {})
        removed = [key for key in runs if waiting.pop(AttemptKey(*key), None) is not None]
        if not waiting:
            self._hosts.pop(host, None)
        return removed


class LiveRuns:
    """Attempts that were sent to a host, or that its roll names, and of which no end was reported."""

    def __init__(self) -> None:
        self._hosts: dict[str, set[AttemptKey]] = {}
        self._latest: dict[TaskKey, tuple[int, str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._hosts.values()))

    def count(self, host: str) -> int:
        """How many attempts may be alive on `host`."""
        return len(self._hosts.get(host, ()))

    def hosts(self) -> list[str]:
        """Hosts with attempts that may be alive."""
        return [host for host, runs in self._hosts.items() if runs]

    def send(self, host: str, orders: Iterable[StartOrder]) -> list[tuple[str, AttemptKey]]:
        """Attempts go to `host`. Returns older attempts of the same tasks, with their hosts, which a newer one has replaced: they must end."""
        replaced = []
        runs = self._hosts.setdefault(host, set())
        for order in orders:
            key = order.key
            before = self._latest.get(key.task)
            if before is not None and before[0] > key.attempt:
                continue
            if before is not None and before[0] < key.attempt:
                older = AttemptKey(key.job, key.index, before[0])
                if older in self._hosts.get(before[1], ()):
                    replaced.append((before[1], older))
            self._latest[key.task] = (key.attempt, host)
            runs.add(key)
        return replaced

    def is_overtaken(self, key: AttemptKey) -> bool:
        """Whether a newer attempt of the task is known."""
        latest = self._latest.get(key.task)
        return latest is not None and latest[0] > key.attempt

    def roll(self, host: str, runs: Iterable[AttemptKey]) -> None:
        """The exec-server on `host` has these and no others."""
        for key in self._hosts.pop(host, set()):
            self._forget(host, key)
        named = self._hosts[host] = {AttemptKey(*key) for key in runs}
        for key in named:
            if not self.is_overtaken(key):
                self._latest[key.task] = (key.attempt, host)

    def report(self, host: str, reports: Iterable[RunReport]) -> list[TaskKey]:
        """Reports passed by. Returns the tasks of those attempts that have ended."""
        ended = []
        runs = self._hosts.setdefault(host, set())
        for report in reports:
            if report.kind in (RunKind.ENDED, RunKind.NEVER_STARTED):
                runs.discard(report.key)
                self._forget(host, report.key)
                ended.append(report.key.task)
            elif report.kind is RunKind.STARTED:
                runs.add(report.key)
        return ended

    def _forget(self, host: str, key: AttemptKey) -> None:
        if self._latest.get(key.task) == (key.attempt, host):
            del self._latest[key.task]


class GivenBack:
    """Attempts of which the user-server itself has reported the end, most as never started: told again for a while, and never started after that.

    hq-server may not have recorded the report and may order the same attempt again; it may also have, and run the next one elsewhere.
    """

    def __init__(self, keep: float) -> None:
        """`keep`: how long they are known, in seconds."""
        self._keep = keep
        self._reports: dict[AttemptKey, tuple[float, str, RunReport]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._reports

    def add(self, host: str, reports: Iterable[RunReport], now: float) -> None:
        """These were reported."""
        for report in reports:
            self._reports.setdefault(report.key, (now, host, report))

    def of(self, keys: Iterable[AttemptKey]) -> tuple[RunReport, ...]:
        """What was reported of these."""
        return tuple(self._reports[key][2] for key in keys)

    def all(self, now: float) -> dict[str, tuple[RunReport, ...]]:
        """What is to be told again, by host; what is too old is forgotten."""
        # they stand in the order of their moments
        for key in list(self._reports):
            if self._reports[key][0] >= now - self._keep:
                break
            del self._reports[key]
        hosts: dict[str, list[RunReport]] = {}
        for _, host, report in self._reports.values():
            hosts.setdefault(host, []).append(report)
        return {host: tuple(reports) for host, reports in hosts.items()}


def never_started(runs: Iterable[AttemptKey], at: float, reason: str) -> tuple[RunReport, ...]:
    """Reports of the user-server itself that no process was made for these attempts, nor will be."""
    return tuple(
        RunReport(job=key[0], index=key[1], attempt=key[2], kind=RunKind.NEVER_STARTED, at=at, reason=reason) for key in runs
    )


def refused_here(refused: Mapping[AttemptKey, str], at: float) -> tuple[RunReport, ...]:
    """Reports of attempts that the user-server's ledger does not let start, here or anywhere, with the reasons."""
    return tuple(
        RunReport(job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.NEVER_STARTED, at=at, outcome=Outcome.REFUSED,
                  reason=f"your user-server's ledger does not let it start: {why}")
        for key, why in refused.items()
    )  # fmt: skip


def stopped_here(runs: Iterable[AttemptKey], at: float, outcome: Outcome, reason: str) -> tuple[RunReport, ...]:
    """Reports for attempts whose run.stop found them still waiting here: never started, with what the stop wanted them to become."""
    return tuple(
        RunReport(job=key[0], index=key[1], attempt=key[2], kind=RunKind.NEVER_STARTED, at=at, outcome=outcome, reason=reason)
        for key in runs
    )
