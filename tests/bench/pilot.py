"""Short tasks through pilots on a real Slurm, and as many separate sbatch jobs as it takes to know their rate. As root."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from hq.model.states import Outcome, RunKind
from tests.bench.lines import Line
from tests.support.batchsite import BatchSite
from tests.support.slurm import SlurmCluster, missing_for_slurm
from tests.support.wait import until

TASKS = 2000
SINGLE = 150


def measure(tasks: int = TASKS) -> tuple[float, float]:
    """Tasks a second through two pilots of four cores, and as separate sbatch jobs of the same Slurm."""
    with SlurmCluster() as slurm, tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        for _ in range(SINGLE):
            slurm.run("sbatch", "--job-name=single", "--output=/dev/null", "--chdir=/", "--wrap=/bin/true")
        until(lambda: not slurm.run("squeue", "-h", "--name=single"), 120, "the jobs of their own")
        single = SINGLE / (time.monotonic() - began)
        site = BatchSite(Path(folder) / "site", "slurm", slots=64, mode="pilot", pilot_slots=4, pilot_limit=2, environment={"SLURM_CONF": str(slurm.conf)})
        try:
            site.up()
            (warm,) = site.upstream.start(site.spec("true"))
            site.upstream.ended(warm, 60)
            began = time.monotonic()
            wanted = set(site.start_array("/bin/true", tasks))
            ended: set[object] = set()
            seen = 0

            def all_ended() -> bool:
                nonlocal seen
                new = site.upstream.reports[seen:]
                seen += len(new)
                ended.update(report.key for report in new if report.kind is RunKind.ENDED and report.outcome is Outcome.OK)
                return wanted <= ended

            site.upstream.until(all_ended, f"{tasks} tasks", 300)
            rate = tasks / (time.monotonic() - began)
        finally:
            site.close()
    return rate, single


def pilot(repeats: int, count: int) -> list[Line]:
    """The row of `make bench`; measured once, for Slurm alone takes long enough."""
    if missing_for_slurm():
        return []
    tasks = min(count, TASKS)
    rate, single = measure(tasks)
    return [
        Line("pilot", f"{tasks} x /bin/true through 2 pilots of 4 cores", rate, "tasks/s", "10 x separate sbatch jobs", rate >= 10 * single),
        Line("pilot", f"{SINGLE} separate sbatch jobs on the same Slurm", single, "jobs/s"),
        Line("pilot", "pilots against separate jobs", rate / single, "times", ">= 10", rate >= 10 * single),
    ]


PILOT_ROWS: dict[str, Callable[[int, int], list[Line]]] = {"pilot": pilot}
