"""Dispatch-ahead in hq-server's core: what is queued, how slots pass on, what is given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hq.core import ahead
from hq.core.events import HostSwitched, LinkChanged, RunsReported, StopRuns, UserServerCame
from hq.core.explain import explain
from hq.core.runner import Runner
from hq.core.runner_events import Ordered, Spawn
from hq.kernel.clock import Now
from hq.model.ids import AttemptKey, TaskKey
from hq.model.job import JobSpec, Wishes
from hq.model.runs import RETURNED, RunReport, StartOrder
from hq.model.states import LinkState, Outcome, RunKind, TaskState
from tests.support.coreworld import World, host


def ended(world: World, run: AttemptKey, seconds: float, heir: AttemptKey | None = None) -> RunsReported:
    report = RunReport(job=run.job, index=run.index, attempt=run.attempt, kind=RunKind.ENDED, at=world.now, started=world.now - seconds,
                       outcome=Outcome.OK, exit_code=0, heir=heir)  # fmt: skip
    return RunsReported(user="alice", host="n1", reports=(report,))


@pytest.fixture
def world() -> World:
    """One host of one slot, and an array of short tasks of which the first has just ended."""
    made = World([host("n1", 1)])
    made.submit(indices="1-1000")
    made.step(LinkChanged(user="alice", host="n1", state=LinkState.ALIVE))
    made.step(ended(made, AttemptKey(1, 1, 1), 0.125))
    return made


def queued(world: World) -> tuple[TaskKey, ...]:
    return world.cluster.hosts["n1"].queued_of("alice")


def test_short_tasks_are_queued_for_a_second_and_take_no_slot(world: World) -> None:
    assert len(queued(world)) == int(ahead.HORIZON / 0.125)
    assert world.cluster.hosts["n1"].occupied == 1
    orders = [order for _, order in world.starts]
    assert [order.is_ahead for order in orders] == [False] + [True] * len(queued(world))
    assert [order.slots for order in orders[1:3]] == [(), ()]


def test_long_tasks_are_not_queued() -> None:
    world = World([host("n1", 1)])
    world.submit(indices="1-1000")
    world.step(LinkChanged(user="alice", host="n1", state=LinkState.ALIVE))
    world.step(ended(world, AttemptKey(1, 1, 1), 60.0))
    assert not queued(world)
    assert world.cluster.hosts["n1"].occupied == 1


def test_the_pause_between_two_tasks_of_a_slot_counts_as_their_pace(world: World) -> None:
    first, second = AttemptKey(1, 2, 1), AttemptKey(*queued(world)[0], 1)
    world.step(ended(world, first, 0.001, heir=second), after=0.0625)
    pace = world.cluster.ahead.pace[world.cluster.jobs[1].shape]
    # the heir itself took no time, and ended half as long after the one before it as tasks have lasted until now
    world.step(ended(world, second, 0.0))
    assert world.cluster.ahead.pace[world.cluster.jobs[1].shape] == pytest.approx(pace + (0.0625 - pace) / 8)
    assert not world.cluster.ahead.freed


def test_the_slot_passes_to_the_heir(world: World) -> None:
    heir = AttemptKey(*queued(world)[3], 1)
    world.step(ended(world, AttemptKey(1, 2, 1), 0.12525, heir))
    task = world.cluster.task(heir.task)
    assert task is not None and task.slots == 1 and heir.task not in queued(world)
    assert world.cluster.hosts["n1"].tasks[heir.task] == (0,)
    assert world.cluster.hosts["n1"].occupied == 1


def test_without_an_heir_the_head_of_the_queue_is_ordered_again_with_slots(world: World) -> None:
    first = queued(world)[0]
    world.step(ended(world, AttemptKey(1, 2, 1), 0.125))
    again = [order for _, order in world.starts if order.key.task == first]
    assert [(order.is_ahead, order.slots) for order in again] == [(False, (0,))]


def test_while_another_slot_passes_on_the_last_of_the_queue_is_ordered_again() -> None:
    world = World([host("n1", 2)])
    world.submit(indices="1-1000")
    world.step(LinkChanged(user="alice", host="n1", state=LinkState.ALIVE))
    world.step(ended(world, AttemptKey(1, 1, 1), 0.125))
    names = queued(world)
    # a slot became free there, and in the other one what this server still takes for the head of the queue may have begun and ended by now
    world.step(ended(world, AttemptKey(1, 2, 1), 0.125))
    again = [order for _, order in world.starts if order.key.task in names and not order.is_ahead]
    assert [(order.key.task, order.slots) for order in again] == [(names[-1], (1,))]
    heir = AttemptKey(*names[0], 1)
    world.step(ended(world, AttemptKey(1, 3, 1), 0.125, heir))
    assert world.cluster.hosts["n1"].tasks[heir.task] == (0,)
    assert world.cluster.hosts["n1"].occupied == 2


def test_what_does_not_begin_is_asked_back_and_is_no_failure(world: World) -> None:
    names = queued(world)
    world.step(after=ahead.PATIENCE)
    assert not any(isinstance(action, StopRuns) for action in world.last.actions), "given back to wait for the same host"
    world.submit(wishes=Wishes(priority=5))
    world.step(after=ahead.PATIENCE)
    (stop,) = [action for action in world.last.actions if isinstance(action, StopRuns)]
    assert stop.is_only_queued and {run.task for run in stop.runs} == set(names)
    run = AttemptKey(*names[0], 1)
    report = RunReport(job=1, index=run.index, attempt=1, kind=RunKind.NEVER_STARTED, at=world.now, reason=RETURNED)
    world.step(RunsReported(user="alice", host="n1", reports=(report,)))
    task = world.cluster.task(run.task)
    assert task is not None and task.state is TaskState.WAITING and not world.cluster.never_started


def test_a_draining_host_gives_its_queue_back(world: World) -> None:
    world.step(HostSwitched(token="t", actor="olga", host="n1", drain_reason="disk"))
    (stop,) = [action for action in world.last.actions if isinstance(action, StopRuns)]
    assert len(stop.runs) == len(queued(world))


def test_a_restart_keeps_what_is_queued_without_slots(world: World) -> None:
    names = queued(world)
    world.restart()
    world.step(UserServerCame(user="alice"))
    assert sorted(queued(world)) == sorted(names)
    assert world.cluster.hosts["n1"].occupied == 1


def test_where_others_wait_a_turn_is_short_and_why_says_whose_it_is(world: World) -> None:
    world.submit("bob", indices="1-500")
    world.step(UserServerCame(user="bob"), LinkChanged(user="bob", host="n1", state=LinkState.ALIVE))
    last = AttemptKey(1, 2, 1)
    while queued(world):
        heir = AttemptKey(*queued(world)[0], 1)
        world.step(ended(world, last, 0.125, heir), after=0.125)
        last = heir
    text = " ".join(explain(world.cluster, TaskKey(1), world.now))
    assert "Free slots go to the user who has least: you hold 1 slot" in text and "bob waits, too, with less, and goes first" in text
    world.step(ended(world, last, 0.125), after=0.125)
    ((_, order),) = world.starts
    assert order.job == 2, "the slot is bob's now"
    report = replace(ended(world, order.key, 0.125), user="bob")
    world.step(report, after=0.125)
    assert len(world.cluster.hosts["n1"].queued_of("bob")) == int(ahead.TURN / 0.125), "of his tasks as many as fit into a turn"


def test_all_turns_together_are_short_however_many_users_wait_but_none_is_shorter_than_an_order_takes() -> None:
    turns = [ahead.turn_of(users) for users in range(200)]
    assert turns == sorted(turns, reverse=True) and turns[2] == ahead.TURN and turns[-1] == ahead.SHORTEST_TURN
    assert all(turn * users <= ahead.ROUND for users, turn in enumerate(turns) if turn > ahead.SHORTEST_TURN)


def test_another_user_who_comes_before_stops_the_refill(world: World) -> None:
    before = len(queued(world))
    world.submit("bob", wishes=Wishes(priority=9))
    world.step(UserServerCame(user="bob"))
    world.step(ended(world, AttemptKey(1, 2, 1), 0.125, AttemptKey(*queued(world)[0], 1)))
    assert len(queued(world)) == before - 1


def test_an_order_and_its_grant_may_come_in_one_step() -> None:
    runner = Runner(1)
    spec = JobSpec(instance="i", user="alice", key="k", name="", argv=(b"true",))
    first, again = StartOrder(1, -1, 1, (), is_ahead=True), StartOrder(1, -1, 1, (0,))
    step = runner.step([Ordered(first, spec), Ordered(again, spec)], Now(0.0, 0.0))
    assert [action.order for action in step.actions if isinstance(action, Spawn)] == [again]
