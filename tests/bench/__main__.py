"""`make bench`: measures hq on this machine beside its references, prints a table, and writes bench/results.json.

`--rows array,latency` chooses, `--repeats` and `--count` (tasks of the array) make it shorter. No assertion: figures as they come out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.bench.core_rows import CORE_ROWS
from tests.bench.fanin import FAN_IN_ROWS
from tests.bench.lines import Line
from tests.bench.pilot import PILOT_ROWS
from tests.bench.references import has_hyperqueue
from tests.bench.rig import nothing_removed
from tests.bench.rows import ROWS

RESULTS = Path("bench/results.json")


def busy_share(seconds: float = 2.0) -> float:
    """Which share of the machine others use, before anything is measured."""
    def ticks() -> tuple[int, int]:
        words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        return sum(map(int, words)), int(words[3]) + int(words[4])

    total, idle = ticks()
    time.sleep(seconds)
    total_now, idle_now = ticks()
    return 1 - (idle_now - idle) / max(1, total_now - total)


def show(line: Line) -> None:
    """One line of the table."""
    verdict = "" if line.is_met is None else "met" if line.is_met else "not met"
    print(f"{line.row:<11} {line.what:<58} {line.figure:>12,.1f} {line.unit:<12} {line.goal:<36} {verdict}", flush=True)


def main() -> int:
    """The command."""
    rows = {**ROWS, **CORE_ROWS, **FAN_IN_ROWS, **PILOT_ROWS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(rows), help=f"which: {', '.join(rows)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--prepare", dest="is_preparing", action="store_true", help="only install what the rows are compared with")
    options = parser.parse_args()
    RESULTS.parent.mkdir(exist_ok=True)
    if options.is_preparing or "array" in options.rows.split(","):
        has_hyperqueue()
    if options.is_preparing:
        return 0
    busy = busy_share()
    print(f"{platform.node()}: {os.cpu_count()} cores, {busy:.0%} of them busy with other things before the bench; commits: SQLite WAL with "
          "synchronous=FULL, MariaDB with innodb_flush_log_at_trx_commit=1", flush=True)  # fmt: skip
    lines: list[Line] = []
    failed = []
    with nothing_removed():
        for name in options.rows.split(","):
            try:
                found_lines = rows[name.strip()](options.repeats, options.count)
            except Exception:  # noqa: BLE001 - the other rows are wanted all the same
                traceback.print_exc()
                failed.append(name)
                continue
            for line in found_lines:
                show(line)
            lines += found_lines
            found = {"machine": platform.platform(), "cores": os.cpu_count(), "busy_before": busy, "when": time.strftime("%FT%TZ", time.gmtime()),
                     "repeats": options.repeats, "count": options.count, "failed": failed, "lines": [asdict(line) for line in lines]}  # fmt: skip
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {RESULTS}" + (f"; these rows fell: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
