"""A backup that is older than the world: restored after its jobs have ended, it runs none of them again, and learns how they ended."""

from __future__ import annotations

from pathlib import Path

from tests.support.hosts import Hosts
from tests.support.site import Site
from tests.support.wait import until


def facts(site: Site) -> dict[str, str]:
    """What `hq-admin status` says."""
    return {row["fact"]: str(row["value"]) for row in site.admin("status", "--json").ok().json["rows"]}


def test_an_old_backup_runs_nothing_again(install: Path, hosts: Hosts, database: str | None) -> None:
    with Site(install, rows=["here:40:local"], database=database) as site:
        work = Path("/var/tmp") / f"hq-restore-{site.instance}"
        command = f"echo $HQ_TASK_ID >> {work}; sleep 0.3"
        try:
            site.wait_for("bob", site.submit("bob", "true"))
            plain = site.submit("alice", "--hold", command)
            failing = site.submit("alice", "--hold", f"{command}; exit 7")
            array = site.submit("alice", "--hold", "-a", "1-4", command)
            cancelled = site.submit("alice", "--hold", "--rerunnable", f"{command}; sleep 300")
            waiting = site.submit("alice", "--begin", "+1h", command)
            unwanted = site.submit("alice", "--begin", "+1h", command)
            backup = site.folder / "site" / "var" / "backup"
            site.run(site.owner, "hq-dbadmin", "--backup", str(backup)).ok()

            site.client("alice", "release", plain, failing, array, cancelled).ok()
            until(lambda: cancelled in work.read_text().split() if work.exists() else False, 60, "the long one to start")
            site.client("alice", "cancel", cancelled, waiting).ok()
            site.admin("cancel", unwanted).ok()
            for job in (plain, failing, array, cancelled):
                site.wait_for("alice", job)
            later = site.submit("alice", f"{command}; exit 3")
            site.wait_for("alice", later)
            running = site.submit("alice", f"{command}; {site.waits}; echo done >> {work}")
            site.wait_for("alice", running, "running")
            until(lambda: running in work.read_text().split(), 60, "its first word")
            ran = sorted(work.read_text().split())
            assert ran == sorted([plain, failing, cancelled, later, running, *(f"{array}_{index}" for index in range(1, 5))])
            before = {job: site.row("alice", job) for job in (plain, failing, array, cancelled, later)}
            site.client("bob", "shutdown", "--hosts").ok()

            site.admin("shutdown").ok()
            until(lambda: not site._is_up(), 60, "hq-server to end")
            site.run(site.owner, "hq-dbadmin", "--drop-tables", "--yes").ok()
            site.run(site.owner, "hq-dbadmin", "--create-tables").ok()
            said = site.run(site.owner, "hq-dbadmin", "--restore", str(backup)).ok().out
            assert "alice, bob" in said
            site.start_server()

            until(lambda: facts(site).get("ledgers awaited") == "bob", 60, "alice's ledger to be compared")
            for job, row in before.items():
                now = site.wait_for("alice", job)
                assert (now["outcome"], now["exit_code"], now["attempt"]) == (row["outcome"], row["exit_code"], row["attempt"]), (row, now)
            assert [site.wait_for("alice", job)["outcome"] for job in (waiting, unwanted)] == ["cancelled", "cancelled"]
            site.wait_for("alice", running, "running")  # the database had never heard of it
            assert sorted(work.read_text().split()) == ran, "something ran again"
            fresh = site.submit("alice", command)
            assert int(fresh) > 1_000_000, "ids go on above all that were given"
            assert site.wait_for("alice", fresh)["outcome"] == "ok"
            site.let_go(running)
            assert site.wait_for("alice", running)["outcome"] == "ok"
            assert sorted(work.read_text().split()) == sorted([*ran, fresh, "done"]), "it ran to its end, once"
            assert any(row["action"] == "ledger compared" for row in site.admin("audit", "alice", "--json").ok().json["rows"])

            assert "not awaited any more" in site.admin("forgetledger", "bob").ok().out
            assert "ledgers awaited" not in facts(site)
            assert "no ledger" in site.admin("forgetledger", "bob").err
        finally:
            work.unlink(missing_ok=True)
