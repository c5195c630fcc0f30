"""Synthetic hosts in the core: when they are chosen, and what is said of a task that waits there."""

from __future__ import annotations

from hq.core.explain import explain
from hq.core.rerouting import PATIENCE
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.runs import RETURNED, NativeRun
from hq.model.states import RunKind, TaskState
from tests.support.coreworld import World, host


def test_own_hosts_are_filled_before_a_centre_however_large() -> None:
    world = World([host("centre", 100, backend="slurm"), host("own", 2)])
    id = world.submit(indices="0-4")
    placed = [world.cluster.jobs[id].tasks[index].host for index in range(5)]
    assert placed == ["own", "own", "centre", "centre", "centre"]
    assert any("went to the batch system centre" in sentence for sentence in explain(world.cluster, TaskKey(id, 3), world.now))
    assert not any("batch system" in sentence for sentence in explain(world.cluster, TaskKey(id, 1), world.now))
    world.report("centre", AttemptKey(id, 3, 1), RunKind.STARTED)
    assert any("went to the batch system centre" in sentence for sentence in explain(world.cluster, TaskKey(id, 3), world.now)), "also while it runs"


def test_a_job_may_be_sent_to_a_centre() -> None:
    world = World([host("centre", 4, backend="torque"), host("own", 2)])
    id = world.submit(wishes=Wishes(hosts=("centre",)))
    assert world.cluster.jobs[id].tasks[PLAIN].host == "centre"
    assert not any("went to" in sentence for sentence in explain(world.cluster, TaskKey(id, PLAIN), world.now))


def test_what_waits_for_any_host_is_told_of_each() -> None:
    world = World([host("centre", 1, backend="slurm"), host("own", 1)])
    id = world.submit(indices="0-2")
    words = " ".join(explain(world.cluster, TaskKey(id, 2), world.now))
    assert "centre" in words and "own" in words and "running tasks end and free their slots" in words


def test_the_reason_of_the_batch_system_is_the_tasks_and_is_no_moment_of_its_history() -> None:
    world = World([host("centre", 4, backend="slurm")])
    key = AttemptKey(world.submit(), PLAIN, 1)
    moments = len(world.book.events)
    world.report("centre", key, RunKind.WAITS, reason="waiting at slurm:centre: Priority (job 7)")
    task = world.cluster.jobs[key.job].tasks[PLAIN]
    assert (task.state, task.reason) == (TaskState.STARTING, "waiting at slurm:centre: Priority (job 7)")
    assert len(world.book.events) == moments
    assert any("Priority" in sentence for sentence in explain(world.cluster, key.task, world.now))
    world.report("centre", key, RunKind.STARTED, reason="slurm:centre job 7 on n1, waited there 12s")
    task = world.cluster.jobs[key.job].tasks[PLAIN]
    assert (task.state, task.reason) == (TaskState.RUNNING, "slurm:centre job 7 on n1, waited there 12s")


def test_what_waits_at_a_centre_comes_back_when_an_own_host_has_room() -> None:
    world = World([host("centre", 4, backend="slurm"), host("own", 1)])
    first = world.submit()
    world.report("own", AttemptKey(first, PLAIN, 1), RunKind.STARTED)
    free, sent = world.submit(), world.submit(wishes=Wishes(hosts=("centre",)))
    for number, id in enumerate((free, sent)):
        native = NativeRun(id=str(number), state="PENDING", reason="Priority", since=world.now)
        world.report("centre", AttemptKey(id, PLAIN, 1), RunKind.WAITS, reason="waiting", native=native)
    world.end("own", AttemptKey(first, PLAIN, 1), after=PATIENCE / 2)
    assert not world.stops, "it has not waited there for long"
    assert world.last.wake is not None
    world.step(after=PATIENCE)
    assert world.stops == [("centre", AttemptKey(free, PLAIN, 1))], "what was sent there stays"
    world.report("centre", AttemptKey(free, PLAIN, 1), RunKind.NEVER_STARTED, reason=RETURNED)
    assert [(name, order.key) for name, order in world.starts] == [("own", AttemptKey(free, PLAIN, 2))]


def test_one_that_began_before_it_was_asked_back_goes_on() -> None:
    world = World([host("centre", 4, backend="slurm"), host("own", 1)])
    first, second = world.submit(), world.submit()
    key = AttemptKey(second, PLAIN, 1)
    world.report("centre", key, RunKind.WAITS, reason="waiting", native=NativeRun(id="1", since=world.now))
    world.end("own", AttemptKey(first, PLAIN, 1), after=PATIENCE + 1)
    assert world.stops == [("centre", key)]
    world.report("centre", key, RunKind.STARTED)
    assert world.state(str(second)) == "running" and world.step(after=PATIENCE * 2).actions == []
