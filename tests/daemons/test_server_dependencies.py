"""hq-server and jobs that start after others: those that have ended are the database's to know, whenever it learns of it."""

from __future__ import annotations

from hq.model.job import Wishes
from hq.model.selection import Selection
from hq.protocol.base import Problem
from hq.protocol.jobs import JobQuery, JobRows, JobShow, JobShown, JobSubmit, JobSubmitted
from tests.support.serverroom import InlineWriter, Room, UserServer


def begun(user: UserServer) -> set[int]:
    return {order.job for _, order in user.orders()}


def test_ended_jobs_count_as_they_ended_and_live_ones_are_waited_for(room: Room) -> None:
    alice = room.user("alice")
    good, bad, live = alice.submit("true"), alice.submit("false"), alice.submit("true")
    alice.run(good)
    alice.run(bad, exit_code=1)
    first = alice.submit("true", wishes=Wishes(after=(good,), after_any=(bad,)))
    second = alice.submit("true", wishes=Wishes(after=(good, live)))
    third = alice.submit("true", wishes=Wishes(after=(bad, live)))
    assert first in begun(alice) and not {second, third} & begun(alice)
    rows = {row.id: row for row in alice.ask(JobQuery(selection=Selection()), JobRows).rows}
    assert (rows[third].outcome, rows[second].reason) == ("cancelled", f"waits for job {live} to end well")
    assert alice.ask(JobShow(task=str(second)), JobShown).facts["after"] == str(live)
    alice.run(live)
    assert second in begun(alice)


def test_one_that_ends_in_the_commit_that_is_under_way_is_known_all_the_same(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("true")
    assert isinstance(room.writer, InlineWriter)
    room.writer.is_held = True
    alice.run(job, exit_code=1)
    alice.send(JobSubmit(items=(alice.item("true", wishes=Wishes(after=(job,))),), blobs={}))
    room.tick()
    room.writer.is_held = False
    room.writer.let_go()
    room.tick()
    (answer,) = alice.all_of(JobSubmitted)[1:]
    assert "cancelled: it was to start after" in answer.items[0].note


def test_of_others_and_of_none_the_answer_is_the_same(room: Room) -> None:
    alice, bob = room.user("alice"), room.user("bob")
    live, ended = bob.submit("true"), bob.submit("true")
    bob.run(ended)
    for id in (live, ended, 4711):
        problem = alice.ask(JobSubmit(items=(alice.item("true", wishes=Wishes(after=(id,))),), blobs={}), Problem)
        assert problem.text == f"--after: there is no job {id} of yours"
