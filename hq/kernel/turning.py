"""A client's end that dials one of several servers with the same key: hq-server, wherever it is active. Whoever uses it says when to turn.

One connection at a time. What is sent goes to the present one; a turn drops it with all that was not read.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from typing import Any

from hq.kernel.bus import Peer, Port, Received
from hq.protocol.codec import Envelope


class TurningPort:
    """As Port. `dial(address)` makes a connection."""

    def __init__(self, addresses: Sequence[str], dial: Callable[[str], Port]) -> None:
        assert addresses
        self.addresses = tuple(addresses)
        self._dial = dial
        self._which = 0
        # the loop waits for one descriptor, whatever connection is behind it
        self._epoll = select.epoll()
        self._port: Any = dial(self.address)
        self._watch()

    @property
    def address(self) -> str:
        """Where the present connection goes to."""
        return self.addresses[self._which]

    def turn(self) -> str:
        """Dial the next one. Returns its address."""
        self._unwatch()
        self._port.close()
        self._which = (self._which + 1) % len(self.addresses)
        self._port = self._dial(self.address)
        self._watch()
        return self.address

    def is_connected(self) -> bool:
        """Whether something could be sent now."""
        return bool(self._port.is_connected()) if hasattr(self._port, "is_connected") else True

    def send(self, letter: Envelope, peer: Peer | None = None) -> bool:
        """As Port.send."""
        return bool(self._port.send(letter, peer))

    def receive(self, limit: int = 1000) -> list[Received]:
        """As Port.receive."""
        found: list[Received] = self._port.receive(limit)
        return found

    def fds(self) -> list[int]:
        """Descriptors for the loop."""
        return [self._epoll.fileno()]

    def is_ready(self) -> bool:
        """Whether something has arrived."""
        return bool(self._port.is_ready()) if hasattr(self._port, "is_ready") else False

    def close(self) -> None:
        """As Port.close."""
        self._unwatch()
        self._port.close()
        self._epoll.close()

    def _watch(self) -> None:
        for descriptor in self._port.fds() if hasattr(self._port, "fds") else ():
            self._epoll.register(descriptor, select.EPOLLIN)

    def _unwatch(self) -> None:
        for descriptor in self._port.fds() if hasattr(self._port, "fds") else ():
            self._epoll.unregister(descriptor)
