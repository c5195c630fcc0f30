"""Administrators' commands about hosts and the cluster. addhost and removehost also edit cluster.tab, so that a reload agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hq.core import listing
from hq.core.events import ClusterSwitched, HostRowChanged, HostSwitched, SlotsRecounted
from hq.errors import RefusedError, UsageError
from hq.kernel.clustertab import COLUMNS, OPTIONAL_COLUMNS, TRANSPORTS
from hq.model.host import HostSpec
from hq.model.quantities import parse_seconds
from hq.protocol.admin import AdminAnswer
from hq.protocol.base import Message
from hq.server import configuration
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server


def sentence(value: object) -> Message:
    """The core's sentence as an answer."""
    return AdminAnswer(text=str(value))


def ls_cluster(server: Server, request: Request, words: list[str]) -> None:
    """The hosts."""
    links: dict[str, list[str]] = {}
    for session in server.sessions:
        for row in listing.host_rows(server.cluster, session.user):
            if row.link and row.link != "unknown":
                links.setdefault(row.name, []).append(f"{session.user}:{row.link}")
    columns = ("host", "state", "reachable", "load1", "load5", "load15", "occupied", "slots", "total", "transport", "users", "info", "reason")
    rows = tuple(
        (row.name, row.state, row.reachable, row.load1, row.load5, row.load15, row.occupied, row.slots, row.total, row.transport,
         " ".join(sorted(links.get(row.name, ()))), row.info, row.reason)
        for row in listing.host_rows(server.cluster, None)
    )  # fmt: skip
    word = "active" if server.cluster.is_active else "not active: nothing is started"
    request.reply(AdminAnswer(text=f"the cluster is {word}", columns=columns, rows=rows))


def _switch(server: Server, request: Request, host: str, is_active: bool | None, drain_reason: str | None,
            deadline: float | None = None) -> None:  # fmt: skip
    server.add(HostSwitched(token=request.with_render(sentence), actor=request.caller.user, host=host, is_active=is_active,
                            drain_reason=drain_reason, deadline=deadline))  # fmt: skip


def activate_host(server: Server, request: Request, words: list[str]) -> None:
    """New tasks may go there."""
    _switch(server, request, words[0], True, None)


def deactivate_host(server: Server, request: Request, words: list[str]) -> None:
    """Nothing new goes there."""
    _switch(server, request, words[0], False, None)


def drain(server: Server, request: Request, words: list[str]) -> None:
    """Nothing new goes there, and this is why; after a deadline what may run again leaves."""
    reason, deadline = list(words[1:]), None
    for place, word in enumerate(words):
        if place and word in ("--deadline", "deadline"):
            deadline = server.now.wall + parse_seconds(" ".join(words[place + 1 : place + 2]))
            reason = [*words[1:place], *words[place + 2 :]]
            break
    _switch(server, request, words[0], None, " ".join(reason)[:255], deadline)


def activate_cluster(server: Server, request: Request, words: list[str]) -> None:
    """Scheduling on."""
    server.add(ClusterSwitched(token=request.with_render(sentence), actor=request.caller.user, is_active=True))


def deactivate_cluster(server: Server, request: Request, words: list[str]) -> None:
    """Scheduling off."""
    server.add(ClusterSwitched(token=request.with_render(sentence), actor=request.caller.user, is_active=False))


def parse_new_host(words: list[str]) -> tuple[str, dict[str, str]]:
    """Name and columns of `NAME:SLOTS[:TRANSPORT] [COLUMN=VALUE...]`. Raises UsageError; values are checked with the table."""
    name, *rest = words[0].split(":")
    if not name or not rest or len(rest) > 2 or not rest[0].isdigit():
        raise UsageError(f"'{words[0]}' is not NAME:SLOTS or NAME:SLOTS:TRANSPORT, such as node7:16 or node7:16:local")
    columns = {"total_number_slots": rest[0], "max_number_occupied_slots": rest[0]}
    if len(rest) == 2:
        if rest[1] not in TRANSPORTS:
            raise UsageError(f"there is no transport '{rest[1]}': {', '.join(TRANSPORTS)}")
        columns["transport"] = rest[1]
    for word in words[1:]:
        column, equals, value = word.partition("=")
        if not equals or column not in (*COLUMNS[1:], *OPTIONAL_COLUMNS):
            raise UsageError(f"'{word}' is not COLUMN=VALUE with a column of cluster.tab: {', '.join((*COLUMNS[1:], *OPTIONAL_COLUMNS))}")
        if any(each in value for each in "\t\r\n"):
            raise UsageError(f"the value of {column} has a tab or a line end")
        columns[column] = value
    return name, columns


def add_host(server: Server, request: Request, words: list[str]) -> None:
    """A host more, in cluster.tab and now."""
    # hQ's colons came as words already: NAME:SLOTS is one argument here, whichever way it was written
    if len(words) >= 2 and ":" not in words[0] and "=" not in words[1] and words[1].partition(":")[0].isdigit():
        words = [f"{words[0]}:{words[1]}", *words[2:]]
    if len(words) >= 2 and words[1] in TRANSPORTS and words[0].count(":") == 1:
        words = [f"{words[0]}:{words[1]}", *words[2:]]
    name, columns = parse_new_host(words)
    spec = configuration.add_host(server.etc, name, columns)
    _row(server, request, name, spec)


def remove_host(server: Server, request: Request, words: list[str]) -> None:
    """A host less."""
    if words[0] not in server.cluster.hosts:
        raise RefusedError(f"there is no host {words[0]}")
    configuration.remove_host(server.etc, words[0])  # no row: somebody edited the file, and did not reload
    _row(server, request, words[0], None)


def _row(server: Server, request: Request, name: str, spec: HostSpec | None) -> None:
    server.add(HostRowChanged(token=request.with_render(sentence), actor=request.caller.user, host=name, spec=spec))


def update_slots(server: Server, request: Request, words: list[str]) -> None:
    """Count again."""
    server.add(SlotsRecounted(token=request.with_render(sentence), actor=request.caller.user))


