"""Jobs that start after others, in any order of submissions, ends, cancels, holds and restarts, against a few lines that say the same."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hq.core.events import JobsSubmitted, RunsReported, UserServerCame
from hq.core.explain import explain
from hq.model.ids import PLAIN, TaskKey
from hq.model.job import Wishes
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind, TaskState
from tests.support.coreworld import World, host, submission

ENDS = [Outcome.OK, Outcome.OK, Outcome.OK, Outcome.FAILED, Outcome.TIMEOUT, Outcome.LOST]


class DependencyMachine(RuleBasedStateMachine):
    """One user and more slots than tasks, so that what may start has started. `after`: what each job was to start after."""

    @initialize()
    def begin(self) -> None:
        self.world = World([host("n1", 1000)], ("alice",))
        self.after: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        self.held: set[int] = set()

    def how(self, id: int) -> dict[str, int]:
        """How a job came out, as a database says it."""
        book = self.world.book
        rest = book.jobs_history[id].cancelled_rest
        counts = {"finished:cancelled": rest} if rest else {}
        for task in book.history.values():
            if task.job == id and task.outcome is not None:
                counts[f"finished:{task.outcome.value}"] = counts.get(f"finished:{task.outcome.value}", 0) + 1
        return {**counts, "finished": sum(counts.values())}

    def is_good(self, id: int) -> bool:
        return id in self.world.book.jobs_history and self.how(id).keys() == {"finished", "finished:ok"}

    @rule(after=st.sets(st.integers(1, 4), max_size=2), after_any=st.sets(st.integers(1, 4), max_size=2), tasks=st.integers(0, 2), is_held=st.integers(0, 5))
    def submit(self, after: set[int], after_any: set[int], tasks: int, is_held: int) -> None:
        latest = sorted(self.after, reverse=True)
        named, named_any = (tuple(latest[each - 1] for each in sorted(some) if each <= len(latest)) for some in (after, after_any))
        ended = {id: self.how(id) for id in (*named, *named_any) if id in self.world.book.jobs_history}
        item = submission("alice", f"k{len(self.after)}", wishes=Wishes(after=named, after_any=named_any, is_held=not is_held), indices=f"1-{tasks}" if tasks else "")
        self.world.step(JobsSubmitted(token="s", user="alice", jobs=(item,), ended=ended))
        value = self.world.reply()
        assert isinstance(value, list), value
        id = value[0].id
        self.after[id] = (named, named_any)
        if not is_held:
            self.held.add(id)

    @precondition(lambda self: any(job.placed for job in self.world.cluster.jobs.values()))
    @rule(data=st.data(), outcomes=st.lists(st.sampled_from(ENDS), min_size=1, max_size=3))
    def end(self, data: st.DataObject, outcomes: list[Outcome]) -> None:
        """Some tasks end, all told in one message."""
        placed = sorted(task.key for job in self.world.cluster.jobs.values() for task in job.tasks.values() if task.state.is_placed)
        reports = []
        for key, outcome in zip(data.draw(st.permutations(placed)), outcomes, strict=False):
            task = self.world.cluster.task(key)
            assert task is not None
            reports.append(RunReport(job=key.job, index=key.index, attempt=task.attempt, kind=RunKind.ENDED, at=self.world.now, outcome=outcome,
                                     exit_code=3 if outcome is Outcome.FAILED else 0))  # fmt: skip
        self.world.step(RunsReported(user="alice", host="n1", reports=tuple(reports)))

    @precondition(lambda self: bool(self.world.cluster.jobs))
    @rule(data=st.data(), action=st.sampled_from(["cancel", "hold", "release", "release", "modify"]))
    def act(self, data: st.DataObject, action: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.world.cluster.jobs)))
        (result,) = self.world.act(action, str(id), changes={"after": "none"} if action == "modify" else {})
        if result[1] and action in ("hold", "release"):
            (self.held.add if action == "hold" else self.held.discard)(id)
        if result[1] and action == "modify":
            self.after[id] = ((), ())

    @rule()
    def restart(self) -> None:
        self.world.restart()
        self.world.step(UserServerCame(user="alice"))

    @invariant()
    def each_stands_where_it_must(self) -> None:
        cluster, history = self.world.cluster, self.world.book.jobs_history
        assert not cluster.freed and cluster.dependents.keys() <= cluster.jobs.keys()
        for id, (after, after_any) in self.after.items():
            begun = [key for key, task in {**self.world.book.history, **self.world.book.tasks}.items() if key.job == id and task.attempt]
            job = cluster.job(id)
            is_bad = any(each in history and not self.is_good(each) for each in after)
            if is_bad:
                assert job is None and not begun, f"{id} lives on though it will never start"
                continue
            is_open = any(each not in history for each in (*after, *after_any))
            assert not (is_open and begun), f"{id} began before what it was to start after"
            if job is None:
                continue
            wishes = job.record.wishes
            assert (wishes.after, wishes.after_any) == tuple(tuple(each for each in ids if each not in history) for ids in (after, after_any))
            if is_open:
                assert any("It starts after job" in sentence for sentence in explain(cluster, TaskKey(id, PLAIN if job.indices is None else 1), self.world.now))
            elif id not in self.held:
                assert not job.untouched and not job.states.get(TaskState.WAITING), f"{id} waits for nothing"

    def teardown(self) -> None:
        if hasattr(self, "world"):
            for id in list(self.world.cluster.jobs):
                self.world.act("cancel", str(id))


TestDependencies = DependencyMachine.TestCase
TestDependencies.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
