"""The rows of the bench that need running daemons."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import references
from tests.bench.lines import Line
from tests.bench.rig import DATABASES, Rig, cpu_of, cpu_of_children, rig


def _hops(made: Rig, count: int, work: Callable[[], object], row: str, label: str) -> list[Line]:
    """Run something and say what CPU each daemon took for one task of it, beside the tasks' own processes."""
    daemons = made.daemons()
    worker = daemons["exec-server"]
    if made.database is not None:
        daemons["mariadbd"] = made.database
    before, own = cpu_of(daemons), cpu_of_children(worker)
    work()
    hops = [
        Line(row, f"{label}: CPU of {name}", 1e6 * (now - before[name]) / count, "µs/task")
        for name, now in cpu_of(daemons).items() if name != "supervisor"
    ]  # fmt: skip
    hq = sum(line.figure for line in hops)
    own = 1e6 * (cpu_of_children(worker) - own) / count
    return [*hops, Line(row, f"{label}: CPU of hq together", hq, "µs/task"), Line(row, f"{label}: CPU of the tasks' own processes", own, "µs/task")]


def array(repeats: int, count: int) -> list[Line]:
    """One array of `/bin/true`, 2 slots, both streams to files.

    Nothing is removed before all is measured: ext4 passes over each inode that was freed in the last minutes when it makes a file, so that
    thousands of removed files can make each new one many times as dear.
    """
    limits, files, reference, rates = [], [], [], {}
    lines: list[Line] = []
    with ExitStack() as stack:
        heap = Path(stack.enter_context(TemporaryDirectory(dir="/var/tmp", prefix="hq-bench-")))
        for database in DATABASES:
            made = stack.enter_context(rig(database))
            made.do("array", 200)
            found: list[float] = []

            def work(made: Rig = made, found: list[float] = found) -> None:
                for _ in range(repeats):
                    limits.append(references.spawn_limit())
                    files.append(references.spawn_limit_with_files(heap))
                    rate = references.hyperqueue(count, heap)
                    if rate is not None:
                        reference.append(rate)
                    found.append(made.do("array", count)["done"])

            lines += _hops(made, repeats * count, work, "array", database)
            rates[database] = statistics.median(found)
    limit = statistics.median(limits)
    head = [Line("array", "spawn limit (no files)", limit, "/s"), Line("array", "spawn limit with two files each", statistics.median(files), "/s")]
    other = statistics.median(reference) if reference else None
    if other is not None:
        head.append(Line("array", "HyperQueue, no journal", other, "/s"))
    for database, rate in rates.items():
        is_met = rate >= 0.6 * limit and (other is None or rate >= 5 * other)
        times = f", {rate / other:.1f} × HyperQueue" if other else ""
        head.append(Line("array", f"{database}: {rate / limit:.0%} of the limit{times}", rate, "/s", "≥ 60 % of the limit, ≥ 5 × HyperQueue", is_met))
    return head + lines


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
            begin = time.monotonic()
            threads = [threading.Thread(target=made.do, args=("array", each), kwargs={"user": name}) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if not round:
                continue  # what the start of each one's daemons cost him is evened out by this
            rates.append(len(names) * each / (time.monotonic() - begin))
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
