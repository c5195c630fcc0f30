"""Real daemons that are killed: what runs is recorded at once, what is submitted is kept, and who comes back is let in at once."""

from __future__ import annotations

import os
import pwd
import signal
import time
from pathlib import Path

import psutil

from tests.support.proc import is_running
from tests.support.site import Site
from tests.support.wait import until


def run_dir(site: Site, user: str) -> Path:
    return Path(f"/var/tmp/hq-{pwd.getpwnam(user).pw_uid}") / site.instance


def user_server(site: Site, user: str) -> psutil.Process:
    return psutil.Process(int((run_dir(site, user) / "lock").read_text().split()[0]))


def kill(process: psutil.Process) -> None:
    process.send_signal(signal.SIGKILL)
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 20, "end of the killed process")


def test_a_job_that_ends_while_its_user_server_is_dead_is_recorded_at_once(local_site: Site) -> None:
    gate = local_site.folder / "gate"
    job = local_site.submit("alice", f"while [ ! -e {gate} ]; do sleep 0.1; done; exit 7")
    local_site.wait_for("alice", job, "running")
    kill(user_server(local_site, "alice"))
    gate.touch()
    # asked by the owner, for a question of alice's own would start her user-server again
    until(lambda: "finished" in local_site.admin("lsjobs", "alice").ok().out, 60, "the record of the end")
    lock = run_dir(local_site, "alice") / "lock"
    assert not is_running(int(lock.read_text().split()[0]))
    row = local_site.row("alice", job)
    assert (row["outcome"], row["exit_code"], row["attempt"]) == ("failed", 7, 1)


def test_a_user_server_that_was_killed_is_let_in_again_at_once(local_site: Site) -> None:
    local_site.client("alice", "ping")
    local_site.rows("alice")
    kill(user_server(local_site, "alice"))
    began = time.monotonic()
    local_site.rows("alice")
    assert time.monotonic() - began < 8.0, "it need not wait until hq-server gives up the old one"


def test_a_submission_without_hq_server_is_kept_and_done_once_when_it_is_back(local_site: Site) -> None:
    mark = local_site.folder / "mark"
    mark.touch()
    mark.chmod(0o666)
    local_site.rows("alice")
    pid = local_site.server_pid()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_running(pid), 20, "end of hq-server")
    done = local_site.run("alice", "hq-submit", f"echo once >> {mark}")
    assert done.rc == 0, done.err
    assert "1 job(s) kept until hq-server is back" in done.out
    assert str(run_dir(local_site, "alice") / "spool") in done.err
    kill(user_server(local_site, "alice"))
    local_site.start_server()
    local_site.rows("alice")
    until(lambda: mark.read_text(), 60, "the job that was kept")
    local_site.client("alice", "wait", timeout=60)
    assert mark.read_text() == "once\n"
    assert not list((run_dir(local_site, "alice") / "spool").iterdir())
