"""Chaos for two machines with hq-server: `make chaos-standby SEED=1 FAULTS=12`.

While a user submits arrays of tasks, the active hq-server is killed, stopped, cut off or told to end, or the standby is, or both, or MariaDB.
Each task writes a line into a ledger of its own; at the end ledger and database are compared, task by task. Which faults come, and how
long each lasts, follows from the seed; what they hit does not, for the daemons have their own time.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.hosts import Hosts
from tests.support.mariadb import MariaDB
from tests.support.proc import readable_install
from tests.support.twoservers import DATABASE, TwoServers
from tests.support.wait import until

MACHINES = ("srv1", "srv2")
TASKS = 20  # of each array
FAULTS = ("kill", "kill", "stop", "cut", "kill the standby", "end in good order", "kill the database", "kill both")
Pause = Callable[[float], object]


class Feeder:
    """Submits arrays, one after the other, until it is told to end."""

    def __init__(self, site: TwoServers, ledger: Path, seed: int) -> None:
        self.accepted: list[int] = []
        self._site = site
        self._ledger = ledger
        self._random = random.Random(seed)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._feed)
        self._thread.start()

    def close(self) -> None:
        """End, after the submission that is under way."""
        self._end.set()
        self._thread.join()

    def _feed(self) -> None:
        number = 0
        while not self._end.wait(0.3):
            number += 1
            command = f"echo {number}_$HQ_ARRAY_INDEX >> {self._ledger}; sleep 0.{self._random.randrange(10)}"
            if self._site.run("alice", "hq-submit", "-q", "--array", f"1-{TASKS}", command, timeout=120).rc == 0:
                self.accepted.append(number)


def inject(site: TwoServers, net: Hosts, what: str, chance: random.Random, pause: Pause) -> None:
    """One fault at the active hq-server (or as it says), and its end."""
    active = site.active()
    other = MACHINES[1 - MACHINES.index(active)]
    if what == "kill":
        site.kill(active)
        pause(chance.uniform(0, 6))
    elif what == "stop":
        site.kill(active, signal.SIGSTOP)
        pause(chance.uniform(1, 9))
        site.kill(active, signal.SIGCONT)
    elif what == "cut":
        net.cut(active)
        pause(chance.uniform(1, 9))
        net.join(active)
    elif what == "kill the standby" and site.pid_on(other):
        site.kill(other)
        pause(chance.uniform(0, 3))
    elif what == "end in good order":
        site.kill(active, signal.SIGTERM)
        until(lambda: not site.pid_on(active), 30, "end of the active hq-server")
    elif what == "kill the database":
        site.database.kill()
        pause(chance.uniform(0, 5))
        site.database.start()
    elif what == "kill both":
        for name in filter(site.pid_on, MACHINES):
            site.kill(name)
        pause(chance.uniform(0, 3))
    for name in MACHINES:
        if not site.pid_on(name):
            site.start_on(name)


def judge(site: TwoServers, accepted: Sequence[int], ledger: Path) -> int:
    """Compare the ledger with the database; prints the closing line. Returns the exit code."""
    wanted = {f"{number}_{index}" for number in accepted for index in range(1, TASKS + 1)}
    ran = Counter(ledger.read_text().split())
    rows = site.database.execute(f"select outcome, count(*) from {DATABASE}.task_history group by outcome")
    recorded = {str(outcome): int(str(count)) for outcome, count in rows}
    twice = site.database.execute(f"select job, idx from {DATABASE}.task_event where state = 'finished' group by job, idx having count(*) > 1")
    ((takeovers,),) = site.database.execute(f"select epoch from {DATABASE}.lease")
    lost = len(wanted - ran.keys())
    double = len([count for count in ran.values() if count > 1]) + len(twice)
    wrong = abs(len(wanted) - recorded.get("ok", 0)) + sum(count for outcome, count in recorded.items() if outcome != "ok")
    print(f"tasks={len(wanted)} epochs={takeovers} lost={lost} double={double} wrong={wrong}")
    return int(bool(lost or double or wrong))


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="chaos-standby")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=12)
    options = parser.parse_args()
    chance, begin = random.Random(options.seed), time.monotonic()
    pause = threading.Event().wait
    database = MariaDB(is_fast=False, bind="0.0.0.0")
    try:
        with Hosts(*MACHINES, users=("alice", "olga")) as net:
            database.start()
            with TwoServers(readable_install(), net, database, options="heartbeat: 2\nfailover: 3") as site:
                ledger = site.folder / "ledger"
                ledger.touch()
                ledger.chmod(0o666)
                feeder = Feeder(site, ledger, options.seed)
                try:
                    for _ in range(options.faults):
                        until(lambda: site.active() and site.pid_on(site.active()), 60, "an active hq-server")
                        pause(chance.uniform(0.5, 4))
                        what = chance.choice(FAULTS)
                        print(f"{time.monotonic() - begin:6.1f} {what} ({site.active()})", flush=True)
                        inject(site, net, what, chance, pause)
                finally:
                    feeder.close()
                until(lambda: all(row["state"] == "finished" for row in site.rows("alice")), 180, "end of all jobs")
                return judge(site, feeder.accepted, ledger)
    finally:
        database.remove()


if __name__ == "__main__":
    sys.exit(main())
