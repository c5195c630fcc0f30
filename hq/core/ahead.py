"""Dispatch-ahead: a host that ends many short tasks gets a small queue of more, so that it need not wait for a commit between two.

A task that is queued ahead is `starting` and has no slot: its record says 0 slots, and it does not count against the host's maximum. Its
exec-server starts it only with the slots of a run of the same demands that ended there, and names it in the report of that end (the heir);
here the slots pass from one to the other. What is not begun within PATIENCE is given back and placed anew. How much is queued follows from
how long such tasks last. Not the place for what goes to free slots: that is `placement`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING

from hq.core.events import StopRuns
from hq.core.hosts import HostState
from hq.core.jobs import LiveJob, Shape
from hq.core.queues import rank_of, waiting_in
from hq.model.ids import AttemptKey, TaskKey
from hq.model.job import TaskRecord
from hq.model.runs import RETURNED, RunReport
from hq.model.states import LinkState, Outcome, TaskState

if TYPE_CHECKING:
    from hq.core.state import State

#: A queue holds work for so many seconds.
HORIZON = 1.0
#: And for so many where other users wait: a turn must not be long when many take theirs.
TURN = 0.25
#: So many seconds all turns together take at most, be there ever so many users; but none is shorter than a few round trips of an order.
ROUND = 2.5
SHORTEST_TURN = 0.05
#: Only tasks that last less than this (seconds, the mean of late) are queued ahead.
SHORT = 0.25
#: What has waited so long in a queue (seconds) is given back if somebody could use that: the tasks before it last longer than was thought.
PATIENCE = 2.0
#: Most tasks in one queue.
MOST = 2000
_SHORTEST = 0.001
_WEIGHT = 1 / 8
_MAX_SHAPES = 10_000
#: So many other kinds of waiting jobs are asked whether they would want the host instead.
_MAX_RIVALS = 64


@dataclass(slots=True)
class Ahead:
    """What dispatch-ahead remembers between steps. Nothing of it must survive a restart."""

    pace: dict[Shape, float] = field(default_factory=dict)  # how long tasks hold a slot, in seconds
    freed: dict[tuple[int, ...], float] = field(default_factory=dict)  # (job, index) of an heir → when its slot became free, by its host's clock
    stirred: dict[tuple[str, str], tuple[Shape, bool]] = field(default_factory=dict)  # (host, user) where something began (True) or ended
    since: deque[tuple[float, AttemptKey, str]] = field(default_factory=deque)
    returns: dict[tuple[str, str], dict[AttemptKey, None]] = field(default_factory=dict)


def note_end(state: State, job: LiveJob, report: RunReport) -> None:
    """A task of the job has run. What lay between it and the one before it in its slot counts as well: on a busy host that is the most."""
    assert report.started is not None
    pace, freed = state.ahead.pace, state.ahead.freed
    begin = min(report.started, max(freed.pop((report.job, report.index), report.started), report.started - SHORT))
    seconds = max(0.0, report.at - begin)
    if report.heir is not None:
        if len(freed) >= _MAX_SHAPES:
            freed.clear()
        freed[report.heir[:2]] = report.at
    known = pace.get(job.shape)
    if known is None and len(pace) >= _MAX_SHAPES:
        pace.clear()
    pace[job.shape] = seconds if known is None else known + (seconds - known) * _WEIGHT


def inherit(state: State, task: TaskRecord, heir: AttemptKey) -> None:
    """The exec-server started `heir` with the slots of `task`, which has ended. Void unless the heir is queued there now."""
    host = state.hosts[task.host]
    job = state.jobs.get(heir[0])
    other = None if job is None else job.tasks.get(heir[1])
    if job is None or other is None or other.attempt != heir[2] or task.key not in host.tasks or not host.is_queued(task.user, other.key):
        return
    if host.is_queued(task.user, task.key) or not _is_alike(job.shape, state.jobs[task.job].shape):
        return
    host.hand_over(task.key, other.key, task.user)
    state.put(job, replace(other, slots=job.record.spec.slots))


def take_seat(state: State, job: LiveJob, task: TaskRecord) -> TaskRecord:
    """A queued task gets slots of its own: those that are free, and if it has begun without there being any, none in particular."""
    host = state.hosts[task.host]
    host.seat(task.key, task.user, job.record.spec, state.now)
    state.share.took(task.user, job.shape.slots, state.now)
    state.note_room(host)
    task = replace(task, slots=job.record.spec.slots)
    state.put(job, task)
    return task


def promote(state: State) -> None:
    """Where something ended that no heir followed (its queue was still on the way), the queue gets the slots: its head if it stands still.

    Where it moves, what is its head here has begun there long since, and so has what is it when that is known: such a slot would stay empty as
    long as there is a queue. The last of it has not begun.
    """
    for (name, user), (shape, is_new) in state.ahead.stirred.items():
        host = state.hosts.get(name)
        if is_new or host is None or not host.queued or host.closed() is not None:
            continue
        queued = host.queued_of(user)
        is_still = len(queued) == len(host.by_user.get(user, ()))
        for key in queued if is_still else reversed(queued):
            job = state.jobs[key.job]
            if host.free < shape.slots:
                break
            task = job.tasks[key.index]
            if task.outcome is None and _is_alike(job.shape, shape):
                state.order_start(take_seat(state, job, task))


def choose(state: State) -> list[tuple[int, str, int]]:
    """What to queue where: (job id, host, how many), in order. Only where something began or ended since the last time."""
    stirred, state.ahead.stirred = state.ahead.stirred, {}
    chosen: list[tuple[int, str, int]] = []
    rivals: list[tuple[float, Shape]] | None = None
    taken: dict[int, int] = {}
    turn = TURN
    for (name, user), (shape, is_new) in stirred.items():
        pace = state.ahead.pace.get(shape)
        host = state.hosts.get(name)
        if pace is None or pace > SHORT or host is None or host.closed() is not None or host.occupied > host.spec.slots:
            continue
        if state.link(user, name).state is not LinkState.ALIVE or not state.may_start(user):
            continue
        if rivals is None:
            rivals = _in_turn(state)
            turn = turn_of(len({shape.user for _, shape in rivals}))
        lowest = _lowest_rival(state, rivals, user, host)
        # a turn's worth goes with a fresh start; more only while nobody whose turn it would be without these slots could use the host
        if not is_new and lowest <= state.share.score(user, state.now) - shape.slots:
            continue
        queued = len(host.queued_of(user))
        holders = len(host.by_user.get(user, ())) - queued
        count = min(MOST, int(holders * (HORIZON if lowest == inf else turn) / max(pace, _SHORTEST))) - queued
        if count <= 0:
            continue
        for mine in _queues_of(state, user):
            if not _is_alike(mine, shape) or not _suits(mine, host):
                continue
            for _, id, most in waiting_in(state, mine):
                share = min(count, most - taken.get(id, 0))
                if share > 0:
                    taken[id] = taken.get(id, 0) + share
                    chosen.append((id, name, share))
                    count -= share
                if not count:
                    break
            if not count:
                break
    return chosen


def turn_of(users: int) -> float:
    """How many seconds of work a turn holds where so many users wait."""
    return max(SHORTEST_TURN, min(TURN, ROUND / max(users, 1)))


def _in_turn(state: State) -> list[tuple[float, Shape]]:
    """What waits, by whose turn it is."""
    scores = {user: state.share.score(user, state.now) for user in {shape.user for shape in state.queues}}
    return sorted(((scores[shape.user], shape) for shape, heap in state.queues.items() if heap), key=lambda each: each[0])


def _lowest_rival(state: State, in_turn: list[tuple[float, Shape]], user: str, host: HostState) -> float:
    """The lowest score of another user who could use the host; infinite if there is none."""
    looked = 0
    for score, shape in in_turn:
        if shape.user != user:
            looked += 1
            if looked > _MAX_RIVALS or _could_use(state, shape, host):
                return score
    return inf


def _queues_of(state: State, user: str) -> list[Shape]:
    """A user's shapes in the order of what stands first in each."""
    return [shape for _, shape in sorted((heap[0], shape) for shape, heap in state.queues.items() if heap and shape.user == user)]


def note_queued(state: State, task: TaskRecord) -> None:
    """A task was queued ahead now, or is found to be: it will be given back if it does not begin."""
    state.ahead.since.append((state.now, AttemptKey(task.job, task.index, task.attempt), task.host))


def let_time_pass(state: State) -> float | None:
    """Give back what has been queued for too long. Returns when to look again (Unix time)."""
    since = state.ahead.since
    while since:
        at, key, host = since[0]
        task = _queued(state, key, host)
        if task is None:
            since.popleft()
        elif at + PATIENCE <= state.now:
            since.popleft()
            shape = state.jobs[key.job].shape
            if not _is_missed(state, state.jobs[key.job]):
                since.append((state.now, key, host))  # it would come back to where it is
                continue
            state.ahead.pace[shape] = max(state.ahead.pace.get(shape, 0.0), PATIENCE)
            give_back(state, task)
        else:
            return at + PATIENCE
    return None


def _is_missed(state: State, job: LiveJob) -> bool:
    """Whether what is queued of a job could begin somewhere if it were not, or stands in the way of others or of something more urgent."""
    rank = rank_of(job.record)
    return bool(state.roomy) or any(shape.user != job.record.user or (bool(heap) and heap[0] < rank) for shape, heap in state.queues.items())


def give_back(state: State, task: TaskRecord) -> None:
    """Ask for a queued task back. If it has begun meanwhile, it goes on."""
    state.ahead.returns.setdefault((task.user, task.host), {})[AttemptKey(task.job, task.index, task.attempt)] = None


def give_back_all(state: State, host: HostState) -> None:
    """Ask for all that is queued on a host that gets nothing new any more."""
    for user in list(host.queued):
        for key in host.queued_of(user):
            give_back(state, state.jobs[key.job].tasks[key.index])


def flush(state: State) -> None:
    """Turn what was gathered into actions."""
    for (user, host), runs in state.ahead.returns.items():
        state.actions.append(
            StopRuns(user=user, host=host, runs=tuple(runs), outcome=Outcome.CANCELLED, reason=RETURNED, is_only_queued=True)
        )
    state.ahead.returns = {}


def _queued(state: State, key: AttemptKey, host: str) -> TaskRecord | None:
    task = state.task(key.task)
    known = state.hosts.get(host)
    if task is None or known is None or task.state is not TaskState.STARTING or task.attempt != key.attempt or task.host != host:
        return None
    return task if known.is_queued(task.user, TaskKey(key.job, key.index)) else None


def _is_alike(one: Shape, other: Shape) -> bool:
    return (one.slots, one.memory, one.resources) == (other.slots, other.memory, other.resources)


def _suits(shape: Shape, host: HostState) -> bool:
    spec = host.spec
    return (
        (not shape.hosts or spec.name in shape.hosts) and spec.name not in shape.exclude and (not shape.queue or shape.queue == spec.queue)
    )


def _could_use(state: State, shape: Shape, host: HostState) -> bool:
    spec = host.spec
    return (
        state.may_start(shape.user)
        and host.name not in state.bad.get(shape.user, ())
        and _suits(shape, host)
        and shape.slots <= spec.slots
        and (not shape.memory or spec.memory is None or shape.memory <= spec.memory)
        and all(spec.resources.get(name, 0) >= count for name, count in shape.resources)
    )
