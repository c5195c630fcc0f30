"""Torque and OpenPBS as synthetic hosts, end to end against a stand-in that keeps a queue and really runs the jobs.

Where a real one is on PATH (see `tests.support.pbs.real`) the same tests run on it as well, but for the one that stops its server.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.states import Outcome, RunKind
from tests.support.batchsite import WAITS, BatchSite
from tests.support.pbs.real import RealPbs, is_here
from tests.support.pbs.server import StandIn


@pytest.fixture(params=["torque", "openpbs", *(["real"] if is_here() else [])])
def pbs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StandIn | RealPbs]:
    """A server of each kind, with one node of 16 cores; and a real one, if it is here."""
    with RealPbs(tmp_path / "pbs") if request.param == "real" else StandIn(tmp_path / "pbs", request.param) as made:
        yield made


@pytest.fixture
def site(pbs: StandIn | RealPbs, tmp_path: Path) -> Iterator[BatchSite]:
    """An exec-server over it, which finds out by itself which of the two it is."""
    made = BatchSite(tmp_path / "site", "torque", path=str(pbs.bin))
    try:
        yield made.up()
    finally:
        made.close()


def test_outcomes_arrive_as_from_any_host(site: BatchSite) -> None:
    wanted = {"true": (Outcome.OK, 0, None), "exit 7": (Outcome.FAILED, 7, None), "kill -9 $$": (Outcome.FAILED, None, 9)}
    keys = site.upstream.start(*(site.spec(command) for command in wanted))
    (late,) = site.upstream.start(site.spec("sleep 60", time_limit=1.0, grace=1.0))
    for key, (outcome, code, number) in zip(keys, wanted.values(), strict=True):
        report = site.upstream.ended(key, 40)
        assert (report.outcome, report.exit_code, report.signal) == (outcome, code, number), report
    assert site.upstream.ended(late).outcome is Outcome.TIMEOUT
    site.upstream.until(lambda: not site.folders(), "the directories of submissions to go", 40)


def test_an_array_is_one_native_array(site: BatchSite, pbs: StandIn | RealPbs) -> None:
    keys = site.start_array("echo $HQ_ARRAY_INDEX; exit $((HQ_ARRAY_INDEX == 3))", 8)
    assert [site.upstream.ended(key, 40).exit_code for key in keys] == [int(index == 3) for index in range(8)]
    assert len(pbs.calls("qsub")) == 1


def test_signals_and_cancel(site: BatchSite, pbs: StandIn | RealPbs) -> None:
    trap, still = site.upstream.start(
        site.spec("trap 'exit 9' USR1; touch ready; while :; do sleep 0.1; done"), site.spec("exec sleep 100", slots=max(1, pbs.cores - 1))
    )
    for key in (trap, still):
        site.upstream.started(key)
    (waiting,) = site.upstream.start(site.spec("true"))
    site.waits(waiting, "queued")
    site.upstream.until((site.work / "ready").exists, "the trap", 40)
    site.upstream.signal(trap, signal.SIGUSR1)
    for key in (still, waiting):
        site.upstream.stop(key)
    assert site.upstream.ended(trap).exit_code == 9
    assert site.upstream.ended(still).outcome is Outcome.CANCELLED
    assert site.upstream.ended(waiting).kind is RunKind.NEVER_STARTED
    site.upstream.until(lambda: pbs.calls("qdel"), "the waiting job to be deleted", 40)


def test_a_waiting_job_is_held_and_released(site: BatchSite, pbs: StandIn | RealPbs) -> None:
    (full,) = site.upstream.start(site.spec("exec sleep 100", slots=pbs.cores))
    site.upstream.started(full)
    held, other = site.upstream.start(site.spec("true"), site.spec("true"))
    for key in (held, other):
        site.waits(key, "waiting at ")
    site.hold(held)
    site.waits(held, "held at ")
    site.upstream.until(lambda: pbs.calls("qhold"), "the order", 40)
    site.upstream.until(lambda: site.native(held).state == "H", "the batch system to hold it")
    site.upstream.stop(full)
    assert site.upstream.ended(other, 40).outcome is Outcome.OK
    assert site.upstream.find(held, RunKind.STARTED) is None
    site.hold(held, is_held=False)
    assert site.upstream.ended(held, 40).outcome is Outcome.OK


def test_a_deleted_job_is_cancelled_and_a_refusal_has_the_words_of_qsub(site: BatchSite, pbs: StandIn | RealPbs) -> None:
    (key,) = site.upstream.start(site.spec("sleep 100"))
    id = site.upstream.started(key).reason.split(" job ")[1].split()[0]
    subprocess.run([pbs.bin / "qdel", id], check=True, timeout=30)
    report = site.upstream.ended(key, 30)
    assert report.outcome is Outcome.CANCELLED and "was cancelled at" in report.reason


def test_an_unknown_queue_is_refused_with_the_words_of_qsub(pbs: StandIn | RealPbs, tmp_path: Path) -> None:
    site = BatchSite(tmp_path / "other", "torque", path=str(pbs.bin), partition="nosuch")
    try:
        report = site.up().run("true")
        assert report.outcome is Outcome.REFUSED and "Unknown queue" in report.reason
    finally:
        site.close()


@pytest.mark.parametrize("pbs", ["torque", "openpbs"], indirect=True)
def test_without_its_server_nothing_is_lost(site: BatchSite, pbs: StandIn) -> None:
    pbs.stop()
    (key,) = site.upstream.start(site.spec("echo late"))
    assert "Connection refused" in site.waits(key, "not submitted yet")
    pbs.start()
    assert site.upstream.ended(key, 40).outcome is Outcome.OK


def test_a_worker_that_dies_takes_its_jobs_over(site: BatchSite) -> None:
    keys = site.upstream.start(*(site.spec(f"echo {number} >>count; {WAITS}") for number in range(3)))
    for key in keys:
        site.upstream.started(key)
    site.kill_worker()
    (site.work / "go").touch()
    assert [site.upstream.ended(key, 40).outcome for key in keys] == [Outcome.OK] * 3
    assert sorted((site.work / "count").read_text().split()) == ["0", "1", "2"]
