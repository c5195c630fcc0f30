"""A backup that is older than the world: restored after its jobs have ended, it runs none of them again."""

from __future__ import annotations

from pathlib import Path

from tests.support.hosts import Hosts
from tests.support.site import Site
from tests.support.wait import until


def test_an_old_backup_runs_nothing_again(install: Path, hosts: Hosts) -> None:
    with Site(install, rows=["here:2:local"]) as site:
        work = Path("/var/tmp") / f"hq-restore-{site.instance}"
        command = f"sleep 0.3; echo $HQ_TASK_ID >> {work}"
        try:
            plain = site.submit("alice", "--hold", command)
            array = site.submit("alice", "--hold", "-a", "1-4", command)
            backup = site.folder / "site" / "var" / "backup"
            site.run(site.owner, "hq-dbadmin", "--backup", str(backup)).ok()
            site.client("alice", "release", plain, array).ok()
            for job in (plain, array):
                site.wait_for("alice", job)
            later = site.submit("alice", command)
            site.wait_for("alice", later)
            ran = sorted(work.read_text().split())
            assert ran == sorted([plain, later, *(f"{array}_{index}" for index in range(1, 5))])

            site.admin("shutdown").ok()
            until(lambda: not site._is_up(), what="hq-server to end")
            site.run(site.owner, "hq-dbadmin", "--drop-tables", "--yes").ok()
            site.run(site.owner, "hq-dbadmin", "--create-tables").ok()
            said = site.run(site.owner, "hq-dbadmin", "--restore", str(backup)).ok().out
            assert "held" in said
            site.start_server()

            assert {row["state"] for row in site.rows("alice", plain, array)} == {"held"}
            site.client("alice", "release", plain, array).ok()
            for job in (plain, array):
                row = site.wait_for("alice", job)
                assert (row["outcome"], row["exit_code"]) == ("ok", 0), row
            assert "ledger" in site.client("alice", "why", plain).ok().out
            assert sorted(work.read_text().split()) == ran, "something ran again"
            fresh = site.submit("alice", command)
            assert int(fresh) > int(later) + 1000, "ids go on above all that were given"
            assert site.wait_for("alice", fresh)["outcome"] == "ok"
        finally:
            work.unlink(missing_ok=True)
