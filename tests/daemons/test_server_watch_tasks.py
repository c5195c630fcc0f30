"""Watching single tasks of arrays: they are done when they are done, whatever the rest of the array does, and their codes alone count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.selection import parse_selection
from hq.protocol.jobs import JobAct, JobActed, JobExplain, JobExplained, JobProgress, JobQuery, JobRows, JobShow, JobShown, JobWatch
from tests.support.serverroom import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.close()


def told(progress: JobProgress) -> list[tuple[int, tuple[int, ...], dict[str, int], bool, int | None]]:
    return [(counts.id, counts.only, counts.tasks, counts.is_finished, counts.exit_code) for counts in progress.jobs]


def test_a_named_task_is_waited_for_and_not_its_array(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("work", indices="1-4")
    number = alice.send(JobWatch(selection=parse_selection([f"{job}_2,{job}_3"])))
    room.tick()
    alice.run(job, index=1, exit_code=9)
    alice.run(job, index=3)
    alice.run(job, index=2, exit_code=3)
    alice.receive()
    words = [message for re, message in alice.got if re == number and isinstance(message, JobProgress)]
    assert not any(word.is_done for word in words[:-1]), "one of the two still runs"
    assert words[-1].is_done and told(words[-1]) == [(job, (2, 3), {"finished": 2, "finished:failed": 1, "finished:ok": 1}, True, 3)]
    count = len(words)
    alice.run(job, index=4)
    alice.receive()
    assert len([1 for re, _ in alice.got if re == number]) == count, "what the others do is no news"


def test_named_tasks_that_have_ended(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("work", indices="1-4")
    alice.run(job, index=2, exit_code=5)
    live = alice.ask(JobWatch(selection=parse_selection([f"{job}_2"])), JobProgress)
    assert live.is_done and told(live) == [(job, (2,), {"finished": 1, "finished:failed": 1}, True, 5)]
    for index in (1, 3, 4):
        alice.run(job, index=index)
    for words, code, only in (([f"{job}_2"], 5, (2,)), ([f"{job}_4,{job}_1"], 0, (4, 1)), ([f"{job}_4,{job}"], 5, ()), ([f"{job}_4", f"1-{job}"], 5, ())):
        ended = alice.ask(JobWatch(selection=parse_selection(words)), JobProgress)
        assert ended.is_done and [(counts.only, counts.exit_code) for counts in ended.jobs] == [(only, code)]


def test_a_task_that_never_was_is_refused_in_live_and_in_ended_arrays(room: Room) -> None:
    alice, bob = room.user("alice"), room.user("bob")
    job = alice.submit("work", indices="1-2")
    assert f"{job}_7" in alice.refused(JobWatch(selection=parse_selection([f"{job}_1,{job}_7"])))
    for index in (1, 2):
        alice.run(job, index=index)
    assert f"{job}_7" in alice.refused(JobWatch(selection=parse_selection([f"{job}_1,{job}_7"])))
    assert f"{job}_1" in bob.refused(JobWatch(selection=parse_selection([f"{job}_1"])))


def test_a_task_that_was_cancelled_with_the_rest_of_its_array_is_done_while_others_run(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("work", indices="1-40")
    alice.ask(JobAct(action="cancel", selection=parse_selection([str(job)])), JobActed)
    [row] = alice.ask(JobQuery(selection=parse_selection([f"{job}_40"]), by_task=True), JobRows).rows
    assert (row.state, row.outcome) == ("finished", "cancelled")
    assert alice.ask(JobShow(task=f"{job}_40"), JobShown).row == row
    assert "it was cancelled" in alice.ask(JobExplain(task=f"{job}_40"), JobExplained).sentences[0]
    done = alice.ask(JobWatch(selection=parse_selection([f"{job}_40"])), JobProgress)
    assert done.is_done and told(done) == [(job, (40,), {"finished": 1, "finished:cancelled": 1}, True, 1)]


def test_how_an_array_ended_is_told_by_outcome(room: Room) -> None:
    alice = room.user("alice")
    job = alice.submit("work", indices="1-40")
    alice.run(job, index=1, exit_code=3)
    alice.run(job, index=2)
    alice.ask(JobAct(action="cancel", selection=parse_selection([str(job)])), JobActed)
    for index in range(3, 9):
        alice.run(job, index=index)
    sentences = alice.ask(JobExplain(task="last"), JobExplained).sentences
    assert "40 tasks" in sentences[0] and all(words in sentences[0] for words in ("1 failed", "7 ok", "32 cancelled"))
    assert f"hq-client jobs {job} --tasks --state" in sentences[1]
    assert alice.ask(JobExplain(task=f"{job}_40"), JobExplained).sentences == ("It was cancelled.", "Reason: cancelled while it waited")


def test_a_live_and_an_ended_job_beside_a_task(room: Room) -> None:
    alice = room.user("alice")
    ended, array, live = alice.submit("one"), alice.submit("work", indices="1-2"), alice.submit("two")
    alice.run(ended, exit_code=2)
    alice.run(array, index=1, exit_code=4)
    number = alice.send(JobWatch(selection=parse_selection([f"{ended},{array}_1,{live}"])))
    room.tick()
    alice.receive()
    [first] = [message for re, message in alice.got if re == number and isinstance(message, JobProgress)]
    assert not first.is_done
    assert {counts.id: (counts.is_finished, counts.exit_code) for counts in first.jobs} == {ended: (True, 2), array: (True, 4), live: (False, None)}
    alice.run(live)
    last = alice.all_of(JobProgress)[-1]
    assert last.is_done and [counts.id for counts in last.jobs] == [live]
