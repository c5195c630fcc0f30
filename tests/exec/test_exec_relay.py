"""Tasks that came ahead of their slots follow each other at once: in order, in the slots of the one before, each once, also over a KILL."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.runs import RunStart
from tests.support.execserver import HOST, ExecSite, is_alive
from tests.support.wait import until

JOB = 77
LAST = (RunKind.ENDED, RunKind.NEVER_STARTED)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ExecSite]:
    """An exec-server of two slots for each test."""
    made = ExecSite(tmp_path, slots=2)
    try:
        yield made.up()
    finally:
        made.close()


def array(site: ExecSite, command: str, count: int) -> SignedSpec:
    """An array that may be run again: the first two tasks have slots, the others come ahead of theirs."""
    signed = site.user.sign(site.spec(command, indices=f"1-{count}", is_rerunnable=True))
    orders = tuple(StartOrder(JOB, index, 1, (index - 1,) if index <= 2 else (), index > 2) for index in range(1, count + 1))
    site.upstream.send(RunStart(host=HOST, specs={JOB: signed}, orders=orders))
    return signed


def last_reports(site: ExecSite) -> dict[int, RunReport]:
    """The last word about each task."""
    return {report.index: report for report in site.upstream.reports if report.kind in LAST}


def test_all_run_once_in_order_and_never_two_in_one_slot(site: ExecSite) -> None:
    count = 150
    array(site, "echo + $HQ_SLOT_IDS $HQ_ARRAY_INDEX >> ran; echo - $HQ_SLOT_IDS $HQ_ARRAY_INDEX >> ran", count)
    site.upstream.until(lambda: len(last_reports(site)) == count, "all tasks", 60)
    reports = last_reports(site)
    assert all(report.outcome is Outcome.OK for report in reports.values())
    lines = [line.split() for line in (site.work / "ran").read_text().splitlines()]
    for slot in ("0", "1"):
        mine = [(sign, index) for sign, slots, index in lines if slots == slot]
        # begin and end of one task, then the next: each slot has one at a time
        assert mine == [(sign, index) for _, index in mine[::2] for sign in "+-"]
    assert sorted(int(index) for sign, _, index in lines if sign == "+") == list(range(1, count + 1))
    # every task that came ahead is named once as the one that got the slots of another, in order
    heirs = [report.heir for report in site.upstream.reports if report.heir is not None]
    assert [AttemptKey(*heir).index for heir in heirs] == list(range(3, count + 1))


def test_a_failure_and_a_stop_in_the_middle(site: ExecSite) -> None:
    count = 40
    array(site, "case $HQ_ARRAY_INDEX in 1|2) while [ ! -e go ]; do sleep 0.05; done;; 9) exit 3;; esac; echo $HQ_ARRAY_INDEX >> ran", count)
    site.upstream.started(AttemptKey(JOB, 1, 1))
    site.upstream.stop(AttemptKey(JOB, 20, 1))
    assert site.upstream.ended(AttemptKey(JOB, 20, 1)).kind is RunKind.NEVER_STARTED
    (site.work / "go").touch()
    site.upstream.until(lambda: len(last_reports(site)) == count, "all tasks", 60)
    reports = last_reports(site)
    assert (reports[9].outcome, reports[9].exit_code) == (Outcome.FAILED, 3)
    assert {index for index, report in reports.items() if report.outcome is not Outcome.OK} == {9, 20}
    ran = [int(line) for line in (site.work / "ran").read_text().split()]
    assert sorted(ran) == [index for index in range(1, count + 1) if index not in (9, 20)]


def test_one_that_fails_and_one_that_is_well_end_in_the_same_moment(site: ExecSite) -> None:
    """Found by make chaos: the core gave the slots of the failure to the task that had just followed the other, and the worker died of that."""
    count = 12
    array(site, "case $HQ_ARRAY_INDEX in 1|2) while [ ! -e go ]; do sleep 0.02; done;; esac; echo $HQ_ARRAY_INDEX >> ran; [ $HQ_ARRAY_INDEX != 1 ]", count)
    pids = [site.upstream.started(AttemptKey(JOB, index, 1)).pid for index in (1, 2)]
    worker = site.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    (site.work / "go").touch()
    until(lambda: not any(is_alive(pid) for pid in pids if pid is not None), what="both ends")
    os.kill(worker, signal.SIGCONT)
    site.upstream.until(lambda: len(last_reports(site)) == count, "all tasks", 60)
    assert {index for index, report in last_reports(site).items() if report.outcome is not Outcome.OK} == {1}
    assert sorted(int(line) for line in (site.work / "ran").read_text().split()) == list(range(1, count + 1))
    assert site.worker_pid() == worker


def test_a_worker_that_is_killed_again_and_again_loses_none_and_runs_none_twice(site: ExecSite) -> None:
    count = 120
    signed = array(site, "echo $HQ_ARRAY_INDEX >> ran; sleep 0.01", count)
    for _ in range(4):
        done = len(last_reports(site))
        site.upstream.until(lambda done=done: len(last_reports(site)) >= min(done + 15, count), "progress", 60)
        before = len(site.upstream.hellos)
        os.kill(site.worker_pid(), signal.SIGKILL)
        site.upstream.until(lambda before=before: len(site.upstream.hellos) > before, "next worker")
        site.linked()
        # as hq-server does after a roll: two of what is there have slots, be they begun or not
        here = [AttemptKey(*key) for key in site.upstream.rolls[-1].runs if key.index not in last_reports(site)]
        orders = tuple(StartOrder(*key, (slot,)) for slot, key in enumerate(sorted(here)[:2]))
        site.upstream.send(RunStart(host=HOST, specs={JOB: signed}, orders=orders))
    site.upstream.until(lambda: len(last_reports(site)) == count, "all tasks", 60)
    reports = last_reports(site)
    lost = {index for index, report in reports.items() if report.outcome is Outcome.LOST}
    # what was being made at the moment of the KILL is the one thing that nobody can know
    assert all("at the very moment of its start" in reports[index].reason for index in lost) and len(lost) <= 8
    assert all(report.outcome is Outcome.OK for index, report in reports.items() if index not in lost)
    ran = [int(line) for line in (site.work / "ran").read_text().split()]
    assert len(ran) == len(set(ran)), "a task ran twice"
    assert set(range(1, count + 1)) - set(ran) <= lost, "a task is told as ok that never ran"
