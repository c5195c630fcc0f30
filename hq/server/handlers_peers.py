"""Messages of the peers about themselves and the hosts: hello, heartbeat, goodbye, links, loads, facts."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from hq import VERSION
from hq.core import listing
from hq.core.events import LinkChanged, LoadsSampled, Unwatched, UserServerCame
from hq.errors import RemoteError
from hq.model.host import LoadSample
from hq.model.restored import INCARNATION
from hq.protocol.base import PROTOCOL, Message, is_near
from hq.protocol.peers import HostLink, HostLoad, PeerAsk, PeerBye, PeerFacts, PeerHeartbeat, PeerHello, PeerRefused, PeerWelcome
from hq.server import cancels, handlers_ledgers
from hq.server.requests import Request, disabled_text
from hq.server.sessions import SILENT_BEATS, Session

if TYPE_CHECKING:
    from hq.server.daemon import Server

MAX_NAME = 255
MAX_REASON = 2000


def hello(server: Server, request: Request, message: PeerHello) -> None:
    """A user-server comes in: the only one of its user, of a version that is near enough."""
    user = request.caller.user
    refusal, address = _refusal(server, request, message)
    if refusal:
        server.counts["refused"] += 1
        server.log.category("system").warning("user-server of %s on %s refused: %s", user, message.machine, refusal)
        request.reply(PeerRefused(reason=refusal, address=address, may_change=not request.caller.is_enabled))
        return
    assert request.peer is not None
    boot = server.now.boot
    session = Session(user=user, peer=request.peer, boot=message.boot, machine=message.machine[:MAX_NAME], address=message.address[:MAX_NAME],
                      version=message.version[:40], heard=boot, since=boot, lock=message.lock[:MAX_NAME],
                      cancels=cancels.known(server, message.told))  # fmt: skip
    before = server.sessions.of(user)
    if before is not None and before.peer != request.peer:
        # answers go to the connection that asked, and that one is no more
        for token in before.watches:
            server.add(Unwatched(token))
        before.watches.clear()
        if message.takeover and before.boot != message.boot:
            reason = f"{user} has moved his user-server to {message.machine[:MAX_NAME]}"
            server.outbox.tell(before.peer, PeerRefused(reason=reason, address=message.address[:MAX_NAME]))
    server.sessions.put(session)
    handlers_ledgers.check_last_job(server, user, message.last_job)
    server.add(UserServerCame(user=user, last_job=message.last_job))
    server.log.category("system").info("user-server of %s came: %s at %s, hq %s", user, message.machine, message.address, message.version)
    hosts = tuple(host.record.spec for host in server.cluster.hosts.values() if host.record.is_listed)
    request.reply(PeerWelcome(version=VERSION, instance=server.instance, epoch=server.epoch, user=user,
                              heartbeat=server.timers.intervals()["heartbeat"], hosts=hosts, lease=server.config.lease,
                              now=server.now.wall))  # fmt: skip
    handlers_ledgers.want(server, request)
    cancels.tell(server, user)


def _refusal(server: Server, request: Request, message: PeerHello) -> tuple[str, str]:
    user = request.caller.user
    if not is_near(message.protocol):
        return (
            f"hq {message.version[:40]} (protocol {message.protocol}) cannot talk to this hq-server, {VERSION} (protocol {PROTOCOL}): "
            f"install hq {VERSION} or a version next to it on {message.machine[:MAX_NAME]}. What runs, runs on"
        ), ""
    if not request.caller.is_enabled:
        return disabled_text(user), ""
    lease = SILENT_BEATS * server.timers.intervals()["heartbeat"]
    rival = server.sessions.rival(user, message.boot, server.now.boot, lease, message.lock)
    if rival is not None and not message.takeover:
        return f"another user-server of {user} is up on {rival.machine} ({rival.address})", rival.address
    return "", ""


def heartbeat(server: Server, request: Request, message: PeerHeartbeat) -> None:
    """Being heard is all there is to it."""


def bye(server: Server, request: Request, message: PeerBye) -> None:
    """A user-server stops in good order."""
    session = server.sessions.at(request.caller.user, request.peer)
    if request.caller.host:
        server.visits.go(request.caller.user, request.caller.host)
    if session is not None:
        server.end_session(session, message.reason[:MAX_REASON] or "it stopped")


def link(server: Server, request: Request, message: HostLink) -> None:
    """How the user's exec-server on a host stands."""
    if message.host not in server.cluster.hosts:
        raise RemoteError(f"host.link names '{message.host[:MAX_NAME]}', which is no host")
    server.add(LinkChanged(user=request.caller.user, host=message.host, state=message.state, reason=message.reason[:MAX_REASON]))


def load(server: Server, request: Request, message: HostLoad) -> None:
    """A load sample. Numbers that no machine has are not taken."""
    loads = (message.load1, message.load5, message.load15)
    sizes = (message.cores, message.memory_total, message.memory_free)
    if message.host not in server.cluster.hosts or (request.caller.host and request.caller.host != message.host):
        raise RemoteError(f"host.load names '{message.host[:MAX_NAME]}', which is no host of this connection")
    if not all(math.isfinite(value) and 0 <= value < 1e6 for value in loads) or not all(0 <= size < 1 << 60 for size in sizes):
        raise RemoteError(f"host.load of {message.host} has numbers that no machine has")
    server.add(LoadsSampled((LoadSample(host=message.host, user=request.caller.user, at=server.now.wall, load1=message.load1,
                                        load5=message.load5, load15=message.load15, cores=message.cores,
                                        memory_total=message.memory_total, memory_free=message.memory_free),)))  # fmt: skip


def facts_of(server: Server, what: str) -> dict[str, Any]:
    """Facts for `ping`, `info` and `status`, in the order in which they are shown."""
    base: dict[str, Any] = {"daemon": "hq-server", "instance": server.instance, "version": VERSION}
    if what == "ping":
        return {**base, "answer": "pong"}
    if what == "info":
        return {
            **base, "protocol": PROTOCOL, "pid": os.getpid(), "etc": server.etc, "epoch": server.epoch, "incarnation": int(server.settings.get(INCARNATION, "0")),
            "up_seconds": round(server.now.boot - server.started.boot, 1), "messages": server.counts["messages"],
            "commits": server.counts["commits"], "refused_messages": server.counts["refused"],
            "dropped_envelopes": server.gate.dropped,
        }  # fmt: skip
    return {
        **base, "role": f"active, epoch {server.epoch}", "standby": ", ".join(server.standing.standbys) or "none", "database": f"away: {server.writer.trouble}" if server.writer.trouble else "ok", **listing.facts(server.cluster),
    }  # fmt: skip


def ask(server: Server, request: Request, message: PeerAsk) -> None:
    """Facts about this daemon."""
    if message.what not in ("ping", "info", "status"):
        raise RemoteError(f"'{message.what[:40]}' cannot be asked: ping, info or status")
    facts = facts_of(server, message.what)
    if not request.caller.is_admin:
        # directories of the owner and the traffic of others are not a user's business
        for name in ("etc", "pid", "refused_messages", "dropped_envelopes", "standby"):
            facts.pop(name, None)
        if listing.LEDGERS_AWAITED in facts:
            facts[listing.LEDGERS_AWAITED] = request.caller.user
            if request.caller.user not in server.cluster.restored.awaited:
                del facts[listing.LEDGERS_AWAITED]
    request.reply(PeerFacts(facts=facts))


HANDLERS: dict[type[Message], Any] = {PeerHello: hello, PeerHeartbeat: heartbeat, PeerBye: bye, HostLink: link, HostLoad: load, PeerAsk: ask}
