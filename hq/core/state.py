"""What hq-server knows, and the few primitives that change it: every task's move, every record, every row of a step goes through here.

No event and no rule is known here; those are in the modules that use it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar, cast

from hq.core import queues
from hq.core.ahead import Ahead
from hq.core.events import Action, Reply, StartRuns, StopRuns
from hq.core.fairshare import FairShare
from hq.core.hosts import HostState
from hq.core.jobs import LiveJob, Shape, shape_of
from hq.core.links import CLOSED_LINKS, UNKNOWN_LINK, Link
from hq.core.quarantine import Crashes, Health
from hq.errors import HqError
from hq.model.changes import AuditRecord, Changes
from hq.model.host import HostRecord
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import JobRecord, TaskRecord, exit_code_of
from hq.model.restored import Restored
from hq.model.runs import StartOrder
from hq.model.states import LinkState, Outcome, TaskState, is_legal_move
from hq.model.user import KeyRecord, UserRecord

#: Values that jobs have in common, beyond which those known are forgotten.
MAX_COMMON = 20_000

T = TypeVar("T")


class State:
    """The live state of the instance. `now` is the moment of the current step."""

    def __init__(self, instance: str, now: float) -> None:
        self.instance = instance
        self.now = now
        self.users: dict[str, UserRecord] = {}
        self.keys: dict[str, KeyRecord] = {}
        self.hosts: dict[str, HostState] = {}
        self.roomy: dict[str, HostState] = {}  # those with a free slot
        self.is_active = True
        self.jobs: dict[int, LiveJob] = {}
        self.jobs_of: dict[str, dict[int, None]] = {}
        self.dependents: dict[int, dict[int, None]] = {}  # job → jobs that are to start after it
        self.freed: list[LiveJob] = []  # jobs that ended and for which others wait: `dependencies` sees to those
        self.last_id = 0
        self.last_of: dict[str, int] = {}
        self.submissions: dict[tuple[str, str], int] = {}
        self.present: set[str] = set()  # users whose user-server is here
        self.gone: dict[str, str] = {}  # user → why it went
        self.restored = Restored()
        self.links: dict[tuple[str, str], Link] = {}
        self.lost: set[tuple[str, str]] = set()  # (user, host) whose lease is over and that were not heard since
        self.bad: dict[str, dict[str, None]] = {}  # user → hosts whose link is closed
        self.queues: dict[Shape, list[int]] = {}  # heaps of ranks
        self.share = FairShare()
        self.stale: dict[Shape, int] = {}  # entries met that had nothing to start
        self.begins: list[tuple[float, int]] = []
        self.deferred: list[tuple[float, TaskKey]] = []
        self.never_started: dict[TaskKey, int] = {}
        self.crashes = Crashes()
        self.health = Health()
        self.drains: dict[str, float] = {}  # host → deadline of its drain
        self.ahead = Ahead()
        self.is_dirty = True
        self.is_load_bound = False
        self.touched: set[int] = set()  # jobs whose counts changed in this step
        self.ended: dict[int, LiveJob] = {}  # jobs that ended in this step, as they were at the end
        self.changes = Changes()
        self.actions: list[Action] = []
        self._common: dict[object, object] = {}
        self._host_order = 0
        self._starts: dict[tuple[str, str], dict[AttemptKey, StartOrder]] = {}
        self._stops: dict[tuple[str, str, Outcome, str], dict[AttemptKey, None]] = {}

    # --- readers ---

    def job(self, id: int) -> LiveJob | None:
        """A live job."""
        return self.jobs.get(id)

    def task(self, key: TaskKey) -> TaskRecord | None:
        """The record of a live task that has left waiting."""
        job = self.jobs.get(key.job)
        return None if job is None else job.tasks.get(key.index)

    def last_job(self, user: str) -> int | None:
        """The user's latest submission that is known here."""
        return self.last_of.get(user)

    def user(self, name: str) -> UserRecord | None:
        """A user by name."""
        return self.users.get(name)

    def may_start(self, user: str) -> bool:
        """Whether anything of the user's can be started: he is enabled, his user-server is here, no ledger of his is awaited."""
        record = self.users.get(user)
        return user in self.present and user not in self.restored.awaited and record is not None and record.is_enabled

    def key(self, public: str) -> KeyRecord | None:
        """A registered key, enabled or not."""
        return self.keys.get(public)

    def link(self, user: str, host: str) -> Link:
        """How the user's exec-server on the host stands."""
        return self.links.get((user, host), UNKNOWN_LINK)

    # --- rows of the step ---

    def reply(self, token: object, value: object | HqError) -> None:
        """Answer an event."""
        self.actions.append(Reply(token, value))

    def audit(self, actor: str, action: str, owner: str, target: str, detail: str = "", role: str = "admin") -> None:
        """Write down who did what to whose thing."""
        self.changes.audit.append(
            AuditRecord(at=self.now, actor=actor, role=role, action=action, owner=owner, target=target, detail=detail)
        )

    def order_start(self, task: TaskRecord) -> None:
        """Gather a start for the end of the step."""
        order = StartOrder(task.job, task.index, task.attempt, self.hosts[task.host].tasks[task.key], not task.slots)
        self._starts.setdefault((task.user, task.host), {})[order.key] = order

    def greet_host(self, user: str, host: str) -> None:
        """Let the user-server make its link to a host where something runs: a StartRuns, empty if there is nothing to start."""
        self._starts.setdefault((user, host), {})

    def order_stop(self, user: str, host: str, run: AttemptKey, outcome: Outcome, reason: str) -> None:
        """Gather a stop for the end of the step."""
        self._stops.setdefault((user, host, outcome, reason), {})[run] = None

    def flush_orders(self) -> None:
        """Turn what was gathered into actions: stops first; a start only for what is still to be started."""
        for (user, host, outcome, reason), runs in self._stops.items():
            self.actions.append(StopRuns(user=user, host=host, runs=tuple(runs), outcome=outcome, reason=reason))
        self._stops = {}
        for (user, host), orders in self._starts.items():
            kept = tuple(order for order in orders.values() if self._is_starting(order, host))
            if kept or not orders:
                specs = {order.job: self.jobs[order.job].record.signed for order in kept}
                self.actions.append(StartRuns(user=user, host=host, specs=specs, orders=kept))
        self._starts = {}

    def _is_starting(self, order: StartOrder, host: str) -> bool:
        task = self.task(TaskKey(order.job, order.index))
        return (
            task is not None
            and task.state is TaskState.STARTING
            and task.attempt == order.attempt
            and task.host == host
            and task.outcome is None and not task.is_held
        )  # fmt: skip

    # --- jobs and tasks ---

    def add_job(self, record: JobRecord) -> LiveJob:
        """Take in a job."""
        job = self.jobs[record.id] = LiveJob(record, self.common(shape_of(record)))
        self.jobs_of.setdefault(record.user, {})[record.id] = None
        for id in (*record.wishes.after, *record.wishes.after_any):
            self.dependents.setdefault(id, {})[record.id] = None
        self.last_of[record.user] = max(record.id, self.last_of.get(record.user, 0))
        return job

    def common(self, value: T) -> T:
        """An equal value that others have, too: what a hundred thousand jobs say alike is kept once."""
        if len(self._common) >= MAX_COMMON:
            self._common.clear()
        return cast(T, self._common.setdefault(value, value))

    def save_job(self, job: LiveJob, record: JobRecord) -> None:
        """Put a changed record in place."""
        job.record = record
        self.changes.jobs[record.id] = record
        self.touched.add(record.id)

    def put(self, job: LiveJob, task: TaskRecord) -> None:
        """Change the record of a task without moving it."""
        before = job.tasks[task.index]
        assert before.state is task.state and before.attempt == task.attempt and before.host == task.host
        job.tasks[task.index] = task
        self.changes.tasks[task.key] = task

    def move(self, job: LiveJob, task: TaskRecord) -> None:
        """Move a task to the state, attempt and host of `task`, with all that hangs on it: slots, queue, counts, rows of the step."""
        index, state, key = task.index, task.state, task.key
        before = job.tasks.get(index)
        old = job.untouched_state if before is None else before.state
        job.unfold()
        assert is_legal_move(old, state), f"{key}: {old.value} → {state.value}"
        if before is None:
            for passed in job.leave(index):
                self._to_history(passed)
        else:
            job.states[old] -= 1
            if not job.states[old]:
                del job.states[old]
            if old is TaskState.WAITING:
                job.ready_set.discard(index)
                job.deferred.pop(index, None)
            elif old.is_placed and not state.is_placed:
                job.placed -= 1
                self._vacate(before)
                self.is_dirty = True
                self.enqueue(job)  # a throttled array may go on
        if state.is_placed and not old.is_placed:
            job.placed += 1
            host = self.hosts[task.host]
            if task.slots:
                host.occupy(key, task.user, job.record.spec, self.now)
                self.share.took(task.user, job.shape.slots, self.now)
                self.note_room(host)
                self.ahead.stirred[task.host, task.user] = (job.shape, True)
            else:
                host.queue(key, task.user)
        self.changes.events.append((self.now, task.job, index, task.attempt, state.value, task.host, task.reason))
        self.touched.add(task.job)
        if state is TaskState.FINISHED:
            self._finish(job, task)
            return
        job.tasks[index] = task
        job.states[state] = job.states.get(state, 0) + 1
        self.changes.tasks[key] = task
        if state is TaskState.WAITING:
            job.make_ready(index)
            self.enqueue(job)

    def _finish(self, job: LiveJob, task: TaskRecord) -> None:
        assert task.outcome is not None
        job.last_reason = task.reason
        job.last_end = max(job.last_end, min(self.now, self.now if task.ended is None else task.ended))
        self.never_started.pop(task.key, None)
        self.crashes.pop(task.key, None)
        job.note_outcome(task.outcome, exit_code_of(task.outcome, task.exit_code, task.signal))
        if task.index in job.ahead:
            job.tasks[task.index] = task
            self.changes.tasks[task.key] = task
        else:
            job.tasks.pop(task.index, None)
            self._to_history(task)
        self.end_if_over(job)

    def _to_history(self, task: TaskRecord) -> None:
        self.changes.tasks.pop(task.key, None)
        self.changes.tasks_ended.append(task)

    def end_if_over(self, job: LiveJob) -> None:
        """Let a job go whose tasks are all finished."""
        if not job.is_over or job.id not in self.jobs:
            return
        if job.tasks:
            for task in job.tasks.values():
                self._to_history(task)
            job.tasks.clear()
        job.record = replace(job.record, ended=job.last_end or self.now)
        self.changes.jobs.pop(job.id, None)
        self.changes.jobs_ended[job.id] = job.record
        self.touched.add(job.id)
        del self.jobs[job.id]
        self.ended[job.id] = job
        if job.id in self.dependents:
            self.freed.append(job)
        mine = self.jobs_of[job.record.user]
        del mine[job.id]
        if not mine:
            del self.jobs_of[job.record.user]

    def cancel_rest(self, job: LiveJob, reason: str) -> int:
        """Cancel all tasks that never left waiting, at once and without a record each. Returns how many."""
        count = job.untouched
        if not count:
            return 0
        self.save_job(job, replace(job.record, cancelled_rest=count))
        job.last_end = self.now
        job.worst = max(job.worst or 0, exit_code_of(Outcome.CANCELLED, None, None))
        self.changes.events.append((self.now, job.id, PLAIN, 0, TaskState.FINISHED.value, "", f"{reason} ({count:,} waiting)"))
        self.end_if_over(job)
        return count

    # --- queues ---

    def enqueue(self, job: LiveJob) -> None:
        """Put a job into the queue of its shape if something of it could start by the job's own conditions."""
        queues.enqueue(self, job)

    def requeue_entry(self, job: LiveJob) -> None:
        """Put a job in its place again after its shape, priority, hold or begin changed."""
        job.entry = None
        queues.enqueue(self, job)

    # --- hosts ---

    def add_host(self, record: HostRecord) -> HostState:
        """Take in a host."""
        host = self.hosts[record.name] = HostState(record, self._host_order, self.now)
        self._host_order += 1
        self.note_room(host)
        self.is_dirty = True
        return host

    def note_room(self, host: HostState) -> None:
        """Keep the list of hosts with a free slot, so that a full cluster costs a plan nothing."""
        if host.free:
            self.roomy[host.name] = host
        else:
            self.roomy.pop(host.name, None)

    def save_host(self, host: HostState, record: HostRecord) -> None:
        """Put a changed row in place."""
        host.update(record)
        self.note_room(host)
        self.changes.hosts[record.name] = record
        self.changes.hosts_removed.discard(record.name)
        self.is_dirty = True

    def drop_host(self, name: str) -> None:
        """Forget a host on which nothing is."""
        assert not self.hosts[name].tasks
        del self.hosts[name]
        self.roomy.pop(name, None)
        self.changes.hosts.pop(name, None)
        self.changes.hosts_removed.add(name)
        for user, host in [pair for pair in self.links if pair[1] == name]:
            self.set_link(user, host, UNKNOWN_LINK)

    def _vacate(self, task: TaskRecord) -> None:
        host, job = self.hosts[task.host], self.jobs[task.job]
        if not host.is_queued(task.user, task.key):
            self.share.gave(task.user, job.shape.slots, self.now)
        host.release(task.key, task.user, job.record.spec, self.now)
        self.ahead.stirred.setdefault((task.host, task.user), (job.shape, False))
        self.note_room(host)
        if not host.record.is_listed and not host.tasks:
            self.drop_host(host.name)

    def set_link(self, user: str, host: str, link: Link) -> None:
        """Note how a link stands."""
        if link.state is LinkState.UNKNOWN:
            self.links.pop((user, host), None)
        else:
            self.links[user, host] = link
        known = self.hosts.get(host)
        if link.state is LinkState.ALIVE:
            self.lost.discard((user, host))
        if known is not None:
            if link.state is LinkState.ALIVE:
                known.alive.add(user)
            else:
                known.alive.discard(user)
        if link.state in CLOSED_LINKS:
            self.bad.setdefault(user, {})[host] = None
        elif host in self.bad.get(user, {}):
            del self.bad[user][host]
            if not self.bad[user]:
                del self.bad[user]
        self.is_dirty = True
