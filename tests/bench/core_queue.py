"""How fast the core places: 100,000 waiting tasks on 1,000 hosts, without database and network. `python -m tests.bench.core_queue`.

Prints placements a second for plain jobs, for one array and for many users with wishes, what a step without news costs, and the
memory of a waiting array of a million.
"""

from __future__ import annotations

import time
import tracemalloc

from hq.core.cluster import Cluster
from hq.core.events import JobsSubmitted, RunsReported, StartRuns, Submission, UserServerCame
from hq.model.host import HostRecord, HostSpec
from hq.model.job import JobSpec, SignedSpec, Wishes
from hq.model.runs import RunReport
from hq.model.snapshot import Snapshot
from hq.model.states import Outcome, RunKind
from hq.model.user import UserRecord

HOSTS, SLOTS, TASKS = 1_000, 100, 100_000


def _cluster(users: int, hosts: int = HOSTS, slots: int = SLOTS) -> Cluster:
    snapshot = Snapshot(
        users=[UserRecord(name=f"u{number}") for number in range(users)],
        hosts=[HostRecord(spec=HostSpec(name=f"n{number}", address=f"n{number}", total=slots, slots=slots)) for number in range(hosts)],
    )
    return Cluster("bench", snapshot, 0.0)


def _job(user: str, key: str, indices: str = "", wishes: Wishes | None = None, slots: int = 1) -> Submission:
    spec = JobSpec(instance="bench", user=user, key=key, name="", argv=(b"true",), indices=indices, slots=slots)
    return Submission(key, spec, SignedSpec(b"", b""), wishes or Wishes())


def _submit(cluster: Cluster, user: str, jobs: list[Submission]) -> None:
    cluster.step([JobsSubmitted(token=None, user=user, jobs=tuple(jobs))], 1.0)


def _place(label: str, cluster: Cluster, users: list[str]) -> list[StartRuns]:
    begin = time.perf_counter()
    step = cluster.step([UserServerCame(user=user) for user in users], 2.0)
    took = time.perf_counter() - begin
    starts = [action for action in step.actions if isinstance(action, StartRuns)]
    count = sum(len(action.orders) for action in starts)
    print(f"{label}: {count:,} placements in {took:.2f} s, {count / took:,.0f}/s")
    return starts


def main() -> None:
    """Measure and print."""
    cluster = _cluster(1)
    begin = time.perf_counter()
    _submit(cluster, "u0", [_job("u0", str(number)) for number in range(TASKS)])
    print(f"submission of {TASKS:,} plain jobs: {TASKS / (time.perf_counter() - begin):,.0f}/s")
    starts = _place("plain jobs", cluster, ["u0"])
    reports = [
        RunsReported(user=each.user, host=each.host, reports=tuple(
            RunReport(job=order.job, index=order.index, attempt=1, kind=RunKind.ENDED, at=3.0, outcome=Outcome.OK, exit_code=0)
            for order in each.orders
        ))
        for each in starts
    ]  # fmt: skip
    begin = time.perf_counter()
    cluster.step(reports, 3.0)
    print(f"ends taken in: {TASKS / (time.perf_counter() - begin):,.0f}/s, {len(cluster.jobs)} jobs left")

    cluster = _cluster(1)
    _submit(cluster, "u0", [_job("u0", "array", f"1-{TASKS}")])
    _place("one array", cluster, ["u0"])

    users = [f"u{number}" for number in range(100)]
    cluster = _cluster(len(users))
    for number, user in enumerate(users):
        wishes = [Wishes(priority=each % 5, exclude=(f"n{number}",) if each % 2 else ()) for each in range(TASKS // len(users))]
        _submit(cluster, user, [_job(user, str(each), wishes=wish) for each, wish in enumerate(wishes)])
    _place("100 users, priorities, excluded hosts", cluster, users)

    cluster = _cluster(1, 10_000, 4)
    tracemalloc.start()
    _submit(cluster, "u0", [_job("u0", "array", "1-1000000")])
    print(f"a waiting array of a million: {tracemalloc.get_traced_memory()[0]:,} bytes")
    tracemalloc.stop()
    starts = _place("10,000 hosts full of it", cluster, ["u0"])
    begin = time.perf_counter()
    for _ in range(1000):
        cluster.step([], 4.0)
    print(f"a step without news: {(time.perf_counter() - begin) * 1e3:.1f} µs")
    order = starts[0].orders[0]
    report = RunReport(job=order.job, index=order.index, attempt=1, kind=RunKind.ENDED, at=3.0, outcome=Outcome.OK, exit_code=0)
    begin = time.perf_counter()
    cluster.step([RunsReported(user="u0", host=starts[0].host, reports=(report,))], 5.0)
    print(f"one end and the next start among 10,000 full hosts: {(time.perf_counter() - begin) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
