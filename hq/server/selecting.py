"""What a selection names, held against limits; `last` made an id. Which jobs fit a filter is the core's and the database's business."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hq.db import queries
from hq.errors import InputError, RefusedError
from hq.model.ids import TaskKey
from hq.model.job import MAX_TEXT
from hq.model.selection import Selection
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

MAX_NAMES = 10_000
_MAX_ID = 1 << 62


def check_selection(selection: Selection) -> None:
    """Raises InputError for what no command line makes."""
    if len(selection.tasks) > MAX_NAMES or len(selection.ranges) > MAX_NAMES or len(selection.states) > 100:
        raise InputError(f"more than {MAX_NAMES:,} jobs were named one by one: use ranges such as 1-5000")
    for key in selection.tasks:
        if not 0 < key.job < _MAX_ID or not -1 <= key.index < 2**31:
            raise InputError(f"'{key}' is not a job id")
    for first, last in selection.ranges:
        if not 0 < first <= last < _MAX_ID:
            raise InputError(f"the range {first}-{last} is empty or out of bounds")
    for text in (selection.group, selection.text, selection.user):
        if text is not None and len(text) > MAX_TEXT:
            raise InputError("a text of the selection is too long")


def with_last(server: Server, request: Request, selection: Selection, user: str, then: Callable[[Selection], None]) -> None:
    """Go on with the selection in which `last` has become the id of the user's latest submission, which may have ended."""
    if not selection.is_last:
        then(selection)
        return
    live = server.cluster.last_job(user)

    def take(ended: int | None) -> None:
        found = max(live or 0, ended or 0)
        if not found:
            raise RefusedError(f"{user} has not submitted any job yet")
        then(replace(selection, is_last=False, tasks=(*selection.tasks, TaskKey(found))))

    server.ask(request, lambda: queries.last_job(server.store.engine, user), take)
