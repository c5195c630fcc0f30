"""Hosts that are lost to their user: what runs again, what waits for a word, and what its owner may decide."""

from __future__ import annotations

from typing import Any

import pytest

from hq.core.events import HostLost, UserServerCame, UserServerWent
from hq.core.explain import explain
from hq.core.leases import MARGIN, Leases
from hq.errors import HqError
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.states import LinkState, Outcome, RunKind
from tests.support.coreworld import World, host

REASON = "one has not been heard for 3:00"


@pytest.fixture
def world() -> World:
    made = World([host("one", 4), host("two", 4)])
    made.link("one", LinkState.ALIVE)
    made.link("two", LinkState.ALIVE)
    return made


def running(world: World, **fields: Any) -> AttemptKey:
    """A job that runs on `one`."""
    world.link("two", LinkState.SUSPECT)
    job = world.submit(**fields)
    key = AttemptKey(job, PLAIN, 1)
    world.report("one", key, RunKind.STARTED, pid=7)
    world.link("two", LinkState.ALIVE)
    return key


def lose(world: World) -> None:
    world.link("one", LinkState.SUSPECT, "silent")
    world.step(HostLost(user="alice", host="one", reason=REASON))


def test_what_may_run_again_waits_again_elsewhere(world: World) -> None:
    key = running(world, is_rerunnable=True)
    lose(world)
    assert world.state(str(key.job)) == "starting"
    assert world.starts == [("two", world.starts[0][1])]
    assert world.starts[0][1].attempt == 2
    world.end("one", key)
    assert world.state(str(key.job)) == "starting", "the old attempt's word does not count any more"


def test_the_rest_keeps_its_host_and_says_so(world: World) -> None:
    key = running(world)
    lose(world)
    assert world.state(str(key.job)) == "host_lost"
    assert not world.starts
    sentences = " ".join(explain(world.cluster, key.task, world.now))
    assert REASON in sentences and "hq-client resolve" in sentences
    world.restart()
    assert world.state(str(key.job)) == "host_lost"


def test_a_host_that_is_heard_again_brings_its_runs_back(world: World) -> None:
    key = running(world)
    lose(world)
    world.link("one", LinkState.ALIVE)
    world.roll("one", key)
    assert world.state(str(key.job)) == "running"
    world.end("one", key, Outcome.FAILED, exit_code=3)
    assert world.state(str(key.job)) == "failed"


def test_an_end_that_is_told_later_counts(world: World) -> None:
    key = running(world)
    lose(world)
    world.end("one", key)
    assert world.state(str(key.job)) == "ok"


def test_a_host_that_comes_back_without_the_run(world: World) -> None:
    key = running(world)
    lose(world)
    world.roll("one")
    assert world.state(str(key.job)) == "lost"


def test_an_order_that_may_not_have_arrived_is_sent_again_with_its_number(world: World) -> None:
    world.link("two", LinkState.SUSPECT)
    job = world.submit()
    lose(world)
    assert world.state(str(job)) == "starting"
    world.link("one", LinkState.ALIVE)
    world.roll("one")
    assert [(name, order.attempt) for name, order in world.starts] == [("one", 1)]


def test_what_was_being_cancelled_is_cancelled(world: World) -> None:
    key = running(world)
    world.act("cancel", str(key.job))
    lose(world)
    assert world.state(str(key.job)) == "cancelled"
    world.roll("one", key)
    assert world.stops == [("one", key)]


@pytest.mark.parametrize(("verdict", "state"), [("ok", "ok"), ("failed", "failed"), ("lost", "lost")])
def test_its_owner_decides(world: World, verdict: str, state: str) -> None:
    key = running(world)
    lose(world)
    ((_, is_done, text),) = world.act("resolve", str(key.job), changes={"as": verdict})
    assert is_done and verdict in text
    assert world.state(str(key.job)) == state
    assert "alice decided" in world.book.history[key.task].reason
    world.roll("one", key)
    assert world.stops == [("one", key)], "a process that still runs is stopped when its host is heard"


def test_its_owner_may_have_it_run_again(world: World) -> None:
    key = running(world)
    lose(world)
    assert world.act("resolve", str(key.job), changes={"as": "requeue"})[0][1]
    assert [(name, order.attempt) for name, order in world.starts] == [("two", 2)]


def test_what_can_be_asked_is_not_decided(world: World) -> None:
    key = running(world)
    assert world.act("resolve", str(key.job), changes={"as": "ok"}) == [(str(key.job), False, "no host of it is lost: there is nothing to decide")]
    lose(world)
    assert not world.act("resolve", str(key.job), actor="bob", changes={"as": "ok"})[0][1]
    assert not world.act("resolve", str(key.job), actor="root", is_admin=True, changes={"as": "ok"})[0][1], "not even its administrator decides"
    with pytest.raises(AssertionError, match="what became of it"):
        world.act("resolve", str(key.job), changes={"as": "well"})
    assert isinstance(world.reply(), HqError)
    assert world.state(str(key.job)) == "host_lost"


def test_a_starting_one_on_a_lost_host_may_be_decided(world: World) -> None:
    world.link("two", LinkState.SUSPECT)
    job = world.submit()
    lose(world)
    assert world.act("resolve", str(job), changes={"as": "lost"})[0][1]
    assert world.state(str(job)) == "lost"


def test_an_array_is_decided_as_a_whole(world: World) -> None:
    job = world.submit(indices="1-6", is_rerunnable=False)
    for index in range(1, 7):
        task = world.cluster.task(TaskKey(job, index))
        assert task is not None
        world.report(task.host, AttemptKey(job, index, 1), RunKind.STARTED)
    lose(world)
    ((_, is_done, text),) = world.act("resolve", str(job), changes={"as": "failed"})
    assert is_done and "3 of 3" in text


# --- the leases themselves ---


def test_a_lease_counts_only_silence_and_is_told_once() -> None:
    leases = Leases()
    link = ("alice", "one")
    assert leases.look([link], 0.0, 100.0) == []
    assert leases.look([link], 100.0 + MARGIN - 1, 100.0) == []
    assert leases.look([link], 100.0 + MARGIN, 100.0) == [("alice", "one", 100.0 + MARGIN)]
    assert leases.look([link], 500.0, 100.0) == []
    assert leases.look([], 600.0, 100.0) == []
    assert leases.look([link], 700.0, 100.0) == []
    assert leases.look([link], 700.0 + 100.0 + MARGIN, 100.0) == [("alice", "one", 160.0)]


def test_nothing_is_lost_while_the_user_server_is_away(world: World) -> None:
    key = running(world)
    world.step(UserServerWent(user="alice", reason="silent"))
    assert world.state(str(key.job)) == "running"
    world.step(UserServerCame(user="alice"))
    assert world.state(str(key.job)) == "running"
