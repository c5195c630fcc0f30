"""Messages that change or watch jobs: submit, act, watch. Reads are in `handlers_reads`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hq.core.events import Accepted, JobsActedOn, JobsSubmitted, Submission
from hq.core.restored import is_awaited
from hq.db import queries
from hq.errors import InputError, NotAllowedError, RemoteError, UnavailableError
from hq.kernel.keys import digest_of
from hq.model.job import check_spec, check_wishes
from hq.model.rows import JobCounts
from hq.model.user import Role
from hq.protocol.base import Message
from hq.protocol.jobs import ActResult, JobAct, JobActed, JobSubmit, JobSubmitted, JobUnwatch, JobWatch, SubmitItem, SubmittedItem
from hq.protocol.specs import decode_spec
from hq.server import watching
from hq.server.requests import Request
from hq.server.selecting import check_selection, with_last

if TYPE_CHECKING:
    from hq.server.daemon import Server

ACTIONS = ("cancel", "hold", "release", "requeue", "signal", "modify", "resolve")
MAX_BLOB = 32 << 20
MAX_ITEMS = 100_000
MAX_REASON = 1000


def submission(server: Server, user: str, item: SubmitItem) -> Submission:
    """One signed job, its body read and held against the connection. Raises HqError."""
    spec = decode_spec(item.signed.body)
    if spec.user != user:
        raise NotAllowedError(f"a job signed for {spec.user[:40]} came by a connection of {user}: it is not taken")
    if spec.instance != server.instance:
        raise NotAllowedError(f"the job was signed for the instance {spec.instance[:80]}, this is {server.instance}: submit it again here")
    if spec.key != item.key:
        raise RemoteError("the submission key of a job is not the one that was signed")
    if len(item.signed.signature) != 64:
        raise RemoteError("a job came without a signature")
    check_spec(spec)
    check_wishes(item.wishes)
    return Submission(key=item.key, spec=spec, signed=item.signed, wishes=item.wishes)


def submit(server: Server, request: Request, message: JobSubmit) -> None:
    """Jobs come in, all or none."""
    user = request.caller.user
    if not message.items:
        raise InputError("there is no job in the submission")
    if len(message.items) > MAX_ITEMS:
        raise InputError(f"{len(message.items):,} jobs in one submission; at most {MAX_ITEMS:,} are taken at once")
    jobs = tuple(submission(server, user, item) for item in message.items)
    wanted = {digest for job in jobs for digest in (job.spec.env, job.spec.script) if digest}
    blobs = {}
    for digest, body in message.blobs.items():
        if len(body) > MAX_BLOB:
            raise InputError(f"a script or environment of {len(body):,} bytes was submitted; at most {MAX_BLOB:,} are allowed")
        if digest_of(body) != digest:
            raise RemoteError("a script or environment is not the one that its digest names")
        if digest in wanted:
            blobs[digest] = body

    def render(value: object) -> Message:
        assert isinstance(value, (list, tuple))
        accepted: list[Accepted] = list(value)
        return JobSubmitted(items=tuple(SubmittedItem(each.key, each.id, each.tasks, each.note) for each in accepted))

    def add(ended: dict[int, dict[str, int]]) -> None:
        server.add(JobsSubmitted(token=request.with_render(render), user=user, jobs=jobs, blobs=blobs, is_dry_run=message.is_dry_run, ended=ended))

    with_ended(server, request, {id for job in jobs for id in (*job.wishes.after, *job.wishes.after_any)}, add)


def with_ended(server: Server, request: Request, ids: set[int], then: Callable[[dict[int, dict[str, int]]], None]) -> None:
    """Go on with how those of the caller's jobs came out that have ended."""
    if all(server.cluster.job(id) is not None for id in ids):
        then({})
        return

    def take(found: dict[int, JobCounts]) -> None:
        # one that was live a moment ago may have ended since; what is found nowhere is no job of his
        if all(id in found or id in asked or server.cluster.job(id) is not None for id in ids):
            then({id: dict(counts.tasks) for id, counts in found.items()})
        else:
            with_ended(server, request, ids, then)

    asked: set[int] = set()

    def look() -> None:
        asked.update(id for id in ids if server.cluster.job(id) is None)
        wanted = sorted(asked)
        server.ask(request, lambda: queries.ended_counts(server.store.engine, wanted, request.caller.user), take)

    server.when_settled(request, look)


def render_acted(value: object) -> Message:
    """The core's results as a message."""
    assert isinstance(value, (list, tuple))
    results: list[tuple[Any, ...]] = list(value)
    return JobActed(results=tuple(ActResult(str(name), bool(is_done), str(text)) for name, is_done, text in results))


def act(server: Server, request: Request, message: JobAct) -> None:
    """Cancel, hold, release, requeue, signal, modify."""
    if message.action not in ACTIONS:
        raise RemoteError(f"'{message.action[:40]}' cannot be done to jobs: {', '.join(ACTIONS)}")
    if (message.action == "signal") != (message.signal is not None) or (message.signal is not None and not 1 <= message.signal <= 64):
        raise InputError("signal takes a number from 1 to 64, the other actions none")
    check_selection(message.selection)
    is_admin = request.caller.role is Role.ADMIN
    if not is_admin and is_awaited(server.cluster, request.caller.user):
        # "no such job" would be wrong of one that is about to be taken back
        raise UnavailableError("the state database was restored from a backup and is being compared with your ledger: try again in a moment")
    if message.selection.user not in (None, request.caller.user) and not is_admin:
        raise NotAllowedError("only an administrator acts on the jobs of others (hq-admin)")

    def then(selection: Any) -> None:
        server.add(JobsActedOn(token=request.with_render(render_acted), actor=request.caller.user, is_admin=is_admin, action=message.action,
                               selection=selection, signal=message.signal, changes=dict(message.changes),
                               reason=message.reason[:MAX_REASON]))  # fmt: skip

    with_last(server, request, message.selection, request.caller.user, then)


def watch(server: Server, request: Request, message: JobWatch) -> None:
    """Progress of jobs until all have finished."""
    check_selection(message.selection)
    with_last(server, request, message.selection, request.caller.user, lambda selection: watching.start(server, request, selection))


def unwatch(server: Server, request: Request, message: JobUnwatch) -> None:
    """Nobody listens to a watch any more."""
    watching.stop(server, request, message.request)


HANDLERS: dict[type[Message], Any] = {JobSubmit: submit, JobAct: act, JobWatch: watch, JobUnwatch: unwatch}
