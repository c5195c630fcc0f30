"""Messages that only read: listings, one job, why, hosts, groups, where output is. A user sees his own jobs and no others.

Live jobs come from the core, ended ones from the database beside the loop. Another user's job answers like one that never was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hq.core import explain, listing
from hq.db import queries
from hq.errors import InputError, NotAllowedError, RefusedError, UnavailableError
from hq.model.ids import PLAIN, TaskKey, parse_task_key
from hq.model.job import JobRecord, TaskRecord
from hq.model.rows import GroupRow, Row
from hq.model.selection import Selection
from hq.model.states import TaskState
from hq.model.user import Role
from hq.protocol.base import Message
from hq.protocol.jobs import (
    AuditQuery,
    AuditRows,
    GroupQuery,
    GroupRows,
    JobExplain,
    JobExplained,
    JobQuery,
    JobRows,
    JobShow,
    JobShown,
    LogLocate,
    LogLocated,
)
from hq.protocol.peers import HostQuery, HostRows
from hq.server import facts
from hq.server.requests import Request
from hq.server.selecting import check_selection, with_last

if TYPE_CHECKING:
    from hq.server.daemon import Server

MAX_ROWS = 1_000_000
#: … of them live ones: those are made in the server's own loop, where everybody waits, and one array may be a million tasks.
MAX_LIVE_ROWS = 50_000
MAX_AUDIT = 10_000


def unknown(text: str, user: str | None) -> RefusedError:
    """The answer for a job that is not there, or is another's: both sound alike."""
    return RefusedError(f"there is no job {text}" + (" of yours" if user is not None else ""))


def whose(request: Request, selection: Selection, every_user: bool) -> str | None:
    """The user whose jobs may be seen; None: everybody's. Raises NotAllowedError."""
    if request.caller.role is Role.ADMIN:
        return selection.user if selection.user is not None or every_user else request.caller.user
    if every_user or selection.user not in (None, request.caller.user):
        raise NotAllowedError("only an administrator sees the jobs of others: hq-admin lsjobs")
    return request.caller.user


def merged(live: list[Row], ended: list[Row], limit: int | None) -> tuple[tuple[Row, ...], bool]:
    """Rows newest first, at most `limit`, and whether some were cut. What the database has counts more: it ended meanwhile."""
    rows = {row.task: row for row in live}
    rows.update((row.task, row) for row in ended)
    ordered = sorted(rows.values(), key=_newest, reverse=True)
    if limit is None or len(ordered) <= limit:
        return tuple(ordered), False
    return tuple(ordered[:limit]), True


def _newest(row: Row) -> tuple[int, int]:
    # tasks of one array stand in the order of their indices, below their job's place
    return (row.id, -int(row.task.partition("_")[2] or PLAIN))


def list_rows(server: Server, request: Request, selection: Selection, user: str | None, *, by_task: bool, limit: int | None,
              then: Callable[[tuple[Row, ...], bool], None]) -> None:  # fmt: skip
    """Rows of live and ended jobs."""
    bound = MAX_ROWS if limit is None else max(1, min(limit, MAX_ROWS))
    live_bound = min(bound, MAX_LIVE_ROWS)

    def look(resolved: Selection) -> None:
        def settled() -> None:
            live = listing.job_rows(server.cluster, resolved, user, by_task, live_bound + 1)
            is_cut = len(live) > live_bound

            def with_ended(ended: list[Row]) -> None:
                rows, is_more = merged(live[:live_bound], ended, bound)
                then(rows, is_cut or is_more)

            if resolved.is_all and not (resolved.tasks or resolved.ranges or resolved.states):
                with_ended([])
                return
            server.ask(request, lambda: queries.ended_rows(server.store.engine, resolved, user, by_task, bound + 1), with_ended)

        server.when_settled(request, settled)

    with_last(server, request, selection, user or request.caller.user, look)


def query(server: Server, request: Request, message: JobQuery) -> None:
    """List jobs."""
    check_selection(message.selection)
    if message.limit is not None and message.limit < 0:
        raise InputError(f"a limit of {message.limit} rows: a number from 0 is expected")
    user = whose(request, message.selection, message.every_user)
    list_rows(server, request, message.selection, user, by_task=message.by_task, limit=message.limit,
              then=lambda rows, is_cut: request.reply(JobRows(rows=rows, is_cut=is_cut)))  # fmt: skip


def find(server: Server, request: Request, text: str, user: str | None, then: Callable[[JobRecord, TaskRecord | None, TaskKey, bool], None]) -> None:
    """Find the job that `1234`, `1234_7` or `last` names, live or ended, and call `then(job, task, key, is_live)`."""

    def take_key(key: TaskKey) -> None:
        def settled() -> None:
            live = server.cluster.job(key.job)
            if live is not None and user in (None, live.record.user):
                job = live.record
                if key.index != PLAIN and not live.has(key.index):
                    raise RefusedError(f"job {key.job} has no task {key.index}")
                task = server.cluster.task(key)
                if task is not None or key.index == PLAIN or live.is_untouched(key.index) or live.is_cancelled_rest(key.index):
                    then(job, task, key, True)
                    return
            server.ask(request, lambda: queries.find_ended(server.store.engine, key), take)

        def take(found: Any) -> None:
            if found is None or user not in (None, found[0].user):
                raise unknown(str(key), user)
            then(found[0], found[1], key, False)

        server.when_settled(request, settled)

    if text == "last":
        with_last(server, request, Selection(is_last=True), user or request.caller.user, lambda selection: take_key(selection.tasks[-1]))
    else:
        take_key(parse_task_key(text[:64]))


def _scope(request: Request) -> str | None:
    return None if request.caller.role is Role.ADMIN else request.caller.user


def show(server: Server, request: Request, message: JobShow) -> None:
    """Everything about one job or task."""
    user = _scope(request)

    def then(job: JobRecord, task: TaskRecord | None, key: TaskKey, is_live: bool) -> None:
        is_task = key.index != PLAIN
        selection = Selection(tasks=(key,))

        def with_row(rows: tuple[Row, ...], is_cut: bool) -> None:
            if not rows:
                raise unknown(str(key), user)
            row = rows[0]
            about = facts.job_facts(job, task, is_owner=job.user == request.caller.user)
            server.ask(request, lambda: queries.history(server.store.engine, key.job, key.index if is_task else None),
                       lambda moments: request.reply(JobShown(row=row, facts=about, history=tuple(moments))))  # fmt: skip

        list_rows(server, request, selection, user, by_task=is_task, limit=1, then=with_row)

    find(server, request, message.task, user, then)


def why(server: Server, request: Request, message: JobExplain) -> None:
    """Why it waits, where it runs, how it ended."""
    user = _scope(request)

    def tell(key: TaskKey, sentences: list[str]) -> None:
        request.reply(JobExplained(task=str(key), sentences=tuple(sentences)))

    def then(job: JobRecord, task: TaskRecord | None, key: TaskKey, is_live: bool) -> None:
        if is_live:
            sentences = explain.explain(server.cluster, key, server.now.wall)
            if server.writer.trouble:
                sentences = [*sentences, f"The state database is away, so nothing new is recorded or started: {server.writer.trouble}"]
        elif task is None:
            list_rows(server, request, Selection(tasks=(key,)), user, by_task=False, limit=1,
                      then=lambda rows, is_cut: tell(key, [each for row in rows for each in facts.ended_row_sentences(row)]))  # fmt: skip
            return
        else:
            sentences = facts.ended_sentences(task)
        tell(key, sentences)

    find(server, request, message.task, user, then)


def hosts(server: Server, request: Request, message: HostQuery) -> None:
    """The hosts, and how the caller's own exec-servers stand there."""
    request.reply(HostRows(rows=tuple(listing.host_rows(server.cluster, request.caller.user))))


def groups(server: Server, request: Request, message: GroupQuery) -> None:
    """The caller's groups, live and ended."""
    user = request.caller.user

    def settled() -> None:
        live = listing.group_rows(server.cluster, user, message.group)

        def take(ended: list[GroupRow]) -> None:
            rows: dict[str, GroupRow] = {}
            for row in [*live, *ended]:
                before = rows.get(row.group)
                if before is not None:
                    tasks = dict(before.tasks)
                    for state, count in row.tasks.items():
                        tasks[state] = tasks.get(state, 0) + count
                    row = GroupRow(group=row.group, jobs=before.jobs + row.jobs, tasks=tasks)
                rows[row.group] = row
            if message.group is not None and not rows:
                request.fail(RefusedError(f"you have no group '{message.group[:80]}'"))
                return
            request.reply(GroupRows(rows=tuple(rows[name] for name in sorted(rows))))

        server.ask(request, lambda: queries.group_rows(server.store.engine, user, message.group), take)

    server.when_settled(request, settled)


def audit(server: Server, request: Request, message: AuditQuery) -> None:
    """What was done about the caller and what is his, by whom."""
    user, limit = request.caller.user, max(1, min(message.limit, MAX_AUDIT))

    def settled() -> None:
        server.ask(request, lambda: queries.audit_rows(server.store.engine, user, limit), lambda rows: request.reply(AuditRows(rows=tuple(rows))))

    server.when_settled(request, settled)


def locate(server: Server, request: Request, message: LogLocate) -> None:
    """Where the output of an own task is. Administrators get no output, so they are not told either (the role may not ask)."""

    def then(job: JobRecord, task: TaskRecord | None, key: TaskKey, is_live: bool) -> None:
        if job.is_array and key.index == PLAIN:
            raise RefusedError(f"job {key.job} is an array: name one of its tasks, such as {key.job}_{job.spec.indices.split('-')[0].split(',')[0]}")
        if task is None or not task.host:
            if is_live:
                raise UnavailableError(f"{key} has not started yet, so there is no output")
            raise RefusedError(f"{key} never started, so there is no output")
        is_writing = is_live and task.state is not TaskState.FINISHED
        request.reply(LogLocated(task=str(key), host=task.host, attempt=task.attempt, signed=job.signed, is_live=is_writing))

    find(server, request, message.task, request.caller.user, then)


HANDLERS: dict[type[Message], Any] = {
    JobQuery: query, JobShow: show, JobExplain: why, HostQuery: hosts, GroupQuery: groups, AuditQuery: audit, LogLocate: locate,
}  # fmt: skip
