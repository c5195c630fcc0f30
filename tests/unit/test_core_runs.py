"""Placement, reports and roll calls of hq-server's core."""

from __future__ import annotations

import pytest

from hq.core.events import (
    ClusterSwitched,
    DropKeys,
    HostsProbed,
    HostSwitched,
    KeyEnrolled,
    LoadsSampled,
    StartRuns,
    UserServerCame,
    UserServerWent,
    UserSwitched,
)
from hq.core.explain import explain
from hq.model.host import LoadSample
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.states import LinkState, Outcome, RunKind
from hq.model.user import KeyRecord, Role, UserRecord
from tests.support.coreworld import World, host


def load(name: str, load1: float, at: float, user: str = "alice") -> LoadsSampled:
    """A sample of a host."""
    return LoadsSampled((LoadSample(host=name, user=user, at=at, load1=load1, load5=0, load15=0, cores=4, memory_total=8, memory_free=4),))


def started(world: World) -> list[tuple[str, int, int]]:
    """Host, job, index of the last step's orders."""
    return [(name, order.job, order.index) for name, order in world.starts]


def test_most_free_slots_first_and_placements_of_the_same_tick_count() -> None:
    world = World([host("n1", 2), host("n2", 4)])
    id = world.submit(indices="1-10")
    assert sorted(name for name, _, _ in started(world)) == ["n1"] * 2 + ["n2"] * 4
    assert [name for name, _, index in sorted(started(world), key=lambda each: each[2])][:2] == ["n2", "n2"]
    world.end("n1", AttemptKey(id, next(order.index for name, order in world.starts if name == "n1"), 1))
    assert started(world) == [("n1", id, 7)]


def test_a_job_has_ended_when_its_last_task_did_however_late_that_is_told() -> None:
    world = World([host("n1", 4)])
    id = world.submit(indices="1-2")
    begin = world.now
    for index, moment in ((1, begin + 30.0), (2, begin + 10.0)):
        step = world.report("n1", AttemptKey(id, index, 1), RunKind.ENDED, at=moment, started=begin, outcome=Outcome.OK, exit_code=0, after=100.0)
    assert step.changes.jobs_ended[id].ended == begin + 30.0


def test_one_message_a_user_and_host_and_the_lowest_free_slots() -> None:
    world = World([host("n1", 4)])
    id = world.submit(indices="1-2", slots=2)
    (action,) = [each for each in world.last.actions if isinstance(each, StartRuns)]
    assert [order.slots for order in action.orders] == [(0, 1), (2, 3)] and list(action.specs) == [id]
    world.end("n1", AttemptKey(id, 1, 1))
    world.submit()
    assert world.starts[0][1].slots == (0,)


def test_priority_then_first_come() -> None:
    world = World([host("n1", 1)])
    first = world.submit()
    low, high, other = world.submit(), world.submit(wishes=Wishes(priority=5)), world.submit("bob")
    order = [first]
    for _ in range(3):
        user = "bob" if order[-1] == other else "alice"
        world.end("n1", AttemptKey(order[-1], PLAIN, 1), user=user)
        order.append(started(world)[0][1])
    assert order == [first, high, low, other]


def test_a_job_that_does_not_fit_blocks_nobody() -> None:
    world = World([host("n1", 4)])
    world.submit(slots=3)
    wide = world.submit(slots=4)
    small = world.submit()
    assert started(world) == [("n1", small, PLAIN)] and world.state(str(wide)) == "waiting"


def test_an_unreachable_user_blocks_nobody() -> None:
    world = World([host("n1", 1)], present=False)
    waiting = world.submit("alice")
    world.step(UserServerCame(user="bob"))
    assert started(World([host("n1", 1)])) == []
    bobs = world.submit("bob")
    assert started(world) == [("n1", bobs, PLAIN)]
    assert any("hq-client info" in line for line in explain(world.cluster, TaskKey(waiting), world.now))


def test_load_of_others_keeps_tasks_away_and_stale_load_does_not() -> None:
    world = World([host("n1", 4), host("n2", 4)])
    world.step(load("n1", 3.0, world.now))
    id = world.submit(indices="1-8")
    assert sorted(name for name, _, _ in started(world)) == ["n1", "n1", "n2", "n2", "n2", "n2"]  # 3.0 + 2 ≤ 4 + 1, no more
    assert world.last.wake is not None
    assert any("is busy: load 3.0" in line for line in explain(world.cluster, TaskKey(id), world.now))
    world.step(after=61.0)
    assert [name for name, _, _ in started(world)] == ["n1"] * 2


def test_a_high_load_never_starves_a_job_for_ever() -> None:
    world = World([host("n1", 4)])
    world.step(load("n1", 50.0, world.now))
    world.submit(indices="1-3")
    assert len(world.starts) == 1


def test_our_own_tasks_in_the_load_do_not_count_against_the_next_ones() -> None:
    world = World([host("n1", 4)])
    id = world.submit(indices="1-100")
    world.step(after=300.0)
    world.step(load("n1", 4.0, world.now))
    for index in (1, 2, 3, 4):
        world.end("n1", AttemptKey(id, index, 1))
        assert len(world.starts) == 1, "the host works for us alone, and is not busy"


def test_what_our_own_daemons_add_to_the_load_leaves_no_slot_of_a_small_host_empty() -> None:
    world = World([host("n1", 2)])
    alices = world.submit("alice", indices="1-2")
    world.step(after=300.0)
    world.submit("bob", indices="1-2")
    world.step(load("n1", 2.9, world.now))
    for index in (1, 2):
        world.end("n1", AttemptKey(alices, index, 1))
        assert len(world.starts) == 1
    world.step(load("n1", 3.1, world.now))
    world.submit("alice", indices="1-2")
    world.end("n1", AttemptKey(world.cluster.last_job("bob") or 0, 1, 1))
    assert world.starts == [], "somebody else's processes"


def test_one_users_word_cannot_make_a_host_look_busy() -> None:
    world = World([host("n1", 4)])
    world.step(load("n1", 50.0, world.now, "bob"), load("n1", 0.0, world.now, "alice"))
    world.submit(indices="1-4")
    assert len(world.starts) == 4


def test_memory_and_resources_are_counted_and_given_back() -> None:
    world = World([host("n1", 8, memory=3 << 30, resources={"gpu": 1})])
    big = world.submit(indices="1-4", memory=1 << 30)
    assert len(world.starts) == 3
    gpu = world.submit(indices="1-2", resources={"gpu": 1})
    assert started(world) == [("n1", gpu, 1)]
    world.end("n1", AttemptKey(gpu, 1, 1))
    assert started(world) == [("n1", gpu, 2)]
    world.end("n1", AttemptKey(big, 2, 1))
    assert started(world) == [("n1", big, 4)]


def test_throttle_of_an_array() -> None:
    world = World([host("n1", 8)])
    id = world.submit(indices="1-5", wishes=Wishes(throttle=2))
    assert [index for _, _, index in started(world)] == [1, 2]
    world.end("n1", AttemptKey(id, 2, 1))
    assert [index for _, _, index in started(world)] == [3]
    world.act("modify", str(id), changes={"throttle": "none"})
    assert [index for _, _, index in started(world)] == [4, 5]


def test_begin_time_wakes_the_core() -> None:
    world = World([host("n1", 1)])
    id = world.submit(wishes=Wishes(begin=world.now + 50))
    assert world.starts == [] and world.last.wake == world.now + 50
    assert any("begin in 50s" in line for line in explain(world.cluster, TaskKey(id), world.now))
    world.step(after=50.0)
    assert started(world) == [("n1", id, PLAIN)]


@pytest.mark.parametrize("state", [LinkState.FAILED, LinkState.SUSPECT])
def test_a_closed_link_closes_the_host_for_that_user_only(state: LinkState) -> None:
    world = World([host("n1", 2)])
    world.link("n1", state, "Permission denied (publickey).")
    mine = world.submit("alice")
    assert world.starts == []
    assert any("Permission denied (publickey)." in line for line in explain(world.cluster, TaskKey(mine), world.now))
    bobs = world.submit("bob")
    assert started(world) == [("n1", bobs, PLAIN)]
    world.link("n1", LinkState.UNKNOWN)
    assert started(world) == [("n1", mine, PLAIN)]


def test_an_unreachable_host_is_left_alone_unless_somebody_is_there() -> None:
    world = World([host("n1", 2)])
    world.step(HostsProbed(results={"n1": "no route to host"}))
    world.submit()
    assert world.starts == []
    world.link("n1", LinkState.ALIVE, user="bob")
    assert len(world.starts) == 1


def test_switched_off_drained_and_inactive_start_nothing_and_survive_a_restart() -> None:
    world = World([host("n1", 2)])
    world.step(HostSwitched(token="h", actor="root", host="n1", drain_reason="new disks"))
    id = world.submit()
    assert world.starts == [] and any("new disks" in line for line in explain(world.cluster, TaskKey(id), world.now))
    world.step(HostSwitched(token="h", actor="root", host="n1", is_active=True), ClusterSwitched(token="c", actor="root", is_active=False))
    world.restart()
    world.step(UserServerCame(user="alice"))
    assert world.starts == [] and not world.cluster.is_active
    world.step(ClusterSwitched(token="c", actor="root", is_active=True))
    assert len(world.starts) == 1


def test_a_disabled_user_waits_his_keys_are_dropped_and_what_runs_runs_on() -> None:
    world = World([host("n1", 1)])
    key = KeyRecord(public="k" * 40, user="alice", role=Role.USER_SERVER)
    world.step(KeyEnrolled(token="k", key=key))
    assert world.cluster.key(key.public) == key
    running = world.submit()
    world.submit()
    world.step(UserSwitched(token="u", actor="root", user=UserRecord(name="alice", is_enabled=False)))
    assert [each.keys for each in world.last.actions if isinstance(each, DropKeys)] == [(key.public,)] and not world.stops
    world.end("n1", AttemptKey(running, PLAIN, 1))
    assert world.starts == [] and world.state(str(running)) == "ok"
    world.step(UserSwitched(token="u", actor="root", user=UserRecord(name="alice")))
    assert len(world.starts) == 1


# --- reports ---


def test_an_end_is_recorded_by_our_clock_with_all_that_was_measured() -> None:
    world = World([host("n1")])
    id = world.submit()
    run = AttemptKey(id, PLAIN, 1)
    world.report("n1", run, RunKind.ENDED, outcome=Outcome.FAILED, signal=11, exit_code=0, started=5.0, at=9.0, max_rss=77, cpu=1.5, pid=42)
    task = world.book.history[TaskKey(id)]
    assert (task.outcome, task.signal, task.exit_code, task.started, task.ended) == (Outcome.FAILED, 11, None, 5.0, 9.0)
    assert (task.max_rss, task.cpu, task.pid) == (77, 1.5, 42)


@pytest.mark.parametrize(("user", "name", "attempt"), [("bob", "n1", 1), ("alice", "n2", 1), ("alice", "n1", 2), ("alice", "n1", 0)])
def test_a_report_of_the_wrong_user_host_or_attempt_changes_nothing(user: str, name: str, attempt: int) -> None:
    world = World([host("n1", 2), host("n2", 1)])
    id = world.submit()
    world.end(name, AttemptKey(id, PLAIN, attempt), user=user)
    assert not world.last.changes and world.state(str(id)) == "starting"
    world.end("nowhere", AttemptKey(77, 3, 1), user="nobody")
    assert not world.last.changes


def test_retries_are_for_failures_only() -> None:
    world = World([host("n1", 1)])
    id = world.submit(retries=1)
    world.end("n1", AttemptKey(id, PLAIN, 1), Outcome.FAILED, exit_code=3)
    assert world.starts[0][1].attempt == 2
    world.end("n1", AttemptKey(id, PLAIN, 2), Outcome.FAILED, exit_code=3)
    assert world.state(str(id)) == "failed"
    other = world.submit(retries=1)
    world.end("n1", AttemptKey(other, PLAIN, 1), Outcome.TIMEOUT)
    assert world.state(str(other)) == "timeout"


def test_a_start_that_never_becomes_a_process_is_tried_again_with_pauses_and_refused_at_last() -> None:
    world = World([host("n1", 1)])
    id = world.submit()
    for attempt in range(1, 6):
        while not world.starts:
            assert world.last.wake is not None
            world.step(after=world.last.wake - world.now)
        assert world.starts[0][1].attempt == attempt
        world.report("n1", AttemptKey(id, PLAIN, attempt), RunKind.NEVER_STARTED, reason="no such shell")
    assert world.state(str(id)) == "refused" and "5 times in a row" in world.book.history[TaskKey(id)].reason
    assert "no such shell" in world.book.history[TaskKey(id)].reason


def test_suspended_and_resumed() -> None:
    world = World([host("n1", 1)])
    id = world.submit()
    run = AttemptKey(id, PLAIN, 1)
    world.report("n1", run, RunKind.SUSPENDED)
    assert world.state(str(id)) == "suspended"
    world.report("n1", run, RunKind.RESUMED)
    assert world.state(str(id)) == "running"


# --- roll calls ---


def test_a_start_that_did_not_arrive_is_ordered_again_with_the_same_attempt() -> None:
    world = World([host("n1", 1)])
    id = world.submit()
    world.restart()
    world.step(UserServerCame(user="alice"))
    assert [order.key for _, order in world.starts] == [AttemptKey(id, PLAIN, 1)]
    world.roll("n1")
    assert [order.key for _, order in world.starts] == [AttemptKey(id, PLAIN, 1)]
    # it may be queued there without knowing that it has its slots: the same once more changes nothing
    world.roll("n1", AttemptKey(id, PLAIN, 1))
    assert [order.key for _, order in world.starts] == [AttemptKey(id, PLAIN, 1)]


def test_a_user_server_that_comes_is_told_of_hosts_where_something_runs() -> None:
    world = World([host("n1", 1)])
    id = world.submit()
    world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    world.step(UserServerWent(user="alice", reason="killed"))
    assert any("killed" in line for line in explain(world.cluster, TaskKey(id), world.now))
    world.step(UserServerCame(user="alice"))
    assert [(each.host, each.orders) for each in world.last.actions if isinstance(each, StartRuns)] == [("n1", ())]


def test_a_run_that_its_host_forgot_is_lost_or_runs_again() -> None:
    world = World([host("n1", 2)])
    fragile, sturdy = world.submit(), world.submit(is_rerunnable=True)
    for id in (fragile, sturdy):
        world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    world.roll("n1")
    assert world.state(str(fragile)) == "lost" and "not known" in world.book.history[TaskKey(fragile)].reason
    assert [order.key for _, order in world.starts] == [AttemptKey(sturdy, PLAIN, 2)]


def test_a_roll_call_of_one_user_says_nothing_about_another() -> None:
    world = World([host("n1", 2)])
    id = world.submit("alice")
    world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    world.roll("n1", user="bob")
    assert world.state(str(id)) == "running"
    world.roll("n1", AttemptKey(id, PLAIN, 1), user="bob")
    assert world.state(str(id)) == "running" and world.stops == [("n1", AttemptKey(id, PLAIN, 1))]
