"""job.watch: progress of jobs that are live from the core, of jobs that have ended from the database, merged into one stream.

Where single tasks of an array are named, the core tells when they have ended, and the listings, live and ended, how.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from hq.core.events import Progress, Unwatched, Watched
from hq.core.selecting import NO_SUCH_JOB
from hq.db import queries
from hq.errors import HqError, InputError, RefusedError
from hq.model.ids import PLAIN, TaskKey, parse_task_key
from hq.model.job import exit_code_of
from hq.model.rows import JobCounts, Row
from hq.model.selection import Selection
from hq.model.states import Outcome, TaskState
from hq.protocol.base import Message
from hq.protocol.jobs import JobProgress
from hq.server.handlers_reads import list_rows
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


def named_tasks(selection: Selection) -> dict[int, tuple[int, ...]]:
    """The tasks that are named by themselves, of jobs that are not named as a whole, too."""
    whole = {key.job for key in selection.tasks if key.index == PLAIN}.union(*(range(first, last + 1) for first, last in selection.ranges))
    found: dict[int, dict[int, None]] = {}
    for key in selection.tasks:
        if key.job not in whole:
            found.setdefault(key.job, {})[key.index] = None
    return {job: tuple(indices) for job, indices in found.items()}


def start(server: Server, request: Request, selection: Selection) -> None:
    """Begin to watch. What of the named jobs the core does not tell of has ended, and comes from the database with the first word."""
    names = named_ids(selection)
    only = named_tasks(selection)
    user = request.caller.user
    for key in selection.tasks:
        job = server.cluster.job(key.job)
        if job is not None and job.record.user == user and key.index != PLAIN and not job.has(key.index):
            raise RefusedError(f"{key}: {NO_SUCH_JOB}")
    live = [each for each in names if (job := server.cluster.job(each)) is not None and job.record.user == user]
    if selection.is_all:
        only = {job: indices for job, indices in only.items() if job not in live}
    watch = _Watch(server, request, selection, names, only)
    if live or not names or selection.is_all:
        # by ranges: what ends before the step that begins the watch is no error
        watch.begin(replace(selection, tasks=(), ranges=tuple((each, each) for each in live)))
    else:
        # an end that is under way must have reached the database
        server.when_settled(request, watch.look)


class _Watch:
    """One watch on its way through the core: its first word waits for what the database knows of the jobs that have ended.

    A job that the core's first word does not name ended in that step or before, so that the database knows it by then.
    """

    def __init__(self, server: Server, request: Request, selection: Selection, names: list[int], only: dict[int, tuple[int, ...]]) -> None:
        self._server = server
        self._request = request
        self._singles = {key.job for key in selection.tasks}
        self._missing: list[int] | None = None  # not known before the first word
        self._names = names
        self._only = only
        self._jobs: list[JobCounts] = []  # told while the database is asked
        self._is_done = False
        self._asking = 0  # questions to the database that are under way
        self._has_failed = False
        self._session = server.sessions.at(request.caller.user, request.peer)
        self._token = replace(request, render=self._render, takes_errors=True)

    def begin(self, selection: Selection) -> None:
        """Let the core tell about `selection`, the part of what was asked that is live."""
        if self._session is not None:
            self._session.watches.add(self._token)
        self._server.add(Watched(token=self._token, user=self._request.caller.user, selection=selection, only=self._only))

    def look(self) -> None:
        """Nothing of it is live: the database tells all there is."""
        self.take(Progress((), True))

    def _render(self, value: object) -> Message | None:
        if isinstance(value, HqError):
            self._leave()
            self._request.fail(value)
            return None
        assert isinstance(value, Progress)
        return self.take(value)

    def take(self, news: Progress) -> Message | None:
        """The core's word. Returns what is to be told now."""
        ended = [counts.id for counts in news.jobs if counts.only and counts.is_finished]
        self._jobs += [counts for counts in news.jobs if counts.id not in ended]
        self._is_done = news.is_done
        if self._missing is None:
            told = {counts.id for counts in news.jobs}
            missing = [each for each in self._names if each not in told]
            self._missing = [each for each in missing if each not in self._only]
            ended += [each for each in missing if each in self._only]
            if self._missing:
                self._asking += 1
                engine, user, names = self._server.store.engine, self._request.caller.user, self._missing
                self._server.ask(self._asker(), lambda: queries.ended_counts(engine, names, user), self._looked)
        if ended:
            self._asking += 1
            keys = tuple(TaskKey(job, index) for job in ended for index in self._only[job])
            list_rows(self._server, self._asker(), Selection(tasks=keys), self._request.caller.user, by_task=False, limit=None,
                      then=lambda rows, is_cut: self._looked_at_tasks(ended, rows))  # fmt: skip
        return None if self._asking else self._word()

    def _asker(self) -> Request:
        return replace(self._request, send=self._failed)

    def _looked(self, found: dict[int, JobCounts]) -> None:
        assert self._missing is not None
        for each in self._missing:
            if each not in found and each in self._singles:
                raise RefusedError(f"there is no job {each} of yours")
        if not found and not self._jobs and self._is_done and self._asking == 1:
            raise RefusedError("there are no such jobs of yours")
        self._answered([found[each] for each in self._missing if each in found])

    def _looked_at_tasks(self, jobs: list[int], rows: tuple[Row, ...]) -> None:
        found = {parse_task_key(row.task): row for row in rows}
        for job in jobs:
            for index in self._only[job]:
                if TaskKey(job, index) not in found:
                    raise RefusedError(f"there is no job {TaskKey(job, index)} of yours")
        self._answered([_counts_of_rows(job, self._only[job], [found[TaskKey(job, index)] for index in self._only[job]]) for job in jobs])

    def _answered(self, jobs: list[JobCounts]) -> None:
        self._asking -= 1
        self._jobs[:0] = jobs
        if not self._asking and not self._has_failed:
            self._request.reply(self._word())

    def _word(self) -> Message:
        if self._is_done:
            self._leave()
        # of a job that changed while the database was asked the latest word counts
        jobs, self._jobs = {counts.id: counts for counts in self._jobs}, []
        return JobProgress(jobs=tuple(jobs.values()), is_done=self._is_done)

    def _failed(self, problem: Message) -> None:
        if self._has_failed:
            return
        self._has_failed = True
        self._leave()
        self._server.add(Unwatched(self._token))
        self._request.reply(problem)

    def _leave(self) -> None:
        if self._session is not None:
            self._session.watches.discard(self._token)


def _counts_of_rows(job: int, only: tuple[int, ...], rows: list[Row]) -> JobCounts:
    """How the tasks of one job came out that were named by themselves."""
    outcomes = Counter(row.outcome or "" for row in rows)
    code = max(exit_code_of(Outcome(row.outcome), row.exit_code, row.signal) for row in rows)
    tasks = {TaskState.FINISHED.value: len(rows)} | {f"{TaskState.FINISHED.value}:{name}": count for name, count in outcomes.items()}
    return JobCounts(job, tasks, True, code, next((row.reason for row in rows if row.reason), ""), only)


def stop(server: Server, request: Request, number: int) -> None:
    """Nobody listens any more to the watch that this connection asked for by its request `number`."""
    session = server.sessions.at(request.caller.user, request.peer)
    for token in [each for each in session.watches if each.number == number] if session is not None else []:
        assert session is not None
        session.watches.discard(token)
        server.add(Unwatched(token))
