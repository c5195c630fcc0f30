"""How the core's actions are done: messages to user-servers, answers to requests. Called after the commit only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hq.core.events import Action, AnnounceHosts, DropKeys, HoldRuns, Reply, SignalRuns, StartRuns, StopRuns, TellCancels
from hq.protocol.base import Message
from hq.protocol.peers import HostsListed, PeerRefused
from hq.protocol.runs import RunHold, RunSignal, RunStart, RunStop
from hq.server import cancels, probe
from hq.server.requests import Request, disabled_text

if TYPE_CHECKING:
    from hq.server.daemon import Server


def perform(server: Server, actions: Sequence[Action]) -> None:
    """Do all of them, in order. What cannot be delivered is asked for again by the core once the user-server is back."""
    for action in actions:
        match action:
            case StartRuns():
                _tell(server, action.user, RunStart(host=action.host, specs=action.specs, orders=action.orders))
            case StopRuns():
                _tell(server, action.user, RunStop(
                    host=action.host, runs=action.runs, outcome=action.outcome, reason=action.reason, is_only_queued=action.is_only_queued))  # fmt: skip
            case SignalRuns():
                _tell(server, action.user, RunSignal(host=action.host, runs=action.runs, signal=action.signal))
            case HoldRuns():
                _tell(server, action.user, RunHold(host=action.host, runs=action.runs, is_held=action.is_held))
            case Reply():
                if isinstance(action.token, Request):
                    action.token.settle(action.value)
            case AnnounceHosts():
                hosts = tuple(host.record.spec for host in server.cluster.hosts.values() if host.record.is_listed)
                for session in server.sessions:
                    server.outbox.tell(session.peer, HostsListed(hosts=hosts))
                probe.start(server)
            case TellCancels():
                cancels.tell(server, action.user)
            case DropKeys():
                for key in action.keys:
                    drop_key(server, key)


def drop_key(server: Server, key: str) -> None:
    """Put out whoever came by this key."""
    for session in server.sessions.by_key(key):
        reason = _why_out(server, session.user)
        server.outbox.tell(session.peer, PeerRefused(reason=reason, may_change=True))
        server.end_session(session, reason)


def _why_out(server: Server, user: str) -> str:
    record = server.cluster.user(user)
    if record is None:
        return f"the user {user} is no longer in the file users: ask the owner of the instance"
    if not record.is_enabled:
        return disabled_text(user)
    return f"this key of {user} was revoked: ask the owner of the instance why, then move ~/.hq/{server.instance}/keys away for new ones"


def _tell(server: Server, user: str, message: Message) -> None:
    session = server.sessions.of(user)
    if isinstance(message, RunStop | RunSignal | RunHold):
        visitor = server.visits.of(user, message.host)
        if visitor is not None:  # its exec-server is here itself, for it cannot reach its user-server
            server.outbox.tell(visitor, message)
            return
    if session is None:
        server.log.category("jobs").info("%s for %s waits: no user-server of his is up", type(message).__struct_config__.tag, user)
        return
    server.outbox.tell(session.peer, message)
