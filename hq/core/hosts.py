"""A host while hq-server runs: what is occupied by whom, what load was seen, and whether anything new may go there.

Load: hq's own tasks are part of the load average, with its delay of a minute. `own_load` follows them with the same decay, so that
the load of *others* is what a sample shows beyond it; a host full of short tasks of ours is not mistaken for a busy one.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import exp

from hq.model.batch import BATCH_BACKENDS
from hq.model.host import HostRecord, HostSpec, LoadSample
from hq.model.ids import TaskKey
from hq.model.job import JobSpec

#: Samples older than this say nothing (seconds).
FRESH = 60.0
#: The share of the machine's slots that load and tasks together may reach, and how many more than those they may be in any case: hq's own daemons and
#: processes that are just being made are in the load average, too, and on a machine of two cores a tenth of it is less than they are.
LOAD_LIMIT = 1.1
LOAD_MARGIN = 1.0
#: The decay of load1 (seconds).
_LOAD_MEMORY = 60.0
#: What is placeable in this version of the house.
PLACEABLE_BACKENDS = frozenset({"process"}) | BATCH_BACKENDS


class HostState:
    """One host. `tasks` are the tasks placed here, with the slot indices given to them."""

    __slots__ = ("alive", "by_user", "canary", "is_on_trial", "memory_taken", "occupied", "order", "own_at", "own_load", "probed", "quarantine", "queued", "record",
                 "resources_taken", "samples", "tasks", "unreachable", "_free", "_slots")  # fmt: skip

    def __init__(self, record: HostRecord, order: int, now: float) -> None:
        self.record = record
        self.order = order
        self.occupied = 0
        self.tasks: dict[TaskKey, tuple[int, ...]] = {}
        self.by_user: dict[str, set[TaskKey]] = {}
        self.queued: dict[str, dict[TaskKey, None]] = {}  # user → tasks that are here ahead of their slots, in order
        self.memory_taken = 0
        self.resources_taken: dict[str, int] = {}
        self.samples: dict[str, LoadSample] = {}
        self.alive: set[str] = set()  # users whose exec-server here is alive
        self.probed = False
        self.unreachable: str | None = None
        self.quarantine: str | None = None  # why it is put aside
        self.is_on_trial = False  # one task may try it
        self.canary: TaskKey | None = None  # that task
        self.own_load = 0.0
        self.own_at = now
        self._slots = record.spec.slots
        self._free = list(range(self._slots))

    @property
    def name(self) -> str:
        """The short name."""
        return self.record.spec.name

    @property
    def spec(self) -> HostSpec:
        """The row of cluster.tab."""
        return self.record.spec

    @property
    def is_listed(self) -> bool:
        """Whether the row is (still) in cluster.tab."""
        return self.record.is_listed

    @property
    def free(self) -> int:
        """Slots that could be given away now; never negative."""
        return max(0, self.record.spec.slots - self.occupied) if self.canary is None else 0

    def update(self, record: HostRecord) -> None:
        """Take a new row: slots may have grown or shrunk, tasks stay where they are."""
        self.record = record
        if record.spec.slots != self._slots:
            self._slots = record.spec.slots
            used = {index for given in self.tasks.values() for index in given}
            self._free = [index for index in range(self._slots) if index not in used]
            heapify(self._free)

    def occupy(self, key: TaskKey, user: str, spec: JobSpec, now: float) -> tuple[int, ...]:
        """Give the lowest free slots to a task, and memory and resources as asked. The caller has checked that it fits."""
        assert key not in self.tasks, f"{key} is on {self.name} already"
        self._follow(now)
        # after a reload with fewer slots a restarted server may find more tasks than indices: those have none
        given = tuple(heappop(self._free) for _ in range(min(spec.slots, len(self._free))))
        self.tasks[key] = given
        if self.is_on_trial and self.canary is None:
            self.canary = key
        self.by_user.setdefault(user, set()).add(key)
        self.occupied += spec.slots
        self.memory_taken += spec.memory or 0
        for name, count in spec.resources.items():
            self.resources_taken[name] = self.resources_taken.get(name, 0) + count
        return given

    def queue(self, key: TaskKey, user: str) -> None:
        """Take in a task ahead of its slots. It takes nothing yet."""
        self.tasks[key] = ()
        self.by_user.setdefault(user, set()).add(key)
        self.queued.setdefault(user, {})[key] = None

    def is_queued(self, user: str, key: TaskKey) -> bool:
        """Whether a task is here ahead of its slots."""
        return key in self.queued.get(user, ())

    def queued_of(self, user: str) -> tuple[TaskKey, ...]:
        """What of a user is here ahead of its slots, in order."""
        return tuple(self.queued.get(user, ()))

    def hand_over(self, key: TaskKey, heir: TaskKey, user: str) -> None:
        """A queued task of the same demands takes over all that `key` had, which is about to leave."""
        self.tasks[key], self.tasks[heir] = (), self.tasks[key]
        queued = self.queued[user]
        del queued[heir]
        queued[key] = None

    def seat(self, key: TaskKey, user: str, spec: JobSpec, now: float) -> None:
        """Give slots to a queued task."""
        self._unqueue(key, user)
        self.occupy(key, user, spec, now)

    def _unqueue(self, key: TaskKey, user: str) -> None:
        queued = self.queued[user]
        del queued[key]
        if not queued:
            del self.queued[user]
        del self.tasks[key]
        mine = self.by_user[user]
        mine.discard(key)
        if not mine:
            del self.by_user[user]

    def release(self, key: TaskKey, user: str, spec: JobSpec, now: float) -> None:
        """Take back what a task had."""
        if self.is_queued(user, key):
            self._unqueue(key, user)
            return
        self._follow(now)
        if self.canary == key:
            self.canary = None
        for index in self.tasks.pop(key):
            if index < self._slots:
                heappush(self._free, index)
        mine = self.by_user[user]
        mine.discard(key)
        if not mine:
            del self.by_user[user]
        self.occupied -= spec.slots
        self.memory_taken -= spec.memory or 0
        for name, count in spec.resources.items():
            self.resources_taken[name] -= count

    def _follow(self, now: float) -> None:
        self.own_load = self.own_load_at(now)
        self.own_at = max(now, self.own_at)

    def own_load_at(self, now: float) -> float:
        """What hq's own tasks have in the load average of a minute, if each slot works."""
        return self.occupied + (self.own_load - self.occupied) * exp(-max(0.0, now - self.own_at) / _LOAD_MEMORY)

    def fresh_sample(self, now: float) -> LoadSample | None:
        """The lowest fresh sample of all users: nobody can make a host look busy to others by himself."""
        fresh = [sample for sample in self.samples.values() if now - sample.at <= FRESH]
        return min(fresh, key=lambda sample: sample.load1) if fresh else None

    def headroom(self, now: float) -> float | None:
        """Slots that may be added before load and tasks pass the machine's slots by a tenth or by one; None: no fresh sample, so only slots count."""
        sample = self.fresh_sample(now) if self.samples else None
        if sample is None:
            return None
        spec = self.record.spec
        others = max(0.0, sample.load1 - self.own_load_at(now))
        # an owner who gives more slots than cores wants them used
        machine = max(spec.total, spec.slots)
        return max(LOAD_LIMIT * machine, machine + LOAD_MARGIN) - others - self.occupied

    def closed(self) -> str | None:
        """Why nothing new goes here, for anybody; None if the host is open."""
        record = self.record
        if not record.is_listed:
            return "is no longer in cluster.tab"
        if record.drain_reason is not None:
            return f"is draining: {record.drain_reason}" if record.drain_reason else "is draining"
        if not record.is_active:
            return "is not active"
        if record.spec.backend not in PLACEABLE_BACKENDS:
            return f"has the backend '{record.spec.backend}', which is not served yet"
        if self.quarantine is not None and not self.is_on_trial:
            return f"is in quarantine: {self.quarantine}"
        if self.canary is not None:
            return f"is in quarantine, and one task tries it: {self.quarantine}"
        if self.unreachable is not None and not self.alive:
            return f"cannot be reached: {self.unreachable}"
        return None

    def memory_free(self) -> int | None:
        """Bytes not given away; None: nobody said how much there is, so none is counted."""
        memory = self.record.spec.memory
        return None if memory is None else memory - self.memory_taken

    def resource_free(self, name: str) -> int:
        """Units of a resource not given away."""
        return self.record.spec.resources.get(name, 0) - self.resources_taken.get(name, 0)
