"""Submission and actions: what is taken in, what is refused, who may do what to whose job."""

from __future__ import annotations

import pytest

from hq.core.events import ConfigurationRead, JobsSubmitted, Progress, Reply, UserServerCame, UserSwitched, Watched
from hq.core.selecting import Named
from hq.errors import InputError, NeverError, NotAllowedError
from hq.model.host import HostSpec
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.selection import Selection, parse_selection
from hq.model.states import LinkState, Outcome, RunKind, TaskState
from hq.model.user import UserRecord
from tests.support.coreworld import World, error_of, host, submission


def test_ids_count_on_from_the_last_one_of_the_database() -> None:
    world = World([host("n1")])
    first = world.submit()
    world.end("n1", AttemptKey(first, PLAIN, 1))
    world.restart()
    assert world.submit() == first + 1


def test_a_repeated_submission_key_gives_the_same_job_even_after_its_end_and_a_restart() -> None:
    world = World([host("n1")])
    id = world.submit(key="again")
    assert world.submit(key="again") == id
    world.end("n1", AttemptKey(id, PLAIN, 1))
    world.restart()
    assert world.submit(key="again") == id
    assert len(world.book.jobs_history) == 1 and not world.book.jobs


def test_the_same_key_of_another_user_is_another_job() -> None:
    world = World([host("n1")])
    assert world.submit("alice", key="k") != world.submit("bob", key="k")


def test_one_bad_job_of_a_submission_and_nothing_is_kept() -> None:
    world = World([host("n1", 2)])
    jobs = (submission("alice", "good"), submission("alice", "bad", slots=3))
    world.step(JobsSubmitted(token="s", user="alice", jobs=jobs, blobs={"d": b"sealed"}))
    assert isinstance(world.reply(), NeverError)
    assert not world.last.changes and not world.cluster.jobs and world.submit() == 1


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"slots": 5}, NeverError, "the most that any host has is 4"),
        ({"slots": 1, "memory": 1 << 40}, NeverError, "has is 2G"),
        ({"resources": {"gpu": 3}}, NeverError, "is 2"),
        ({"resources": {"tape": 1}}, NeverError, "'tape'"),
        ({"slots": 4, "resources": {"gpu": 2}}, NeverError, "together"),
        ({"wishes": Wishes(exclude=("nowhere",))}, InputError, "known hosts: big, small"),
        ({"wishes": Wishes(hosts=("no\nwhere",))}, InputError, r"no\nwhere"),
        ({"wishes": Wishes(hosts=("small",)), "slots": 3}, NeverError, "the job may use has is 2"),
        ({"wishes": Wishes(exclude=("small", "big"))}, NeverError, "no host is left"),
        ({"wishes": Wishes(queue="night")}, InputError, "known queues: day"),
        ({"wishes": Wishes(priority=1000)}, InputError, "priority 1000"),
        ({"argv": ()}, InputError, "no command"),
        ({"indices": "5-1"}, InputError, "empty"),
        ({"instance": "other"}, NotAllowedError, "instance 'other'"),
    ],
)
def test_what_can_never_run_is_refused_at_once_with_the_reason(fields: dict[str, object], kind: type, words: str) -> None:
    world = World([host("small", 2, memory=1 << 30, resources={"gpu": 2}), host("big", 4, memory=2 << 30, queue="day")])
    value = world.try_submit(**fields)  # type: ignore[arg-type]
    assert isinstance(value, kind) and words in str(value)
    assert not world.last.changes


def test_a_stranger_and_a_disabled_user_are_refused() -> None:
    world = World([host("n1")])
    assert "hq-admin adduser" in error_of(world.try_submit("mallory"))
    world.step(UserSwitched(token="u", actor="admin", user=UserRecord(name="bob", is_enabled=False)))
    assert "disabled" in error_of(world.try_submit("bob"))


def test_a_job_signed_by_another_is_refused() -> None:
    world = World([host("n1")])
    world.step(JobsSubmitted(token="s", user="bob", jobs=(submission("alice", "stolen"),)))
    assert isinstance(world.reply(), NotAllowedError) and "signed for 'alice'" in error_of(world.reply())


def test_a_dry_run_says_where_and_changes_nothing() -> None:
    world = World([host("n1", 1), host("n2", 3)])
    world.step(JobsSubmitted(token="s", user="alice", jobs=(submission("alice", "dry"),), is_dry_run=True))
    value = world.reply()
    assert isinstance(value, list) and value[0].id == 0 and value[0].note == "would start on n2"
    assert not world.last.changes and not world.cluster.jobs
    assert world.submit(key="dry") == 1


def test_cancelling_a_waiting_million_makes_no_task_of_them() -> None:
    world = World([host("n1", 2)])
    id = world.submit(indices="1-1000000")
    assert len(world.starts) == 2
    assert world.act("cancel", str(id)) == [(str(id), True, "is being stopped; 999,998 waiting tasks cancelled")]
    assert world.book.jobs[id].cancelled_rest == 999_998 and len(world.book.tasks) == 2
    assert sorted(world.stops) == [("n1", AttemptKey(id, 1, 1)), ("n1", AttemptKey(id, 2, 1))]
    world.restart()
    job = world.cluster.job(id)
    assert job is not None and job.counts() == {"starting": 2, "finished": 999_998, "finished:cancelled": 999_998}
    world.end("n1", AttemptKey(id, 1, 1), Outcome.CANCELLED)
    world.end("n1", AttemptKey(id, 2, 1), Outcome.CANCELLED)
    assert id in world.book.jobs_history and not world.starts


def test_a_cancel_survives_a_restart_and_a_lost_message() -> None:
    world = World([host("n1")])
    id = world.submit()
    run = AttemptKey(id, PLAIN, 1)
    world.report("n1", run, RunKind.STARTED)
    world.act("cancel", str(id))
    world.restart()
    world.step()
    assert world.stops == []
    world.roll("n1", run)
    assert world.stops == [("n1", run)]
    world.end("n1", run, Outcome.CANCELLED)
    assert world.state(str(id)) == "cancelled" and "cancelled by alice" in world.book.history[TaskKey(id)].reason


def test_cancel_before_the_start_reached_its_host_never_starts_it() -> None:
    world = World([host("n1")])
    id = world.submit()
    world.act("cancel", str(id))
    world.roll("n1")
    assert world.starts == [] and world.state(str(id)) == "cancelled"


def test_one_task_of_an_array_is_held_and_cancelled_by_itself_and_the_cursor_passes_it() -> None:
    world = World([host("n1", 1)])
    id = world.submit(indices="1-5")
    assert world.act("hold", f"{id}_3") == [(f"{id}_3", True, "held")]
    assert world.act("cancel", f"{id}_4") == [(f"{id}_4", True, "cancelled")]
    assert TaskKey(id, 4) in world.book.tasks, "the cursor has not passed it, so a restart needs it"
    world.restart()
    world.step(UserServerCame(user="alice"))
    order = []
    for _ in range(3):
        index = next(iter(world.cluster.hosts["n1"].tasks)).index
        order.append(index)
        world.end("n1", AttemptKey(id, index, 1))
    assert order == [1, 2, 5] and TaskKey(id, 4) in world.book.history
    assert world.state(f"{id}_3") == "held" and world.cluster.job(id) is not None
    world.act("release", f"{id}_3")
    assert [start.index for _, start in world.starts] == [3]
    world.end("n1", AttemptKey(id, 3, 1))
    assert id in world.book.jobs_history


def test_hold_and_release_of_a_job() -> None:
    world = World([host("n1", 1)])
    first, second = world.submit(), world.submit()
    world.report("n1", AttemptKey(first, PLAIN, 1), RunKind.STARTED)
    assert world.act("hold", str(first))[0][1] is False
    assert world.act("hold", str(second)) == [(str(second), True, "held")]
    world.end("n1", AttemptKey(first, PLAIN, 1))
    assert not world.starts and world.book.jobs[second].wishes.is_held
    world.restart()
    world.cluster.present.add("alice")
    world.act("release", str(second))
    assert [order.job for _, order in world.starts] == [second]
    told = [state for _, job, _, _, state, _, _ in world.book.events if job == second]
    assert told == ["waiting", "held", "waiting", "starting"], "the history tells each state, also of a task that has no row yet"


def test_what_comes_back_to_a_held_job_is_held() -> None:
    world = World([host("n1", 1)])
    id = world.submit(indices="1-2", is_rerunnable=True)
    world.act("hold", str(id))
    world.report("n1", AttemptKey(id, 1, 1), RunKind.NEVER_STARTED, reason="no")
    assert world.state(f"{id}_1") == "held" and not world.starts
    world.act("release", str(id))
    assert [order.key for _, order in world.starts] == [AttemptKey(id, 1, 2)]


@pytest.mark.parametrize(("signal", "outcome"), [(15, Outcome.CANCELLED), (9, Outcome.CANCELLED), (11, Outcome.FAILED)])
def test_a_cancelled_run_whose_worker_forgot_why_it_was_stopped(signal: int, outcome: Outcome) -> None:
    world = World([host("n1", 1)])
    id = world.submit()
    world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    world.act("cancel", str(id))
    world.end("n1", AttemptKey(id, PLAIN, 1), Outcome.FAILED, exit_code=None, signal=signal, reason="killed")
    ended = world.book.history[TaskKey(id, PLAIN)]
    assert (ended.outcome, ended.signal) == (outcome, signal)
    assert (ended.reason == "killed") is (outcome is Outcome.FAILED)


def test_requeue_on_a_host_that_answers_waits_for_the_old_attempt() -> None:
    world = World([host("n1", 1)])
    id = world.submit()
    world.link("n1", LinkState.ALIVE)
    world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    world.act("requeue", str(id))
    assert world.stops == [("n1", AttemptKey(id, PLAIN, 1))] and not world.starts
    world.restart()
    world.cluster.present.add("alice")
    world.end("n1", AttemptKey(id, PLAIN, 1), Outcome.CANCELLED)
    assert [order.key for _, order in world.starts] == [AttemptKey(id, PLAIN, 2)]


def test_requeue_from_a_silent_host_starts_elsewhere_at_once() -> None:
    world = World([host("n1", 1), host("n2", 1)])
    id = world.submit()
    world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    world.link("n1", LinkState.SUSPECT, "silent")
    world.act("requeue", str(id))
    assert [(name, order.attempt) for name, order in world.starts] == [("n2", 2)]
    before = world.book.tasks[TaskKey(id)]
    world.end("n1", AttemptKey(id, PLAIN, 1))
    assert world.book.tasks[TaskKey(id)] == before, "the old attempt is fenced off"
    world.roll("n1", AttemptKey(id, PLAIN, 1))
    assert world.stops == [("n1", AttemptKey(id, PLAIN, 1))]


@pytest.mark.parametrize("action", ["cancel", "hold", "release", "requeue", "signal", "modify"])
def test_anothers_job_answers_exactly_like_one_that_is_not(action: str) -> None:
    world = World([host("n1")])
    id = world.submit("alice")
    more: dict[str, object] = {"signal": 15, "changes": {"priority": "1"}}
    ((_, is_done, text),) = world.act(action, str(id), actor="bob", **more)
    ((_, none_done, none_text),) = world.act(action, "999", actor="bob", **more)
    assert not is_done and not none_done and text == none_text
    assert not world.last.changes


def test_an_administrator_acts_and_leaves_a_trace_that_names_the_owner() -> None:
    world = World([host("n1")])
    id = world.submit("alice")
    world.act("cancel", str(id), actor="root", is_admin=True, reason="too hot")
    (row,) = world.last.changes.audit
    assert (row.actor, row.action, row.owner, row.target, row.detail) == ("root", "cancel", "alice", str(id), "too hot")
    assert "root" in world.book.tasks[TaskKey(id)].reason


def test_an_administrator_requeues_only_what_its_owner_signed_rerunnable_and_changes_nothing_of_it() -> None:
    world = World([host("n1", 2)])
    fragile, sturdy = world.submit(), world.submit(is_rerunnable=True)
    assert "only he may" in world.act("requeue", str(fragile), actor="root", is_admin=True)[0][2]
    assert world.act("requeue", str(sturdy), actor="root", is_admin=True)[0][1]
    assert "only the owner" in world.act("signal", str(sturdy), actor="root", is_admin=True, signal=9)[0][2]
    assert "only the owner" in world.act("modify", str(sturdy), actor="root", is_admin=True, changes={"priority": "1"})[0][2]


def test_a_signal_goes_to_what_runs() -> None:
    world = World([host("n1")])
    id = world.submit()
    assert "needs a process" in world.act("signal", str(id), signal=10)[0][2]
    world.report("n1", AttemptKey(id, PLAIN, 1), RunKind.STARTED)
    assert world.act("signal", str(id), signal=10)[0][1]
    assert [(each.host, each.runs, each.signal) for each in world.signals] == [("n1", (AttemptKey(id, PLAIN, 1),), 10)]


def test_modify_reads_texts_checks_them_and_changes_the_order() -> None:
    world = World([host("n1", 1)])
    running, early, late = world.submit(), world.submit(), world.submit()
    assert "not a whole number" in world.act("modify", str(late), changes={"priority": "abc"})[0][2]
    assert "no host 'zz'" in world.act("modify", str(late), changes={"hosts": "zz"})[0][2]
    assert "cannot be changed" in world.act("modify", str(late), changes={"argv": "rm"})[0][2]
    assert world.cluster.jobs[late].record.wishes == Wishes()
    assert world.act("modify", str(late), changes={"priority": "7", "group": "g", "throttle": "", "estimated_time": "5m"})[0][1]
    assert world.book.jobs[late].wishes == Wishes(priority=7, group="g", estimated_time=300.0)
    world.end("n1", AttemptKey(running, PLAIN, 1))
    assert [order.job for _, order in world.starts] == [late] and world.state(str(early)) == "waiting"


def test_watching_tells_each_change_once_and_ends() -> None:
    world = World([host("n1", 1)])
    id = world.submit(indices="1-2")
    world.step(Watched(token="w", user="alice", selection=Selection(tasks=(TaskKey(id),))))
    first = world.reply()
    assert isinstance(first, Progress) and first.jobs[0].tasks == {"starting": 1, "waiting": 1} and not first.is_done
    world.step()
    assert not world.last.actions
    world.end("n1", AttemptKey(id, 1, 1), Outcome.FAILED, exit_code=3)
    world.end("n1", AttemptKey(id, 2, 1), Outcome.TIMEOUT)
    (value,) = [action.value for action in world.last.actions if isinstance(action, Reply)]
    assert isinstance(value, Progress) and value.is_done
    assert value.jobs[0].tasks == {"finished": 2, "finished:failed": 1, "finished:timeout": 1} and value.jobs[0].exit_code == 124


def test_watching_anothers_job_is_refused_like_an_unknown_one() -> None:
    world = World([host("n1")])
    id = world.submit("alice")
    texts = []
    for name in (id, 999):
        world.step(Watched(token="w", user="bob", selection=Selection(tasks=(TaskKey(name),))))
        texts.append(error_of(world.reply()).replace(str(name), "N"))
    assert texts[0] == texts[1]


def test_a_user_who_left_the_file_is_forgotten_only_without_jobs() -> None:
    world = World([host("n1")])
    world.submit("alice")
    world.step(ConfigurationRead(users=(UserRecord(name="carol"),)))
    assert set(world.book.users) == {"alice", "carol"} and not world.book.users["alice"].is_enabled


def test_a_host_that_left_cluster_tab_stays_until_its_last_run_has_ended() -> None:
    world = World([host("n1", 1), host("n2", 1)])
    id = world.submit(wishes=Wishes(hosts=("n1",)))
    world.step(ConfigurationRead(hosts=(HostSpec(name="n2", address="n2", total=1, slots=1),)))
    assert not world.book.hosts["n1"].is_listed and world.cluster.task(TaskKey(id)) is not None
    world.end("n1", AttemptKey(id, PLAIN, 1))
    assert set(world.book.hosts) == {"n2"} and world.book.history[TaskKey(id)].state is TaskState.FINISHED


def test_which_tasks_a_selection_names_by_themselves() -> None:
    world = World([host("n1", 1)])
    array = world.submit(indices="1-9")
    job = world.cluster.jobs[array]

    def named(*words: str) -> list[int] | None:
        return Named(parse_selection([word.replace("A", str(array)) for word in words])).indices(job)

    assert named("A_3,A_1,A_3") == [3, 1] and named("A_3", "99_5", "100-200") == [3]
    for words in (["A"], ["A_3", "A"], ["all", "A_3"], ["A_3", f"1-{array + 5}"], ["A_3", "1-1000", "500-600"], [f"{array + 1}-{array + 5}"], []):
        assert named(*words) is None, words
