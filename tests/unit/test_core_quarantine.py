"""Hosts where everything fails, and jobs that fail everywhere: which is whose fault."""

from __future__ import annotations

from uuid import uuid4

import pytest

from hq.core.events import HostSwitched, LinkChanged, UserServerCame
from hq.core.explain import explain
from hq.core.quarantine import COOL_DOWN
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.states import LinkState, Outcome
from tests.support.coreworld import World, host


@pytest.fixture
def world() -> World:
    made = World([host("sick", 4), host("well", 4)])
    for name in ("sick", "well"):
        for user in ("alice", "bob"):
            made.link(name, LinkState.ALIVE, user=user)
    return made


def run(world: World, where: str, user: str, is_well: bool) -> int:
    """A job that goes to one host and ends there."""
    job = world.submit(user, wishes=Wishes(hosts=(where,)), key=uuid4().hex)
    assert world.state(str(job)) == "starting", (where, world.state(str(job)))
    world.end(where, AttemptKey(job, PLAIN, 1), Outcome.OK if is_well else Outcome.FAILED, user=user, exit_code=0 if is_well else 1)
    return job


def fall_ill(world: World) -> None:
    for _ in range(3):
        run(world, "well", "alice", True)
    for user in ("alice", "bob", "alice", "bob", "alice"):
        run(world, "sick", user, False)


def is_open(world: World, name: str = "sick") -> bool:
    return world.cluster.hosts[name].closed() is None


def test_many_jobs_of_two_users_that_fail_only_there(world: World) -> None:
    fall_ill(world)
    assert not is_open(world)
    assert [record.action for record in world.last.changes.audit] == ["quarantine"]
    job = world.submit(wishes=Wishes(hosts=("sick",)))
    assert world.state(str(job)) == "waiting"
    assert "is in quarantine: 5 submissions of 2 users failed there" in " ".join(explain(world.cluster, TaskKey(job), world.now))


def test_one_user_alone_is_no_evidence(world: World) -> None:
    run(world, "well", "bob", True)
    for _ in range(20):
        run(world, "sick", "alice", False)
    assert is_open(world)


def test_a_host_where_others_are_well_is_not_sick(world: World) -> None:
    run(world, "well", "bob", True)
    for _ in range(4):
        run(world, "sick", "bob", True)
        for user in ("alice", "bob"):
            run(world, "sick", user, False)
    assert is_open(world)


def test_what_fails_everywhere_is_no_hosts_fault(world: World) -> None:
    run(world, "well", "alice", True)
    for user in ("alice", "bob") * 5:
        run(world, "well", user, False)
        run(world, "sick", user, False)
    assert is_open(world) and is_open(world, "well")


def test_a_job_that_fails_on_every_host_is_the_jobs_fault(world: World) -> None:
    for _ in range(30):
        run(world, "well", "alice", True)
    for user in ("alice", "bob"):
        job = world.submit(user, indices="1-8", is_rerunnable=True)
        for index in range(1, 9):
            task = world.cluster.task(TaskKey(job, index))
            if task is not None:
                world.end(task.host, AttemptKey(job, index, 1), Outcome.FAILED, user=user, exit_code=1)
    assert is_open(world) and is_open(world, "well")


def test_without_another_host_there_is_nothing_to_compare_with() -> None:
    world = World([host("sick", 4)])
    for user in ("alice", "bob"):
        world.link("sick", LinkState.ALIVE, user=user)
    for user in ("alice", "bob") * 5:
        run(world, "sick", user, False)
    assert is_open(world)


def test_ends_of_long_ago_do_not_count(world: World) -> None:
    for user in ("alice", "bob", "alice", "bob", "alice", "bob"):
        run(world, "well", "alice", True)
        run(world, "sick", user, False)
        world.step(after=200)
    assert is_open(world)


def test_after_a_while_one_task_tries_it(world: World) -> None:
    fall_ill(world)
    jobs = [world.submit(wishes=Wishes(hosts=("sick",))) for _ in range(3)]
    assert world.last.wake == pytest.approx(world.now + COOL_DOWN)
    world.step(after=COOL_DOWN)
    assert [world.state(str(job)) for job in jobs] == ["starting", "waiting", "waiting"]
    world.end("sick", AttemptKey(jobs[0], PLAIN, 1))
    assert [world.state(str(job)) for job in jobs] == ["ok", "starting", "starting"]
    assert is_open(world)


def test_a_task_that_fails_in_trying_it_closes_it_for_longer(world: World) -> None:
    fall_ill(world)
    jobs = [world.submit(wishes=Wishes(hosts=("sick",))) for _ in range(2)]
    world.step(after=COOL_DOWN)
    world.end("sick", AttemptKey(jobs[0], PLAIN, 1), Outcome.FAILED, exit_code=1)
    assert world.state(str(jobs[1])) == "waiting"
    world.step(after=COOL_DOWN)
    assert world.state(str(jobs[1])) == "waiting"
    world.step(after=COOL_DOWN)
    assert world.state(str(jobs[1])) == "starting"


def test_a_canary_that_is_cancelled_makes_room_for_the_next(world: World) -> None:
    fall_ill(world)
    jobs = [world.submit(wishes=Wishes(hosts=("sick",))) for _ in range(2)]
    world.step(after=COOL_DOWN)
    world.act("cancel", str(jobs[0]))
    world.end("sick", AttemptKey(jobs[0], PLAIN, 1), Outcome.CANCELLED)
    assert world.state(str(jobs[1])) == "starting"


def test_its_owner_opens_it(world: World) -> None:
    fall_ill(world)
    world.step(HostSwitched(token="t", actor="root", host="sick", is_active=True))
    assert is_open(world)
    assert world.last.changes.audit[0].actor == "root"


def test_a_restart_acquits_nobody(world: World) -> None:
    fall_ill(world)
    world.restart()
    world.step(UserServerCame(user="alice"), LinkChanged(user="alice", host="sick", state=LinkState.ALIVE))
    assert not is_open(world) and "5 submissions of 2 users" in str(world.cluster.hosts["sick"].closed())
    job = world.submit(wishes=Wishes(hosts=("sick",)))
    assert world.state(str(job)) == "waiting"
    world.step(after=COOL_DOWN + 1)
    assert world.state(str(job)) == "starting", "its time goes on"
    world.restart()
    world.step(UserServerCame(user="alice"), LinkChanged(user="alice", host="sick", state=LinkState.ALIVE))
    assert world.cluster.hosts["sick"].quarantine, "being tried is no acquittal either"
    world.step(HostSwitched(token=None, actor="olga", host="sick", is_active=True))
    world.restart()
    assert is_open(world)
    assert world.book.settings["quarantine"] == ""


def test_the_jobs_of_one_submission_are_one_piece_of_evidence(world: World) -> None:
    """Found by make chaos: two files of jobs that fail put all hosts aside on which they happened to run."""
    for _ in range(3):
        run(world, "well", "alice", True)
    for user in ("alice", "bob"):
        for number in range(10):
            job = world.submit(user, wishes=Wishes(hosts=("sick",)), key=f"{user}-{number}")
            world.end("sick", AttemptKey(job, PLAIN, 1), Outcome.FAILED, user=user, exit_code=4)
    assert is_open(world)
