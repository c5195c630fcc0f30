"""Exec-servers that come by themselves while their user-server is away: let in by the key that their user-server registered.

They report, hold their lease, and take stops and signals. Starts never go this way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hq.core.events import KeyEnrolled
from hq.errors import NotAllowedError, RemoteError
from hq.kernel.bus import Peer
from hq.model.user import KeyRecord, Role
from hq.protocol.base import Message
from hq.protocol.peers import KeyRegister, PeerHeartbeat, PeerRefused
from hq.protocol.runs import ExecHello, ExecWelcome
from hq.server.requests import Caller, Request
from hq.server.sessions import SILENT_BEATS

if TYPE_CHECKING:
    from hq.server.daemon import Server


@dataclass(slots=True)
class _Visit:
    peer: Peer
    heard: float


class Visits:
    """Exec-servers that are linked directly, by (user, host). Time is CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._by_link: dict[tuple[str, str], _Visit] = {}

    def come(self, user: str, host: str, peer: Peer, boot: float) -> None:
        """One said hello."""
        self._by_link[user, host] = _Visit(peer, boot)

    def heard(self, caller: Caller, peer: Peer | None, boot: float) -> bool:
        """Something came from one. False: it has not said hello on this connection."""
        visit = self._by_link.get((caller.user, caller.host))
        if visit is None or visit.peer != peer:
            return False
        visit.heard = boot
        return True

    def of(self, user: str, host: str) -> Peer | None:
        """The connection of a user's exec-server on a host."""
        visit = self._by_link.get((user, host))
        return None if visit is None else visit.peer

    def go(self, user: str, host: str) -> None:
        """One said goodbye."""
        self._by_link.pop((user, host), None)

    def clear(self) -> list[Peer]:
        """Forget all; their connections."""
        gone, self._by_link = [visit.peer for visit in self._by_link.values()], {}
        return gone

    def beat(self, boot: float, lease: float) -> list[Peer]:
        """Forget silent ones; the connections of the others."""
        self._by_link = {link: visit for link, visit in self._by_link.items() if boot - visit.heard < lease}
        return [visit.peer for visit in self._by_link.values()]


def register(server: Server, request: Request, message: KeyRegister) -> None:
    """A user-server names the key of its exec-server on a host."""
    if len(message.public) != 40 or not message.public.isprintable():
        raise RemoteError("key.register names no key")
    if message.host not in server.cluster.hosts:
        raise RemoteError(f"key.register names '{message.host[:255]}', which is no host")
    user = request.caller.user
    known = server.cluster.key(message.public)
    if known is not None:
        if (known.user, known.role, known.host) != (user, Role.EXEC_SERVER, message.host):
            raise NotAllowedError("this key is registered for somebody or something else")
        return  # known, or revoked: then it stays so
    key = KeyRecord(public=message.public, user=user, role=Role.EXEC_SERVER, host=message.host, created=server.now.wall, proof="user-server")
    server.add(KeyEnrolled(token=None, key=key))


def hello(server: Server, request: Request, message: ExecHello) -> None:
    """An exec-server comes in."""
    caller = request.caller
    host = server.cluster.hosts.get(caller.host)
    assert request.peer is not None
    # of any version: what is said on this way every version knows (hq.protocol.adopt)
    if host is None:
        request.reply(PeerRefused(reason=f"the host {caller.host} is not in the cluster any more", may_change=True))
        return
    server.visits.come(caller.user, caller.host, request.peer, server.now.boot)
    server.log.category("system").info("exec-server of %s on %s came by itself: its user-server is away", caller.user, caller.host)
    server.outbox.tell(request.peer, ExecWelcome(heartbeat=server.timers.intervals()["heartbeat"], epoch=server.epoch,
                                                 slots=host.record.spec.slots, lease=server.config.lease))  # fmt: skip


def beat(server: Server) -> None:
    """Heartbeats to those who are here."""
    for peer in server.visits.beat(server.now.boot, SILENT_BEATS * server.timers.intervals()["heartbeat"]):
        server.outbox.tell(peer, PeerHeartbeat())


HANDLERS: dict[type[Message], Any] = {KeyRegister: register, ExecHello: hello}
