"""Which live jobs and tasks a Selection means, for somebody."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate

from hq.core.jobs import LiveJob
from hq.core.state import State
from hq.model.ids import PLAIN, TaskKey
from hq.model.job import JobRecord
from hq.model.selection import Selection
from hq.model.text import printable

#: Another user's job answers like one that never was.
NO_SUCH_JOB = "no such job, or it has ended"


def visible(state: State, id: int, user: str | None) -> LiveJob | None:
    """A live job that `user` may see; None sees all. Another user's job looks exactly like none."""
    job = state.jobs.get(id)
    return job if job is not None and (user is None or job.record.user == user) else None


def named_jobs(state: State, selection: Selection, user: str | None) -> Iterator[LiveJob]:
    """The jobs that ids, ranges, `last` and `all` name (all of the user's for an empty selection), each once, by rising id."""
    mine = state.jobs if user is None else state.jobs_of.get(user, {})
    if selection.is_all or selection.is_empty:
        ids = set(mine)
    else:
        ids = {key.job for key in selection.tasks}
        for first, last in selection.ranges:
            # whichever is shorter: a range may be as long as numbers go
            ids.update(range(first, last + 1) if last - first < len(mine) else (id for id in mine if first <= id <= last))
        if selection.is_last and (latest := _latest(state, user)) is not None:
            ids.add(latest)
    for id in sorted(ids):
        job = visible(state, id, user)
        if job is not None:
            yield job


def _latest(state: State, user: str | None) -> int | None:
    return (state.last_id or None) if user is None else state.last_job(user)


def passes(job: LiveJob, selection: Selection) -> bool:
    """Whether the filters let a job through."""
    wishes = job.record.wishes
    if selection.group is not None and wishes.group != selection.group:
        return False
    if selection.since is not None and job.record.submitted < selection.since:
        return False
    if selection.states:
        counts = job.counts()
        if not any(state in counts or f"finished:{state}" in counts for state in selection.states):
            return False
    if selection.text is not None:
        needle = selection.text.casefold()
        texts = (job.record.spec.name, command_of(job.record), wishes.group, wishes.info)
        if not any(needle in text.casefold() for text in texts):
            return False
    return True


class Named:
    """The tasks of arrays that a selection names by themselves. Read once: thousands of names may meet thousands of jobs."""

    def __init__(self, selection: Selection) -> None:
        self._is_all = selection.is_all or selection.is_empty
        self._whole = {key.job for key in selection.tasks if key.index == PLAIN}
        self._indices: dict[int, dict[int, None]] = {}
        for key in selection.tasks:
            if key.index != PLAIN:
                self._indices.setdefault(key.job, {})[key.index] = None
        ranges = sorted(selection.ranges)
        self._firsts = [first for first, _ in ranges]
        self._reach = list(accumulate((last for _, last in ranges), max))

    def indices(self, job: LiveJob) -> list[int] | None:
        """Those of this job; None: the whole job is meant."""
        found = self._indices.get(job.id)
        if found is None or self._is_all or job.id in self._whole:
            return None
        at = bisect_right(self._firsts, job.id) - 1
        return None if at >= 0 and self._reach[at] >= job.id else list(found)


def unknown_names(state: State, selection: Selection, user: str | None) -> list[TaskKey]:
    """Named ids that are no live job of the user's, or no task of it."""
    unknown = []
    for key in dict.fromkeys(selection.tasks):
        job = visible(state, key.job, user)
        if job is None or (key.index != PLAIN and not job.has(key.index)):
            unknown.append(key)
    return unknown


def command_of(record: JobRecord) -> str:
    """A job's command as one line for people."""
    words = " ".join(printable(word) for word in record.spec.argv)
    return f"(script) {words}".rstrip() if record.spec.script else words
