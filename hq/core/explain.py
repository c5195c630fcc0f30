"""Why a task waits, where it runs: sentences for people, with what would let it start now. Ended ones are explained from the database."""

from __future__ import annotations

from hq.core.demands import refusal
from hq.core.dependencies import explain_waiting
from hq.core.jobs import LiveJob
from hq.core.placement import in_order
from hq.core.queues import is_current, rank_of
from hq.core.state import State
from hq.model.batch import BATCH_BACKENDS
from hq.model.ids import PLAIN, TaskKey
from hq.model.job import TaskRecord
from hq.model.quantities import format_bytes, format_seconds
from hq.model.states import LinkState, Outcome, TaskState
from hq.model.text import printable

_MOST_NAMED = 5
_MOST_LOOKED_AT = 10_000

#: What would help against each kind of refusal.
_HELP = {
    "closed": "the cluster's owner opens a host: hq-admin activatehost HOST",
    "wishes": "more hosts are allowed: hq-client modify ID --hosts or --exclude-hosts",
    "too small": "less is asked for: fewer slots, memory or resources",
    "link": "your exec-server starts there: hq-client checkhost HOST shows the step that fails",
    "full": "running tasks end and free their slots",
    "memory": "running tasks end and free their memory",
    "resource": "running tasks end and free what they hold",
    "load": "the load there goes down",
}


def explain(cluster: State, task: TaskKey, now: float) -> list[str]:
    """Sentences about a live job or task; empty if there is none of that name. The caller has checked whose it is."""
    job = cluster.job(task.job)
    if job is None:
        return []
    if job.indices is not None and task.index == PLAIN:
        return _array(cluster, job, now)
    if not job.has(task.index):
        return []
    record = job.tasks.get(task.index)
    state = job.state_of(task.index)
    name = str(task)
    if state is TaskState.HELD:
        by = f" ({printable(record.reason)})" if record is not None and record.reason else ""
        return [f"{name} is held{by}. It starts no sooner than you release it: hq-client release {name}", *explain_waiting(cluster, job)]
    if state is TaskState.WAITING:
        return [f"{name} waits{_earlier(record)}.", *_waiting(cluster, job, task.index, now)]
    if record is None or state is TaskState.FINISHED:
        return [f"{name} has ended: it was cancelled." if record is None else f"{name} has ended: {_ended(record)}."]
    return _placed(cluster, name, record, now)


def _earlier(record: TaskRecord | None) -> str:
    return f" again: {printable(record.reason)}" if record is not None and record.reason else ""


def _ended(record: TaskRecord) -> str:
    assert record.outcome is not None
    return record.outcome.value + (f", {printable(record.reason)}" if record.reason else "")


def _array(cluster: State, job: LiveJob, now: float) -> list[str]:
    counts = ", ".join(f"{count:,} {state}" for state, count in job.counts().items() if ":" not in state)
    sentences = [f"{job.id} is an array of {job.total:,} tasks: {counts}."]
    waiting = job.next_waiting()
    if waiting is not None:
        sentences += [f"The next to start is {job.key(waiting)}.", *_waiting(cluster, job, waiting, now)]
    elif job.record.wishes.is_held:
        sentences.append(f"The job is held. Nothing more of it starts until you release it: hq-client release {job.id}")
    return sentences


def _placed(cluster: State, name: str, task: TaskRecord, now: float) -> list[str]:
    sentences = []
    if task.shown_state is TaskState.HELD:
        sentences.append(f"{name} is held on {task.host} (attempt {task.attempt}). It starts no sooner than you release it: hq-client release {name}")
        if task.reason:
            sentences.append(f"There: {printable(task.reason)}.")
    elif task.state is TaskState.STARTING:
        sentences.append(f"{name} is being started on {task.host} (attempt {task.attempt}, for {format_seconds(now - task.since)}).")
        if not task.slots:
            sentences[-1] = f"{name} is queued on {task.host} and begins when a task before it ends there (attempt {task.attempt}, for {format_seconds(now - task.since)})."
        if task.reason and task.outcome is None:
            sentences.append(f"It is {printable(task.reason)}.")
        sentences += _routed(cluster, task)
    elif task.state is TaskState.RUNNING:
        since = task.started if task.started is not None else task.since
        sentences.append(f"{name} runs on {task.host} (attempt {task.attempt}, for {format_seconds(max(0.0, now - since))}).")
        sentences += _routed(cluster, task)
    elif task.state is TaskState.SUSPENDED:
        sentences.append(f"{name} is suspended on {task.host}. A signal CONT lets it go on: hq-client signal {name} CONT")
    else:
        sentences.append(f"{name} was on {task.host}, which is lost: {printable(task.reason) or 'it is not heard'}. How it stands is not known.")
        sentences.append(f"It goes on when the host is heard again, or you decide: hq-client resolve {name} --as ok|failed|lost|requeue")
    if task.outcome is Outcome.CANCELLED:
        sentences.append(f"It is being stopped: {printable(task.reason)}.")
    elif task.outcome is Outcome.LOST:
        sentences.append(f"Its attempt is being stopped, then it waits again: {printable(task.reason)}.")
    link = cluster.link(task.user, task.host)
    if task.user not in cluster.present:
        sentences.append(_absent(cluster, task.user))
    elif link.state in (LinkState.FAILED, LinkState.SUSPECT):
        word = "could not be started" if link.state is LinkState.FAILED else "is silent"
        sentences.append(f"Your exec-server on {task.host} {word}: {printable(link.reason) or 'no reason was given'}")
    return sentences


def _routed(cluster: State, task: TaskRecord) -> list[str]:
    """Why it went to a batch system, where it was not sent there."""
    host, job = cluster.hosts.get(task.host), cluster.jobs[task.job]
    if host is None or host.spec.backend not in BATCH_BACKENDS or job.record.wishes.hosts:
        return []
    return [f"It went to the batch system {task.host}, for no host of the cluster's own had room for it: those are filled first."]


def _absent(cluster: State, user: str) -> str:
    why = cluster.gone.get(user)
    last = f" (it went: {printable(why)})" if why else ""
    return f"Your user-server is not here{last}: run hq-client info on your login machine."


def _waiting(cluster: State, job: LiveJob, index: int, now: float) -> list[str]:
    record, wishes = job.record, job.record.wishes
    sentences: list[str] = []
    if not cluster.is_active:
        sentences.append("The cluster is switched off: nothing is started until its owner activates it.")
    user = cluster.user(record.user)
    if user is None or not user.is_enabled:
        sentences.append(f"The user {record.user} is disabled: the cluster's owner can enable him.")
    elif record.user not in cluster.present:
        sentences.append(_absent(cluster, record.user))
    if record.user in cluster.restored.awaited:
        sentences.append("The state database was restored from a backup: nothing of yours starts until the ledger of your user-server was compared with it.")
    if wishes.begin is not None and wishes.begin > now:
        sentences.append(f"It was asked to begin in {format_seconds(wishes.begin - now)}, not before.")
    sentences += explain_waiting(cluster, job)
    if wishes.is_held and index not in job.ready_set:
        sentences.append(f"The job is held: hq-client release {job.id}")
    if index in job.deferred:
        sentences.append(f"Its last start failed; it is tried again in {format_seconds(max(0.0, job.deferred[index] - now))}.")
    if wishes.throttle is not None and job.placed >= wishes.throttle:
        limit = f"its own limit is {wishes.throttle:,}: hq-client modify {job.id} --throttle N"
        sentences.append(f"{job.placed:,} tasks of the array are placed, {limit}")
    sentences += _hosts(cluster, job, now)
    ahead, is_more = _ahead(cluster, job)
    if ahead:
        count = f"{'More than ' if is_more else ''}{ahead:,} {'jobs wait' if ahead > 1 else 'job waits'}"
        sentences.append(f"{count} before it: your own, of higher priority or submitted earlier.")
    sentences += _turns(cluster, record.user)
    if not sentences:
        sentences.append("Nothing stands against it: it starts with the next round.")
    return sentences


def _hosts(cluster: State, job: LiveJob, now: float) -> list[str]:
    """What each host says, gathered by kind; nothing if one would take it."""
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for host in cluster.hosts.values():
        why = refusal(cluster, job.shape, host, now)
        if why is None:
            return []
        by_kind.setdefault(why[0], []).append((host.name, why[1]))
    if not by_kind:
        return ["The cluster has no hosts."]
    shape = job.shape
    wants = f"{shape.slots} slot{'s' if shape.slots > 1 else ''}" + (f", {format_bytes(shape.memory)} memory" if shape.memory else "")
    wants += "".join(f", {count} {printable(name)}" for name, count in shape.resources)
    sentences = [f"No host takes it now (it needs {wants}):"]
    for found in by_kind.values():
        by_words: dict[str, list[str]] = {}
        for name, words in found:
            by_words.setdefault(words, []).append(name)
        for words, names in list(by_words.items())[:_MOST_NAMED]:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            sentences.append(f"  {', '.join(names[:_MOST_NAMED])}{more}: {words}")
        rest = sum(map(len, list(by_words.values())[_MOST_NAMED:]))
        if rest:
            sentences.append(f"  and {rest} more hosts for like reasons")
    helps = [_HELP[kind] for kind in _HELP if kind in by_kind and (kind not in ("wishes", "too small") or len(by_kind) == 1)]
    sentences.append(f"It could start when {'; or '.join(helps)}." if helps else "")
    return [sentence for sentence in sentences if sentence]


def _ahead(cluster: State, job: LiveJob) -> tuple[int, bool]:
    """How many jobs of the same user that could take its place stand before it; and whether counting was given up."""
    mine = rank_of(job.record)
    count = looked = 0
    for shape, heap in cluster.queues.items():
        if shape.user != job.record.user or not cluster.may_start(shape.user):
            continue
        for rank in in_order(heap):
            if rank >= mine:
                break
            looked += 1
            if looked > _MOST_LOOKED_AT:
                return count, True
            other = is_current(cluster, shape, rank)
            if other is not None and other.startable(cluster.now):
                count += 1
    return count, False


def _turns(cluster: State, user: str) -> list[str]:
    """Who else waits and goes first, since he holds and held less."""
    share, now = cluster.share, cluster.now
    mine = share.score(user, now)
    others = {shape.user for shape, heap in cluster.queues.items() if heap and shape.user != user and cluster.may_start(shape.user)}
    first = sorted(other for other in others if share.score(other, now) < mine)
    if not first:
        return []
    more = f" and {len(first) - _MOST_NAMED} more users" if len(first) > _MOST_NAMED else ""
    held = share.held(user)
    return [
        f"Free slots go to the user who has least: you hold {held} slot{'s' if held != 1 else ''}, and {share.average(user, now):.3g} on average of late. "
        f"{', '.join(first[:_MOST_NAMED])}{more} {'wait' if len(first) > 1 else 'waits'}, too, with less, and {'go' if len(first) > 1 else 'goes'} first."
    ]
