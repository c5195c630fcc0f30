"""A cluster core with its database in the tests' hands: `Book` keeps what Changes say, and gives the Snapshot back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hq.core.cluster import Cluster
from hq.core.events import (
    Accepted,
    Event,
    HoldRuns,
    JobsActedOn,
    JobsSubmitted,
    LinkChanged,
    Reply,
    RollCalled,
    RunsReported,
    SignalRuns,
    StartRuns,
    Step,
    StopRuns,
    Submission,
    UserServerCame,
)
from hq.errors import HqError
from hq.model.changes import Changes
from hq.model.host import HostRecord, HostSpec
from hq.model.ids import AttemptKey, TaskKey, parse_task_key
from hq.model.job import JobRecord, JobSpec, SignedSpec, TaskRecord, Wishes, exit_code_of
from hq.model.runs import RunReport, StartOrder
from hq.model.selection import Selection
from hq.model.snapshot import Snapshot
from hq.model.states import LinkState, Outcome, RunKind, TaskState
from hq.model.user import KeyRecord, UserRecord

INSTANCE = "test-00000000"


class Book:
    """What a database would hold: only what Changes wrote. Refuses what a database would refuse."""

    def __init__(self) -> None:
        self.users: dict[str, UserRecord] = {}
        self.keys: dict[str, KeyRecord] = {}
        self.hosts: dict[str, HostRecord] = {}
        self.settings: dict[str, str] = {}
        self.jobs: dict[int, JobRecord] = {}
        self.tasks: dict[TaskKey, TaskRecord] = {}
        self.history: dict[TaskKey, TaskRecord] = {}
        self.jobs_history: dict[int, JobRecord] = {}
        self.events: list[tuple[float, int, int, int, str, str, str]] = []

    def write(self, changes: Changes) -> None:
        """One transaction."""
        for name in changes.users_removed:
            self.users.pop(name, None)
        assert not changes.users_removed & changes.users.keys()
        assert not changes.hosts_removed & changes.hosts.keys()
        self.users.update(changes.users)
        self.keys.update(changes.keys)
        self.hosts.update(changes.hosts)
        for name in changes.hosts_removed:
            self.hosts.pop(name, None)
        self.settings.update(changes.settings)
        for id, job in changes.jobs.items():
            assert id == job.id and id not in self.jobs_history, "a live row of an ended job"
            self.jobs[id] = job
        for key, task in changes.tasks.items():
            assert key == task.key and key not in self.history and key.job not in self.jobs_history
            assert key.job in self.jobs, "a task without its job"
            self.tasks[key] = task
        for task in changes.tasks_ended:
            assert task.state is TaskState.FINISHED and task.outcome is not None
            assert task.key not in self.history, "a task that ended twice"
            self.tasks.pop(task.key, None)
            self.history[task.key] = task
        for id, job in changes.jobs_ended.items():
            assert id == job.id and job.ended is not None and id not in self.jobs_history and id not in changes.jobs
            assert not [key for key in self.tasks if key.job == id], "a live task of an ended job"
            self.jobs.pop(id, None)
            self.jobs_history[id] = job
        self.events.extend(changes.events)

    def snapshot(self) -> Snapshot:
        """What a restarted server would read."""
        left: dict[int, int] = {}
        outcomes: dict[int, dict[str, int]] = {}
        worst: dict[int, int] = {}
        for key in [*self.tasks, *self.history]:
            left[key.job] = left.get(key.job, 0) + 1
        for task in self.history.values():
            assert task.outcome is not None
            if task.job in self.jobs:
                counted = outcomes.setdefault(task.job, {})
                counted[task.outcome.value] = counted.get(task.outcome.value, 0) + 1
                worst[task.job] = max(worst.get(task.job, 0), exit_code_of(task.outcome, task.exit_code, task.signal))
        every = [*self.jobs.values(), *self.jobs_history.values()]
        return Snapshot(
            users=list(self.users.values()), keys=list(self.keys.values()), hosts=list(self.hosts.values()), settings=dict(self.settings),
            jobs=list(self.jobs.values()), tasks=list(self.tasks.values()), left=left, outcomes=outcomes, worst=worst,
            last_job=max((job.id for job in every), default=0), submissions={(job.user, job.spec.key): job.id for job in every},
        )  # fmt: skip


def host(name: str, slots: int = 2, **more: object) -> HostRecord:
    """A host of so many slots."""
    values: dict[str, object] = {"address": name, "total": slots, "slots": slots, **more}
    return HostRecord(spec=HostSpec(name=name, **values))  # type: ignore[arg-type]


def submission(user: str, key: str, *, wishes: Wishes | None = None, **fields: object) -> Submission:
    """A job as a user-server would hand it in."""
    spec = JobSpec(**{"instance": INSTANCE, "user": user, "key": key, "name": key, "argv": (b"true",), **fields})  # type: ignore[arg-type]
    return Submission(key, spec, SignedSpec(key.encode(), b"signature"), wishes or Wishes())


class World:
    """A core, its book, and a clock. Remembers the actions of the last step."""

    def __init__(self, hosts: Iterable[HostRecord] = (), users: Iterable[str] = ("alice", "bob"), *, present: bool = True) -> None:
        self.book = Book()
        self.book.hosts = {each.name: each for each in hosts}
        self.book.users = {name: UserRecord(name=name) for name in users}
        self.now = 1000.0
        self.cluster = Cluster(INSTANCE, self.book.snapshot(), self.now)
        self.last = Step(Changes(), [])
        self.keys = 0
        if present:
            self.step(*(UserServerCame(user=name) for name in users))

    def step(self, *events: Event, after: float = 0.0) -> Step:
        """One step, and its transaction."""
        self.now += after
        self.last = self.cluster.step(events, self.now)
        self.book.write(self.last.changes)
        return self.last

    def restart(self) -> None:
        """A new core from what the book holds."""
        self.cluster = Cluster(INSTANCE, self.book.snapshot(), self.now)

    def reply(self) -> object:
        """The value of the last step's one reply."""
        (found,) = [action.value for action in self.last.actions if isinstance(action, Reply)]
        return found

    def submit(self, user: str = "alice", *, wishes: Wishes | None = None, key: str = "", dry: bool = False, **fields: object) -> int:
        """Submit a job that must be taken; its id."""
        value = self.try_submit(user, wishes=wishes, key=key, dry=dry, **fields)
        assert isinstance(value, list), value
        accepted = value[0]
        assert isinstance(accepted, Accepted)
        return accepted.id

    def try_submit(
        self, user: str = "alice", *, wishes: Wishes | None = None, key: str = "", dry: bool = False, **fields: object
    ) -> object:
        """Submit a job; the reply, whatever it is."""
        self.keys += 1
        item = submission(user, key or f"key-{self.keys}", wishes=wishes, **fields)
        self.step(JobsSubmitted(token="submit", user=user, jobs=(item,), is_dry_run=dry))
        return self.reply()

    def act(self, action: str, *names: str, actor: str = "alice", is_admin: bool = False, **more: object) -> list[tuple[str, bool, str]]:
        """Act on jobs; the results."""
        selection = Selection(tasks=tuple(parse_task_key(name) for name in names))
        self.step(JobsActedOn(token="act", actor=actor, is_admin=is_admin, action=action, selection=selection, **more))  # type: ignore[arg-type]
        value = self.reply()
        assert isinstance(value, list), value
        return value

    def report(self, host: str, run: AttemptKey, kind: RunKind, *, user: str = "alice", after: float = 0.0, **more: object) -> Step:
        """A report of an exec-server."""
        values: dict[str, object] = {"at": self.now, **more}
        report = RunReport(job=run.job, index=run.index, attempt=run.attempt, kind=kind, **values)  # type: ignore[arg-type]
        return self.step(RunsReported(user=user, host=host, reports=(report,)), after=after)

    def end(self, host: str, run: AttemptKey, outcome: Outcome = Outcome.OK, *, user: str = "alice", **more: Any) -> Step:
        """A run ended."""
        return self.report(host, run, RunKind.ENDED, user=user, outcome=outcome, exit_code=more.pop("exit_code", 0), **more)

    def roll(self, host: str, *runs: AttemptKey, user: str = "alice") -> Step:
        """A roll call."""
        return self.step(RollCalled(user=user, host=host, runs=frozenset(runs)))

    def link(self, host: str, state: LinkState, reason: str = "", user: str = "alice") -> Step:
        """A link changed."""
        return self.step(LinkChanged(user=user, host=host, state=state, reason=reason))

    @property
    def starts(self) -> list[tuple[str, StartOrder]]:
        """Orders of the last step, with their hosts."""
        return [(action.host, order) for action in self.last.actions if isinstance(action, StartRuns) for order in action.orders]

    @property
    def stops(self) -> list[tuple[str, AttemptKey]]:
        """Stops of the last step, with their hosts."""
        return [(action.host, run) for action in self.last.actions if isinstance(action, StopRuns) for run in action.runs]

    @property
    def holds(self) -> list[tuple[str, AttemptKey, bool]]:
        """Holds and releases of the last step, with their hosts."""
        return [(action.host, run, action.is_held) for action in self.last.actions if isinstance(action, HoldRuns) for run in action.runs]

    @property
    def signals(self) -> list[SignalRuns]:
        """Signals of the last step."""
        return [action for action in self.last.actions if isinstance(action, SignalRuns)]

    def state(self, name: str) -> str:
        """Where a live task stands; of an ended one its outcome."""
        key = parse_task_key(name)
        if key in self.book.history:
            outcome = self.book.history[key].outcome
            assert outcome is not None
            return outcome.value
        job = self.cluster.job(key.job)
        if job is None:
            return "none"
        return job.state_of(key.index).value


def error_of(value: object) -> str:
    """The text of an error reply."""
    assert isinstance(value, HqError), value
    return str(value)
