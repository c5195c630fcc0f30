"""The door for envelopes: a fair round over the peers, and little patience with strangers. Knows no message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hq.kernel.bus import Peer, Port, Received

#: Envelopes of one peer a tick; the rest waits for the next one.
PER_TICK = 200
#: Envelopes of one peer that may wait here; what comes beyond is dropped, as on any network that is full.
MAX_WAITING = 5000
#: Envelopes a second that all strangers together may send, and how many at once.
STRANGER_RATE = 20.0
STRANGER_BURST = 40.0
#: Envelopes taken from the sockets a tick.
MAX_RECEIVED = 2000


class Gate:
    """Hands out what arrived, so that one peer's flood never delays another."""

    def __init__(self) -> None:
        self._waiting: dict[Peer, deque[Received]] = {}
        self._patience = STRANGER_BURST
        self._last: float | None = None
        self.dropped = 0

    @property
    def has_more(self) -> bool:
        """Whether something waits for the next tick."""
        return bool(self._waiting)

    def take(self, port: Port, boot: float, is_known: Callable[[str], bool]) -> list[Received]:
        """The envelopes for this tick, in order per peer."""
        if self._last is not None:
            self._patience = min(STRANGER_BURST, self._patience + max(0.0, boot - self._last) * STRANGER_RATE)
        self._last = boot
        for received in port.receive(MAX_RECEIVED):
            peer = received.peer
            if not is_known(peer.key):
                if self._patience < 1:
                    self.dropped += 1
                    continue
                self._patience -= 1
            queue = self._waiting.get(peer)
            if queue is None:
                queue = self._waiting[peer] = deque()
            if len(queue) >= MAX_WAITING:
                self.dropped += 1
                continue
            queue.append(received)
        taken: list[Received] = []
        for peer in list(self._waiting):
            queue = self._waiting[peer]
            for _ in range(min(PER_TICK, len(queue))):
                taken.append(queue.popleft())
            if not queue:
                del self._waiting[peer]
        return taken

    def forget_old(self) -> None:
        """Nothing is kept of a peer beyond its waiting envelopes; the count of dropped ones starts anew."""
        self.dropped = 0
