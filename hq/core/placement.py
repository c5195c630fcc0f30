"""Which waiting tasks go where: a pure proposal over a view of the cluster. Nothing here changes a job or a host.

Users take turns: each task goes to the user with the lowest score, which rises by its slots (`fairshare`). Among one user's jobs priority
counts, then first come. For each the host with most room: free slots, or what the load leaves if that is less. Hosts of the owner's
own come before synthetic ones: there a task starts at once, while a batch system has a queue of its own. Within a plan room
only shrinks, so a shape that did not fit once is not looked at again, and each class of demands keeps a heap of the hosts that suit
it, put right when it is read. The applier checks again and takes what still fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import NamedTuple

from hq.core.hosts import HostState
from hq.core.jobs import Shape
from hq.model.batch import BATCH_BACKENDS


class Seat:
    """A host in a plan: what it still has. `room`: slots that both its maximum and its load allow."""

    __slots__ = ("free", "headroom", "is_batch", "is_idle", "memory", "name", "order", "resources", "queue", "room")

    def __init__(self, host: HostState, now: float) -> None:
        spec = host.record.spec
        self.name = spec.name
        self.order = host.order
        self.queue = spec.queue
        self.free = host.free
        self.headroom = host.headroom(now)
        self.is_batch = spec.backend in BATCH_BACKENDS
        self.is_idle = not host.occupied
        self.memory = host.memory_free()
        self.resources = {name: host.resource_free(name) for name in spec.resources}
        self.room = self._room()

    def _room(self) -> int:
        return self.free if self.headroom is None else max(0, min(self.free, int(self.headroom + 1e-9)))

    def suits(self, shape: Shape, bad: frozenset[str]) -> bool:
        """Whether the host would do for the shape, slots aside."""
        return (
            self.name not in bad
            and (not shape.hosts or self.name in shape.hosts)
            and self.name not in shape.exclude
            and (not shape.queue or shape.queue == self.queue)
            and self.has(shape)
        )

    def has(self, shape: Shape) -> bool:
        """Whether memory and resources suffice."""
        return (not shape.memory or self.memory is None or self.memory >= shape.memory) and all(
            self.resources.get(name, 0) >= count for name, count in shape.resources
        )

    def take(self, shape: Shape) -> None:
        """One task sits down."""
        self.free -= shape.slots
        if self.headroom is not None:
            self.headroom -= shape.slots
        if self.memory is not None:
            self.memory -= shape.memory
        for name, count in shape.resources:
            self.resources[name] -= count
        self.is_idle = False
        self.room = self._room()


class QueueView(NamedTuple):
    """Jobs of one shape in order: (rank, job id, how many tasks may start)."""

    shape: Shape
    jobs: Iterator[tuple[int, int, int]]


class UserView(NamedTuple):
    """What of one user waits. `score`: the lower, the sooner it is his turn. `bad`: hosts that his work cannot go to."""

    score: float
    bad: frozenset[str]
    queues: list[QueueView]


class View(NamedTuple):
    """What a plan is made from."""

    users: list[UserView]
    seats: list[Seat]


class Proposal(NamedTuple):
    """Placements in order, (job id, host name); and whether load, not slots, kept something from starting."""

    placements: list[tuple[int, str]]
    is_load_bound: bool


class _Bench:
    """The hosts that suit one class of demands, most room first, and the idle ones that only load keeps shut."""

    def __init__(self, seats: list[Seat], shape: Shape, bad: frozenset[str]) -> None:
        self.heap: list[tuple[int, int, Seat]] = []
        self.batch: list[tuple[int, int, Seat]] = []
        self.shut: list[Seat] = []
        self.is_load_bound = False
        for seat in seats:
            if seat.suits(shape, bad):
                if seat.room:
                    (self.batch if seat.is_batch else self.heap).append((-seat.room, seat.order, seat))
                if seat.room < seat.free:
                    self.shut.append(seat)
        heapify(self.heap)
        heapify(self.batch)
        # the least loaded last, where it is taken from
        self.shut.sort(key=lambda seat: (seat.headroom or 0.0, -seat.order))

    def best(self, shape: Shape) -> Seat | None:
        """The seat to take, or None."""
        return self._roomiest(self.heap, shape) or self._roomiest(self.batch, shape) or self._shut_one(shape)

    def _roomiest(self, heap: list[tuple[int, int, Seat]], shape: Shape) -> Seat | None:
        slots = shape.slots
        while heap:
            room, order, seat = heap[0]
            if seat.room != -room:
                if seat.room:
                    heapreplace(heap, (-seat.room, order, seat))
                else:
                    heappop(heap)
            elif seat.room < slots:
                break
            elif not seat.has(shape):
                heappop(heap)  # it will not get more within this plan
            else:
                return seat
        return None

    def _shut_one(self, shape: Shape) -> Seat | None:
        """A high load must not starve a job for ever: a host where nothing of ours runs takes one."""
        shut, slots = self.shut, shape.slots
        while shut and not shut[-1].is_idle:
            shut.pop()
            self.is_load_bound = True
        for seat in reversed(shut):
            if seat.is_idle and seat.free >= slots and seat.has(shape):
                return seat
        self.is_load_bound = self.is_load_bound or any(seat.room < seat.free for seat in shut)
        return None


class _Turn:
    """One user in a plan: the heads of his queues, the first of them first."""

    __slots__ = ("bad", "heads", "queues")

    def __init__(self, user: UserView) -> None:
        self.bad = user.bad
        self.queues = user.queues
        self.heads: list[tuple[int, int, int, int]] = []  # rank, which queue, job, tasks
        for number, queue in enumerate(user.queues):
            self.advance(number, queue)
        heapify(self.heads)

    @property
    def first(self) -> int:
        """The job at the head: among users of one score the first comer counts, whatever priority he gave it."""
        return self.heads[0][2]

    def advance(self, number: int, queue: QueueView) -> None:
        """Put the next job of a queue among the heads, if there is one."""
        following = next(queue.jobs, None)
        if following is not None:
            heappush(self.heads, (following[0], number, following[1], following[2]))


def plan(view: View) -> Proposal:
    """Propose placements. The iterators of the view are used up; nothing else of it is changed but its seats."""
    placements: list[tuple[int, str]] = []
    benches: dict[object, _Bench] = {}
    is_load_bound = False
    most = max((seat.free for seat in view.seats), default=0)
    users = [_Turn(user) for user in view.users]
    turns = [(user.score, turn.first, number) for number, (user, turn) in enumerate(zip(view.users, users, strict=True)) if turn.heads]
    heapify(turns)
    while turns:
        score, _, number = turns[0]
        turn = users[number]
        rank, queue, job, count = turn.heads[0]
        shape = turn.queues[queue].shape
        seat = None
        if shape.slots <= most:
            demand = (turn.bad, shape[2:])
            bench = benches.get(demand)
            if bench is None:
                bench = benches[demand] = _Bench(view.seats, shape, turn.bad)
            seat = bench.best(shape)
            is_load_bound = is_load_bound or (seat is None and bench.is_load_bound)
        if seat is None:
            heappop(turn.heads)  # room only shrinks: nothing of this shape fits any more
        else:
            seat.take(shape)
            placements.append((job, seat.name))
            score += shape.slots
            if count > 1:
                heapreplace(turn.heads, (rank, queue, job, count - 1))
            else:
                heappop(turn.heads)
                turn.advance(queue, turn.queues[queue])
        if turn.heads:
            heapreplace(turns, (score, turn.first, number))
        else:
            heappop(turns)
    return Proposal(placements, is_load_bound)


def in_order(heap: list[int]) -> Iterator[int]:
    """The elements of a heap from the smallest, without changing it: k of them cost k·log k, whatever its length."""
    if not heap:
        return
    frontier = [(heap[0], 0)]
    while frontier:
        value, place = heappop(frontier)
        yield value
        for child in (2 * place + 1, 2 * place + 2):
            if child < len(heap):
                heappush(frontier, (heap[child], child))
