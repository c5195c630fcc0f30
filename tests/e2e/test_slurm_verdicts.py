"""What a real Slurm with accounting does to jobs, and what hq makes of it: limits, nodes, pre-emption, requeue, what squeue has forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.ids import AttemptKey
from hq.model.states import Outcome, RunKind
from tests.support.batchsite import QUICK, WAITS, BatchSite, MakeSite
from tests.support.hosts import Hosts
from tests.support.mariadb import MariaDB
from tests.support.site import Site
from tests.support.slurm import SlurmCluster, missing_for_slurm
from tests.support.wait import until

if missing_for_slurm("slurmdbd", "sacct"):
    pytest.skip(f"not here: {missing_for_slurm('slurmdbd', 'sacct')}", allow_module_level=True)

#: squeue as it is once MinJobAge has passed for all that has ended.
FORGETFUL = {"squeue": 'for word; do shift; [ "$word" = --states=all ] || set -- "$@" "$word"; done\nexec {squeue} "$@"\n'}


@pytest.fixture(scope="module")
def slurm(mariadb: MariaDB) -> Iterator[SlurmCluster]:
    """Four nodes of four cores, with slurmdbd; root may use the account proj."""
    with SlurmCluster(nodes=4, cpus=4, database=mariadb, slurmd_timeout=5) as made:
        made.add_user("root", "proj")
        yield made


@pytest.fixture(autouse=True)
def _leaves_nothing(slurm: SlurmCluster) -> Iterator[None]:
    yield
    until(lambda: not slurm.run("squeue", "-h"), 60, "an empty cluster")


def job_of(site: BatchSite, key: AttemptKey) -> str:
    """The native id of a task that runs."""
    native = site.upstream.started(key).native
    assert native is not None
    return native.id


def test_limit_node_preemption_and_requeue_arrive_as_the_right_outcomes(make: MakeSite, slurm: SlurmCluster) -> None:
    site = make(partition="batch")
    late, down, ousted, again = site.upstream.start(*(site.spec("exec sleep 600", slots=4) for _ in range(4)))
    ids = {key: job_of(site, key) for key in (late, down, ousted, again)}
    nodes = {key: slurm.run("squeue", "-h", "-j", id, "-o", "%N").strip() for key, id in ids.items()}
    slurm.run("scontrol", "update", f"jobid={ids[late]}", "timelimit=0")
    slurm.kill_node(nodes[down])
    slurm.run("sbatch", "-p", "urgent", "-w", nodes[ousted], "-c", "4", "--output=/dev/null", "--chdir=/", "--wrap=sleep 1")
    slurm.run("scontrol", "update", f"jobid={ids[again]}", "requeue=1")
    slurm.run("scontrol", "requeue", ids[again])
    try:
        report = site.upstream.ended(ousted, 40)
        assert report.outcome is Outcome.LOST and "slurm:alpha: PREEMPTED" in report.reason, report
        report = site.upstream.ended(again, 40)
        assert report.outcome is Outcome.LOST and "stopped it and queued it again" in report.reason, report
        report = site.upstream.ended(down, 60)
        assert report.outcome is Outcome.LOST and "slurm:alpha: NODE_FAIL" in report.reason, report
        report = site.upstream.ended(late, 90)
        assert report.outcome is Outcome.TIMEOUT and "ran into the time limit of slurm:alpha" in report.reason, report
    finally:
        slurm.start_node(nodes[down])


def test_accounting_decides_what_squeue_has_forgotten_and_the_runner_could_not_write(make: MakeSite) -> None:
    site = make(FORGETFUL)
    keys = site.start_array("[ $HQ_ARRAY_INDEX = 1 ] && kill -9 $PPID && sleep 60; exit $HQ_ARRAY_INDEX", 3)
    reports = [site.upstream.ended(key, 60) for key in keys]
    assert [(report.outcome, report.exit_code, report.signal) for report in reports] == [
        (Outcome.OK, 0, None), (Outcome.FAILED, None, 9), (Outcome.FAILED, 2, None),
    ], reports  # fmt: skip


def test_the_exit_file_decides_what_neither_squeue_nor_accounting_knows(make: MakeSite) -> None:
    site = make({"squeue": "exit 0\n", "sacct": "exit 0\n"})
    assert site.run("sleep 1; exit 7", timeout=40).exit_code == 7


def test_absence_alone_says_nothing(make: MakeSite) -> None:
    site = make({**FORGETFUL, "sacct": "echo 'sacct: error: slurm_persist_conn_open: failed' >&2; exit 1\n"}, unknown_after=3.0)
    (key,) = site.upstream.start(site.spec("kill -9 $PPID; sleep 60"))
    site.upstream.started(key)
    site.waits(key, "listed no more, and nothing says yet how it ended")
    report = site.upstream.ended(key, 40)
    assert report.outcome is Outcome.LOST and "does not know job" in report.reason and "nothing says how it ended" in report.reason


def test_refusals_and_quotas_have_slurms_own_words(make: MakeSite, slurm: SlurmCluster) -> None:
    for settings, words in (
        ({"partition": "nosuch"}, "invalid partition specified: nosuch"),
        ({"account": "nosuch"}, "Invalid account or account/partition combination specified"),
        ({"qos": "nosuch"}, "Invalid qos specification"),
    ):
        report = make(**settings).run("true", timeout=30)
        assert report.outcome is Outcome.REFUSED and words in report.reason, report
    site = make(account="proj")
    slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=1")
    try:
        (first,) = site.upstream.start(site.spec(WAITS))
        site.upstream.started(first)
        (second,) = site.upstream.start(site.spec("true"))
        assert "AssocMaxSubmitJobLimit" in site.waits(second, "not submitted yet")
        (site.work / "go").touch()
        assert [site.upstream.ended(key, 40).outcome for key in (first, second)] == [Outcome.OK] * 2
    finally:
        slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxsubmitjobs=-1")


def test_what_must_wait_for_a_limit_shows_slurms_reason(make: MakeSite, slurm: SlurmCluster) -> None:
    site = make(account="proj")
    slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxjobs=1")
    try:
        first, second = site.upstream.start(site.spec(WAITS), site.spec(WAITS))
        waiting = second if site.upstream.until(lambda: site.upstream.find(first, RunKind.STARTED) or site.upstream.find(second, RunKind.STARTED), "one to start").key == first else first
        site.waits(waiting, "AssocMaxJobsLimit")
        assert site.native(waiting).reason == "AssocMaxJobsLimit"
        (site.work / "go").touch()
        assert [site.upstream.ended(key, 40).outcome for key in (first, second)] == [Outcome.OK] * 2
    finally:
        slurm.run("sacctmgr", "-i", "modify", "user", "root", "set", "maxjobs=-1")


def test_a_login_node_that_is_away_makes_nothing_fail(install: Path, hosts: Hosts) -> None:
    with SlurmCluster(nodes=1, address=hosts.gateway) as slurm, Site(install, rows=["node1:8:ssh"], hosts=hosts) as made:
        made.make_batch("node1", "slurm", "\n".join([*(f"  {name}: {value}" for name, value in QUICK.items()), f"  environment: {{SLURM_CONF: {slurm.conf}}}"]))
        job = made.submit("alice", f"while [ ! -e {made.folder}/go ]; do sleep 0.1; done; echo done")
        id = made.wait_for("alice", job, "running")["native_id"]
        hosts.cut("node1")
        (made.folder / "go").touch()
        try:
            until(lambda: id not in slurm.run("squeue", "-h", "-o", "%i").split(), 60, "Slurm to end it")
            until(lambda: "is silent" in made.client("alice", "why", job).out or made.row("alice", job)["state"] == "host_lost", 60, "the silence to be noticed")
            assert made.row("alice", job)["outcome"] is None
        finally:
            hosts.join("node1")
        row = made.wait_for("alice", job)
        assert (row["outcome"], row["native_id"]) == ("ok", id)
        assert made.client("alice", "log", job).ok().out == "done\n"
