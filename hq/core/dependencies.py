"""Jobs that are to start after others. What a job still waits for stands in its wishes, so all of it is in the database with the job.

An id stands there only while that job is live: the end of a job strikes it out, in the same step and so in the same transaction, or ends
those that wanted another end of it. Ids point to earlier jobs only, so there is no circle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hq.core.acts import cancel_job
from hq.core.jobs import LiveJob
from hq.core.state import State
from hq.errors import RefusedError
from hq.model.ids import PLAIN
from hq.model.job import Wishes
from hq.model.states import Outcome

#: How jobs came out that have ended: id → tasks by state, as `LiveJob.counts` says them.
Ended = Mapping[int, Mapping[str, int]]


def check_named(state: State, user: str, wishes: Wishes, ended: Ended) -> None:
    """Refuse to wait for what is no job of the user's. Raises RefusedError."""
    for option, ids in (("--after", wishes.after), ("--after-any", wishes.after_any)):
        for id in ids:
            if id not in ended and not _is_mine(state.jobs.get(id), user) and not _is_mine(state.ended.get(id), user):
                raise RefusedError(f"{option}: there is no job {id} of yours")


def _is_mine(job: LiveJob | None, user: str) -> bool:
    return job is not None and job.record.user == user


def still_open(state: State, wishes: Wishes, ended: Ended) -> tuple[Wishes, str]:
    """The wishes with what has not ended yet, and why they can never be met (or nothing)."""
    if not wishes.after and not wishes.after_any:
        return wishes, ""
    trouble = ""
    for id in wishes.after:
        counts = state.ended[id].counts() if id in state.ended else ended.get(id)
        if id not in state.jobs and counts is not None and not trouble:
            trouble = _trouble(id, counts)
    after, after_any = (tuple(id for id in ids if id in state.jobs) for ids in (wishes.after, wishes.after_any))
    return replace(wishes, after=after, after_any=after_any), trouble


def settle(state: State) -> None:
    """Let go what waited for jobs that have ended in this step, or end it, and what waits for that in turn."""
    while state.freed:
        job = state.freed.pop()
        trouble = _trouble(job.id, job.counts())
        for id in state.dependents.pop(job.id, ()):
            waiting = state.jobs.get(id)
            if waiting is None:
                continue
            wishes = waiting.record.wishes
            if trouble and job.id in wishes.after:
                cancel_job(state, waiting, trouble)
            elif job.id in wishes.after or job.id in wishes.after_any:
                after, after_any = (tuple(each for each in ids if each != job.id) for ids in (wishes.after, wishes.after_any))
                state.save_job(waiting, waiting.record.with_wishes(after=after, after_any=after_any))
                state.changes.events.append((state.now, id, PLAIN, 0, waiting.untouched_state.value, "", f"job {job.id} has ended"))
                state.enqueue(waiting)


def waits_for(wishes: Wishes) -> str:
    """What a job still waits for, in a few words; nothing if for nothing."""
    parts = [f"for {_jobs(wishes.after)} to end well"] if wishes.after else []
    parts += [f"for {_jobs(wishes.after_any)} to end"] if wishes.after_any else []
    return " and ".join(parts)


def explain_waiting(state: State, job: LiveJob) -> list[str]:
    """Sentences about what a job waits for."""
    wishes = job.record.wishes
    sentences = []
    for ids, end in ((wishes.after, "well, and is cancelled if it ends otherwise"), (wishes.after_any, "in any way")):
        for id in ids[:5]:
            other = state.jobs.get(id)
            if other is None:
                stands = f"of which nothing is known here any more: hq-client modify {job.id} --after none lets it go"
            else:
                stands = ", ".join(f"{count:,} {name}" if other.total > 1 else name for name, count in other.counts().items() if ":" not in name)
            sentences.append(f"It starts after job {id} has ended {end} ({stands}).")
        if len(ids) > 5:
            sentences.append(f"It also starts after {len(ids) - 5} more jobs have ended.")
    return sentences


def _jobs(ids: tuple[int, ...]) -> str:
    named = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"job{'s' if len(ids) > 1 else ''} {named}"


def _trouble(id: int, counts: Mapping[str, int]) -> str:
    """Why what was to start after a good end of a job never will; nothing if the end was good."""
    outcomes = {name.partition(":")[2]: count for name, count in counts.items() if ":" in name}
    bad = {name: count for name, count in outcomes.items() if name != Outcome.OK.value}
    if not bad:
        return ""
    how = ", ".join(f"{count:,} {name}" for name, count in bad.items()) + f" of {sum(outcomes.values()):,}" if sum(outcomes.values()) > 1 else next(iter(bad))
    return f"it was to start after job {id} had ended well, and that ended: {how}"
