"""Those who wait for jobs: who hears of what, and when nothing more comes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hq.core.events import Progress, Watched
from hq.core.jobs import LiveJob
from hq.core.selecting import NO_SUCH_JOB, named_jobs, passes, unknown_names
from hq.core.state import State
from hq.errors import RefusedError
from hq.model.rows import JobCounts
from hq.model.states import TaskState


@dataclass(slots=True)
class _Watcher:
    jobs: set[int]
    told: dict[int, JobCounts]  # of the jobs of which a few tasks were named: most of what happens to a large array changes nothing of a few tasks


def counts_of(job: LiveJob, only: tuple[int, ...] = ()) -> JobCounts:
    """Where a job's tasks stand, or those in `only`. `exit_code`: the worst of those that have finished (`hq.model.job.exit_code_of`)."""
    if only:
        states = Counter(job.state_of(index) for index in only)
        return JobCounts(
            id=job.id, tasks={state.value: count for state, count in states.items()}, is_finished=set(states) == {TaskState.FINISHED}, only=only
        )
    reason = job.last_reason
    if job.indices is None and job.tasks:
        reason = next(iter(job.tasks.values())).reason
    return JobCounts(id=job.id, tasks=job.counts(), is_finished=job.is_over, exit_code=job.worst, reason=reason)


class Watchers:
    """Tokens by job. News are the jobs that changed; the first word names all that are watched and live."""

    def __init__(self) -> None:
        self._by_token: dict[object, _Watcher] = {}
        self._by_job: dict[int, dict[object, None]] = {}

    def watch(self, state: State, event: Watched) -> None:
        """Begin. An id that is no live job is refused: the database may know it. Where filters find nothing, it is done at once."""
        self.unwatch(event.token)
        if unknown := unknown_names(state, event.selection, event.user):
            state.reply(event.token, RefusedError(f"{unknown[0]}: {NO_SUCH_JOB}"))
            return
        jobs = [job for job in named_jobs(state, event.selection, event.user) if passes(job, event.selection)]
        first = tuple(counts_of(job, event.only.get(job.id, ())) for job in jobs)
        open_jobs = {counts.id for counts in first if not counts.is_finished}
        state.reply(event.token, Progress(first, not open_jobs))
        if open_jobs:
            self._by_token[event.token] = _Watcher(open_jobs, {counts.id: counts for counts in first if counts.only})
            for id in open_jobs:
                self._by_job.setdefault(id, {})[event.token] = None

    def unwatch(self, token: object) -> None:
        """Forget a token."""
        watcher = self._by_token.pop(token, None)
        for id in watcher.jobs if watcher is not None else ():
            tokens = self._by_job[id]
            del tokens[token]
            if not tokens:
                del self._by_job[id]

    def tell(self, state: State) -> None:
        """Send the news of this step."""
        if not self._by_job:
            return
        news: dict[object, list[JobCounts]] = {}
        for id in sorted(state.touched & self._by_job.keys()):
            job = state.jobs.get(id) or state.ended[id]
            counts = counts_of(job)
            for token in self._by_job[id]:
                watcher = self._by_token[token]
                if id not in watcher.told:
                    news.setdefault(token, []).append(counts)
                elif (named := counts_of(job, watcher.told[id].only)) != watcher.told[id]:
                    watcher.told[id] = named
                    news.setdefault(token, []).append(named)
        for token, jobs in news.items():
            watcher = self._by_token[token]
            for counts in jobs:
                if counts.is_finished:
                    watcher.jobs.discard(counts.id)
                    tokens = self._by_job[counts.id]
                    del tokens[token]
                    if not tokens:
                        del self._by_job[counts.id]
            is_done = not watcher.jobs
            if is_done:
                del self._by_token[token]
            state.reply(token, Progress(tuple(jobs), is_done))
