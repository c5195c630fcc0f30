"""Real daemons that are killed: what runs is recorded at once, what is submitted is kept, and who comes back is let in at once."""

from __future__ import annotations

import os
import pwd
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.hosts import Hosts
from tests.support.proc import is_running
from tests.support.site import Site
from tests.support.wait import until


@pytest.fixture(scope="module")
def site(install: Path, hosts: Hosts) -> Iterator[Site]:
    """An instance whose only host is this machine, with heartbeats so short that who is dead is missed soon."""
    with Site(install, rows=["here:4:local"], options="heartbeat: 1") as made:
        yield made


def run_dir(site: Site, user: str) -> Path:
    return Path(f"/var/tmp/hq-{pwd.getpwnam(user).pw_uid}") / site.instance


def user_server(site: Site, user: str) -> psutil.Process:
    return psutil.Process(int((run_dir(site, user) / "lock").read_text().split()[0]))


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 20, "end of the killed process")


def test_a_job_that_ends_while_its_user_server_is_dead_is_recorded_at_once(site: Site) -> None:
    job = site.submit("alice", f"{site.waits}; exit 7")
    site.wait_for("alice", job, "running")
    kill(user_server(site, "alice"))
    site.let_go(job)
    # asked by the owner, for a question of alice's own would start her user-server again
    until(lambda: site.seen_by_owner(job)["state"] == "finished", 60, "the record of the end")
    lock = run_dir(site, "alice") / "lock"
    assert not is_running(int(lock.read_text().split()[0]))
    row = site.row("alice", job)
    assert (row["outcome"], row["exit_code"], row["attempt"]) == ("failed", 7, 1)


def test_a_user_server_that_was_killed_is_let_in_again_at_once(site: Site) -> None:
    site.rows("alice")
    # who waited until hq-server gives up the old one would not come in before the command gives up
    site.admin("setloopinterval", "heartbeat", "300").ok()
    try:
        kill(user_server(site, "alice"))
        site.rows("alice")
    finally:
        site.admin("setloopinterval", "heartbeat", "1").ok()
        kill(user_server(site, "alice"))  # it beats as it was told


def test_a_submission_without_hq_server_is_kept_and_done_once_when_it_is_back(site: Site) -> None:
    mark = site.folder / "mark"
    mark.touch()
    mark.chmod(0o666)
    site.rows("alice")
    pid = site.server_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid), 20, "end of hq-server")
    done = site.run("alice", "hq-submit", f"echo once >> {mark}")
    assert done.rc == 0, done.err
    assert "1 job(s) kept until hq-server is back" in done.out
    assert str(run_dir(site, "alice") / "spool") in done.err
    kill(user_server(site, "alice"))
    site.start_server()
    site.rows("alice")
    until(lambda: mark.read_text(), 60, "the job that was kept")
    site.client("alice", "wait", timeout=60)
    assert mark.read_text() == "once\n"
    assert not list((run_dir(site, "alice") / "spool").iterdir())
