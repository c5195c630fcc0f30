"""The rows of the bench that need the core of hq-server alone, without database and network: CPU time, for it is one thread."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable

from hq.core.cluster import Cluster
from hq.core.events import ClusterSwitched, JobsSubmitted, RunsReported, StartRuns, Submission, UserServerCame
from hq.model.host import HostRecord, HostSpec
from hq.model.job import JobRecord, JobSpec, SignedSpec, Wishes
from hq.model.runs import RunReport
from hq.model.snapshot import Snapshot
from hq.model.states import Outcome, RunKind
from hq.model.user import UserRecord
from tests.bench.lines import Line

USERS = [f"u{number:03}" for number in range(100)]


def _hosts(count: int, slots: int) -> list[HostRecord]:
    return [HostRecord(spec=HostSpec(name=f"n{number}", address=f"n{number}", total=slots, slots=slots)) for number in range(count)]


def _spec(user: str, key: str, indices: str = "") -> JobSpec:
    return JobSpec(instance="bench", user=user, key=key, name="", argv=(b"true",), indices=indices)


def _submit(cluster: Cluster, user: str, specs: list[JobSpec]) -> None:
    jobs = tuple(Submission(spec.key, spec, SignedSpec(b"", b""), Wishes()) for spec in specs)
    cluster.step([JobsSubmitted(token=None, user=user, jobs=jobs)], 1.0)


def big(repeats: int, count: int) -> list[Line]:
    """A million waiting tasks: 1,000 arrays of 500 and 500,000 separate jobs of 100 users (a hundredth each with a small count)."""
    share = 1 if count >= 10_000 else 10
    arrays, separate, hosts = 1000 // share, 500_000 // share, 10_000 // share
    cluster = Cluster("bench", Snapshot(users=[UserRecord(name=name) for name in USERS], hosts=_hosts(hosts, 64)), 0.0)
    cluster.step([ClusterSwitched(token=None, actor="bench", is_active=False)], 1.0)
    each = 0.0
    for number, user in enumerate(USERS):
        # the first users' are weighed, the rest would take long
        if number == 10:
            each = tracemalloc.get_traced_memory()[0] / (separate // 10)
            tracemalloc.stop()
        elif not number:
            tracemalloc.start()
        for first in range(0, separate // len(USERS), 1000):
            _submit(cluster, user, [_spec(user, f"s{number}-{first + each}") for each in range(min(1000, separate // len(USERS) - first))])
    for number in range(arrays):
        user = USERS[number % len(USERS)]
        _submit(cluster, user, [_spec(user, f"a{number}", "1-500")])
    cluster.step([UserServerCame(user=user) for user in USERS], 2.0)
    begin = time.process_time()
    step = cluster.step([ClusterSwitched(token=None, actor="bench", is_active=True)], 3.0)
    took = time.process_time() - begin
    starts = [action for action in step.actions if isinstance(action, StartRuns)]
    placed = sum(len(action.orders) for action in starts)
    ticks = []
    for start in starts[:20]:
        order = start.orders[0]
        report = RunReport(job=order.job, index=order.index, attempt=1, kind=RunKind.ENDED, at=4.0, outcome=Outcome.OK, exit_code=0)
        begin = time.process_time()
        cluster.step([RunsReported(user=start.user, host=start.host, reports=(report,))], 4.0)
        ticks.append(1000 * (time.process_time() - begin))
    tick = statistics.median(ticks)
    return [
        Line("big queue", f"{placed:,} placements, {arrays * 500 + separate:,} tasks waiting", placed / took, "/s", "≥ 20,000/s", placed / took >= 20_000),
        Line("big queue", "a step with one end and one placement", tick, "ms", "≤ 5 ms", tick <= 5),
        Line("big queue", "a separate waiting job", each, "bytes", "≤ 1,000 bytes", each <= 1000),
    ]


def restart(repeats: int, count: int) -> list[Line]:
    """The core from a snapshot of 100,000 separate waiting jobs (a tenth with a small count); reading the database comes on top."""
    jobs = 100_000 if count >= 10_000 else 10_000
    took = []
    for _ in range(repeats):
        records = [
            JobRecord(id=number, user=USERS[number % 100], spec=_spec(USERS[number % 100], f"k{number}"), signed=SignedSpec(b"", b""),
                      wishes=Wishes(), submitted=1.0)
            for number in range(1, jobs + 1)
        ]  # fmt: skip
        snapshot = Snapshot(users=[UserRecord(name=name) for name in USERS], hosts=_hosts(1000, 64), jobs=records, last_job=jobs)
        begin = time.process_time()
        cluster = Cluster("bench", snapshot, 2.0)
        step = cluster.step([UserServerCame(user=user) for user in USERS], 3.0)
        took.append(time.process_time() - begin)
        assert step.actions
    middle = statistics.median(took)
    return [Line("restart", f"core and first plan with {jobs:,} jobs, database apart", middle, "s", "≤ 10 s with the database")]


CORE_ROWS: dict[str, Callable[[int, int], list[Line]]] = {"big": big, "restart": restart}
