"""job.watch: progress of jobs that are live from the core, of jobs that have ended from the database, merged into one stream."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hq.core.events import Progress, Unwatched, Watched
from hq.db import queries
from hq.errors import HqError, InputError, RefusedError
from hq.model.rows import JobCounts
from hq.model.selection import Selection
from hq.protocol.base import Message
from hq.protocol.jobs import JobProgress
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

#: Ids that a watch may name by ranges.
MAX_RANGE = 100_000


def named_ids(selection: Selection) -> list[int]:
    """The job ids that the selection names. Raises InputError for ranges beyond measure."""
    if sum(last - first + 1 for first, last in selection.ranges) > MAX_RANGE:
        raise InputError(f"more than {MAX_RANGE:,} jobs cannot be watched by ranges: name a group, or 'all'")
    return list(dict.fromkeys([key.job for key in selection.tasks] + [each for first, last in selection.ranges for each in range(first, last + 1)]))


def start(server: Server, request: Request, selection: Selection) -> None:
    """Begin to watch. Jobs that are named and were over before come from the database, once."""
    named_ids(selection)
    server.when_settled(request, lambda: _look(server, request, selection, 0))


def _look(server: Server, request: Request, selection: Selection, attempt: int) -> None:
    user = request.caller.user
    names = named_ids(selection)
    live = {each for each in names if (job := server.cluster.job(each)) is not None and job.record.user == user}
    gone = [each for each in names if each not in live]
    singles = {key.job for key in selection.tasks}
    narrowed = replace(selection, tasks=tuple(key for key in selection.tasks if key.job in live),
                       ranges=tuple((each, each) for each in sorted(live - singles)))  # fmt: skip
    if not gone:
        _watch(server, request, selection, narrowed, (), attempt)
        return

    def take(found: dict[int, JobCounts]) -> None:
        for each in gone:
            if each not in found and each in singles:
                raise RefusedError(f"there is no job {each} of yours")
        ended = tuple(found[each] for each in gone if each in found)
        if live or selection.is_all or selection.is_empty:
            _watch(server, request, selection, narrowed, ended, attempt)
        elif not ended:
            raise RefusedError("there are no such jobs of yours")
        else:
            request.reply(JobProgress(jobs=ended, is_done=True))

    server.ask(request, lambda: queries.ended_counts(server.store.engine, gone, user), take)


def _watch(
    server: Server, request: Request, asked: Selection, selection: Selection, ended: tuple[JobCounts, ...], attempt: int
) -> None:
    """Let the core tell about `selection`, the part of what was asked that is live. `ended` goes with its first word."""
    user = request.caller.user
    session = server.sessions.at(user, request.peer)
    live = {key.job for key in selection.tasks} | {each for each, _ in selection.ranges}
    is_first = [True]
    token: Request

    def render(value: object) -> Message | None:
        told = {counts.id for counts in value.jobs} if isinstance(value, Progress) else set()
        if is_first and live - told and attempt < 3:
            # one of them ended between the look and the step: now it stands in the database
            _leave()
            server.add(Unwatched(token))
            server.when_settled(request, lambda: _look(server, request, asked, attempt + 1))
            return None
        if isinstance(value, HqError):
            _leave()
            request.fail(value)
            return None
        assert isinstance(value, Progress)
        jobs = (*(ended if is_first else ()), *value.jobs)
        is_first.clear()
        if value.is_done:
            _leave()
        return JobProgress(jobs=jobs, is_done=value.is_done)

    def _leave() -> None:
        if session is not None:
            session.watches.discard(token)

    token = replace(request, render=render, takes_errors=True)
    if session is not None:
        session.watches.add(token)
    server.add(Watched(token=token, user=user, selection=selection))


def stop(server: Server, request: Request, number: int) -> None:
    """Nobody listens any more to the watch that this connection asked for by its request `number`."""
    session = server.sessions.at(request.caller.user, request.peer)
    for token in [each for each in session.watches if each.number == number] if session is not None else []:
        assert session is not None
        session.watches.discard(token)
        server.add(Unwatched(token))
