"""A live job: its record, the cursor into its index set, and a TaskRecord for each task that has left waiting and not yet gone.

A task before the cursor has left waiting; one at or behind it waits, without an object of its own, unless it stands in `ahead`:
those were held or cancelled by themselves, out of order, and stay in `tasks`, even finished, until the cursor has passed them.
So the number of tasks that ever left, and the live records, are enough to find the cursor after a restart.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from types import MappingProxyType
from typing import Any, NamedTuple

from hq.model.ids import PLAIN, TaskKey
from hq.model.indexset import IndexSet
from hq.model.job import JobRecord, TaskRecord
from hq.model.states import Outcome, TaskState

#: What a job has in common with all others of which nothing has left waiting yet.
_NOTHING: Any = MappingProxyType({})
_NOBODY: Any = frozenset()


class Shape(NamedTuple):
    """What a task needs from the cluster. Jobs of one shape are placed or not placed alike."""

    user: str
    slots: int
    memory: int
    resources: tuple[tuple[str, int], ...]
    hosts: tuple[str, ...]
    exclude: tuple[str, ...]
    queue: str


def shape_of(job: JobRecord) -> Shape:
    """The shape of a job's tasks."""
    spec, wishes = job.spec, job.wishes
    return Shape(
        job.user,
        spec.slots,
        spec.memory or 0,
        tuple(sorted(spec.resources.items())),
        tuple(sorted(set(wishes.hosts))),
        tuple(sorted(set(wishes.exclude))),
        wishes.queue,
    )


class LiveJob:
    """A job that has unfinished tasks. Most jobs only wait: what is about single tasks is made when the first one moves (`unfold`)."""

    __slots__ = (
        "ahead", "cursor", "deferred", "entry", "held_there", "indices", "last_end", "last_reason", "outcomes", "placed", "ready", "ready_set", "record", "shape",
        "states", "tasks", "total", "worst",
    )  # fmt: skip

    def __init__(self, record: JobRecord, shape: Shape | None = None) -> None:
        self.record = record
        self.shape = shape or shape_of(record)
        self.indices: IndexSet | None = record.index_set()
        self.total = 1 if self.indices is None else len(self.indices)
        self.cursor = 0
        self.ahead: set[int] = _NOBODY
        self.tasks: dict[int, TaskRecord] = _NOTHING
        self.states: dict[TaskState, int] = _NOTHING  # of the records that are not finished
        self.placed = 0
        self.outcomes: dict[str, int] = _NOTHING
        self.worst: int | None = None
        self.last_reason = ""  # of the task that finished last
        self.last_end = 0.0  # when the last one ended, which may be told late
        self.ready: list[tuple[int, int]] | tuple[()] = ()  # heap of (position, index): records that wait
        self.ready_set: set[int] = _NOBODY
        self.deferred: dict[int, float] = _NOTHING  # index → not before, after a start that failed
        self.held_there: set[int] = _NOBODY  # tasks that are placed and may be marked as held
        self.entry: int | None = None  # its rank, where it stands in its queue

    def unfold(self) -> None:
        """Make room for what is about single tasks."""
        if self.tasks is _NOTHING:
            self.ahead, self.ready_set, self.held_there, self.ready = set(), set(), set(), []
            self.tasks, self.states, self.outcomes, self.deferred = {}, {}, {}, {}

    @property
    def is_unfolded(self) -> bool:
        """Whether anything is known of single tasks."""
        return self.tasks is not _NOTHING

    @property
    def id(self) -> int:
        """The job's id."""
        return self.record.id

    @property
    def untouched(self) -> int:
        """Tasks that have never left waiting and were not cancelled as a rest."""
        return 0 if self.record.cancelled_rest else self.total - self.cursor - len(self.ahead)

    @property
    def untouched_state(self) -> TaskState:
        """Where those stand."""
        return TaskState.HELD if self.record.wishes.is_held else TaskState.WAITING

    @property
    def is_over(self) -> bool:
        """Whether every task is finished."""
        return not self.states and not self.untouched

    def position(self, index: int) -> int:
        """Where an index stands in the order of the array. Raises ValueError for one that it does not have."""
        if self.indices is None:
            if index != PLAIN:
                raise ValueError(index)
            return 0
        return self.indices.position(index)

    def index_at(self, position: int) -> int:
        """The index at a position."""
        return PLAIN if self.indices is None else self.indices.at(position)

    def has(self, index: int) -> bool:
        """Whether the job has a task of this index."""
        return index == PLAIN if self.indices is None else index in self.indices

    def untouched_positions(self) -> Iterator[int]:
        """Where the untouched tasks stand in the order of the array."""
        if not self.record.cancelled_rest:
            yield from (position for position in range(self.cursor, self.total) if self.index_at(position) not in self.ahead)

    def is_untouched(self, index: int) -> bool:
        """Whether the task is there and has never left waiting."""
        return not self.record.cancelled_rest and self._never_left(index)

    def is_cancelled_rest(self, index: int) -> bool:
        """Whether the task was cancelled with all others that waited: it has no record."""
        return bool(self.record.cancelled_rest) and self._never_left(index)

    def _never_left(self, index: int) -> bool:
        return self.has(index) and index not in self.ahead and self.position(index) >= self.cursor

    def state_of(self, index: int) -> TaskState:
        """Where a task of this job stands."""
        task = self.tasks.get(index)
        if task is not None:
            return task.state
        return self.untouched_state if self.is_untouched(index) else TaskState.FINISHED

    def startable(self, now: float) -> int:
        """How many tasks could be placed at once, by the job's own conditions."""
        wishes = self.record.wishes
        if wishes.begin is not None and wishes.begin > now or wishes.after or wishes.after_any:
            return 0
        count = len(self.ready_set) + (0 if wishes.is_held else self.untouched)
        return count if wishes.throttle is None else max(0, min(count, wishes.throttle - self.placed))

    def next_waiting(self) -> int | None:
        """The index of the task to start next: in the order of the array, those that wait again first among equals."""
        while self.ready and self.ready[0][1] not in self.ready_set:
            heappop(self.ready)
        is_open = self.untouched and not self.record.wishes.is_held
        if self.ready and (not is_open or self.ready[0][0] < self.cursor):
            return self.ready[0][1]
        if not is_open:
            return None
        position = self.cursor
        if self.ahead:
            while self.index_at(position) in self.ahead:
                position += 1
            if self.ready and self.ready[0][0] < position:
                return self.ready[0][1]
        return self.index_at(position)

    def leave(self, index: int) -> list[TaskRecord]:
        """Note that an untouched task leaves waiting. Returns finished tasks that the cursor has passed: they leave the live ones."""
        self.unfold()
        if self.index_at(self.cursor) == index:
            self.cursor += 1
        else:
            self.ahead.add(index)
        passed: list[TaskRecord] = []
        while self.ahead and self.cursor < self.total and (each := self.index_at(self.cursor)) in self.ahead:
            self.ahead.remove(each)
            self.cursor += 1
            task = self.tasks.get(each)
            if task is not None and task.state is TaskState.FINISHED:
                del self.tasks[each]
                passed.append(task)
        return passed

    def make_ready(self, index: int) -> None:
        """A record waits and may be placed."""
        self.unfold()
        self.ready_set.add(index)
        assert isinstance(self.ready, list)
        heappush(self.ready, (self.position(index), index))

    def note_outcome(self, outcome: Outcome, code: int, count: int = 1) -> None:
        """Count finished tasks."""
        self.unfold()
        self.outcomes[outcome.value] = self.outcomes.get(outcome.value, 0) + count
        self.worst = code if self.worst is None else max(self.worst, code)

    def counts(self) -> dict[str, int]:
        """Tasks by state, finished ones also as `finished:OUTCOME`. States without a task are absent."""
        found = {state.value: count for state, count in self.states.items()}
        if self.untouched:
            state = self.untouched_state.value
            found[state] = found.get(state, 0) + self.untouched
        if self.held_there:
            self._show_held(found)
        outcomes = self.all_outcomes()
        if outcomes:
            found[TaskState.FINISHED.value] = sum(outcomes.values())
            found.update({f"finished:{name}": count for name, count in outcomes.items()})
        return found

    def _show_held(self, found: dict[str, int]) -> None:
        """Count tasks that are held where they wait as held."""
        self.held_there = {
            index for index in self.held_there
            if (task := self.tasks.get(index)) is not None and task.state is TaskState.STARTING and task.is_held
        }  # fmt: skip
        count = len(self.held_there)
        if not count:
            return
        found[TaskState.HELD.value] = found.get(TaskState.HELD.value, 0) + count
        found[TaskState.STARTING.value] -= count
        if not found[TaskState.STARTING.value]:
            del found[TaskState.STARTING.value]

    def all_outcomes(self) -> dict[str, int]:
        """Finished tasks by outcome, with the cancelled rest."""
        if not self.record.cancelled_rest:
            return dict(self.outcomes)
        cancelled = Outcome.CANCELLED.value
        return {**self.outcomes, cancelled: self.outcomes.get(cancelled, 0) + self.record.cancelled_rest}

    def key(self, index: int) -> TaskKey:
        """The name of a task."""
        return TaskKey(self.record.id, index)
