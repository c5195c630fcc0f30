"""Pilots on a real Slurm: many small tasks through few native jobs, what they may see, and what becomes of tasks when one dies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.protocol.peers import PeerAsk, PeerFacts
from tests.support.batchsite import WAITS, BatchSite, MakeSite
from tests.support.slurm import SlurmCluster, missing_for_slurm

if missing_for_slurm():
    pytest.skip(f"not here: {missing_for_slurm()}", allow_module_level=True)


@pytest.fixture
def site(slurm: SlurmCluster, tmp_path: Path) -> Iterator[BatchSite]:
    """An exec-server over it, with one or two pilots of four cores."""
    made = BatchSite(tmp_path / "site", "slurm", slots=64, mode="pilot", pilot_slots=4, pilot_limit=2, pilot_idle=2.0, environment={"SLURM_CONF": str(slurm.conf)})
    try:
        yield made.up()
    finally:
        made.close()
        slurm.run("scancel", "--name=hq-pilot-alpha", check=False)


def ids_in(reports: list[RunReport]) -> set[str]:
    """The native jobs that reports name."""
    return {report.native.id for report in reports if report.native is not None and report.native.id}


def test_many_short_tasks_go_through_two_pilots_and_each_runs_once(make: MakeSite, slurm: SlurmCluster) -> None:
    def asked() -> set[str]:
        """All pilots that Slurm ever had."""
        return set(slurm.run("squeue", "-h", "-t", "all", "--name=hq-pilot-alpha", "-o", "%i").split())

    def told(kind: RunKind) -> list[RunReport]:
        return [report for report in site.upstream.reports if report.key in wanted and report.kind is kind]

    before = asked()
    site = make(slots=64, mode="pilot", pilot_slots=4, pilot_limit=2, pilot_idle=600.0)
    # they wait for a file: one pilot could be through with all of them before the other is up
    wanted = set(site.start_array(f"echo $HQ_ARRAY_INDEX >>count; {WAITS}", 300))
    pilots: set[str] = site.upstream.until(lambda: len(found := ids_in(told(RunKind.STARTED))) == 2 and found, "tasks in two pilots", 60)
    (site.work / "go").touch()
    site.upstream.until(lambda: len({report.key for report in told(RunKind.ENDED)}) == 300, "300 tasks", 100)
    assert {report.outcome for report in told(RunKind.ENDED)} == {Outcome.OK}
    assert sorted(map(int, (site.work / "count").read_text().split())) == list(range(300))
    assert ids_in(told(RunKind.ENDED)) == pilots == asked() - before


def test_no_two_tasks_of_a_pilot_have_the_same_slot_at_once(slurm: SlurmCluster, tmp_path: Path) -> None:
    made = BatchSite(tmp_path / "one", "slurm", slots=64, mode="pilot", pilot_slots=3, pilot_limit=1, pilot_idle=1.0, environment={"SLURM_CONF": str(slurm.conf)})
    try:
        keys = made.up().start_array("mkdir busy.$HQ_SLOT_IDS || echo $HQ_SLOT_IDS >>clash; sleep 0.02; echo $HQ_SLOT_IDS >>used; rmdir busy.$HQ_SLOT_IDS", 150)
        assert {made.upstream.ended(key, 60).outcome for key in keys} == {Outcome.OK}
        assert not (made.work / "clash").exists()
        assert set((made.work / "used").read_text().split()) == {"0", "1", "2"}
    finally:
        made.close()
        slurm.run("scancel", "--name=hq-pilot-alpha", check=False)


def test_a_pilot_runs_tasks_as_any_host_and_shows_no_key(site: BatchSite, slurm: SlurmCluster) -> None:
    env = site.user.seal(b"SECRET=opensesame\0PATH=/usr/bin:/bin\0")
    ok, bad, late, long = site.upstream.start(
        site.spec("echo $SECRET $HQ_HOST $HQ_TASK_ID", env=env), site.spec("exit 7"), site.spec("sleep 60", time_limit=1.0, grace=1.0), site.spec("sleep 60")
    )
    assert site.upstream.ended(ok, 40).outcome is Outcome.OK
    assert "(pilot)" in site.upstream.ended(ok).reason or "(pilot)" in site.upstream.started(ok).reason
    assert site.said(ok.job) == f"opensesame alpha {ok.job}\n".encode()
    assert site.upstream.ended(bad).exit_code == 7
    assert site.upstream.ended(late).outcome is Outcome.TIMEOUT
    # as long as this one runs its pilot has its files
    site.upstream.started(long)
    assert site.user.seal_key not in slurm.run("scontrol", "show", "job", "-dd")
    modes = {path.name: path.stat().st_mode & 0o077 for path in site.home.rglob("pilots/alpha/*/*")}
    assert "bootstrap.json" in modes and not any(mode for name, mode in modes.items() if name != "native.out"), modes
    site.upstream.stop(long)
    assert site.upstream.ended(long).outcome is Outcome.CANCELLED
    site.upstream.until(lambda: not slurm.run("squeue", "-h", "--name=hq-pilot-alpha"), "the idle pilot to end", 40)


def test_tasks_that_wait_for_a_pilot_are_told_how_the_pilots_stand(site: BatchSite, slurm: SlurmCluster) -> None:
    for name in slurm.names:
        slurm.run("scontrol", "update", f"nodename={name}", "state=drain", "reason=test")
    try:
        keys = site.upstream.start(*(site.spec("true") for _ in range(3)))
        for key in keys:
            assert "0 running, 1 asked for (" in site.waits(key, "waiting at slurm:alpha: for a pilot: 0 running, 1 asked for (")
        facts = site.upstream.ask(PeerAsk(what="status"))
        assert isinstance(facts, PeerFacts) and (facts.facts["tasks for pilots"], facts.facts["slurm:alpha"]) == ("3", "answers")
    finally:
        for name in slurm.names:
            slurm.run("scontrol", "update", f"nodename={name}", "state=resume")
    assert [site.upstream.ended(key, 40).outcome for key in keys] == [Outcome.OK] * 3


def test_a_refused_pilot_shows_slurms_words_and_when_the_next_is_asked_for(slurm: SlurmCluster, tmp_path: Path) -> None:
    made = BatchSite(tmp_path / "one", "slurm", mode="pilot", partition="nosuch", pilot_cooldown=60.0, environment={"SLURM_CONF": str(slurm.conf)})
    try:
        (key,) = made.up().upstream.start(made.spec("true"))
        words = made.waits(key, "invalid partition specified: nosuch")
        assert "0 running, 0 asked for, at most 4" in words and "the next one is asked for at" in words
        facts = made.upstream.ask(PeerAsk(what="status"))
        assert isinstance(facts, PeerFacts) and "none is asked for in the next" in str(facts.facts["pilots"])
    finally:
        made.close()


def test_auto_decides_by_count_and_length(slurm: SlurmCluster, tmp_path: Path) -> None:
    made = BatchSite(tmp_path / "one", "slurm", slots=64, mode="auto", pilot_slots=4, pilot_limit=1, pilot_time=600.0, pilot_idle=600.0,
                     environment={"SLURM_CONF": str(slurm.conf)})  # fmt: skip
    try:
        few = made.up().upstream.start(*(made.spec("true") for _ in range(3)))
        assert not any("(pilot)" in made.upstream.ended(key, 40).reason for key in few)
        many = made.start_array("sleep 0.05", 30)
        assert all("(pilot)" in made.upstream.ended(key, 60).reason for key in many)
        short, long = made.upstream.start(made.spec("true"), made.spec("true", time_limit=100.0))
        assert "(pilot)" in made.upstream.ended(short, 40).reason, "one is up and has room"
        assert "(pilot)" not in made.upstream.ended(long, 40).reason, "its time limit is more than a tenth of a pilot's"
    finally:
        made.close()
        slurm.run("scancel", "--name=hq-pilot-alpha", check=False)


def test_the_user_chooses_before_the_site(site: BatchSite, slurm: SlurmCluster, tmp_path: Path) -> None:
    (own, big) = site.upstream.start(site.spec("true", mode="forward"), site.spec("true", mode="pilot", memory=100 << 20))
    report = site.upstream.ended(own, 40)
    assert report.outcome is Outcome.OK and "(pilot)" not in report.reason
    report = site.upstream.ended(big)
    assert report.outcome is Outcome.REFUSED and "does not fit into one: 4 slots, no memory limit" in report.reason
    for limit in (1, 0):
        made = BatchSite(tmp_path / str(limit), "slurm", mode="forward", pilot_limit=limit, pilot_idle=1.0, environment={"SLURM_CONF": str(slurm.conf)})
        try:
            report = made.up().run("true", mode="pilot", timeout=40)
            assert ("(pilot)" in report.reason) if limit else (report.outcome is Outcome.REFUSED and "allows none there" in report.reason)
        finally:
            made.close()


def test_what_does_not_fit_into_a_pilot_is_a_job_of_its_own(site: BatchSite) -> None:
    report = site.run("true", slots=5, timeout=40)
    assert report.outcome is Outcome.OK and "(pilot)" not in report.reason


def test_tasks_of_a_pilot_that_is_shot_are_lost_and_told_so(site: BatchSite, slurm: SlurmCluster) -> None:
    (key,) = site.upstream.start(site.spec("sleep 100"))
    site.upstream.started(key)
    slurm.run("scancel", "--signal=KILL", "--full", "--name=hq-pilot-alpha")
    report = site.upstream.ended(key, 40)
    assert report.outcome is Outcome.LOST and "its pilot, job" in report.reason
    assert site.run("true", timeout=40).outcome is Outcome.OK


def test_an_exec_server_that_dies_finds_its_pilots_again(site: BatchSite) -> None:
    keys = site.upstream.start(*(site.spec(f"echo {number} >>count; {WAITS}") for number in range(3)))
    for key in keys:
        site.upstream.started(key)
    site.kill_worker()
    (site.work / "go").touch()
    reports = [site.upstream.ended(key, 60) for key in keys]
    assert [report.outcome for report in reports] == [Outcome.OK] * 3, reports
    assert sorted((site.work / "count").read_text().split()) == ["0", "1", "2"]
