"""What hq is measured against, in the same run on the same machine: the limit of processes a second, HyperQueue, cat."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = Path("bench/venv").resolve()
_HYPERQUEUE = '''
import sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
count = int(sys.argv[1])
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=2))
    client = cluster.client()
    warm = Job(); warm.program(["/bin/true"]); client.wait_for_jobs([client.submit(warm)])
    begin = time.monotonic()
    job = Job()
    for number in range(count):
        job.program(["/bin/true"], stdout=f"{sys.argv[2]}/{number}.out", stderr=f"{sys.argv[2]}/{number}.err")
    client.wait_for_jobs([client.submit(job)])
    print(count / (time.monotonic() - begin), file=sys.stderr)
    print("rate", count / (time.monotonic() - begin))
'''


def _spawned(count: int, spawn: Callable[[int], object]) -> float:
    """Processes a second that a plain loop makes and takes back, 4 in flight."""
    begin, live = time.monotonic(), 0
    for number in range(count):
        spawn(number)
        live += 1
        if live == 4:
            os.wait()
            live -= 1
    while live:
        os.wait()
        live -= 1
    return count / (time.monotonic() - begin)


def spawn_limit(count: int = 2000) -> float:
    """Processes a second with nothing opened for them."""
    return _spawned(count, lambda number: os.posix_spawn("/bin/true", ["true"], {}, setsid=True))


def spawn_limit_with_files(heap: Path, count: int = 2000) -> float:
    """The same with two new files for each, in one new directory of `heap`, as the tasks of the array have."""
    where = tempfile.mkdtemp(dir=heap)

    def spawn(number: int) -> None:
        fds = [os.open(f"{where}/{number}.{end}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) for end in ("out", "err")]
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in enumerate(fds, 1)]
        os.posix_spawn("/bin/true", ["true"], {}, setsid=True, file_actions=actions)
        for fd in fds:
            os.close(fd)

    return _spawned(count, spawn)


def has_hyperqueue() -> bool:
    """Whether HyperQueue is in the bench's own environment; it is put there once, which needs the internet."""
    if (ENVIRONMENT / "ready").exists():
        return True
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=False)
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "-q", "--retries", "1", "hyperqueue"]
    if made.returncode or subprocess.run(pip, check=False).returncode:
        print("HyperQueue cannot be installed here: there will be no figures of it", file=sys.stderr)
        return False
    (ENVIRONMENT / "ready").touch()
    return True


def hyperqueue(count: int, heap: Path) -> float | None:
    """Tasks a second of HyperQueue on a local cluster of 2 cores, no journal, files for both streams in a new directory of `heap`.

    None: it cannot be had here.
    """
    python = ENVIRONMENT / "bin" / "python"
    if not has_hyperqueue():
        return None
    for _ in range(3):
        where = tempfile.mkdtemp(dir=heap)
        argv = [str(python), "-c", _HYPERQUEUE, str(count), where]
        try:
            done = subprocess.run(argv, cwd=where, capture_output=True, text=True, timeout=60 + count / 50, check=False)
        except subprocess.TimeoutExpired:
            # seen once on a busy machine: its job stood still, and its client waited
            print("HyperQueue did not come to an end, and is tried again", file=sys.stderr)
            continue
        rates = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("rate ")]
        if rates:
            return float(rates[0])
        print(done.stderr[-2000:], file=sys.stderr)
    return None


def copied(size: int) -> float:
    """Seconds in which `head -c SIZE /dev/zero` reaches a file by way of cat."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as target:
        begin = time.monotonic()
        subprocess.run(["/bin/sh", "-c", f"head -c {size} /dev/zero | cat"], stdout=target, check=True)
        return time.monotonic() - begin
