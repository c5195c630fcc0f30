"""Jobs that start after others: when they start, when they never will, and what is said meanwhile."""

from __future__ import annotations

import pytest

from hq.core.events import JobsSubmitted, RunsReported, UserServerCame
from hq.core.explain import explain
from hq.core.listing import job_rows
from hq.errors import HqError
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.runs import RunReport
from hq.model.selection import Selection
from hq.model.states import Outcome, RunKind
from tests.support.coreworld import World, host, submission


def one_host() -> World:
    """A host of four slots."""
    return World([host("n1", 4)])


def after(world: World, *ids: int, any: tuple[int, ...] = (), **fields: object) -> int:
    """Submit a job of alice's that is to start after others."""
    return world.submit(wishes=Wishes(after=ids, after_any=any), **fields)


def end(world: World, id: int, outcome: Outcome = Outcome.OK, index: int = PLAIN) -> None:
    """A task ran and ended."""
    world.report("n1", AttemptKey(id, index, 1), RunKind.ENDED, outcome=outcome, exit_code=0 if outcome is Outcome.OK else 3)


def row(world: World, id: int) -> tuple[str, str]:
    (found,) = [each for each in job_rows(world.cluster, Selection(is_all=True), "alice", False) if each.id == id]
    return found.state, found.reason


def begun(world: World, id: int) -> bool:
    return world.state(str(id)) == "starting"


def test_it_starts_once_the_last_has_ended_well_and_says_meanwhile_for_what_it_waits() -> None:
    world = one_host()
    one, two = world.submit(), world.submit()
    third = after(world, one, two)
    assert row(world, third) == ("waiting", f"waits for jobs {one}, {two} to end well")
    words = " ".join(explain(world.cluster, TaskKey(third), world.now))
    assert f"It starts after job {one} has ended well, and is cancelled if it ends otherwise (starting)" in words
    end(world, one)
    assert not begun(world, third) and row(world, third) == ("waiting", f"waits for job {two} to end well")
    world.restart()
    world.step(UserServerCame(user="alice"))
    end(world, two)
    assert begun(world, third)
    assert world.book.jobs[third].wishes.after == ()


def test_a_bad_end_ends_the_whole_chain_with_the_reason_in_one_transaction() -> None:
    world = one_host()
    chain = [world.submit()]
    for _ in range(3000):
        chain.append(after(world, chain[-1]))
    other = after(world, any=(chain[0], chain[1]))
    end(world, chain[0], Outcome.FAILED)
    assert set(chain) <= world.book.jobs_history.keys() and begun(world, other)
    first = world.book.history[TaskKey(chain[1])]
    assert (first.outcome, first.reason) == (Outcome.CANCELLED, f"it was to start after job {chain[0]} had ended well, and that ended: failed")
    assert f"after job {chain[-2]} had ended well, and that ended: cancelled" in world.book.history[TaskKey(chain[-1])].reason


def test_an_array_has_ended_well_when_all_of_it_has() -> None:
    world = one_host()
    one, two = world.submit(indices="1-2"), world.submit(indices="1-2")
    good, bad = after(world, one), after(world, two, indices="1-3")
    for id in (one, two):
        end(world, id, index=1)
    assert not begun(world, good) and world.cluster.jobs[bad].counts() == {"waiting": 3}
    end(world, one, index=2)
    end(world, two, Outcome.TIMEOUT, index=2)
    assert begun(world, good) and bad in world.book.jobs_history and world.book.jobs_history[bad].cancelled_rest == 3


@pytest.mark.parametrize("is_same_step", [False, True])
def test_what_has_ended_before_the_submission_counts_alike(is_same_step: bool) -> None:
    for outcome in (Outcome.OK, Outcome.FAILED):
        world = one_host()
        first = world.submit()
        wishes = Wishes(after=(first,))
        if not is_same_step:
            end(world, first, outcome)
        ended = {first: {"finished": 1, f"finished:{outcome.value}": 1}}
        event = JobsSubmitted(token="t", user="alice", jobs=(submission("alice", "x", wishes=wishes),), ended=ended)
        dry = JobsSubmitted(token="d", user="alice", jobs=(submission("alice", "x", wishes=wishes),), ended=ended, is_dry_run=True)
        if is_same_step:
            report = RunReport(job=first, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=world.now, outcome=outcome, exit_code=0)
            world.step(RunsReported(user="alice", host="n1", reports=(report,)), event)
        else:
            world.step(event)
        (accepted,) = world.reply()  # type: ignore[misc]
        assert begun(world, accepted.id) is (outcome is Outcome.OK)
        assert (accepted.id in world.book.jobs_history) is (outcome is Outcome.FAILED)
        assert ("cancelled: it was to start after" in accepted.note) is (outcome is Outcome.FAILED)
        world.step(dry)
        assert isinstance(world.reply(), list)


def test_a_repeated_submission_is_the_same_job_though_what_it_was_to_follow_has_failed() -> None:
    world = one_host()
    first = world.submit()
    item = submission("alice", "again", wishes=Wishes(after=(first,)))
    world.step(JobsSubmitted(token="t", user="alice", jobs=(item,)))
    (accepted,) = world.reply()  # type: ignore[misc]
    end(world, first, Outcome.FAILED)
    world.step(JobsSubmitted(token="t", user="alice", jobs=(item,)))
    (repeated,) = world.reply()  # type: ignore[misc]
    assert (repeated.id, repeated.note) == (accepted.id, "was submitted before")


def test_anothers_job_and_one_that_never_was_are_refused_alike() -> None:
    world = World([host("n1", 4)], ("alice", "bob"))
    foreign = world.submit("bob")
    for id in (foreign, 4711):
        world.step(JobsSubmitted(token="t", user="alice", jobs=(submission("alice", f"k{id}", wishes=Wishes(after_any=(id,))),)))
        error = world.reply()
        assert isinstance(error, HqError) and str(error) == f"--after-any: there is no job {id} of yours"


def test_it_can_be_let_go_held_and_cancelled_while_it_waits() -> None:
    world = one_host()
    first = world.submit()
    free, held, gone = after(world, first), after(world, first), after(world, first)
    world.act("hold", str(held))
    world.act("cancel", str(gone))
    assert world.act("modify", str(free), changes={"after": "4"})[0][1] is False
    assert world.act("modify", str(free), changes={"after": "none"})[0][1] is True
    assert begun(world, free)
    end(world, first)
    assert not begun(world, held) and row(world, held)[0] == "held"
    world.act("release", str(held))
    assert begun(world, held) and world.state(str(gone)) == "cancelled"
