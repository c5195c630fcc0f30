"""Taking in jobs: all or none, checked to the end before anything changes."""

from __future__ import annotations

from hq.core.acts import cancel_job
from hq.core.demands import check_host_names, check_possible, refusal
from hq.core.dependencies import check_named, still_open, waits_for
from hq.core.events import Accepted, JobsSubmitted, Submission
from hq.core.jobs import LiveJob, Shape, shape_of
from hq.core.state import State
from hq.errors import HqError, NotAllowedError
from hq.model.ids import PLAIN
from hq.model.job import JobRecord, check_spec, check_wishes


def submitted(state: State, event: JobsSubmitted) -> None:
    """Take jobs in. Replies with a list of Accepted, or with the first error; then nothing of the event is kept."""
    try:
        records = _checked(state, event)
    except HqError as error:
        state.reply(event.token, error)
        return
    accepted: list[Accepted] = []
    for item, record in zip(event.jobs, records, strict=True):
        known = state.submissions.get((event.user, item.key))
        if known is not None:
            live = state.jobs.get(known)
            total = live.total if live is not None else _tasks(record)
            accepted.append(Accepted(item.key, known, total, "was submitted before"))
        elif event.is_dry_run:
            accepted.append(Accepted(item.key, 0, _tasks(record), _dry_run(state, record, event)))
        else:
            accepted.append(_accept(state, event, item, record))
    if not event.is_dry_run:
        for digest, body in event.blobs.items():
            state.changes.blobs[digest] = (event.user, body)
    state.reply(event.token, accepted)


def _tasks(record: JobRecord) -> int:
    indices = record.index_set()
    return 1 if indices is None else len(indices)


def _checked(state: State, event: JobsSubmitted) -> list[JobRecord]:
    user = state.user(event.user)
    if user is None:
        raise NotAllowedError(f"'{event.user}' is not a user of this cluster: its owner adds you with hq-admin adduser")
    if not user.is_enabled:
        raise NotAllowedError(f"the user '{event.user}' is disabled: ask the cluster's owner")
    records = []
    possible: set[Shape] = set()
    for item in event.jobs:
        spec, wishes = item.spec, item.wishes
        if spec.user != event.user:
            raise NotAllowedError(f"a job signed for '{spec.user}' was submitted by '{event.user}'")
        if spec.instance != state.instance:
            raise NotAllowedError(f"the job is signed for the instance '{spec.instance}', this is '{state.instance}'")
        if spec.key != item.key:
            raise NotAllowedError("the submission key is not the one that was signed")
        check_spec(spec)
        check_wishes(wishes)
        check_host_names(state, wishes.hosts, "--hosts")
        check_host_names(state, wishes.exclude, "--exclude-hosts")
        if (event.user, item.key) not in state.submissions:
            check_named(state, event.user, wishes, event.ended)
        record = JobRecord(id=0, user=event.user, spec=spec, signed=item.signed, wishes=wishes, submitted=state.now)
        shape = shape_of(record)
        if shape not in possible:
            check_possible(state, shape)
            possible.add(shape)
        records.append(record)
    return records


def _dry_run(state: State, record: JobRecord, event: JobsSubmitted) -> str:
    wishes, trouble = still_open(state, record.wishes, event.ended)
    if trouble:
        return f"would be cancelled at once: {trouble}"
    waits = waits_for(wishes)
    return f"would wait {waits}" if waits else where_it_would_start(state, shape_of(record), wishes.begin)


def _accept(state: State, event: JobsSubmitted, item: Submission, checked: JobRecord) -> Accepted:
    user = event.user
    wishes, trouble = still_open(state, checked.wishes, event.ended)
    state.last_id += 1
    record = JobRecord(id=state.last_id, user=user, spec=checked.spec, signed=checked.signed, wishes=state.common(wishes), submitted=state.now)
    job = state.add_job(record)
    state.submissions[user, item.key] = record.id
    state.save_job(job, record)
    state.changes.events.append((state.now, record.id, PLAIN, 0, job.untouched_state.value, "", "submitted"))
    if trouble:
        # as it would have been if the other had ended a moment later
        cancel_job(state, job, trouble)
        return Accepted(item.key, record.id, job.total, f"cancelled: {trouble}")
    state.enqueue(job)
    return Accepted(item.key, record.id, job.total, _warning(state, job))


def _warning(state: State, job: LiveJob) -> str:
    if not state.is_active:
        return "the cluster is switched off: the job waits until its owner switches it on"
    if all(host.closed() is not None for host in state.hosts.values()):
        return "no host is open at present: the job waits"
    return ""


def where_it_would_start(state: State, shape: Shape, begin: float | None = None) -> str:
    """A sentence for a dry run."""
    if not state.is_active:
        return "would wait: the cluster is switched off"
    if begin is not None and begin > state.now:
        return "would wait for its begin time"
    refused = [(refusal(state, shape, host, state.now), host) for host in state.hosts.values()]
    fitting = [host for why, host in refused if why is None]
    if fitting:
        best = max(fitting, key=lambda host: (host.free, -host.order))
        ahead = " after the jobs that wait before it" if any(state.queues.values()) else ""
        return f"would start on {best.name}{ahead}"
    reasons = "; ".join(f"{host.name} {why[1]}" for why, host in refused[:3] if why is not None)
    return f"would wait: {reasons}"
