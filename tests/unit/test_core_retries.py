"""Retries, crash limit, drains with a deadline, and the signal before the time limit."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import Any

import pytest

from hq.client.submit_options import early_signal, exit_codes
from hq.core.events import HostSwitched, LinkChanged, UserServerCame
from hq.core.retries import CRASH_LIMIT, pause_after
from hq.core.runner import Runner
from hq.core.runner_events import Ordered, RunEnded, RunStarted, SignalRun
from hq.errors import InputError
from hq.model.ids import PLAIN, AttemptKey
from hq.model.job import JobSpec, check_spec
from hq.model.runs import StartOrder
from hq.model.states import LinkState, Outcome, RunKind
from tests.support.coreworld import World, host


@pytest.fixture
def world() -> World:
    made = World([host("one", 4), host("two", 4)])
    made.link("one", LinkState.ALIVE)
    made.link("two", LinkState.ALIVE)
    return made


def fail(world: World, job: int, attempt: int, code: int) -> None:
    task = world.cluster.job(job).tasks[PLAIN]  # type: ignore[union-attr]
    world.end(task.host, AttemptKey(job, PLAIN, attempt), Outcome.FAILED, exit_code=code)


def test_only_the_codes_that_were_named_are_tried_again(world: World) -> None:
    job = world.submit(retries=3, retry_on=(75,))
    fail(world, job, 1, 75)
    assert world.state(str(job)) == "starting", "the first retry is at once"
    fail(world, job, 2, 1)
    assert world.state(str(job)) == "failed"


def test_a_signal_is_named_by_128_and_more(world: World) -> None:
    job = world.submit(retries=1, retry_on=(128 + 9,))
    task = world.cluster.job(job).tasks[PLAIN]  # type: ignore[union-attr]
    world.report(task.host, AttemptKey(job, PLAIN, 1), RunKind.ENDED, outcome=Outcome.FAILED, signal=9)
    assert world.state(str(job)) == "starting"


def test_pauses_grow(world: World) -> None:
    job = world.submit(retries=3)
    fail(world, job, 1, 1)
    fail(world, job, 2, 1)
    assert world.state(str(job)) == "waiting"
    world.step(after=pause_after(2) - 0.1)
    assert world.state(str(job)) == "waiting"
    world.step(after=0.2)
    assert world.state(str(job)) == "starting"
    assert [pause_after(attempt) for attempt in (1, 2, 3, 100)] == [0.0, 2.0, 10.0, 300.0]


def test_a_task_that_takes_down_its_exec_server_again_and_again_is_stopped(world: World) -> None:
    job = world.submit(is_rerunnable=True)
    for attempt in range(1, CRASH_LIMIT + 1):
        assert world.state(str(job)) == "starting"
        task = world.cluster.job(job).tasks[PLAIN]  # type: ignore[union-attr]
        world.end(task.host, AttemptKey(job, PLAIN, attempt), Outcome.LOST, reason="the host was restarted while it ran")
    assert world.state(str(job)) == "lost"
    reason = world.book.history[(job, PLAIN)].reason  # type: ignore[index]
    assert f"{CRASH_LIMIT} times" in reason and "restarted" in reason


def test_what_took_down_exec_servers_is_counted_over_restarts(world: World) -> None:
    job = world.submit(is_rerunnable=True)
    for attempt in range(1, CRASH_LIMIT + 1):
        task = world.cluster.job(job).tasks[PLAIN]  # type: ignore[union-attr]
        world.end(task.host, AttemptKey(job, PLAIN, attempt), Outcome.LOST, reason="the host was restarted while it ran")
        if attempt < CRASH_LIMIT:
            assert world.book.settings["crashes"] == f"[[{job}, {PLAIN}, {attempt}]]"
            world.restart()
            names = sorted(world.cluster.hosts)
            world.step(UserServerCame(user="alice"), *(LinkChanged(user="alice", host=name, state=LinkState.ALIVE) for name in names))
    assert world.state(str(job)) == "lost" and world.book.settings["crashes"] == "", "what is over is not kept"


@pytest.mark.parametrize("fields", [
    {"retry_on": (1,)}, {"retry_on": (0,), "retries": 1}, {"retry_on": (256,), "retries": 1},
    {"warn_signal": 10, "warn_before": 5.0}, {"warn_signal": 10, "warn_before": 60.0, "time_limit": 60.0},
    {"warn_signal": 70, "warn_before": 5.0, "time_limit": 60.0},
])  # fmt: skip
def test_what_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        check_spec(JobSpec(instance="i", user="u", key="k", name="n", argv=(b"true",), **fields))


def test_options() -> None:
    assert exit_codes("1,75") == [1, 75]
    assert early_signal("USR1@120") == (signal.SIGUSR1, 120.0)
    assert early_signal("10@5m") == (10, 300.0)
    assert early_signal("TERM") == (signal.SIGTERM, 60.0)


# --- drains ---


def switch(world: World, **changes: Any) -> str:
    world.step(HostSwitched(token="t", actor="root", host="one", **changes))
    return str(world.reply())


def test_a_drain_with_a_deadline_requeues_what_may_run_again(world: World) -> None:
    world.link("two", LinkState.SUSPECT)
    again, once = world.submit(is_rerunnable=True), world.submit()
    for job in (again, once):
        world.report("one", AttemptKey(job, PLAIN, 1), RunKind.STARTED)
    world.link("two", LinkState.ALIVE)
    assert "1:00:00" in switch(world, drain_reason="new kernel", deadline=world.now + 3600)
    assert world.last.wake == world.now + 3600
    world.restart()
    world.step(after=3599)
    assert not world.stops
    world.step(after=2)
    assert world.stops == [("one", AttemptKey(again, PLAIN, 1))]
    world.end("one", AttemptKey(again, PLAIN, 1), Outcome.CANCELLED)
    world.restart()
    world.step(after=1)
    assert not world.stops, "once"
    assert any("new kernel" in event[6] for event in world.book.events)
    assert world.state(str(again)) in ("waiting", "starting")
    assert world.state(str(once)) == "running"


def test_activating_ends_the_deadline(world: World) -> None:
    job = world.submit(is_rerunnable=True)
    switch(world, drain_reason="", deadline=world.now + 10)
    switch(world, is_active=True)
    world.step(after=20)
    assert not world.stops and world.state(str(job)) == "starting"


# --- the signal before the limit ---


def spec(**fields: Any) -> JobSpec:
    return JobSpec(instance="i", user="u", key="k", name="n", argv=(b"true",), time_limit=100.0, warn_signal=10, warn_before=30.0, **fields)


def signals(runner: Runner, boot: float, *events: Any) -> list[int]:
    out = runner.step(events, SimpleNamespace(boot=boot, wall=1000.0 + boot))
    return [action.signal for action in out.actions if isinstance(action, SignalRun)]


def test_it_is_sent_once_and_the_limit_follows() -> None:
    runner, key = Runner(1), AttemptKey(1, PLAIN, 1)
    signals(runner, 0.0, Ordered(StartOrder(1, PLAIN, 1, (0,)), spec()))
    signals(runner, 0.0, RunStarted(key, 7, 1000.0))
    assert signals(runner, 69.9) == []
    assert signals(runner, 70.0) == [10]
    assert signals(runner, 99.9) == []
    assert signals(runner, 100.0) == [signal.SIGTERM]
    out = runner.step([RunEnded(key=key, at=1101.0, signal=15)], SimpleNamespace(boot=101.0, wall=1101.0))
    assert [report.outcome for report in out.reports] == [Outcome.TIMEOUT]
