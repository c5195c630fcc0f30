"""The exec-server's core under any order of events: slots are kept, nothing starts twice, each attempt has one last report."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hq.core.runner import Runner
from hq.core.runner_events import (
    BlobsArrived,
    Event,
    FetchBlobs,
    LeftoversGone,
    MemorySeen,
    Ordered,
    OrderRefused,
    RunEnded,
    RunStarted,
    SignalAsked,
    SignalRun,
    SlotsSet,
    Spawn,
    StartFailed,
    StopAsked,
)
from hq.model.ids import AttemptKey
from hq.model.job import JobSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind


@dataclass
class Moment:
    """A clock."""

    boot: float = 100.0
    wall: float = 1e9


class World(RuleBasedStateMachine):
    """Performs what the runner asks for as a host would, and does to it whatever a server and users may do."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Moment()
        self.slots = 3
        self.runner = Runner(self.slots)
        self.alive: dict[AttemptKey, StartOrder] = {}
        self.spawned: dict[AttemptKey, int] = {}
        self.retries: dict[AttemptKey, int] = {}
        self.starting: list[StartOrder] = []
        self.lingering: set[AttemptKey] = set()
        self.ending: set[AttemptKey] = set()
        self.last: dict[AttemptKey, RunReport] = {}
        self.taken: set[AttemptKey] = set()
        self.asked: set[str] = set()

    def step(self, *events: Event) -> None:
        """One step, and what follows from it."""
        done = self.runner.step(events, self.now)
        for report in done.reports:
            if report.kind in (RunKind.ENDED, RunKind.NEVER_STARTED):
                assert report.key not in self.last, "a second last report"
                assert report.key not in self.alive, "reported while its process lives"
                if report.kind is RunKind.NEVER_STARTED:
                    assert self.spawned.get(report.key, 0) == self.retries.get(report.key, 0), "a process was made"
                self.last[report.key] = report
            else:
                assert report.key not in self.last, "news after the last report"
        for action in done.actions:
            if isinstance(action, Spawn):
                key = action.order.key
                assert key not in self.last
                self.spawned[key] = self.spawned.get(key, 0) + 1
                assert self.spawned[key] == 1 + self.retries.get(key, 0), "started twice"
                assert not any(other.task == key.task for other in self.alive), "two attempts of a task at once"
                self.starting.append(action.order)
            elif isinstance(action, SignalRun):
                assert action.key in self.alive or action.key in self.lingering
                if action.is_ending:
                    self.ending.add(action.key)
            elif isinstance(action, FetchBlobs):
                self.asked |= action.digests
        assert done.wake is None or done.wake > self.now.boot
        while self.starting:
            order = self.starting.pop()
            self.alive[order.key] = order
            self.step(RunStarted(order.key, 1000 + order.job, self.now.wall))

    @rule(job=st.integers(1, 4), attempt=st.integers(1, 4), slots=st.integers(1, 4), limit=st.sampled_from([None, 5.0]), env=st.sampled_from(["", "e1", "e2"]))
    def order(self, job: int, attempt: int, slots: int, limit: float | None, env: str) -> None:
        """An order comes, maybe again."""
        order = StartOrder(job, -1, attempt, tuple(range(slots)))
        spec = JobSpec(instance="i", user="u", key="k", name="n", argv=(b"x",), time_limit=limit, env=env, grace=3.0, memory=100)
        self.taken.add(order.key)
        self.step(Ordered(order, spec))

    @rule(job=st.integers(5, 6), attempt=st.integers(1, 2))
    def refuse(self, job: int, attempt: int) -> None:
        """An order that was not signed."""
        order = StartOrder(job, -1, attempt, (0,))
        self.taken.add(order.key)
        self.step(OrderRefused(order, "bad"))

    @rule(job=st.integers(1, 4), attempt=st.integers(1, 4))
    def stop(self, job: int, attempt: int) -> None:
        """A stop, maybe before its order."""
        key = AttemptKey(job, -1, attempt)
        self.taken.add(key)
        self.step(StopAsked(key, Outcome.CANCELLED, "c"))

    @rule(job=st.integers(1, 4), attempt=st.integers(1, 4), number=st.sampled_from([10, 18, 19]))
    def signal(self, job: int, attempt: int, number: int) -> None:
        """A signal."""
        self.step(SignalAsked(AttemptKey(job, -1, attempt), number))

    @rule(present=st.sets(st.sampled_from(["e1", "e2"])), are_missing=st.booleans())
    def blobs(self, present: set[str], are_missing: bool) -> None:
        """Blobs come, or nobody has them."""
        self.step(BlobsArrived(frozenset(present), frozenset(self.asked - present) if are_missing else frozenset()))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), code=st.integers(0, 3), has_leftovers=st.booleans())
    def end(self, data: st.DataObject, code: int, has_leftovers: bool) -> None:
        """A process ends."""
        key = data.draw(st.sampled_from(sorted(self.alive)))
        del self.alive[key]
        if has_leftovers and key in self.ending:
            self.lingering.add(key)
            self.step(RunEnded(key=key, at=self.now.wall, exit_code=code, has_leftovers=True))
        else:
            self.step(RunEnded(key=key, at=self.now.wall, exit_code=code))

    @precondition(lambda self: self.lingering)
    @rule(data=st.data())
    def leftovers_go(self, data: st.DataObject) -> None:
        """The rest of a run's processes ends."""
        key = data.draw(st.sampled_from(sorted(self.lingering)))
        self.lingering.discard(key)
        self.step(LeftoversGone(key))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), size=st.integers(1, 200))
    def memory(self, data: st.DataObject, size: int) -> None:
        """A look at a run."""
        self.step(MemorySeen(data.draw(st.sampled_from(sorted(self.alive))), size))

    @rule(seconds=st.sampled_from([0.1, 2.0, 6.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        """Time passes."""
        self.now.boot += seconds
        self.now.wall += seconds
        self.step()

    @rule(slots=st.integers(1, 5))
    def set_slots(self, slots: int) -> None:
        """The server changes the slots."""
        self.slots = slots
        self.step(SlotsSet(slots))

    @invariant()
    def slots_add_up(self) -> None:
        """What is counted as used is what live runs take; more than there is only by one run alone or after a change."""
        live = [run for run in self.runner.runs.values() if run.is_live]
        assert self.runner.used == sum(run.weight for run in live)

    @invariant()
    def all_taken_in_are_here_or_reported(self) -> None:
        """No attempt is forgotten, none is in two places."""
        assert self.taken == set(self.runner.runs) | set(self.last)
        assert not set(self.runner.runs) & set(self.last)

    @invariant()
    def live_is_live(self) -> None:
        """The runner's live runs are the world's."""
        live = {run.key for run in self.runner.runs.values() if run.is_live}
        assert live - self.lingering == set(self.alive)

    def teardown(self) -> None:
        """In the end everything that runs ends, and everything has its report."""
        self.slots = 100
        self.step(SlotsSet(100), BlobsArrived(frozenset({"e1", "e2"})))
        for _ in range(50):
            for key in list(self.lingering):
                self.leftovers_gone(key)
            for key in list(self.alive):
                if key in self.alive:
                    del self.alive[key]
                    self.step(RunEnded(key=key, at=self.now.wall, exit_code=0))
            self.now.boot += 2
            self.step()
        assert not self.runner.runs
        assert self.runner.used == 0

    def leftovers_gone(self, key: AttemptKey) -> None:
        """One of `teardown`."""
        self.lingering.discard(key)
        self.step(LeftoversGone(key))


World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRunner = World.TestCase


def test_a_start_that_fails_for_want_of_processes_is_tried_again_and_given_back_at_last() -> None:
    now = Moment()
    runner = Runner(1)
    order = StartOrder(1, -1, 1, (0,))
    spec = JobSpec(instance="i", user="u", key="k", name="n", argv=(b"x",))
    step = runner.step([Ordered(order, spec)], now)
    spawns = 0
    reports: list[RunReport] = []
    for _ in range(200):
        if any(isinstance(action, Spawn) for action in step.actions):
            spawns += 1
            step = runner.step([StartFailed(order.key, "no processes", now.wall)], now)
        else:
            now.boot += 1.0
            step = runner.step([], now)
        reports += step.reports
        if not runner.runs:
            break
    assert [report.kind for report in reports] == [RunKind.NEVER_STARTED]
    assert reports[0].reason == "no processes"
    assert spawns > 20
    assert runner.used == 0
