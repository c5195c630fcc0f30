"""hq-server's core under a random life: submissions, reports in any order, roll calls, actions, hosts that come and go, restarts."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hq.core import listing
from hq.core.events import (
    ClusterSwitched,
    ConfigurationRead,
    HostSwitched,
    JobsActedOn,
    JobsSubmitted,
    LinkChanged,
    LoadsSampled,
    RollCalled,
    RunsReported,
    SlotsRecounted,
    StartRuns,
    Step,
    UserServerCame,
    UserServerWent,
    UserSwitched,
)
from hq.core.explain import explain
from hq.model.host import HostSpec, LoadSample
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import Wishes
from hq.model.runs import RETURNED, RunReport
from hq.model.selection import Selection
from hq.model.states import MOVES, LinkState, Outcome, RunKind, TaskState
from hq.model.user import UserRecord
from tests.support.coreworld import INSTANCE, World, host, submission

USERS = ("alice", "bob")
HOSTS = ("n1", "n2", "n3")
SLOTS = {"n1": 1, "n2": 2, "n3": 4}


class ClusterMachine(RuleBasedStateMachine):
    """`ordered`: every attempt that was ever ordered, with its host. The book holds what was committed."""

    @initialize()
    def begin(self) -> None:
        self.world = World([host(name, SLOTS[name], memory=1 << 30) for name in HOSTS], USERS)
        self.ordered: dict[AttemptKey, str] = {}
        self.submitted: dict[int, int] = {}
        self.finished: set[TaskKey] = set()
        self.states: dict[TaskKey, TaskState] = {}
        self.rebuilds = 0

    # --- what happens ---

    def step(self, *events: object, after: float = 0.0) -> Step:
        step = self.world.step(*events, after=after)  # type: ignore[arg-type]
        self.check_step(step)
        return step

    @rule(
        user=st.sampled_from(USERS), tasks=st.integers(0, 6), slots=st.integers(1, 3), hosts=st.sets(st.sampled_from(HOSTS), max_size=2),
        priority=st.integers(0, 2), throttle=st.none() | st.integers(1, 2), is_held=st.booleans(), retries=st.integers(0, 1),
        rerunnable=st.booleans(), begin=st.none() | st.floats(1, 20), memory=st.none() | st.just(1 << 29),
    )  # fmt: skip
    def submit(self, user: str, tasks: int, slots: int, hosts: set[str], priority: int, throttle: int | None, is_held: bool, retries: int,
               rerunnable: bool, begin: float | None, memory: int | None) -> None:  # fmt: skip
        wishes = Wishes(
            priority=priority,
            hosts=tuple(sorted(hosts)),
            throttle=throttle,
            is_held=is_held,
            begin=None if begin is None else self.world.now + begin,
        )
        self.world.keys += 1
        indices = "" if not tasks else f"3-{3 * tasks}:3"
        item = submission(
            user,
            f"k{self.world.keys}",
            wishes=wishes,
            slots=slots,
            indices=indices,
            retries=retries,
            is_rerunnable=rerunnable,
            memory=memory,
        )
        self.step(JobsSubmitted(token="s", user=user, jobs=(item,)))
        value = self.world.reply()
        if isinstance(value, list):
            self.submitted[value[0].id] = max(1, tasks)

    @precondition(lambda self: bool(self.ordered))
    @rule(
        data=st.data(),
        kind=st.sampled_from(RunKind),
        outcome=st.sampled_from([Outcome.OK, Outcome.FAILED, Outcome.CANCELLED, Outcome.TIMEOUT, Outcome.LOST]),
        user=st.sampled_from(USERS),
        elsewhere=st.sampled_from([*HOSTS, "", "", "", "", ""]),
        right=st.integers(0, 7),
    )
    def report(self, data: st.DataObject, kind: RunKind, outcome: Outcome, user: str, elsewhere: str, right: int) -> None:
        run = data.draw(st.sampled_from(sorted(self.ordered)))
        record = self.world.cluster.job(run.job)
        if right and record is not None:
            user = record.record.user  # mostly the right one, at times an impostor
        report = RunReport(
            job=run.job,
            index=run.index,
            attempt=run.attempt,
            kind=kind,
            at=self.world.now,
            outcome=outcome,
            exit_code=1 if outcome is Outcome.FAILED else 0,
        )
        now = self.world.cluster.task(run.task)
        if now is not None and not now.slots and kind in (RunKind.STARTED, RunKind.ENDED, RunKind.SUSPENDED):
            return  # an exec-server starts it with slots of its own only
        before = dict(self.world.book.tasks)
        self.step(RunsReported(user=user, host=elsewhere or self.ordered[run], reports=(report,)))
        task = before.get(run.task)
        if task is None or task.attempt != run.attempt or task.user != user or task.host != (elsewhere or self.ordered[run]):
            assert not self.world.last.changes, "a report that is not about the current attempt changed something"

    @precondition(lambda self: any(job.placed for job in self.world.cluster.jobs.values()))
    @rule(data=st.data(), kind=st.sampled_from([RunKind.STARTED, RunKind.ENDED, RunKind.ENDED, RunKind.NEVER_STARTED]),
          outcome=st.sampled_from([Outcome.OK, Outcome.FAILED, Outcome.CANCELLED]))  # fmt: skip
    def go_on(self, data: st.DataObject, kind: RunKind, outcome: Outcome) -> None:
        """What mostly happens: the right exec-server speaks about what it has, and at times about what it had."""
        placed = [task for job in self.world.cluster.jobs.values() for task in job.tasks.values() if task.state.is_placed]
        task = data.draw(st.sampled_from(sorted(placed, key=lambda each: each.key)))
        attempt = max(1, task.attempt - data.draw(st.sampled_from([0, 0, 0, 1])))
        heir = None
        queued = self.world.cluster.hosts[task.host].queued_of(task.user)
        if task.key in queued:
            kind = RunKind.NEVER_STARTED  # it begins only as the heir of another
        elif kind is RunKind.ENDED and queued:
            next = data.draw(st.none() | st.sampled_from(queued))
            heir = None if next is None else AttemptKey(next.job, next.index, self.world.cluster.task(next).attempt)  # type: ignore[union-attr]
        report = RunReport(job=task.job, index=task.index, attempt=attempt, kind=kind, at=self.world.now, started=self.world.now,
                           outcome=outcome, exit_code=1, reason=RETURNED if task.key in queued else "", heir=heir)  # fmt: skip
        self.step(RunsReported(user=task.user, host=task.host, reports=(report,)))
        assert attempt == task.attempt or not self.world.last.changes, "an older attempt changed something"

    @rule(data=st.data(), name=st.sampled_from(HOSTS), user=st.sampled_from(USERS))
    def roll(self, data: st.DataObject, name: str, user: str) -> None:
        there = sorted(run for run, where in self.ordered.items() if where == name)
        runs = data.draw(st.sets(st.sampled_from(there))) if there else set()
        self.step(RollCalled(user=user, host=name, runs=frozenset(runs)))
        tasks = self.world.book.tasks
        stopped = {run for where, run in self.world.stops if where == name}
        for run in runs:
            task = tasks.get(run.task)
            is_ours = task is not None and task.state.is_placed and task.attempt == run.attempt and task.user == user and task.host == name
            assert is_ours or run in stopped, "an attempt that is not ours was left running"

    @precondition(lambda self: bool(self.submitted))
    @rule(
        data=st.data(),
        action=st.sampled_from(["cancel", "hold", "release", "requeue", "signal", "modify"]),
        actor=st.sampled_from([*USERS, "admin"]),
        by_task=st.booleans(),
    )
    def act(self, data: st.DataObject, action: str, actor: str, by_task: bool) -> None:
        id = data.draw(st.sampled_from(sorted(self.submitted)))
        index = data.draw(st.integers(0, 6)) * 3 if by_task else PLAIN
        changes = data.draw(
            st.sampled_from(
                [{"priority": "5"}, {"throttle": "1"}, {"hosts": "n2"}, {"begin": str(self.world.now + 5)}, {"begin": ""}, {"hosts": "zz"}]
            )
        )
        job = self.world.cluster.job(id)
        owner = job.record.user if job is not None else None
        self.step(
            JobsActedOn(
                token="a",
                actor=actor,
                is_admin=actor == "admin",
                action=action,
                selection=Selection(tasks=(TaskKey(id, index),)),
                signal=10,
                changes=changes,
            )
        )
        results = self.world.reply()
        assert isinstance(results, list)
        if actor not in (owner, "admin"):
            assert [each[1] for each in results] == [False] and "no such job" in results[0][2]
            assert not self.world.last.changes

    @rule(user=st.sampled_from(USERS), come=st.booleans())
    def user_server(self, user: str, come: bool) -> None:
        self.step(UserServerCame(user=user) if come else UserServerWent(user=user, reason="silent"))

    @rule(user=st.sampled_from(USERS), name=st.sampled_from(HOSTS), state=st.sampled_from(LinkState))
    def link(self, user: str, name: str, state: LinkState) -> None:
        self.step(LinkChanged(user=user, host=name, state=state, reason="why"))

    @rule(name=st.sampled_from(HOSTS), active=st.booleans(), drain=st.none() | st.just("tidying"))
    def switch_host(self, name: str, active: bool, drain: str | None) -> None:
        self.step(HostSwitched(token="h", actor="admin", host=name, is_active=active, drain_reason=drain))

    @rule(kept=st.sets(st.sampled_from(HOSTS), min_size=1), more=st.integers(0, 1))
    def configuration(self, kept: set[str], more: int) -> None:
        specs = tuple(
            HostSpec(name=name, address=name, total=SLOTS[name] + more, slots=SLOTS[name] + more, memory=1 << 30) for name in sorted(kept)
        )
        self.step(ConfigurationRead(hosts=specs))

    @rule(active=st.booleans())
    def switch_cluster(self, active: bool) -> None:
        self.step(ClusterSwitched(token="c", actor="admin", is_active=active))

    @rule(user=st.sampled_from(USERS), enabled=st.booleans())
    def switch_user(self, user: str, enabled: bool) -> None:
        self.step(UserSwitched(token="u", actor="admin", user=UserRecord(name=user, is_enabled=enabled)))

    @rule(name=st.sampled_from(HOSTS), load=st.floats(0, 8), user=st.sampled_from(USERS))
    def load(self, name: str, load: float, user: str) -> None:
        sample = LoadSample(
            host=name, user=user, at=self.world.now, load1=load, load5=load, load15=load, cores=4, memory_total=1, memory_free=1
        )
        self.step(LoadsSampled((sample,)))

    @rule(seconds=st.floats(0.5, 90))
    def time_passes(self, seconds: float) -> None:
        self.step(after=seconds)

    @rule()
    def restart(self) -> None:
        old = self.world.cluster
        everything = Selection(is_all=True)
        before = (listing.job_rows(old, everything, None, False), listing.job_rows(old, everything, None, True))
        hosts = {row.name: (row.state, row.slots, row.occupied) for row in listing.host_rows(old, None)}
        self.world.restart()
        new = self.world.cluster
        assert (listing.job_rows(new, everything, None, False), listing.job_rows(new, everything, None, True)) == before
        assert {row.name: (row.state, row.slots, row.occupied) for row in listing.host_rows(new, None)} == hosts
        assert new.last_id == old.last_id
        for id, job in old.jobs.items():
            again = new.jobs[id]
            assert (again.cursor, again.ahead, again.untouched) == (job.cursor, job.ahead, job.untouched)
        self.step(*(UserServerCame(user=user) for user in USERS))

    # --- what must always hold ---

    def check_step(self, step: Step) -> None:
        """Orders and moves of one step."""
        cluster = self.world.cluster
        seen: set[AttemptKey] = set()
        for action in step.actions:
            if not isinstance(action, StartRuns):
                continue
            assert action.specs.keys() == {order.job for order in action.orders}
            for order in action.orders:
                task = cluster.task(order.key.task)
                assert task is not None and task.state is TaskState.STARTING and task.attempt == order.attempt
                assert (task.user, task.host) == (action.user, action.host)
                assert order.key not in seen, "one attempt ordered twice in a step"
                assert self.ordered.get(order.key, action.host) == action.host, "one attempt on two hosts"
                earlier = [run.attempt for run in self.ordered if run.task == order.key.task]
                assert all(attempt <= order.attempt for attempt in earlier), "an attempt went back"
                assert order.key.task not in self.finished, "something was started after it had finished"
                if order.key not in self.ordered:  # what is ordered again was placed when its host was open
                    host = cluster.hosts[action.host]
                    assert host.occupied <= host.spec.slots and host.closed() is None, "placed on a host that was full or closed"
                seen.add(order.key)
                self.ordered[order.key] = action.host
        for _, job, index, _, state, where, _ in step.changes.events:
            key = TaskKey(job, index)
            if state not in {each.value for each in TaskState} or (index == PLAIN and self.submitted.get(job, 1) > 1):
                continue
            if where and state == TaskState.HELD.value:
                state = TaskState.STARTING.value  # held where it waits for its start: it stays placed
            self._check_move(key, TaskState(state))
        assert not self.finished & self.world.book.tasks.keys() - self._finished_alive()

    def _finished_alive(self) -> set[TaskKey]:
        return {key for key, task in self.world.book.tasks.items() if task.state is TaskState.FINISHED}

    def _check_move(self, key: TaskKey, state: TaskState) -> None:
        before = self.states.get(key)
        if before is not None and before is not state:
            assert state in MOVES[before], f"{key} {before} → {state}"
        self.states[key] = state
        if state is TaskState.FINISHED:
            self.finished.add(key)

    @invariant()
    def slots_add_up(self) -> None:
        cluster = self.world.cluster
        placed: dict[str, int] = {}
        for job in cluster.jobs.values():
            assert job.placed == sum(task.state.is_placed for task in job.tasks.values())
            for task in job.tasks.values():
                if task.state.is_placed:
                    placed[task.host] = placed.get(task.host, 0) + task.slots
                    assert task.key in cluster.hosts[task.host].tasks
        assert cluster.roomy.keys() == {name for name, found in cluster.hosts.items() if found.free}
        for user in USERS:
            assert cluster.share.held(user) == sum(task.slots for job in cluster.jobs.values() if job.record.user == user
                                                   for task in job.tasks.values() if task.state.is_placed)  # fmt: skip
        for name, found in cluster.hosts.items():
            assert found.occupied == placed.get(name, 0)
            given = [index for indices in found.tasks.values() for index in indices]
            assert len(given) == len(set(given)), "one slot given twice"
            ahead = {key for user in found.queued for key in found.queued_of(user)}
            assert all((key in ahead) is not (cluster.jobs[key.job].tasks[key.index].slots > 0) for key in found.tasks)
            assert not any(found.tasks[key] for key in ahead), "a task that is queued ahead of its slots has some"
            assert found.memory_taken == sum(cluster.jobs[key.job].record.spec.memory or 0 for key in found.tasks if key not in ahead)
            assert found.memory_free() is None or found.memory_free() >= 0  # type: ignore[operator]
            assert found.occupied <= SLOTS[name] + 1
            assert found.is_listed or found.tasks, "a removed host stayed with nothing on it"

    @invariant()
    def counts_add_up(self) -> None:
        book, cluster = self.world.book, self.world.cluster
        assert book.jobs.keys() == cluster.jobs.keys()
        for id, total in self.submitted.items():
            job = cluster.job(id)
            if job is None:
                ended = book.jobs_history[id]
                assert sum(key.job == id for key in book.history) + ended.cancelled_rest == total
                continue
            counts = job.counts()
            assert sum(count for state, count in counts.items() if ":" not in state) == total
            assert sum(count for state, count in counts.items() if ":" in state) == counts.get("finished", 0)
            assert job.record == book.jobs[id]
            assert {job.key(index): task for index, task in job.tasks.items()} == {
                key: task for key, task in book.tasks.items() if key.job == id
            }

    @invariant()
    def nobody_waits_beside_an_empty_host(self) -> None:
        """What could start, has started: the planner forgets nothing."""
        cluster = self.world.cluster
        if not cluster.is_active:
            return
        for job in cluster.jobs.values():
            user = cluster.user(job.record.user)
            if job.record.user not in cluster.present or user is None or not user.is_enabled or not job.startable(cluster.now):
                continue
            for found in cluster.hosts.values():
                if found.occupied or found.closed() is not None or found.spec.slots < job.shape.slots:
                    continue
                if job.shape.hosts and found.name not in job.shape.hosts:
                    continue
                assert found.name in cluster.bad.get(job.record.user, {}), f"{job.id} waits although {found.name} is empty"

    @invariant()
    def it_can_be_explained(self) -> None:
        for id, job in self.world.cluster.jobs.items():
            assert explain(self.world.cluster, TaskKey(id), self.world.now)
            for index in job.tasks:
                assert all(explain(self.world.cluster, TaskKey(id, index), self.world.now))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.step(SlotsRecounted(token="r", actor="admin"))
            assert "as noted" in str(self.world.reply())
            assert self.world.cluster.instance == INSTANCE


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(max_examples=100, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
