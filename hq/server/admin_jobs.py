"""Administrators' commands about jobs of others, and the audit. Output, environment, scripts and commands are not theirs to see."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hq.core.events import JobsActedOn
from hq.db import queries
from hq.errors import RefusedError
from hq.model.quantities import format_seconds
from hq.model.rows import Row
from hq.model.selection import Selection, parse_selection
from hq.model.states import TaskState
from hq.protocol.admin import AdminAnswer
from hq.protocol.base import Message
from hq.server.handlers_reads import list_rows
from hq.server.requests import Request
from hq.server.selecting import check_selection, with_last

if TYPE_CHECKING:
    from hq.server.daemon import Server

LIMIT = 1000


def ls_jobs(server: Server, request: Request, words: list[str]) -> None:
    """Jobs of everybody or of one user."""

    user = words[0] if words else None

    def then(rows: tuple[Row, ...], is_cut: bool) -> None:
        if user is not None and not rows and server.cluster.user(user) is None:
            raise RefusedError(f"there is no user {user}: 'hq-admin lsusers' lists them")
        table = tuple(_cells(row, server.now.wall) for row in rows)
        columns = ("id", "user", "name", "state", "outcome", "host", "slots", "submitted", "ran", "reason")
        text = f"the latest {LIMIT} of more jobs" if is_cut else ""
        mine = request.caller.user
        jobs = tuple(row if row.user == mine else replace(row, command="") for row in rows)
        request.reply(AdminAnswer(text=text, columns=columns, rows=table, jobs=jobs, is_cut=is_cut))

    list_rows(server, request, Selection(), user, by_task=False, limit=LIMIT, then=then)


def _cells(row: Row, now: float) -> tuple[str | int | None, ...]:
    ran = None if row.started is None else (row.ended or now) - row.started
    total = sum(count for state, count in row.tasks.items() if ":" not in state)
    done = row.tasks.get(TaskState.FINISHED.value, 0)
    state = f"{row.state} {done}/{total}" if row.array and done < total else row.state
    return (row.task, row.user, row.name, state, row.outcome, row.host, row.slots, _moment(row.submitted), format_seconds(ran), row.reason)


def _moment(at: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"


def _act(server: Server, request: Request, words: list[str], action: str) -> None:
    selection = parse_selection(words)
    check_selection(selection)

    def render(value: object) -> Message:
        assert isinstance(value, (list, tuple))
        results: list[Any] = list(value)
        rows = tuple((str(name), "done" if is_done else "not done", str(text)) for name, is_done, text in results)
        return AdminAnswer(text="" if rows else "there is no such job", columns=("job", action, "remark"), rows=rows,
                           is_done=bool(rows) and all(bool(result[1]) for result in results))  # fmt: skip

    def then(resolved: Selection) -> None:
        server.add(JobsActedOn(token=request.with_render(render), actor=request.caller.user, is_admin=True, action=action, selection=resolved))

    with_last(server, request, selection, request.caller.user, then)


def cancel(server: Server, request: Request, words: list[str]) -> None:
    """Cancel jobs of anybody."""
    _act(server, request, words, "cancel")


def requeue(server: Server, request: Request, words: list[str]) -> None:
    """Run rerunnable ones again."""
    _act(server, request, words, "requeue")


def hold(server: Server, request: Request, words: list[str]) -> None:
    """Hold waiting ones."""
    _act(server, request, words, "hold")


def release(server: Server, request: Request, words: list[str]) -> None:
    """Let them wait again."""
    _act(server, request, words, "release")


def audit(server: Server, request: Request, words: list[str]) -> None:
    """The audit, the latest first."""
    owner = words[0] if words else None

    def then(found: Any) -> None:
        rows = tuple((_moment(each.at), each.actor, each.role, each.action, each.owner, each.target, each.detail) for each in found)
        request.reply(AdminAnswer(columns=("at", "actor", "role", "action", "owner", "target", "detail"), rows=rows))

    server.when_settled(
        request, lambda: server.ask(request, lambda: queries.audit_rows(server.store.engine, owner, LIMIT), then)
    )
