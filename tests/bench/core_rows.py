"""The rows of the bench that need the core of hq-server alone, without network and, but for `restart`, without database. CPU time, for it is one thread."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import TemporaryDirectory

from hq.core.cluster import Cluster
from hq.core.events import ClusterSwitched, JobsSubmitted, RunsReported, StartRuns, Submission, UserServerCame
from hq.db.engine import create_tables, open_engine
from hq.db.store import Store
from hq.model.changes import Changes
from hq.model.host import HostRecord, HostSpec
from hq.model.ids import PLAIN
from hq.model.job import JobRecord, JobSpec, SignedSpec, TaskRecord, Wishes
from hq.model.runs import RunReport
from hq.model.snapshot import Snapshot
from hq.model.states import Outcome, RunKind, TaskState
from hq.model.user import UserRecord
from hq.protocol.specs import encode_spec
from tests.bench.lines import Line
from tests.support.mariadb import MariaDB

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
    """hq-server's way from the database to its first orders: 100,000 separate waiting jobs (a tenth with a small count), 1,000 running."""
    jobs, running = (100_000 if count >= 10_000 else 10_000), 1000
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="hq-bench-"))
        maria = MariaDB(is_fast=False)
        stack.callback(maria.remove)
        maria.start()
        maria.execute("create database bench character set utf8mb4")
        return [_restart(name, url, jobs, running, repeats) for name, url in (("SQLite", f"sqlite:///{folder}/state.db"), ("MariaDB", maria.url("bench")))]


def _restart(name: str, url: str, jobs: int, running: int, repeats: int) -> Line:
    engine = open_engine(url)
    create_tables(engine)
    hosts = _hosts(1000, 64)
    changes = Changes(users={user: UserRecord(name=user) for user in USERS}, hosts={host.name: host for host in hosts})
    for number in range(1, jobs + running + 1):
        spec = _spec(USERS[number % 100], f"{number:032x}-0")
        signed = SignedSpec(encode_spec(spec), bytes(64))
        changes.jobs[number] = JobRecord(id=number, user=spec.user, spec=spec, signed=signed, wishes=Wishes(), submitted=1.0)
        if number <= running:
            task = TaskRecord(job=number, index=PLAIN, attempt=1, state=TaskState.RUNNING, user=spec.user, slots=1, host=hosts[number % 1000].name, since=2.0, started=2.0)
            changes.tasks[task.key] = task
    Store(engine).write(changes)
    took, used = [], []
    for _ in range(repeats):
        begin, before = time.monotonic(), time.process_time()
        cluster = Cluster("bench", Store(engine).load(), 3.0)
        step = cluster.step([UserServerCame(user=user) for user in USERS], 4.0)
        took.append(time.monotonic() - begin)
        used.append(time.process_time() - before)
        assert any(isinstance(action, StartRuns) and action.orders for action in step.actions)
    engine.dispose()
    middle = statistics.median(took)
    what = f"{name}: {jobs:,} waiting, {running:,} running; {statistics.median(used):.1f} s of CPU"
    return Line("restart", what, middle, "s", "≤ 10 s", middle <= 10)


CORE_ROWS: dict[str, Callable[[int, int], list[Line]]] = {"big": big, "restart": restart}
