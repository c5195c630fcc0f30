"""The rows of the bench that need running daemons."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import references
from tests.bench.lines import Line
from tests.bench.rig import DATABASES, Rig, cpu_of, cpu_of_children, rig

#: Seconds that many users have to come up with what they submit with: interpreters that start are no work of hq's, nor in the figure of one array.
LEAD = 4.0


class _Hops:
    """What CPU each daemon of a rig takes for one task, beside the tasks' own processes."""

    def __init__(self, made: Rig) -> None:
        self._daemons = {name: process for name, process in made.daemons().items() if name != "supervisor"}
        self._worker = self._daemons["exec-server"]
        if made.database is not None:
            self._daemons["mariadbd"] = made.database
        self._used = dict.fromkeys(self._daemons, 0.0)
        self._own = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Context: what is done in it counts."""
        before, own = cpu_of(self._daemons), cpu_of_children(self._worker)
        yield
        for name, now in cpu_of(self._daemons).items():
            self._used[name] += now - before[name]
        self._own += cpu_of_children(self._worker) - own

    def lines(self, count: int, row: str, label: str) -> list[Line]:
        """The figures, for so many tasks."""
        figures = {**self._used, "hq together": sum(self._used.values()), "the tasks' own processes": self._own}
        return [Line(row, f"{label}: CPU of {name}", 1e6 * used / count, "µs/task") for name, used in figures.items()]


def array(repeats: int, count: int) -> list[Line]:
    """One array of `/bin/true`, 2 slots, both streams to files.

    Nothing is removed before all is measured: ext4 passes over each inode that was freed in the last minutes when it makes a file, so that
    thousands of removed files can make each new one many times as dear. And the databases take turns, in each repeat the other one first: the
    file system is dearer at some times than at others, most of all at first.
    """
    limits, files, reference = [], [], []
    with ExitStack() as stack:
        heap = Path(stack.enter_context(TemporaryDirectory(dir="/var/tmp", prefix="hq-bench-")))
        rigs = {database: stack.enter_context(rig(database)) for database in DATABASES}
        for made in rigs.values():
            made.do("array", 200)
        hops = {database: _Hops(made) for database, made in rigs.items()}
        rates: dict[str, list[float]] = {database: [] for database in rigs}
        for repeat in range(repeats):
            limits.append(references.spawn_limit())
            files.append(references.spawn_limit_with_files(heap))
            rate = references.hyperqueue(count, heap)
            if rate is not None:
                reference.append(rate)
            for database in DATABASES[:: -1 if repeat % 2 else 1]:
                with hops[database].counted():
                    rates[database].append(rigs[database].do("array", count)["done"])
    limit = statistics.median(limits)
    lines = [Line("array", "spawn limit (no files)", limit, "/s"), Line("array", "spawn limit with two files each", statistics.median(files), "/s")]
    other = statistics.median(reference) if reference else None
    if other is not None:
        lines.append(Line("array", "HyperQueue, no journal", other, "/s"))
    for database, found in rates.items():
        rate = statistics.median(found)
        is_met = rate >= 0.6 * limit and (other is None or rate >= 5 * other)
        times = f", {rate / other:.1f} × HyperQueue" if other else ""
        lines.append(Line("array", f"{database}: {rate / limit:.0%} of the limit{times}", rate, "/s", "≥ 60 % of the limit, ≥ 5 × HyperQueue", is_met))
    for database, counted in hops.items():
        lines += counted.lines(repeats * count, "array", database)
    return lines


def separate(repeats: int, count: int) -> list[Line]:
    """Jobs submitted one by one over one connection."""
    with rig() as made:
        base = statistics.median(made.do("array", count)["done"] for _ in range(repeats))
        found = [made.do("separate", count) for _ in range(repeats)]
    accepted = statistics.median(each["accepted"] for each in found)
    done = statistics.median(each["done"] for each in found)
    return [
        Line("separate", "accepted durably", accepted, "/s", "≥ 3,000/s", accepted >= 3000),
        Line("separate", f"done, {done / base:.0%} of an array of as many", done, "/s", "≥ 80 %", done >= 0.8 * base),
    ]


def cli(repeats: int, count: int) -> list[Line]:
    """hq-submit while the user-server runs."""
    with rig() as made:
        found = [made.do("cli", min(count, 30), str(made.site.bin / "hq-submit")) for _ in range(repeats)]
    ms = statistics.median(each["ms"] for each in found)
    python = statistics.median(each["python"] for each in found)
    return [
        Line("cli", "python3 -I -c pass", python, "ms"),
        Line("cli", f"hq-submit -q true: {ms / python:.1f} × python", ms, "ms", "≤ 80 ms, ≤ 4 × python", ms <= 80 and ms <= 4 * python),
    ]


def latency(repeats: int, count: int) -> list[Line]:
    """Submission to the word that it has finished, on an idle system."""
    with rig() as made:
        found = [made.do("latency", min(count, 100)) for _ in range(repeats)]
    middle = {name: statistics.median(each[name] for each in found) for name in found[0]}
    return [
        Line("latency", "sh -c true", middle["shell"], "ms"),
        Line("latency", "p50", middle["p50"], "ms", "≤ 10 ms", middle["p50"] <= 10),
        Line("latency", "p99", middle["p99"], "ms", "≤ 30 ms", middle["p99"] <= 30),
    ]


def _at_once(made: Rig, each: int) -> list[dict[str, float]]:
    """An array for every user of a rig, all submitted at one moment; the figures of each."""
    when = str(time.monotonic() + LEAD)
    with ThreadPoolExecutor(len(made.site.users)) as pool:
        return list(pool.map(lambda name: made.do("array", each, when, user=name), made.site.users))


def many(repeats: int, count: int) -> list[Line]:
    """20 users at once, each with a twentieth of twice the array's tasks (1,000 with the full count)."""
    users, each = 20, max(1, count // 10)
    shares: list[list[float]] = []
    rates: list[float] = []
    with rig() as made:
        # apart: whoever ran it alone would come last afterwards
        base = made.do("array", users * each)["done"]
    with rig(users=users) as made:
        names = made.site.users
        for name in names[1:]:
            made.warm_up(name)
        for round in range(repeats + 1):
            known = len(made.ends())
            found = _at_once(made, each)
            if not round:
                continue  # what the start of each one's daemons cost him is evened out by this
            rates.append(len(names) * each / (max(one["end"] for one in found) - min(one["begin"] for one in found)))
            ended = made.ends()[known:]
            # what each had when a quarter, a half and three quarters of all were done, beside the average
            shares.append([min(ended[: len(ended) * part // 4].count(name) for name in names) / (len(ended) * part / 4 / len(names)) for part in (1, 2, 3)])
    rate = statistics.median(rates)
    parts = [statistics.median(each[part] for each in shares) for part in range(3)]
    return [
        Line("many users", f"{len(names)} users × {each}: {rate / base:.0%} of one array", rate, "/s", "≥ 70 %", rate >= 0.7 * base),
        *(
            Line("many users", f"least share of a user, of the fair one, at {when} of the time", part, "", "≥ 0.5", part >= 0.5)
            for when, part in zip(("a quarter", "half", "three quarters"), parts, strict=True)
        ),
    ]


def idle(repeats: int, count: int) -> list[Line]:
    """Daemons with nothing to do, 10 hosts known."""
    seconds = 60 if count >= 10_000 else 15
    with rig(hosts=9) as made:
        daemons = made.daemons()
        before, begin = cpu_of(daemons), time.monotonic()
        time.sleep(seconds)
        now, took = cpu_of(daemons), time.monotonic() - begin
        memory = sum(process.memory_info().rss for process in daemons.values()) / 1e6
        unshared = sum(process.memory_full_info().pss for process in daemons.values()) / 1e6
    share = 100 * sum(now[name] - before[name] for name in now) / took
    return [
        Line("idle", f"CPU of all daemons over {seconds} s", share, "% of a core", "≤ 1 %", share <= 1),
        Line("idle", "resident memory of all daemons (PSS)", unshared, "MB", "≤ 200 MB", unshared <= 200),
        Line("idle", "resident memory of all daemons (RSS)", memory, "MB"),
    ]


def output(repeats: int, count: int) -> list[Line]:
    """A gigabyte to the stdout of one job."""
    size = (1 << 30) if count >= 10_000 else (1 << 28)
    took, plain = [], []
    with rig() as made:
        for _ in range(repeats):
            plain.append(references.copied(size))
            begin = time.monotonic()
            made.site.run(made.user, "hq-submit", "-q", "--wait", "--stdout", "/var/tmp/hq-bench-{job}.out", f"head -c {size} /dev/zero | cat", timeout=600).ok()
            took.append(time.monotonic() - begin)
            made.site.run(made.user, "sh", "-c", "rm -f /var/tmp/hq-bench-*.out")
    speed, base = size / statistics.median(took) / 1e6, size / statistics.median(plain) / 1e6
    return [
        Line("output", "cat to a file", base, "MB/s"),
        Line("output", f"stdout of a job: {speed / base:.0%} of it", speed, "MB/s", "≥ 80 %", speed >= 0.8 * base),
    ]


#: In this order: what is removed after a row makes each new file dear for minutes, a hundred times on ext4, and the first rows are of single jobs.
ROWS: dict[str, Callable[[int, int], list[Line]]] = {
    "latency": latency, "cli": cli, "array": array, "separate": separate, "many": many, "idle": idle, "output": output,
}  # fmt: skip
