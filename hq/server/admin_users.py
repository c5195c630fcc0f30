"""Administrators' commands about users and keys. adduser also edits the file `users`, so that a reload agrees."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from hq.core import listing
from hq.core.events import KeyEnrolled, LedgerGivenUp, UserSwitched
from hq.errors import RefusedError, UsageError
from hq.kernel.config import ROLES
from hq.model.user import UserRecord, parse_user_name
from hq.protocol.admin import AdminAnswer
from hq.protocol.base import Message
from hq.server import configuration, enrolment, performers
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

SHORTEST_KEY = 8


def _moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"


def ls_users(server: Server, request: Request, words: list[str]) -> None:
    """The users."""
    rows = []
    for row in listing.user_rows(server.cluster):
        user = row.record
        session = server.sessions.of(user.name)
        where = f"{session.machine} ({session.address})" if session is not None else "-"
        rows.append((user.name, ",".join(sorted(user.roles)), user.is_enabled, row.jobs, row.placed, row.waiting, where))
    request.reply(AdminAnswer(columns=("user", "roles", "enabled", "jobs", "placed", "waiting", "user-server"), rows=tuple(rows)))


def add_user(server: Server, request: Request, words: list[str]) -> None:
    """A user more, or other roles; and a token for his first key."""
    name = parse_user_name(words[0])
    before = server.cluster.user(name)
    if len(words) > 1:
        roles = frozenset(part.strip() for part in words[1].split(",") if part.strip())
    else:
        roles = before.roles if before is not None else frozenset({"user"})
    if not roles or roles - ROLES:
        raise UsageError(f"'{words[1]}' are not roles: {', '.join(sorted(ROLES))}, separated by commas")
    user = UserRecord(name=name, roles=roles, is_enabled=before.is_enabled if before is not None else True)
    configuration.put_user(server.etc, user)
    token = enrolment.make_token(server, name)

    def render(value: object) -> Message:
        return AdminAnswer(
            text=f"{value}\nFor a machine where {name} cannot be recognised by itself, a token, good once within a day: {token}"
        )

    server.add(UserSwitched(token=request.with_render(render), actor=request.caller.user, user=user))


def _switch(server: Server, request: Request, name: str, is_enabled: bool) -> None:
    user = server.cluster.user(name)
    if user is None:
        raise RefusedError(f"there is no user {name}: 'hq-admin lsusers' lists them")
    if name == request.caller.user and not is_enabled:
        raise RefusedError("you would lock yourself out: let another administrator disable you")
    server.add(UserSwitched(token=request.with_render(lambda value: AdminAnswer(text=str(value))), actor=request.caller.user,
                            user=replace(user, is_enabled=is_enabled)))  # fmt: skip


def enable_user(server: Server, request: Request, words: list[str]) -> None:
    """Let a user in again."""
    _switch(server, request, words[0], True)


def disable_user(server: Server, request: Request, words: list[str]) -> None:
    """Keep a user out."""
    _switch(server, request, words[0], False)


def ls_keys(server: Server, request: Request, words: list[str]) -> None:
    """Registered keys."""
    if words and server.cluster.user(words[0]) is None:
        raise RefusedError(f"there is no user {words[0]}: 'hq-admin lsusers' lists them")
    keys = [key for key in server.cluster.keys.values() if not words or key.user == words[0]]
    rows = tuple(
        (key.public, key.user, key.role.value, key.host, "yes" if key.is_enabled else "revoked", _moment(key.created), key.proof)
        for key in sorted(keys, key=lambda key: (key.user, key.created))
    )
    request.reply(AdminAnswer(columns=("key", "user", "role", "host", "enabled", "enrolled", "proof"), rows=rows))


def revoke_key(server: Server, request: Request, words: list[str]) -> None:
    """A key is out from now on."""
    found = [key for key in server.cluster.keys.values() if key.public.startswith(words[0])]
    if len(words[0]) < SHORTEST_KEY or len(found) != 1:
        raise RefusedError(f"'{words[0]}' does not name one key ({len(found)} begin so; {SHORTEST_KEY} characters are needed): 'hq-admin lskeys'")
    key = replace(found[0], is_enabled=False, proof=f"{found[0].proof}; revoked by {request.caller.user}"[:255])
    if key.public == request.caller.key:
        raise RefusedError("that is the key of this very connection: let another administrator revoke it")
    server.audit(request.caller.user, "admin", "revokekey", key.user, key.public)

    def render(value: object) -> Message:
        performers.drop_key(server, key.public)
        return AdminAnswer(text=f"key {key.public} of {key.user} is revoked")

    server.add(KeyEnrolled(token=request.with_render(render), key=key))


def forget_ledger(server: Server, request: Request, words: list[str]) -> None:
    """Wait no longer for the ledger of a user who does not come back."""
    server.add(LedgerGivenUp(token=request.with_render(lambda value: AdminAnswer(text=str(value))), actor=request.caller.user, user=words[0]))
