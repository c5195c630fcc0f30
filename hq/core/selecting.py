"""Which live jobs and tasks a Selection means, for somebody."""

from __future__ import annotations

from collections.abc import Iterator

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


def named_indices(selection: Selection, job: LiveJob) -> list[int] | None:
    """The tasks of an array job that are named by themselves; None: the whole job is meant."""
    indices: list[int] = []
    is_named_whole = selection.is_all or selection.is_empty or any(first <= job.id <= last for first, last in selection.ranges)
    for key in selection.tasks:
        if key.job == job.id:
            if key.index == PLAIN:
                is_named_whole = True
            else:
                indices.append(key.index)
    return None if is_named_whole or not indices else list(dict.fromkeys(indices))


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
