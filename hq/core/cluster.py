"""hq-server's core: `Cluster.step(events, now)` is the one front door. Events move the state, then it is decided what it still needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop
from typing import Any

from hq.core import acts, ahead, cleaning, dependencies, drains, holding, owners, quarantine, recovery, reports, restored, submission
from hq.core.events import (
    CleaningDue,
    ClusterSwitched,
    ConfigurationRead,
    Event,
    HostLost,
    HostRowChanged,
    HostsProbed,
    HostSwitched,
    JobsActedOn,
    JobsSubmitted,
    KeyEnrolled,
    LedgerCompared,
    LedgerGivenUp,
    LinkChanged,
    LoadsSampled,
    RollCalled,
    RunsReported,
    SlotsRecounted,
    Step,
    Unwatched,
    UserServerCame,
    UserServerWent,
    UserSwitched,
    Watched,
)
from hq.core.fairshare import AVERAGES, SAVED_EVERY
from hq.core.links import Link
from hq.core.lost import host_lost
from hq.core.placement import QueueView, Seat, UserView, View, plan
from hq.core.progress import Watchers
from hq.core.queues import prune, sweep, waiting_in
from hq.core.rerouting import Rerouting
from hq.core.state import State
from hq.model.changes import Changes
from hq.model.job import TaskRecord
from hq.model.snapshot import Snapshot
from hq.model.states import LinkState, TaskState

#: When load keeps something waiting, it is looked at again after so many seconds even without news.
_LOAD_PAUSE = 10.0
#: A queue with so many entries that have nothing to start is swept.
_STALE = 100


class Cluster(State):
    """Users, hosts and live jobs of one instance, and the rules for them. Pure: time comes in as an argument."""

    def __init__(self, instance: str, snapshot: Snapshot, now: float) -> None:
        super().__init__(instance, now)
        self._watchers = Watchers()
        self._rerouting = Rerouting()
        self._reroute_at: float | None = None
        self._look_again: float | None = None
        self._averages_at = now + SAVED_EVERY
        self._return_at: float | None = None  # when something queued ahead will have waited too long
        self._handlers: dict[type[Any], Callable[[Any], None]] = {
            JobsSubmitted: lambda event: submission.submitted(self, event),
            JobsActedOn: lambda event: acts.acted_on(self, event),
            RunsReported: lambda event: reports.reported(self, event),
            RollCalled: lambda event: reports.roll_called(self, event),
            UserServerCame: self._user_server_came,
            UserServerWent: self._user_server_went,
            LinkChanged: self._link_changed,
            HostLost: lambda event: host_lost(self, event),
            LoadsSampled: self._loads_sampled,
            HostsProbed: self._hosts_probed,
            ConfigurationRead: lambda event: owners.configuration_read(self, event),
            HostSwitched: lambda event: owners.host_switched(self, event),
            HostRowChanged: lambda event: owners.host_row_changed(self, event),
            ClusterSwitched: lambda event: owners.cluster_switched(self, event),
            UserSwitched: lambda event: owners.user_switched(self, event),
            KeyEnrolled: lambda event: owners.key_enrolled(self, event),
            SlotsRecounted: lambda event: owners.slots_recounted(self, event),
            Watched: lambda event: self._watchers.watch(self, event),
            Unwatched: lambda event: self._watchers.unwatch(event.token),
            LedgerCompared: lambda event: restored.compared(self, event),
            LedgerGivenUp: lambda event: restored.given_up(self, event),
            CleaningDue: lambda event: cleaning.clean(self, event),
        }
        recovery.restore(self, snapshot)
        self.changes = Changes()

    def step(self, events: Sequence[Event], now: float) -> Step:
        """Take events in their order, then place what can be placed. `now`: Unix time; a clock that went back counts as standing still."""
        self.now = now = max(now, self.now)
        self.changes, self.actions = Changes(), []
        self.touched, self.ended = set(), {}
        for event in events:
            self._handlers[type(event)](event)
        self._wake_due()
        drains.let_time_pass(self)
        self.health.let_time_pass(self)
        self._return_at = ahead.let_time_pass(self)
        dependencies.settle(self)
        if self._look_again is not None and self._look_again <= now:
            self._look_again, self.is_dirty = None, True
        if self.is_dirty:
            self.is_dirty = False
            self._place()
        self._reroute_at = self._rerouting.let_time_pass(self)
        ahead.flush(self)
        self.flush_orders()
        quarantine.keep(self)
        self._save_averages()
        self._watchers.tell(self)
        return Step(self.changes, self.actions, self._wake())

    # --- peers ---

    def _user_server_came(self, event: UserServerCame) -> None:
        user = event.user
        restored.note_last_job(self, event)
        self.present.add(user)
        self.gone.pop(user, None)
        # a new user-server knows nothing of an old one's failures; what it does not name it has not tried
        for host in list(self.bad.get(user, ())):
            self.set_link(user, host, Link(LinkState.UNKNOWN, ""))
        for host_state in self.hosts.values():
            for key in sorted(host_state.by_user.get(user, ())):
                task = self.jobs[key.job].tasks[key.index]
                if task.outcome is not None:
                    reports.order_stop_of(self, task)
                elif task.state is TaskState.STARTING and not restored.is_awaited(self, user):
                    self.order_start(task)
                self.greet_host(user, host_state.name)
            holding.order_again(self, filter(None, map(self.task, sorted(host_state.by_user.get(user, ())))))
        self.is_dirty = True

    def _user_server_went(self, event: UserServerWent) -> None:
        self.present.discard(event.user)
        self.gone[event.user] = event.reason

    def _link_changed(self, event: LinkChanged) -> None:
        if event.host in self.hosts and event.user in self.users:
            self.set_link(event.user, event.host, Link(event.state, event.reason))

    def _loads_sampled(self, event: LoadsSampled) -> None:
        for sample in event.samples:
            host = self.hosts.get(sample.host)
            if host is not None and sample.user in self.users:
                host.samples[sample.user] = sample
                self.changes.loads.append(sample)
        self.is_dirty = self.is_dirty or self.is_load_bound

    def _hosts_probed(self, event: HostsProbed) -> None:
        for name, trouble in event.results.items():
            host = self.hosts.get(name)
            if host is not None:
                self.is_dirty = self.is_dirty or host.unreachable != trouble
                host.probed, host.unreachable = True, trouble

    # --- time ---

    def _wake_due(self) -> None:
        while self.begins and self.begins[0][0] <= self.now:
            job = self.jobs.get(heappop(self.begins)[1])
            if job is not None:
                self.enqueue(job)
        while self.deferred and self.deferred[0][0] <= self.now:
            until, key = heappop(self.deferred)
            job = self.jobs.get(key.job)
            if job is not None and job.deferred.get(key.index) == until:
                del job.deferred[key.index]
                job.make_ready(key.index)
                self.enqueue(job)

    def _wake(self) -> float | None:
        moments = [heap[0][0] for heap in (self.begins, self.deferred) if heap]
        moments.extend(each for each in (self._look_again, self._return_at, self._reroute_at, *self.drains.values(), *self.health.wakes(self)) if each is not None)
        return min(moments, default=None)

    def _save_averages(self) -> None:
        """With what is written anyhow, now and then: a restart must not make everybody equal."""
        if self.now >= self._averages_at and self.changes:
            self._averages_at = self.now + SAVED_EVERY
            self.changes.settings[AVERAGES] = self.share.saved(self.now)

    # --- placement ---

    def view(self) -> View:
        """What may be placed and where, for `plan`."""
        users: dict[str, UserView] = {}
        for shape in list(self.queues):
            prune(self, shape)
        shapes = [shape for shape in self.queues if self.may_start(shape.user)]
        self.share.line_up({shape.user for shape in shapes}, self.now)
        for shape in shapes:
            user = shape.user
            if user not in users:
                users[user] = UserView(self.share.score(user, self.now), frozenset(self.bad.get(user, ())), [])
            users[user].queues.append(QueueView(shape, waiting_in(self, shape)))
        seats = [Seat(host, self.now) for host in self.roomy.values() if host.closed() is None] if users else []
        return View(list(users.values()), seats)

    def _place(self) -> None:
        self._look_again = None
        self.is_load_bound = False
        if not self.is_active:
            self.ahead.stirred.clear()
            return
        ahead.promote(self)
        if not self.queues:
            self.share.line_up((), self.now)
            self.ahead.stirred.clear()
            return
        proposal = plan(self.view())
        self.is_load_bound = proposal.is_load_bound
        if proposal.is_load_bound:
            self._look_again = self.now + _LOAD_PAUSE
        shapes = set()
        for id, name in proposal.placements:
            job = self.jobs[id]
            index = job.next_waiting()
            if index is None or self.hosts[name].free < job.record.spec.slots or not job.startable(self.now):
                continue  # cannot be by the plan as it is made; a planner that errs must not break a host's maximum
            self._start(id, index, name)
            shapes.add(job.shape)
        for id, name, count in ahead.choose(self):
            shapes.add(self.jobs[id].shape)
            for _ in range(count):
                index = self.jobs[id].next_waiting()
                if index is None:
                    break
                self._start(id, index, name, is_ahead=True)
        for shape in shapes:
            if shape in self.queues:
                prune(self, shape)
        for shape, count in self.stale.items():
            if count >= _STALE and shape in self.queues:
                sweep(self, shape)
        self.stale.clear()

    def _start(self, id: int, index: int, host: str, is_ahead: bool = False) -> None:
        job = self.jobs[id]
        before = job.tasks.get(index)
        record = job.record
        task = TaskRecord(
            job=id,
            index=index,
            attempt=1 if before is None else before.attempt + 1,
            state=TaskState.STARTING,
            user=record.user,
            slots=0 if is_ahead else record.spec.slots,
            host=host,
            since=self.now,
        )
        self.move(job, task)
        self.order_start(task)
        if is_ahead:
            ahead.note_queued(self, task)

