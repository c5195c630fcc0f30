"""How daemons exchange envelopes: the interface, and the bus in memory that tests use.

`hq.kernel.zmqbus` is the other implementation. A sender never blocks; what cannot be delivered is dropped, and the peers find
out by their heartbeats, as on any network. Both implementations pass every envelope through the codec.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from hq.errors import RemoteError
from hq.protocol.codec import Envelope, decode, encode


class Peer(NamedTuple):
    """Who is at the other end: the public key of the connection (Z85), and the routing id, bound to it.

    A peer that lost its connection comes back with the same key and another route: a daemon finds a session by the key and
    sends to the peer of the latest message.
    """

    key: str
    route: bytes = b""


class Received(NamedTuple):
    """An envelope and the connection that it came by. `letter` is None for a frame that could not be read; `note` says why. `size` in bytes."""

    peer: Peer
    letter: Envelope | None
    note: str = ""
    size: int = 0


class Port(Protocol):
    """One end of the bus. A server's end talks to many peers, a client's end to the one that it dialled."""

    def send(self, letter: Envelope, peer: Peer | None = None) -> bool:
        """Hand over an envelope; `peer` is needed on a server's end. False: it was dropped, there is no such peer or its queue is full."""
        ...

    def receive(self, limit: int = 1000) -> list[Received]:
        """What has arrived, at most `limit` envelopes (of large ones fewer), in order per peer. Never waits."""
        ...

    def close(self) -> None:
        """Give up the connection."""
        ...


class MemoryBus:
    """Ports that hand envelopes to each other inside one process, for tests. `filter` may drop or delay: it sees (from, to, frame)."""

    def __init__(self) -> None:
        self._servers: dict[str, MemoryPort] = {}
        self._made = 0
        self.is_delivered: Callable[[str, str, bytes], bool] = lambda source, target, frame: True

    def listen(self, address: str, key: str) -> MemoryPort:
        """A server's end at an address of any form. `key` is its public key."""
        port = MemoryPort(self, address, Peer(key))
        self._servers[address] = port
        return port

    def dial(self, address: str, key: str, server_key: str = "") -> MemoryPort:
        """A client's end. `key` is the caller's public key."""
        self._made += 1
        return MemoryPort(self, f"client-{self._made}", Peer(key, b"route-%d" % self._made), address)

    def _server(self, address: str) -> MemoryPort | None:
        return self._servers.get(address)

    def _forget(self, port: MemoryPort) -> None:
        if self._servers.get(port.name) is port:
            del self._servers[port.name]


class MemoryPort:
    """One end on a MemoryBus."""

    def __init__(self, bus: MemoryBus, name: str, peer: Peer, dials: str | None = None) -> None:
        self.name = name
        self._bus = bus
        self._peer = peer
        self._dials = dials
        self._inbox: deque[Received] = deque()
        self._clients: dict[Peer, MemoryPort] = {}

    def send(self, letter: Envelope, peer: Peer | None = None) -> bool:
        """As Port.send."""
        if self._dials is not None:
            target, sender = self._bus._server(self._dials), self._peer
            if target is not None:
                target._clients[sender] = self
        else:
            target = self._clients.get(peer) if peer is not None else None
            sender = self._peer
        frame = encode(letter)
        if target is None or not self._bus.is_delivered(self.name, target.name, frame):
            return False
        try:
            target._inbox.append(Received(sender, decode(frame), size=len(frame)))
        except RemoteError as error:
            target._inbox.append(Received(sender, None, str(error), len(frame)))
        return True

    def receive(self, limit: int = 1000) -> list[Received]:
        """As Port.receive."""
        return [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]

    def is_connected(self) -> bool:
        """Whether there is somebody at the other end of a client's port."""
        return self._dials is not None and self._bus._server(self._dials) is not None

    def close(self) -> None:
        """As Port.close."""
        self._bus._forget(self)
        self._inbox.clear()
