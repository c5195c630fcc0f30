"""After the state database was restored from a backup: the ledger of each user-server says what the database has forgotten.

Until a user's ledger has been compared nothing of his starts. Then what has ended is recorded as it ended, what may be running is
believed to run until its host calls the roll, and jobs that the database has never heard of are taken back. A ledger that does not
reach back to the backup cannot vouch: what it does not name is held, and its owner decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hq.core import acts, holding, reports
from hq.core.events import LedgerCompared, LedgerGivenUp, RunsReported, UserServerCame
from hq.core.jobs import LiveJob
from hq.core.state import State
from hq.errors import RefusedError
from hq.model.host import HostRecord, HostSpec
from hq.model.ids import PLAIN
from hq.model.job import JobRecord, TaskRecord
from hq.model.restored import AWAITS, LAST_ID, MOST_BEYOND, RESTORED_ABOVE, RESTORED_AT, JobWord, Ranges, Tally, TaskWord
from hq.model.states import Outcome, TaskState

_CANCELLED = "cancelled before the state database was restored from a backup"
_ENDS = {
    Outcome.OK: "it ended well before the state database was restored from a backup; when and where is not known any more",
    Outcome.FAILED: "it failed before the state database was restored from a backup; with which exit code is not known any more",
    Outcome.LOST: "it ended before the state database was restored from a backup; how is not known any more",
}
_HELD = "held: the state database was restored from a backup, and whether this has run since is not known"


def restore(state: State, settings: dict[str, str]) -> None:
    """Read from the settings what is awaited."""
    known = state.restored
    known.above, known.moment = int(settings.get(RESTORED_ABOVE, "0")), float(settings.get(RESTORED_AT, "0"))
    known.awaited = {name.removeprefix(AWAITS) for name, value in settings.items() if name.startswith(AWAITS) and value == "1"}


def is_awaited(state: State, user: str) -> bool:
    """Whether the ledger of a user is awaited, so that reports and rolls would meet a database that has forgotten what they are about."""
    return user in state.restored.awaited


def note_last_job(state: State, event: UserServerCame) -> None:
    """Ids go on above any that a user-server has seen."""
    if state.last_id < event.last_job <= state.last_id + MOST_BEYOND:
        state.last_id = event.last_job
        state.changes.settings[LAST_ID] = str(event.last_job)


def compared(state: State, event: LedgerCompared) -> None:
    """Take in what a ledger says. Repeated, it changes nothing more."""
    tally = Tally()
    if event.user in state.restored.awaited:
        for digest, body in event.blobs.items():
            state.changes.blobs[digest] = (event.user, body)
        for word in event.jobs:
            tally = tally.plus(_compare(state, event, word))
        if event.is_last:
            if not 0 < event.since <= state.restored.moment:
                tally = tally.plus(Tally(held=_hold_all(state, event.user)))
            _settle(state, event.user)
            state.audit(event.user, "ledger compared", event.user, "database", str(tally)[:1000], role="user-server")
    state.reply(event.token, tally)


def given_up(state: State, event: LedgerGivenUp) -> None:
    """Nobody waits for a ledger any more. What it would have vouched for is held."""
    if event.user not in state.restored.awaited:
        state.reply(event.token, RefusedError(f"no ledger of '{event.user}' is awaited"))
        return
    held = _hold_all(state, event.user)
    _settle(state, event.user)
    state.audit(event.actor, "forgetledger", event.user, "database", f"{held} jobs held")
    state.reply(event.token, f"the ledger of {event.user} is not awaited any more; {held} jobs of his are held until they are released")


def _settle(state: State, user: str) -> None:
    state.restored.awaited.discard(user)
    state.changes.settings[AWAITS + user] = "0"
    state.is_dirty = True


def _hold_all(state: State, user: str) -> int:
    """Hold what waits of a user's jobs from before the restore."""
    ids = [id for id in state.jobs_of.get(user, ()) if id <= state.restored.above]
    held = 0
    for id in ids:
        if holding.hold_whole(state, state.jobs[id], _HELD)[0]:
            state.changes.events.append((state.now, id, PLAIN, 0, TaskState.HELD.value, "", _HELD))
            held += 1
    return held


def _compare(state: State, event: LedgerCompared, word: JobWord) -> Tally:
    job = state.jobs.get(word.id)
    tally = Tally()
    if job is None:
        if word.id <= state.restored.above or (event.user, word.key) in state.submissions:
            return tally  # it has ended, as the database knows, or was submitted once more
        job = _take_back(state, event, word)
        if job is None:
            return Tally(unknown=(word.id,))
        tally = Tally(taken_back=(word.id,))
    elif job.record.user != event.user or (word.key and job.record.spec.key != word.key):
        return Tally(unknown=(word.id,))
    ended, running = _replay(state, event, job, word)
    # first: what had ended when the rest was cancelled was not cancelled
    for outcome, ranges in ((Outcome.OK, word.well), (Outcome.FAILED, word.failed), (Outcome.LOST, word.spent)):
        for index in _unfinished(state, job, ranges):
            task = job.tasks.get(index) or _untouched(state, job, index)
            reports.finish(state, job, task, outcome, _ENDS[outcome], 0 if outcome is Outcome.OK else None)
            ended += 1
    if word.is_cancelled and job.id in state.jobs:
        acts.cancel_job(state, job, _CANCELLED)
    for index in _unfinished(state, job, word.cancelled):
        acts.cancel_task(state, job, index, _CANCELLED)
    return tally.plus(Tally(ended=ended, running=running))


def _take_back(state: State, event: LedgerCompared, word: JobWord) -> LiveJob | None:
    """A job that was submitted after the backup: it keeps its id."""
    if word.spec is None or word.signed is None or word.id > state.last_id:
        return None
    submitted = min(state.now, word.submitted + event.skew)
    record = JobRecord(id=word.id, user=event.user, spec=word.spec, signed=word.signed, wishes=word.wishes, submitted=submitted)
    job = state.add_job(record)
    state.submissions[event.user, word.key] = record.id
    state.save_job(job, record)
    state.changes.events.append((state.now, record.id, PLAIN, 0, job.untouched_state.value, "", "taken back after a restore of the state database"))
    state.enqueue(job)
    return job


def _replay(state: State, event: LedgerCompared, job: LiveJob, word: JobWord) -> tuple[int, int]:
    """Let the reports that the database has forgotten come once more. Returns how many tasks have ended by that, and how many may be running."""
    ended = running = 0
    for said in word.tasks:
        if not job.has(said.index) or job.id not in state.jobs or job.state_of(said.index) is TaskState.FINISHED:
            continue
        if not _place(state, job, said, is_stopped=_is_in(said.index, word.cancelled) or (word.is_cancelled and not _is_in(said.index, word.spent))):
            continue
        reports.reported(state, RunsReported(user=event.user, host=said.host, reports=said.reports, skew=event.skew, is_past=True))
        now = job.state_of(said.index)
        ended += now is TaskState.FINISHED
        running += now.is_placed
    return ended, running


def _is_in(index: int, ranges: Ranges) -> bool:
    return any(first <= index <= last for first, last in ranges)


def _place(state: State, job: LiveJob, said: TaskWord, *, is_stopped: bool) -> bool:
    """Put the task where its newest attempt was sent; `is_stopped`: it was cancelled then. False: the database knows as much, or more."""
    task = job.tasks.get(said.index) or _untouched(state, job, said.index)
    if task.attempt == said.attempt and task.state.is_placed and task.host == said.host:
        if is_stopped:
            state.put(job, replace(task, outcome=Outcome.CANCELLED, reason=_CANCELLED))
        return True
    if task.attempt >= said.attempt:
        return False
    if task.state.is_placed:
        reports.wait_again(state, job, task, task.reason)
        task = job.tasks[said.index]
    if task.state is TaskState.HELD:
        state.move(job, replace(task, state=TaskState.WAITING, since=state.now))
    if said.host not in state.hosts:
        spec = HostSpec(name=said.host, address=said.host, total=1, slots=1, is_active=False)
        state.add_host(HostRecord(spec=spec, is_active=False, is_listed=False))
    state.move(
        job,
        TaskRecord(job=job.id, index=said.index, attempt=said.attempt, state=TaskState.STARTING, user=job.record.user,
                   slots=job.record.spec.slots, host=said.host, since=state.now, outcome=Outcome.CANCELLED if is_stopped else None,
                   reason=_CANCELLED if is_stopped else "as the ledger of its user-server says"),
    )  # fmt: skip
    return True


def _untouched(state: State, job: LiveJob, index: int) -> TaskRecord:
    return TaskRecord(job=job.id, index=index, attempt=0, state=job.untouched_state, user=job.record.user, slots=job.record.spec.slots, since=state.now)


def _unfinished(state: State, job: LiveJob, ranges: Ranges) -> Iterator[int]:
    """The tasks of these ranges that have not ended."""
    for first, last in ranges:
        few = range(first, last + 1)
        for index in few if len(few) <= job.total or job.indices is None else job.indices:
            if job.id in state.jobs and first <= index <= last and job.has(index) and job.state_of(index) is not TaskState.FINISHED:
                yield index
