"""Short tasks through pilots on a real Slurm, and as many separate sbatch jobs as it takes to know their rate. As root.

    python -m tests.bench.pilot [TASKS]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from hq.model.states import Outcome, RunKind
from tests.support.batchsite import BatchSite
from tests.support.slurm import SlurmCluster
from tests.support.wait import until

TASKS = 2000
SINGLE = 150


def main(tasks: int = TASKS) -> float:
    """Measure and print one row. Returns how many times faster pilots are."""
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
    print(f"pilot: {tasks} x /bin/true {rate:.0f}/s; separate sbatch jobs {single:.1f}/s; {rate / single:.1f} times")
    return rate / single


if __name__ == "__main__":
    raise SystemExit(0 if main(*map(int, sys.argv[1:2])) >= 10 else 1)
