"""`hq-client keepalive` by Debian's cron: the machine is rebooted, nobody logs in, and the user-server is there again and does its work."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import Hosts
from tests.support.logins import LoginMachine
from tests.support.site import Site
from tests.support.wait import until


@pytest.fixture(scope="module")
def machine(install: Path, hosts: Hosts) -> Iterator[LoginMachine]:
    """A login machine with a cron of its own, which is not started."""
    home = Path(pwd.getpwnam("alice").pw_dir)
    mode = home.stat().st_mode & 0o7777
    home.chmod(0o755)
    with Site(install, rows=["node2:2:ssh"], hosts=hosts, options="heartbeat: 1") as site, LoginMachine(hosts, "node1", site) as made:
        tables = made.folder / "crontabs"
        tables.mkdir()
        os.chown(tables, 0, grp.getgrnam("crontab").gr_gid)
        tables.chmod(0o1730)
        own_cron(made)
        yield made
    home.chmod(mode)


def own_cron(machine: LoginMachine) -> None:
    """What cron knows, and its note of the last boot, are this machine's."""
    machine.put(machine.folder / "crontabs", Path("/var/spool/cron/crontabs"))
    run = machine.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    (run / "sshd").mkdir(mode=0o755, parents=True)
    machine.put(run, Path("/run"))


def boot_cron(machine: LoginMachine) -> None:
    """Start cron as at the boot of the machine, into the background: its parent is the machine's first process."""
    done = machine.hosts.exec(machine.name, ["/usr/sbin/cron", "-L", "0"], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    assert done.returncode == 0, done.stderr


def end_cron(machine: LoginMachine) -> None:
    """End it; it has noted its process in the machine's own /run."""
    machine.hosts.exec(machine.name, ["sh", "-c", "kill $(cat /run/crond.pid)"])


def test_cron_brings_the_user_server_back_after_a_reboot(machine: LoginMachine) -> None:
    said = machine.run("alice", "hq-client", "keepalive").ok().out
    assert "is kept up over logouts and reboots by cron" in said
    table = machine.run("alice", "crontab", "-l").ok().out
    assert table.count("# hq keepalive") == 2
    assert "by cron" in machine.run("alice", "hq-client", "keepalive", "status").ok().out
    first = machine.run("alice", "hq-submit", "-q", "--hold", "echo it ran by itself").ok().out.strip()
    assert machine.has_user_server("alice")
    machine.reboot()
    own_cron(machine)
    assert not machine.has_user_server("alice")
    boot_cron(machine)
    try:
        until(lambda: machine.has_user_server("alice"), 60, "cron to start it")
        # she has typed nothing since the reboot
        machine.site.admin("release", first).ok()
        until(lambda: machine.site.seen_by_owner(first)["state"] == "finished", 60, "her job to start and end")
        assert machine.run("alice", "hq-client", "log", first).ok().out == "it ran by itself\n"
    finally:
        end_cron(machine)
    machine.run("alice", "hq-client", "keepalive", "off").ok()
    assert "# hq keepalive" not in machine.run("alice", "crontab", "-l").out
    machine.run("alice", "hq-client", "shutdown").ok()
    until(lambda: not machine.has_user_server("alice"), 60, "it to end")


def test_the_line_of_every_five_minutes_starts_one_that_died_and_leaves_one_that_lives(machine: LoginMachine) -> None:
    """For a user whose HQ_HOME is elsewhere, which cron does not know."""
    own = {"HQ_HOME": str(machine.folder / "alice" / "own %home")}
    machine.run("alice", "hq-client", "keepalive", env=own).ok()
    (line,) = (line for line in machine.run("alice", "crontab", "-l").out.splitlines() if line.startswith("*/5 * * * * "))
    # as cron runs it: by sh, with next to no environment, a percent sign being its own unless escaped
    command = line.removeprefix("*/5 * * * * ").replace("\\%", "%")
    bare = ["env", "-i", "HOME=" + pwd.getpwnam("alice").pw_dir, "LOGNAME=alice", "PATH=/usr/bin:/bin", "SHELL=/bin/sh", "/bin/sh", "-c", command]
    pids = []
    for _ in range(2):
        machine.run("alice", *bare).ok()
        assert machine.has_user_server("alice")
        pids.append(machine.run("alice", "hq-client", "info", "--json", env=own).ok().json["facts"]["pid"])
    assert pids[0] == pids[1]
    assert (Path(own["HQ_HOME"]) / machine.site.instance / "access.json").exists()
    machine.run("alice", "kill", "-9", str(pids[0])).ok()
    until(lambda: not machine.has_user_server("alice"), 60, "it to die")
    machine.run("alice", *bare).ok()
    assert machine.has_user_server("alice")
    machine.run("alice", "hq-client", "keepalive", "off", env=own).ok()
