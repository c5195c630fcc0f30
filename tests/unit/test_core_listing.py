"""What is live as people see it: rows of jobs, tasks, hosts and groups, and why something waits."""

from __future__ import annotations

from hq.core import listing
from hq.core.events import HostSwitched
from hq.core.explain import explain
from hq.model.ids import AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.rows import GroupRow
from hq.model.selection import Selection
from hq.model.states import LinkState, RunKind
from tests.support.coreworld import World, host


def test_rows_escape_what_would_steer_a_terminal() -> None:
    world = World([host("n1", 1)])
    world.submit(argv=(b"echo", b"\x1b[2J\n;'\xff"), name="a\nb", wishes=Wishes(info="\u202e"))
    (row,) = listing.job_rows(world.cluster, Selection(), "alice", False)
    assert row.command == "echo \\x1b[2J\\n;'\\xff" and row.name == "a\\nb" and row.info == "\\u202e"
    assert row.state == "starting" and row.host == "n1" and row.attempt == 1


def test_the_row_of_an_array_shows_the_liveliest_state_and_its_counts() -> None:
    world = World([host("n1", 2)])
    id = world.submit(indices="1-5")
    world.report("n1", AttemptKey(id, 1, 1), RunKind.STARTED)
    world.end("n1", AttemptKey(id, 2, 1))
    (row,) = listing.job_rows(world.cluster, Selection(), "alice", False)
    assert (row.state, row.array) == ("running", "1-5")
    assert row.tasks == {"running": 1, "starting": 1, "waiting": 2, "finished": 1, "finished:ok": 1}
    live = [f"{id}_1 running", f"{id}_3 starting", f"{id}_4 waiting", f"{id}_5 waiting"]
    assert [f"{each.task} {each.state}" for each in listing.job_rows(world.cluster, Selection(), "alice", True)] == live
    assert [each.task for each in listing.job_rows(world.cluster, Selection(states=("running", "starting")), "alice", True)] == [f"{id}_1", f"{id}_3"]
    named = Selection(tasks=(TaskKey(id, 5), TaskKey(id, 99)))
    assert [(each.task, each.state) for each in listing.job_rows(world.cluster, named, "alice", True)] == [(f"{id}_5", "waiting")]
    assert listing.job_rows(world.cluster, Selection(), "bob", False) == []


def test_a_row_a_task_of_what_waits_too_in_the_order_of_the_array_and_no_more_than_asked_for() -> None:
    world = World([host("n1", 1)])
    world.step(HostSwitched(token=None, actor="root", host="n1", is_active=False))
    id = world.submit(indices="2-1000000:2")
    plain = world.submit()
    world.act("cancel", f"{id}_6")
    rows = listing.job_rows(world.cluster, Selection(), "alice", True, 5)
    assert [row.task for row in rows] == [str(plain), f"{id}_2", f"{id}_4", f"{id}_6", f"{id}_8"]
    assert [row.state for row in rows] == ["waiting", "waiting", "waiting", "finished", "waiting"]
    waiting = listing.job_rows(world.cluster, Selection(states=("waiting",)), "alice", True, 4)
    assert [row.task for row in waiting] == [str(plain), f"{id}_2", f"{id}_4", f"{id}_8"]
    assert listing.job_rows(world.cluster, Selection(states=("running",)), "alice", True) == []


def test_selections_filter_by_state_group_and_text() -> None:
    world = World([host("n1", 1)])
    running = world.submit(wishes=Wishes(group="a"), name="Sim")
    waiting = world.submit(wishes=Wishes(group="b"))

    def ids(**more: object) -> list[int]:
        return [row.id for row in listing.job_rows(world.cluster, Selection(**more), "alice", False)]  # type: ignore[arg-type]

    assert ids(states=("waiting",)) == [waiting] and ids(group="a") == [running] and ids(text="sim") == [running]
    assert ids(is_last=True) == [waiting] and ids(ranges=((1, 10**17),)) == [waiting, running] and ids(since=world.now + 1) == []


def test_groups_users_hosts_and_facts() -> None:
    world = World([host("n1", 2), host("n2", 1)])
    world.submit(wishes=Wishes(group="g"), indices="1-5")
    assert listing.group_rows(world.cluster, "alice", None) == [GroupRow("g", 1, {"starting": 3, "waiting": 2})]
    alice = next(row for row in listing.user_rows(world.cluster) if row.record.name == "alice")
    assert (alice.is_present, alice.jobs, alice.placed, alice.waiting) == (True, 1, 3, 2)
    world.link("n1", LinkState.ALIVE)
    row = listing.host_rows(world.cluster, "alice")[0]
    assert (row.name, row.occupied, row.slots, row.state, row.reachable, row.link) == ("n1", 2, 2, "active", True, "alive")
    facts = listing.facts(world.cluster)
    assert facts["slots"] == 3 and facts["slots occupied"] == 3 and facts["tasks waiting"] == 2
    assert "tasks finished" not in facts


def test_why_names_what_a_host_lacks_and_nothing_else() -> None:
    world = World([host("plain", 8), host("small", 1, memory=1 << 30, resources={"gpu": 1}), host("right", 2, memory=4 << 30, resources={"gpu": 2})])
    fields = {"slots": 2, "memory": 2 << 30, "resources": {"gpu": 2}}
    world.submit(**fields)
    text = "\n".join(explain(world.cluster, TaskKey(world.submit(**fields)), world.now))
    assert "plain: has no gpu in all" in text
    assert "small: has 1 slots and 1G of memory and 1 gpu in all" in text and "right: has 0 of 2 slots free" in text


def test_why_an_array_waits_names_who_is_ahead_and_what_would_help() -> None:
    world = World([host("n1", 1)])
    world.submit()
    world.submit(wishes=Wishes(priority=3))
    id = world.submit(indices="1-3")
    text = "\n".join(explain(world.cluster, TaskKey(id), world.now))
    assert "array of 3 tasks" in text and "n1: has 0 of 1 slots free" in text
    assert "1 job waits before it: your own" in text and "running tasks end" in text
    assert explain(world.cluster, TaskKey(id, 99), world.now) == [] and explain(world.cluster, TaskKey(99), world.now) == []
