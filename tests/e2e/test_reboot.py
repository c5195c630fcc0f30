"""The machine of hq-server, of the user-servers and of a host is rebooted: everything returns, and nothing refuses to start over what it left."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.hosts import Hosts
from tests.support.site import Site
from tests.support.wait import until


@pytest.fixture
def site(install: Path, hosts: Hosts) -> Iterator[Site]:
    """An instance whose only host is this machine; many slots, for a busy machine looks full."""
    with Site(install, rows=["here:64:local"], users=("alice",)) as made:
        yield made


def power_off(site: Site) -> None:
    """Every process of the instance is gone at once, jobs included."""

    def strike() -> bool:
        mine = [process for process in psutil.process_iter() if process.pid != os.getpid() and site._belongs(process)]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in mine:
                with suppress(psutil.Error):
                    process.send_signal(number)
        return bool(mine)

    # again for those that were born while we looked
    until(lambda: not strike(), 20, "end of all processes")


def run_dir(site: Site) -> Path:
    return Path(f"/var/tmp/hq-{pwd.getpwnam('alice').pw_uid}") / site.instance


def leave_stale(folder: Path, *names: str) -> None:
    """Locks that name a living process of somebody else, and sockets at which nobody listens."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / name
        owner = os.stat(folder)
        path.unlink(missing_ok=True)
        if name.endswith("sock"):
            with socket.socket(socket.AF_UNIX) as stale:
                stale.bind(str(path))
        else:
            path.write_text(f"{os.getpid()}\n")
            path.chmod(0o600)
        os.chown(path, owner.st_uid, owner.st_gid)


@pytest.mark.parametrize("is_wiped", [True, False], ids=["run directories gone", "stale files left"])
def test_everything_returns(site: Site, is_wiped: bool) -> None:
    plain = site.submit("alice", "sleep 1000")
    again = site.submit("alice", "--rerunnable", f"[ -e {site.folder}/second ] || sleep 1000")
    waiting = site.submit("alice", "--begin", "+1h", "true")
    for job in (plain, again):
        site.wait_for("alice", job, "running")
    power_off(site)
    (site.folder / "second").touch()
    var_run = site.folder / "site" / "var" / "run"
    if is_wiped:
        shutil.rmtree(run_dir(site).parent)
        shutil.rmtree(var_run)
    else:
        leave_stale(var_run, "hq-server.lock", "enrol.sock")
        leave_stale(run_dir(site), "lock", "client.sock")
        leave_stale(run_dir(site) / "exec-here", "lock", "journal.new")
    site.start_server()
    site.rows("alice")  # the user's next command brings his user-server back
    row = site.wait_for("alice", again)
    assert (row["outcome"], row["attempt"]) == ("ok", 2)
    row = site.wait_for("alice", plain)
    assert row["outcome"] == "lost" and row["reason"], "it may not run again, and how it would have ended is not known"
    assert site.row("alice", waiting)["state"] == "waiting"
    new = site.submit("alice", "exit 5")
    assert site.wait_for("alice", new)["exit_code"] == 5
