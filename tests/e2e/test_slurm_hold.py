"""Hold and release on a real Slurm: of what waits there, of what is on its way there, of pilots' tasks; and its refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.runs import RETURNED
from hq.model.states import Outcome, RunKind
from hq.protocol.runs import RunStop
from tests.support.batchsite import QUICK, WAITS, BatchSite
from tests.support.execserver import HOST
from tests.support.hosts import Hosts
from tests.support.site import Site
from tests.support.slurm import SlurmCluster, missing_for_slurm
from tests.support.wait import until

if missing_for_slurm():
    pytest.skip(f"not here: {missing_for_slurm()}", allow_module_level=True)


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    """One node of 16 cores."""
    with SlurmCluster(nodes=1) as made:
        yield made


@pytest.fixture
def site(slurm: SlurmCluster, tmp_path: Path) -> Iterator[BatchSite]:
    """An exec-server over it, which finds what the test puts into `tools` before Slurm's own commands."""
    made = BatchSite(tmp_path / "site", "slurm", path=str(tmp_path / "site" / "tools"), environment={"SLURM_CONF": str(slurm.conf)})
    try:
        yield made.up()
    finally:
        made.close()
        slurm.run("scancel", "--user=root", check=False)


def reasons(slurm: SlurmCluster) -> dict[str, str]:
    """What Slurm says of each job that waits."""
    return dict(line.split(" ", 1) for line in slurm.run("squeue", "-h", "--array", "-t", "PD", "-o", "%i %r").splitlines())


def test_a_waiting_job_is_held_by_slurm_survives_a_new_worker_and_is_released(site: BatchSite, slurm: SlurmCluster) -> None:
    (full,) = site.upstream.start(site.spec("sleep 100", slots=16))
    site.upstream.started(full)
    keys = site.start_array("true", 3)
    for key in keys:
        site.waits(key, "waiting at slurm:alpha: ")
    site.hold(keys[1])
    assert "JobHeld" in site.waits(keys[1], "held at slurm:alpha: JobHeld")
    held = site.native(keys[1])
    assert held.is_held and held.state == "PENDING" and "JobHeld" in reasons(slurm)[held.id] and held.since
    assert not any("JobHeld" in reasons(slurm)[site.native(key).id] for key in (keys[0], keys[2]))
    site.kill_worker()
    site.upstream.stop(full)
    assert [site.upstream.ended(key, 40).outcome for key in (keys[0], keys[2])] == [Outcome.OK] * 2
    assert site.upstream.find(keys[1], RunKind.STARTED) is None
    site.hold(keys[1], is_held=False)
    report = site.upstream.ended(keys[1], 40)
    assert report.outcome is Outcome.OK and report.native is not None and report.native.id == held.id
    assert report.native.since is not None and abs(report.native.since - held.since) < 1, "a new worker knows since when it waits"


def test_a_hold_that_slurm_refuses_has_its_words_and_one_that_comes_too_late_changes_nothing(site: BatchSite, slurm: SlurmCluster) -> None:
    (full,) = site.upstream.start(site.spec(WAITS, slots=16))
    site.upstream.started(full)
    site.hold(full)
    (one, two) = site.upstream.start(site.spec("true"), site.spec("true"))
    for key in (one, two):
        site.waits(key, "waiting at slurm:alpha: ")
    site.tool("scontrol", f'case "$*" in *" {site.native(one).id}"*) echo "holding is not for you" >&2; exit 1;; esac\nexec {shutil.which("scontrol")} "$@"\n')
    site.hold(one, two)
    assert "it could not be held: holding is not for you" in site.waits(one, "holding is not for you")
    site.waits(two, "held at slurm:alpha: ")
    assert not site.native(one).is_held
    (site.work / "go").touch()
    assert [site.upstream.ended(key, 40).outcome for key in (full, one)] == [Outcome.OK] * 2
    assert site.upstream.find(two, RunKind.STARTED) is None
    site.upstream.stop(two)
    assert site.upstream.ended(two).kind is RunKind.NEVER_STARTED
    site.upstream.until(lambda: not reasons(slurm), "the held job to be cancelled", 40)


def test_what_is_not_submitted_yet_is_given_back(site: BatchSite, slurm: SlurmCluster) -> None:
    slurm.stop("slurmctld")
    try:
        (key,) = site.upstream.start(site.spec("true"))
        site.waits(key, "not submitted yet")
        site.hold(key)
        report = site.upstream.ended(key)
    finally:
        slurm.start_controller()
    assert (report.kind, report.reason) == (RunKind.NEVER_STARTED, RETURNED)


def test_what_waits_at_slurm_is_taken_back_and_what_runs_is_not(site: BatchSite, slurm: SlurmCluster) -> None:
    (full,) = site.upstream.start(site.spec(WAITS, slots=16))
    site.upstream.started(full)
    (key,) = site.upstream.start(site.spec("true"))
    site.waits(key, "waiting at slurm:alpha: ")
    site.upstream.send(RunStop(host=HOST, runs=(key, full), reason=RETURNED, is_only_queued=True))
    report = site.upstream.ended(key)
    assert (report.kind, report.reason) == (RunKind.NEVER_STARTED, RETURNED)
    (site.work / "go").touch()
    assert site.upstream.ended(full).outcome is Outcome.OK
    site.upstream.until(lambda: not reasons(slurm), "the waiting job to be cancelled", 40)


def test_a_pilots_waiting_task_is_given_back_and_its_running_one_goes_on(slurm: SlurmCluster, tmp_path: Path) -> None:
    made = BatchSite(tmp_path / "site", "slurm", slots=16, mode="pilot", pilot_slots=2, pilot_limit=1, pilot_idle=1.0, environment={"SLURM_CONF": str(slurm.conf)})
    try:
        made.up()
        first, second, third = made.upstream.start(*(made.spec(WAITS) for _ in range(3)))
        for key in (first, second):
            made.upstream.started(key)
        made.hold(first, third)
        assert (made.upstream.ended(third).kind, made.upstream.ended(third).reason) == (RunKind.NEVER_STARTED, RETURNED)
        (made.work / "go").touch()
        report = made.upstream.ended(first)
        assert report.outcome is Outcome.OK
        assert report.native is not None and report.native.id.isdigit() and report.native.since
    finally:
        made.close()
        slurm.run("scancel", "--name=hq-pilot-alpha", check=False)


def test_a_user_holds_and_releases_at_a_centre(install: Path, hosts: Hosts, slurm: SlurmCluster) -> None:
    with Site(install, rows=["centre:24:local"]) as made:
        options = [*(f"  {name}: {value}" for name, value in QUICK.items()), f"  environment: {{SLURM_CONF: {slurm.conf}}}"]
        made.make_batch("centre", "slurm", "\n".join(options))
        full = made.submit("alice", "-c", "16", "sleep 600")
        made.wait_for("alice", full, "running")
        job = made.submit("alice", "true")
        until(lambda: made.row("alice", job)["native_state"] == "PENDING", 60, "the job to wait at Slurm")
        assert "held there" in made.client("alice", "hold", job).ok().out
        until(lambda: "JobHeldUser" in (made.row("alice", job)["native_reason"] or ""), 60, "Slurm to hold it")
        row = made.row("alice", job)
        assert row["state"] == "held" and row["native_id"].isdigit() and row["reason"].startswith("held at slurm:centre: JobHeldUser")
        assert f"hq-client release {job}" in made.client("alice", "why", job).ok().out
        listing = made.client("alice", "jobs").ok().out
        assert f"{row['native_id']} (PENDING, JobHeldUser)" in listing
        made.client("alice", "release", job).ok()
        made.client("alice", "cancel", full).ok()
        ended = made.wait_for("alice", job)
        assert (ended["outcome"], ended["native_id"]) == ("ok", row["native_id"])
        assert 0 < ended["native_wait_seconds"] < ended["started"] - ended["submitted"] + 0.5
        told = made.client("alice", "job", job).ok().out
        assert "native job:" in told and "native wait:" in told and " held " in told
