"""The queues of waiting jobs, one for each shape: who stands where, and what of it could start by the jobs' own conditions.

A queue is a heap of ranks, one integer a job: his priority among his owner's, then first come. An entry counts while the job's `entry` is
that rank and its shape is the queue's; all others are what was left behind by a change, and are passed over. Whose turn it is among users
is the business of `fairshare`, where there is room that of `placement`.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from hq.core.jobs import LiveJob, Shape
from hq.core.placement import in_order
from hq.model.job import MAX_PRIORITY, JobRecord

if TYPE_CHECKING:
    from hq.core.state import State

#: Bits of a rank that hold the job's id.
_ID_BITS = 63
_ID_MASK = (1 << _ID_BITS) - 1


def rank_of(record: JobRecord) -> int:
    """Where a job stands among those of its owner: the lower, the sooner."""
    return (MAX_PRIORITY - record.wishes.priority) << _ID_BITS | record.id


def id_of(rank: int) -> int:
    """The job that has a rank."""
    return rank & _ID_MASK


def enqueue(state: State, job: LiveJob) -> None:
    """Put a job into the queue of its shape if something of it could start by the job's own conditions."""
    if job.id not in state.jobs:
        return
    if job.entry is not None:
        state.is_dirty = True
        return
    begin = job.record.wishes.begin
    if begin is not None and begin > state.now:
        heappush(state.begins, (begin, job.id))
        return
    if job.startable(state.now):
        job.entry = rank_of(job.record)
        heappush(state.queues.setdefault(job.shape, []), job.entry)
        state.is_dirty = True


def is_current(state: State, shape: Shape, rank: int) -> LiveJob | None:
    """The job of an entry, None if the entry was left behind."""
    job = state.jobs.get(rank & _ID_MASK)
    return job if job is not None and job.entry == rank and job.shape == shape else None


def waiting_in(state: State, shape: Shape) -> Iterator[tuple[int, int, int]]:
    """The jobs of a shape in order: rank, id, and how many tasks each may start now."""
    last = None
    for rank in in_order(state.queues[shape]):
        if rank == last:
            continue  # it left and came back
        last = rank
        job = is_current(state, shape, rank)
        if job is not None and (count := job.startable(state.now)):
            yield rank, job.id, count
            continue
        state.stale[shape] = state.stale.get(shape, 0) + 1


def prune(state: State, shape: Shape) -> None:
    """Take jobs off the top of a queue that have nothing to start."""
    heap = state.queues[shape]
    while heap:
        job = is_current(state, shape, heap[0])
        if job is not None:
            if job.startable(state.now):
                return
            job.entry = None
        heappop(heap)
    del state.queues[shape]


def sweep(state: State, shape: Shape) -> None:
    """As prune, everywhere in the queue: for after many of its jobs left from the middle."""
    kept = []
    for rank in dict.fromkeys(state.queues[shape]):
        job = is_current(state, shape, rank)
        if job is None:
            continue
        if job.startable(state.now):
            kept.append(rank)
        else:
            job.entry = None
    if kept:
        heapify(kept)
        state.queues[shape] = kept
    else:
        del state.queues[shape]
