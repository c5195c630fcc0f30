"""Two login machines of one site: alice's user-server runs on the first, and her commands on the second reach it over CURVE."""

from __future__ import annotations

import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.ids import PLAIN
from hq.userserver.book import read_book
from tests.support.hosts import Hosts
from tests.support.logins import LoginMachine
from tests.support.proc import end_process
from tests.support.site import Site
from tests.support.wait import until


@pytest.fixture(scope="module")
def machines(install: Path, hosts: Hosts) -> Iterator[tuple[LoginMachine, LoginMachine]]:
    """Where her user-server is, and another one. Her home is on both, /var/tmp is not."""
    with (
        Site(install, rows=["node2:4:ssh"], hosts=hosts) as site,
        LoginMachine(hosts, "node1", site) as first,
        LoginMachine(hosts, "node2", site) as second,
    ):
        home = Path(pwd.getpwnam("alice").pw_dir)
        mode = home.stat().st_mode & 0o7777
        home.chmod(0o755)
        # hq-server has let it in when it answers this, and only then it tells where it is
        first.run("alice", "hq-client", "jobs").ok()
        yield first, second
        home.chmod(mode)


def test_commands_on_another_machine_reach_the_one_user_server(machines: tuple[LoginMachine, LoginMachine]) -> None:
    first, second = machines
    second.run("alice", "hq-client", "ping").ok()
    done = second.run("alice", "hq-submit", "--wait", "echo out of a job").ok()
    job = done.out.split()[1]
    assert second.run("alice", "hq-client", "log", job).ok().out == "out of a job\n"
    there, here = ([row["id"] for row in machine.run("alice", "hq-client", "jobs", "--json").ok().json["rows"]] for machine in machines)
    assert there == here == [int(job)]
    assert second.run("alice", "hq-submit", "--wait", "exit 7").rc == 7
    pids = {machine.run("alice", "hq-client", "info", "--json").ok().json["facts"]["pid"] for machine in machines}
    assert len(pids) == 1
    assert first.has_user_server("alice") and not second.has_user_server("alice")


def test_a_log_is_followed_and_a_job_cancelled_from_another_machine(machines: tuple[LoginMachine, LoginMachine]) -> None:
    _, second = machines
    job = second.run("alice", "hq-submit", "-q", "echo begun; sleep 600").ok().out.strip()
    until(lambda: second.run("alice", "hq-client", "jobs", job, "--json").json["rows"][0]["state"] == "running", 60, "the job to run")
    follower = subprocess.Popen(
        second.argv("alice", "hq-client", "log", "-f", job), env=second.environment("alice"), cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        assert follower.stdout is not None
        assert follower.stdout.readline() == b"begun\n"
        second.run("alice", "hq-client", "cancel", job).ok()
        assert second.run("alice", "hq-client", "wait", job).rc != 0
        assert follower.wait(60) == 0, "it ends with the job"
    finally:
        end_process(follower)
    assert second.run("alice", "hq-client", "jobs", job, "--json").json["rows"][0]["outcome"] == "cancelled"


def test_bob_gets_nothing_by_her_access_file(machines: tuple[LoginMachine, LoginMachine]) -> None:
    _, second = machines
    access = Path(pwd.getpwnam("alice").pw_dir) / ".hq" / second.site.instance / "access.json"
    assert access.stat().st_mode & 0o777 == 0o600
    refused = second.run("bob", "hq-client", "jobs", env={"HQ_HOME": str(access.parents[1])})
    assert refused.rc == 1 and "Permission denied" in refused.err, refused


def test_takeover_moves_it_with_what_runs_and_what_it_knows(machines: tuple[LoginMachine, LoginMachine]) -> None:
    first, second = machines
    gate = first.site.folder / "gate"
    short = first.run("alice", "hq-submit", "-q", "exit 5").ok().out.strip()
    assert first.run("alice", "hq-client", "wait", short).rc == 5
    long = first.run("alice", "hq-submit", "-q", f"until test -e {gate}; do sleep 0.1; done; exit 3").ok().out.strip()
    until(lambda: first.run("alice", "hq-client", "jobs", long, "--json").json["rows"][0]["state"] == "running", 60, "the long one to run")
    moved = second.run("alice", "hq-client", "takeover").ok()
    assert f"it was on {first.name}" in moved.out and not moved.err, moved
    until(lambda: not first.has_user_server("alice") and second.has_user_server("alice"), 60, "the user-server to be on the second machine")
    gate.touch()
    assert second.run("alice", "hq-client", "wait", long).rc == 3
    entries, _ = read_book([str(second.folder / "alice" / second.site.instance / "ledger-book")], (), 0)
    assert {job: entries[int(job)].tasks[PLAIN].reports[-1].exit_code for job in (short, long)} == {short: 5, long: 3}
    first.run("alice", "hq-client", "takeover").ok()
    until(lambda: first.has_user_server("alice") and not second.has_user_server("alice"), 60, "the user-server to be back")
    assert first.run("alice", "hq-submit", "--wait", "exit 4").rc == 4


def test_a_user_server_that_is_gone_is_replaced_on_the_machine_where_one_is_needed(machines: tuple[LoginMachine, LoginMachine]) -> None:
    first, second = machines
    first.run("alice", "hq-client", "shutdown").ok()
    until(lambda: not first.has_user_server("alice"), 60, "the first user-server to end")
    second.run("alice", "hq-submit", "--wait", "true").ok()
    assert second.has_user_server("alice")
    first.run("alice", "hq-client", "jobs").ok()
    assert not first.has_user_server("alice")
