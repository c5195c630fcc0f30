"""A full disk, under hq-server's database and under the output of a job: said in a clear line, and nothing is lost. Small tmpfs, so root only."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.hosts import Hosts
from tests.support.site import Site
from tests.support.wait import until


@contextmanager
def small_disk(folder: Path, size: str, owner: str) -> Iterator[Path]:
    """A file system of its own at `folder`, which must exist; what lies there is hidden meanwhile."""
    entry = pwd.getpwnam(owner)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},uid={entry.pw_uid},gid={entry.pw_gid},mode=755", "tmpfs", str(folder)], check=True, timeout=10
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


def fill(folder: Path, name: str = "fill") -> Path:
    """Take all the space there is."""
    path = folder / name
    with path.open("wb") as file, suppress(OSError):
        while True:
            os.write(file.fileno(), bytes(4096))
    return path


def test_a_full_disk_under_the_output_is_the_programs_to_notice_and_hq_goes_on(local_site: Site) -> None:
    folder = local_site.folder / "out"
    folder.mkdir()
    with small_disk(folder, "1m", "alice"):
        script = "head -c 4000000 /dev/zero || { echo no space >&2; exit 28; }"
        job = local_site.submit("alice", "-o", f"{folder}/out", script)
        row = local_site.wait_for("alice", job)
        assert (row["outcome"], row["exit_code"]) == ("failed", 28)
        assert "no space" in local_site.client("alice", "log", job, "--stderr").ok().out
        refused = local_site.wait_for("alice", local_site.submit("alice", "-o", f"{folder}/new/file", "true"))
        assert refused["outcome"] in ("ok", "failed"), "an empty file may still fit"
        assert local_site.wait_for("alice", local_site.submit("alice", "true"))["outcome"] == "ok"


def test_a_full_disk_under_the_database_is_told_and_what_was_asked_is_done_once_there_is_space(install: Path) -> None:
    site = Site(install, rows=["here:2:local"])
    with small_disk(site.folder, "4m", site.owner), site:
        assert site.wait_for("alice", site.submit("alice", "true"))["outcome"] == "ok"
        blocker = fill(site.folder)
        script = b"#!/bin/sh\nexit 7\n# " + os.urandom(100_000).hex().encode()
        done = site.run("alice", "hq-submit", "-", stdin=script)
        assert "disk is full" in done.err + done.out, done
        assert "away" in site.admin("status").ok().out
        blocker.unlink()
        row = until(lambda: [each for each in site.rows("alice", "all") if each["outcome"] == "failed"], 60, "the job that was kept")[0]
        assert row["exit_code"] == 7
        assert "ok" in [each["outcome"] for each in site.rows("alice", "all")]


def test_a_full_disk_under_the_daemons_of_a_user(install: Path, hosts: Hosts) -> None:
    """Spool, ledger, run book and journal are on one disk. What was acknowledged is done once there is space, what is refused says why."""
    entry = pwd.getpwnam("alice")
    disk = Path(f"/var/tmp/hq-{entry.pw_uid}")
    disk.mkdir(mode=0o700, exist_ok=True)
    # its slots are many, so that the load of other tests is no reason to wait
    with small_disk(disk, "3m", "alice"), Site(install, rows=["here:200:local"]) as site:
        disk.chmod(0o700)
        gate = site.folder / "gate"
        first = site.submit("alice", f"until [ -e {gate} ]; do sleep 0.1; done; exit 3")
        site.wait_for("alice", first, "running")
        blocker = fill(disk)
        # more of them than the last page of each file has room for
        jobs = "".join(f"command::exit {number % 7 + 1}\n" for number in range(80))
        accepted = site.run("alice", "hq-submit", "-q", "--jobs-file", "-", stdin=jobs.encode()).ok().out.split()
        assert len(accepted) == 80
        until(lambda: "make room" in site.client("alice", "why", accepted[-1]).ok().out, 30, "the user to be told")
        gate.touch()
        os.kill(int((disk / site.instance / "lock").read_text().split()[0]), signal.SIGKILL)
        assert len(site.rows("alice")) == 81, "a user-server comes up without room, too"
        site.admin("shutdown").ok()
        # whatever the daemons have tidied away meanwhile
        more = fill(disk, "more")
        refused = site.run("alice", "hq-submit", "exit 9")
        assert refused.rc == 1 and "nothing was submitted" in refused.err and "No space" in refused.err, refused
        blocker.unlink()
        more.unlink()
        site.start_server()
        expected = sorted([3, *(number % 7 + 1 for number in range(80))])
        until(lambda: sorted(row["exit_code"] or 0 for row in site.rows("alice", "all")) == expected, 60, "everything to end as it did")
        # while its disk is there
        site.client("alice", "shutdown", "--hosts").ok()
        site._end_rest()
