"""Two machines with hq-server and one MariaDB: the one that stands by takes the place of the active one, and the old one knows it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import Hosts
from tests.support.mariadb import MariaDB
from tests.support.twoservers import DATABASE, TwoServers
from tests.support.wait import until

FIRST, SECOND = "srv1", "srv2"


@pytest.fixture(scope="module")
def two(install: Path) -> Iterator[TwoServers]:
    database = MariaDB(bind="0.0.0.0")
    try:
        with Hosts(FIRST, SECOND, users=("alice", "olga")) as machines:
            database.start()
            with TwoServers(install, machines, database, options="heartbeat: 2\nfailover: 3") as made:
                yield made
    finally:
        database.remove()


def both(two: TwoServers) -> tuple[str, str]:
    """The active one, and the other, which stands by when this returns."""
    active = two.active()
    other = FIRST if active == SECOND else SECOND
    if not two.pid_on(other):
        two.start_on(other)
    until(lambda: other in two.status().get("standby", ""), 60, "the other one to stand by")
    return active, other


def ends(two: TwoServers, job: str) -> list[tuple[object, ...]]:
    """How often a job ended, by its history."""
    return two.database.execute(f"select attempt, reason from {DATABASE}.task_event where job = {job} and state = 'finished'")


def why_active(two: TwoServers, name: str) -> str:
    """By what a standby took the seat the last time."""
    return [line for line in two.log_of(name).splitlines() if "is the active hq-server from now on" in line][-1]


def test_it_takes_over_and_what_ran_runs_on(two: TwoServers) -> None:
    until(lambda: two.status().get("standby", "").startswith(SECOND), 60, "the standby in hq-admin status")
    assert two.active() == FIRST
    long = two.submit("alice", f"{two.waits}; exit 3")
    short = two.submit("alice", f"{two.waits}; exit 4")
    two.wait_for("alice", long, "running")
    two.wait_for("alice", short, "running")
    two.kill(FIRST)
    died = time.monotonic()
    two.let_go(short)  # ends while nobody records it
    new = two.submit("alice", "true")
    two.client("alice", "wait", new).ok()
    print(f"from kill -9 to the end of a new job: {time.monotonic() - died:.1f} s")
    assert two.active() == SECOND and f"{FIRST}:" in why_active(two, SECOND) and "has said nothing for" in why_active(two, SECOND)
    two.let_go(long)
    rows = [two.wait_for("alice", job) for job in (long, short)]
    assert [(row["outcome"], row["exit_code"], row["attempt"]) for row in rows] == [("failed", 3, 1), ("failed", 4, 1)]
    assert [len(ends(two, job)) for job in (long, short, new)] == [1, 1, 1]


def test_one_that_was_stopped_wakes_and_stands_by(two: TwoServers) -> None:
    old, new = both(two)
    two.submit("alice", "true")
    two.kill(old, signal.SIGSTOP)
    stopped = time.monotonic()
    job = two.submit("alice", "true")
    two.client("alice", "wait", job).ok()
    print(f"from SIGSTOP to the end of a new job: {time.monotonic() - stopped:.1f} s")
    assert two.active() == new
    (before,) = two.database.execute(f"select epoch, batch from {DATABASE}.lease")
    two.kill(old, signal.SIGCONT)
    until(lambda: "writes nothing more and orders nothing" in two.log_of(old), 60, "the old one to know that it is out")
    until(lambda: old in two.status().get("standby", ""), 60, "the old one to stand by")
    assert two.active() == new and two.database.execute(f"select epoch from {DATABASE}.lease") == [before[:1]]
    two.wait_for("alice", two.submit("alice", "true"))


def test_a_second_one_that_does_not_want_to_wait_is_refused_with_words(two: TwoServers) -> None:
    active, other = both(two)
    two.kill(other)
    done = two.start_plainly(other)
    assert done.returncode == 1
    assert f"another hq-server of {two.instance} is the active one: {active}:" in done.stderr.decode() and "--standby" in done.stderr.decode()
    two.start_on(other)


def test_one_that_ends_in_good_order_is_followed_at_once(two: TwoServers) -> None:
    old, new = both(two)
    two.admin("shutdown").ok()
    until(lambda: two.active() == new, 60, "the other one to be active")
    until(lambda: two.pid_on(old) == 0, 60, "end of the old one")
    assert "nobody has the seat" in why_active(two, new), "it need not wait until the old one's beat has stood still for long enough"
    two.wait_for("alice", two.submit("alice", "true"))
