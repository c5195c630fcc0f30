"""A real Slurm as a synthetic host: what becomes of jobs there, and of the faults on the way."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.states import Outcome, RunKind
from tests.support.batchsite import QUICK, WAITS, BatchSite
from tests.support.hosts import Hosts
from tests.support.site import Site
from tests.support.slurm import SlurmCluster, missing_for_slurm
from tests.support.wait import until

if missing_for_slurm():
    pytest.skip(f"not here: {missing_for_slurm()}", allow_module_level=True)


@pytest.fixture
def site(slurm: SlurmCluster, tmp_path: Path) -> Iterator[BatchSite]:
    """An exec-server over it. Its sbatch writes each call into a file, and kills its caller once if it finds the file `kill`."""
    tools = tmp_path / "tools"
    tools.mkdir()
    wrapper = tools / "sbatch"
    wrapper.write_text(
        f"#!/bin/sh\necho \"$@\" >>{tools}/calls\n{shutil.which('sbatch')} \"$@\" >{tools}/out.$$ || exit $?\n"
        f"if [ -e {tools}/kill ]; then rm {tools}/kill; kill -9 $PPID; exit 1; fi\ncat {tools}/out.$$\n"
    )
    wrapper.chmod(0o755)
    made = BatchSite(tmp_path / "site", "slurm", path=str(tools), environment={"SLURM_CONF": str(slurm.conf)})
    try:
        yield made.up()
    finally:
        made.close()


def calls(site: BatchSite) -> list[str]:
    path = site.root.parent / "tools" / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_outcomes_arrive_as_from_any_host(site: BatchSite) -> None:
    wanted = {"true": (Outcome.OK, 0, None), "exit 7": (Outcome.FAILED, 7, None), "kill -9 $$": (Outcome.FAILED, None, 9)}
    keys = site.upstream.start(*(site.spec(command) for command in wanted))
    late, big, missing = site.upstream.start(
        site.spec("sleep 60", time_limit=1.0, grace=1.0), site.spec("head -c 300m /dev/zero | tail | sleep 60", memory=50 << 20),
        site.spec("no-such-command-anywhere", "x"),
    )  # fmt: skip
    for key, (outcome, code, number) in zip(keys, wanted.values(), strict=True):
        report = site.upstream.ended(key, 40)
        assert (report.outcome, report.exit_code, report.signal) == (outcome, code, number), report
        assert "slurm:alpha job" in report.reason and "waited there" in report.reason
    assert site.upstream.ended(late).outcome is Outcome.TIMEOUT
    assert site.upstream.ended(big).outcome is Outcome.MEMORY
    assert (site.upstream.ended(missing).exit_code, site.upstream.ended(missing).outcome) == (127, Outcome.FAILED)
    site.upstream.until(lambda: not site.folders(), "the directories of submissions to go", 40)


def test_environment_words_and_directory_arrive_exactly_and_no_secret_is_shown(site: BatchSite, slurm: SlurmCluster) -> None:
    env = site.user.seal(b"SECRET=opensesame\0PATH=/usr/bin:/bin\0SLURM_JOB_ID=stale\0")
    (key,) = site.upstream.start(site.spec("sh", "-c", 'printf "%s|" "$@"; pwd; echo $SECRET $HQ_TASK_ID; test $SLURM_JOB_ID != stale && ' + WAITS, "sh", "a b", b"\xff", "", env=env))
    site.upstream.started(key)
    assert "opensesame" not in slurm.run("scontrol", "show", "job", "-dd") + "".join(calls(site))
    for path in [each for folder in site.folders() for each in folder.iterdir()]:
        assert b"opensesame" not in path.read_bytes() or (path.suffix == ".spec" and path.stat().st_mode & 0o777 == 0o600)
    (site.work / "go").touch()
    assert site.upstream.ended(key).outcome is Outcome.OK
    assert site.said(key.job) == b"a b|\xff||" + os.fsencode(site.work) + b"\nopensesame 1\n"


def test_what_a_job_asks_for_is_what_slurm_gives(site: BatchSite, slurm: SlurmCluster) -> None:
    out, err = site.work / "here.txt", site.work / "there.txt"
    script = "echo $SLURM_JOB_ID $SLURM_CPUS_PER_TASK $CUDA_VISIBLE_DEVICES; env | grep -c ^MINE=; echo wrong >&2"
    env = site.user.seal(b"MINE=1\0PATH=/usr/bin:/bin\0")
    one, two = site.upstream.start(
        site.spec(script, slots=3, memory=100 << 20, time_limit=600.0, grace=10.0, name="my job", resources={"gpu": 1}, env=env,
                  stdout=os.fsencode(out), stderr=os.fsencode(err)),
        site.spec("echo $SLURM_JOB_NUM_NODES $SLURM_NTASKS", slots=4, resources={"nodes": 2}),
    )  # fmt: skip
    for key in (one, two):
        assert site.upstream.ended(key, 40).outcome is Outcome.OK
    shown = slurm.run("scontrol", "-o", "show", "job", site.native(one).id)
    for words in ("JobName=my_job", "NumCPUs=3", "MinMemoryNode=100M", "TimeLimit=00:12:00", "TresPerNode=gres:gpu:1"):
        assert words in shown, (words, shown)
    assert out.read_text().split() == [site.native(one).id, "3", "0", "1"] and err.read_text() == "wrong\n"
    assert site.said(two.job) == b"2 4\n"


def test_tasks_of_an_array_that_start_together_are_one_native_array(site: BatchSite) -> None:
    keys = site.start_array("echo $HQ_ARRAY_INDEX; exit $((HQ_ARRAY_INDEX == 3))", 12)
    reports = [site.upstream.ended(key, 40) for key in keys]
    assert [report.exit_code for report in reports] == [int(index == 3) for index in range(12)]
    assert len(calls(site)) == 1 and "--array=0-11" in calls(site)[0]


def test_a_waiting_job_shows_slurms_reason_and_is_cancelled_at_once(site: BatchSite, slurm: SlurmCluster) -> None:
    for name in slurm.names:
        slurm.run("scontrol", "update", f"nodename={name}", "state=drain", "reason=test")
    try:
        (key,) = site.upstream.start(site.spec("true"))
        site.waits(key, "waiting at slurm:alpha: ")
        # of the first in line Slurm soon says it in a sentence of its own
        (other,) = site.upstream.start(site.spec("true"))
        assert site.waits(other, "ReqNodeNotAvail").startswith("waiting at slurm:alpha: ")
        site.upstream.stop(key)
        assert site.upstream.ended(key).kind is RunKind.NEVER_STARTED
    finally:
        for name in slurm.names:
            slurm.run("scontrol", "update", f"nodename={name}", "state=resume")
    assert site.upstream.ended(other, 40).outcome is Outcome.OK


def test_signals_and_cancel_reach_a_running_job(site: BatchSite) -> None:
    trap, victim, still = site.upstream.start(
        site.spec("trap 'echo got; exit 9' USR1; touch ready; while :; do sleep 0.1; done"), site.spec("sleep 100"), site.spec("exec sleep 100")
    )
    for key in (trap, victim, still):
        site.upstream.started(key)
    site.upstream.until((site.work / "ready").exists, "the trap", 40)
    site.upstream.signal(trap, signal.SIGUSR1)
    site.upstream.signal(victim, signal.SIGKILL)
    site.upstream.stop(still)
    assert site.upstream.ended(trap).exit_code == 9
    assert (site.upstream.ended(victim).outcome, site.upstream.ended(victim).signal) == (Outcome.FAILED, 9)
    assert site.upstream.ended(still).outcome is Outcome.CANCELLED


def test_what_others_do_to_a_job_is_told(site: BatchSite, slurm: SlurmCluster) -> None:
    shot, lost = site.upstream.start(site.spec("sleep 100"), site.spec("sleep 100"))
    ids = {key: site.upstream.started(key).reason.split(" job ")[1].split()[0] for key in (shot, lost)}
    slurm.run("scancel", ids[shot])
    report = site.upstream.ended(shot, 30)
    assert report.outcome is Outcome.CANCELLED and "was cancelled at slurm:alpha" in report.reason
    node = slurm.run("squeue", "-h", "-j", ids[lost], "-o", "%N").strip()
    slurm.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        report = site.upstream.ended(lost, 30)
    finally:
        slurm.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)  # it may have come back by itself
    assert report.outcome is Outcome.LOST and "NODE_FAIL" in report.reason


def test_a_refusal_has_slurms_own_words(site: BatchSite) -> None:
    report = site.run("true", resources={"gpu": 3})
    assert report.outcome is Outcome.REFUSED and "Requested node configuration is not available" in report.reason
    report = site.run("true", resources={"licence": 1})
    assert report.outcome is Outcome.REFUSED and "licence" in report.reason and "backends.yaml" in report.reason


def test_without_its_controller_nothing_is_lost_and_its_words_are_shown(site: BatchSite, slurm: SlurmCluster) -> None:
    (running,) = site.upstream.start(site.spec(WAITS))
    site.upstream.started(running)
    slurm.stop("slurmctld")
    try:
        (key,) = site.upstream.start(site.spec("echo late"))
        assert "Unable to contact slurm controller" in site.waits(key, "not submitted yet")
        (site.work / "go").touch()
        assert site.upstream.ended(running, 30).outcome is Outcome.OK
    finally:
        slurm.start_controller()
    assert site.upstream.ended(key, 60).outcome is Outcome.OK
    assert site.said(key.job) == b"late\n"


def test_killed_between_sbatch_and_its_record_it_finds_the_job_by_its_tag(site: BatchSite) -> None:
    (site.root.parent / "tools" / "kill").touch()
    (key,) = site.upstream.start(site.spec("echo once >>count; sleep 1"))
    report = site.upstream.ended(key, 40)
    assert report.outcome is Outcome.OK
    assert (site.work / "count").read_text() == "once\n"
    assert len(calls(site)) == 1 and "found by its tag" in site.log_text()


def test_a_worker_that_dies_takes_waiting_and_running_jobs_over(site: BatchSite) -> None:
    keys = site.upstream.start(*(site.spec(f"echo {number} >>count; {WAITS}") for number in range(3)))
    for key in keys:
        site.upstream.started(key)
    site.kill_worker()
    (site.work / "go").touch()
    assert [site.upstream.ended(key, 40).outcome for key in keys] == [Outcome.OK] * 3
    assert sorted((site.work / "count").read_text().split()) == ["0", "1", "2"]


def test_an_array_spreads_over_ssh_hosts_and_slurm(install: Path, hosts: Hosts, slurm: SlurmCluster) -> None:
    with Site(install, rows=["node1:4:ssh", "node2:4:openssh", "centre:24:local"], hosts=hosts) as made:
        options = [*(f"  {name}: {value}" for name, value in QUICK.items()), f"  environment: {{SLURM_CONF: {slurm.conf}}}"]
        made.make_batch("centre", "slurm", "\n".join(options))
        job = made.submit("alice", "-a", "1-200", f"id -un; while [ ! -e {made.folder}/go ]; do sleep 0.1; done; exit $((HQ_ARRAY_INDEX % 50 == 0))")
        until(lambda: {task["host"] for task in made.rows("alice", job, "--tasks") if task["state"] == "running"} == {"node1", "node2", "centre"}, 60, "tasks on all")
        (made.folder / "go").touch()
        assert made.client("alice", "wait", job, timeout=110).rc == 1
        row = made.row("alice", job)
        assert (row["tasks"]["finished:ok"], row["tasks"]["finished:failed"]) == (196, 4), row
        tasks = made.rows("alice", job, "--tasks")
        there = next(task for task in tasks if task["host"] == "centre")
        assert "slurm:centre job" in there["reason"]
        assert made.client("alice", "log", there["task"]).ok().out == "alice\n"
        long = made.submit("alice", "-H", "centre", "sleep 600")
        made.wait_for("alice", long, "running")
        assert "slurm:centre job" in made.client("alice", "job", long).ok().out
        made.client("alice", "cancel", long).ok()
        assert made.wait_for("alice", long)["outcome"] == "cancelled"
