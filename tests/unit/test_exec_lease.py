"""The lease at the exec-server: what ends when nobody above is heard, and what does not."""

from __future__ import annotations

from pathlib import Path

from hq.core.runner_events import SlotsSet, StopAsked
from hq.core.runner_run import Phase, Run
from hq.execserver.lease import Lease
from hq.kernel.clock import Now
from hq.model.job import JobSpec
from hq.model.runs import StartOrder
from hq.model.states import Outcome


def now(boot: float) -> Now:
    return Now(wall=1e9, boot=boot)


def run(job: int, is_rerunnable: bool) -> Run:
    spec = JobSpec(instance="i", user="u", key="k", name="n", argv=(b"true",), is_rerunnable=is_rerunnable)
    return Run(StartOrder(job, -1, 1, (0,)), spec, Phase.RUNNING, 0.0)


RUNS = [run(1, True), run(2, False)]


def lease(tmp_path: Path, boot: float, boot_id: str = "b") -> Lease:
    return Lease(str(tmp_path / "heard"), boot_id, now(boot), lambda text: None)


def test_only_what_may_run_again_ends_and_once(tmp_path: Path) -> None:
    made = lease(tmp_path, 0.0)
    made.given(100.0, now(0.0))
    made.heard(now(50.0))
    assert made.wake() == 150.0
    assert made.events(RUNS, now(149.9)) == []
    slots, stop = made.events(RUNS, now(150.0))
    assert slots == SlotsSet(0), "without a lease nothing begins"
    assert isinstance(stop, StopAsked) and stop.key.job == 1 and stop.outcome is Outcome.LOST
    assert made.events(RUNS, now(200.0)) == []
    made.heard(now(210.0))
    assert made.wake() == 310.0


def test_without_a_lease_given_nothing_ends(tmp_path: Path) -> None:
    made = lease(tmp_path, 0.0)
    assert made.wake() is None
    assert made.events(RUNS, now(1e6)) == []


def test_after_a_goodbye_nothing_ends(tmp_path: Path) -> None:
    made = lease(tmp_path, 0.0)
    made.given(100.0, now(0.0))
    made.suspended(now(10.0))
    assert made.events(RUNS, now(1e6)) == []
    made.heard(now(20.0), is_second=True)
    assert made.events(RUNS, now(1e6)) == [], "hq-server does not take the goodbye back"
    again = lease(tmp_path, 2e6)
    assert again.events(RUNS, now(3e6)) == []


def test_a_worker_that_is_started_anew_counts_on_but_a_machine_does_not(tmp_path: Path) -> None:
    made = lease(tmp_path, 0.0)
    made.given(100.0, now(0.0))
    made.heard(now(20.0))
    assert lease(tmp_path, 110.0).events(RUNS, now(120.0))
    assert not lease(tmp_path, 110.0, "another boot").events(RUNS, now(120.0))
