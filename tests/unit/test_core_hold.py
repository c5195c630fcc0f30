"""Hold and release of tasks that are placed and have not begun: they are held where they wait, or come back and are held here."""

from __future__ import annotations

from hq.core.explain import explain
from hq.core.listing import job_rows, task_row
from hq.model.ids import PLAIN, AttemptKey
from hq.model.runs import RETURNED, NativeRun
from hq.model.selection import Selection
from hq.model.states import Outcome, RunKind
from tests.support.coreworld import World, host

WAITS = NativeRun(id="7", state="PENDING", reason="Priority", since=1000.0)
HELD = NativeRun(id="7", state="PENDING", reason="JobHeldUser", since=1000.0, is_held=True)


def centre() -> World:
    """A centre of four slots."""
    return World([host("centre", 4, backend="slurm")])


def shown(world: World, id: int, index: int = PLAIN) -> str:
    """The state as a listing shows it."""
    return task_row(world.cluster.jobs[id], index, world.now).state


def test_a_task_that_waits_at_a_centre_is_held_there_and_released_there() -> None:
    world = centre()
    key = AttemptKey(world.submit(), PLAIN, 1)
    world.report("centre", key, RunKind.WAITS, reason="waiting at slurm:centre: Priority (job 7)", native=WAITS)
    assert world.act("hold", str(key.job)) == [(str(key.job), True, "held, 1 waiting on centre is being held there")]
    assert world.holds == [("centre", key, True)] and shown(world, key.job) == "held"
    assert world.cluster.jobs[key.job].counts() == {"held": 1}
    assert world.act("hold", str(key.job))[0][1:] == (False, "is held already")
    world.report("centre", key, RunKind.WAITS, reason="held at slurm:centre: JobHeldUser (job 7)", native=HELD)
    (row,) = job_rows(world.cluster, Selection(states=("held",)), "alice", False)
    assert (row.state, row.native_id, row.native_state, row.native_reason) == ("held", "7", "PENDING", "JobHeldUser")
    words = " ".join(explain(world.cluster, key.task, world.now))
    assert "is held on centre" in words and f"hq-client release {key.job}" in words and "JobHeldUser" in words
    assert world.act("release", str(key.job)) == [(str(key.job), True, "released")]
    assert world.holds == [("centre", key, False)] and shown(world, key.job) == "starting"
    told = [state for _, job, _, _, state, _, _ in world.book.events if job == key.job]
    assert told[-3:] == ["starting", "held", "starting"]


def test_the_hold_is_repeated_until_its_exec_server_has_heard_it() -> None:
    world = centre()
    key = AttemptKey(world.submit(), PLAIN, 1)
    world.act("hold", str(key.job))
    world.restart()
    world.cluster.present.add("alice")
    assert shown(world, key.job) == "held", "the mark stands in the database"
    world.roll("centre", key)
    assert world.holds == [("centre", key, True)] and not world.starts
    world.roll("centre")
    assert world.holds == [("centre", key, True)] and not world.starts, "what is held is not started though the order was lost"
    world.report("centre", key, RunKind.NEVER_STARTED, reason=RETURNED)
    assert world.state(str(key.job)) == "held" and not world.starts
    world.act("release", str(key.job))
    assert [order.key for _, order in world.starts] == [AttemptKey(key.job, PLAIN, 2)]


def test_a_release_orders_the_start_again_for_the_first_order_may_be_lost() -> None:
    world = centre()
    key = AttemptKey(world.submit(), PLAIN, 1)
    world.act("hold", str(key.job))
    world.act("release", str(key.job))
    assert world.holds == [("centre", key, False)] and [order.key for _, order in world.starts] == [key]


def test_of_an_array_each_task_is_held_where_it_is() -> None:
    world = centre()
    id = world.submit(indices="0-5")
    running, *there = [AttemptKey(id, index, 1) for index in range(4)]
    world.report("centre", running, RunKind.STARTED)
    assert world.act("hold", str(id)) == [(str(id), True, "held, 3 waiting on centre are being held there, 1 task runs on")]
    assert {run for _, run, _ in world.holds} == set(there)
    assert world.cluster.jobs[id].counts() == {"running": 1, "held": 5}
    world.report("centre", there[0], RunKind.STARTED)  # it began before the order came
    assert world.cluster.jobs[id].counts() == {"running": 2, "held": 4}
    world.report("centre", there[1], RunKind.NEVER_STARTED, reason=RETURNED)  # it had not been submitted yet
    assert world.state(f"{id}_2") == "held" and not world.starts
    world.act("release", str(id))
    assert world.holds == [("centre", there[2], False)]
    assert {order.key for _, order in world.starts} >= {AttemptKey(id, 2, 2), there[2]}


def test_one_task_of_an_array_is_held_alone() -> None:
    world = centre()
    id = world.submit(indices="0-3")
    assert world.act("hold", f"{id}_2") == [(f"{id}_2", True, "is being held on centre")]
    assert world.holds == [("centre", AttemptKey(id, 2, 1), True)] and shown(world, id, 2) == "held"
    world.report("centre", AttemptKey(id, 2, 1), RunKind.NEVER_STARTED, reason=RETURNED)
    assert world.state(f"{id}_2") == "held", "though its job is not held"
    assert world.act("release", f"{id}_1") == [(f"{id}_1", False, "is starting, not held")]
    assert world.act("release", f"{id}_2") == [(f"{id}_2", True, "released")]


def test_the_batch_systems_refusal_reaches_the_owner() -> None:
    world = centre()
    key = AttemptKey(world.submit(), PLAIN, 1)
    world.act("hold", str(key.job))
    words = "it could not be held: scontrol: no such thing here"
    world.report("centre", key, RunKind.WAITS, reason=f"waiting at slurm:centre: Priority (job 7); {words}",
                 native=NativeRun(id="7", state="PENDING", reason="Priority", since=1000.0, refusal=words))  # fmt: skip
    assert shown(world, key.job) == "starting" and words in world.cluster.jobs[key.job].tasks[PLAIN].reason
    assert world.book.events[-1][4:] == ("starting", "centre", words)


def test_an_admin_holds_what_waits_at_a_centre_and_it_is_cancelled_while_held() -> None:
    world = centre()
    key = AttemptKey(world.submit(), PLAIN, 1)
    assert world.act("hold", str(key.job), actor="olga", is_admin=True)[0][1]
    assert world.holds == [("centre", key, True)] and [each.action for each in world.last.changes.audit] == ["hold"]
    world.act("cancel", str(key.job))
    assert world.stops == [("centre", key)]
    world.report("centre", key, RunKind.NEVER_STARTED, reason="cancelled")
    assert world.book.history[key.task].outcome is Outcome.CANCELLED


def test_native_wait_is_counted_apart() -> None:
    world = centre()
    key = AttemptKey(world.submit(), PLAIN, 1)
    world.report("centre", key, RunKind.WAITS, reason="waiting", native=WAITS, after=10.0)
    row = task_row(world.cluster.jobs[key.job], PLAIN, world.now + 5)
    assert (row.native_since, row.native_wait_seconds) == (1000.0, 15.0)
    world.report("centre", key, RunKind.STARTED, started=1020.0, native=NativeRun(id="7", state="RUNNING", since=1000.0), after=10.0)
    row = task_row(world.cluster.jobs[key.job], PLAIN, world.now + 500)
    assert (row.native_wait_seconds, row.native_state, row.started) == (20.0, "RUNNING", 1020.0)
    world.end("centre", key)
    ended = world.book.history[key.task]
    assert (ended.native_id, ended.native_since) == ("7", 1000.0)
    assert ended.native_wait(9999.0) == 20.0
