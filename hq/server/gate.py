"""The door for envelopes: users take turns message by message, one user's flood waits for itself, strangers find little patience. Knows no message."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from hq.kernel.bus import Peer, Port, Received
from hq.protocol.codec import Envelope

#: Messages of one user between two steps of the core, and their bytes; the rest waits here.
PER_STEP = 1000
BYTES_PER_STEP = 4 << 20
#: Questions of one user that are looked into at the same time.
MAX_OPEN = 2
#: Envelopes of one user that may wait here, and their bytes; what comes beyond is dropped, as on any network that is full.
MAX_WAITING = 5000
MAX_WAITING_BYTES = 16 << 20
#: Envelopes a second that all strangers together may send, and how many at once.
STRANGER_RATE = 20.0
STRANGER_BURST = 40.0
#: Envelopes taken from the sockets a tick.
MAX_RECEIVED = 2000


class _Lane:
    """What waits of one user, and what he had of this step."""

    __slots__ = ("bytes", "count", "place", "queue", "waiting")

    def __init__(self) -> None:
        self.queue: deque[Received] = deque()
        self.waiting = 0  # bytes in the queue
        self.place = 0  # in the messages of the first envelope
        self.count = 0
        self.bytes = 0

    @property
    def has_share(self) -> bool:
        return self.count < PER_STEP and self.bytes < BYTES_PER_STEP

    def next(self) -> Received:
        """The next message, in an envelope of its own."""
        received = self.queue[0]
        letter = received.letter
        self.count += 1
        if letter is not None and len(letter.messages) > 1:
            place, self.place = self.place, self.place + 1
            received = received._replace(letter=Envelope(letter.protocol, letter.epoch, letter.id, letter.re, [letter.messages[place]]))
            if self.place < len(letter.messages):
                return received
        self.queue.popleft()
        self.place = 0
        self.waiting -= received.size
        self.bytes += received.size
        return received


class Gate:
    """Hands out what arrived, so that one user's flood never delays another."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._open: dict[str, int] = {}
        self._patience = STRANGER_BURST
        self._last: float | None = None
        self.dropped = 0

    @property
    def has_more(self) -> bool:
        """Whether something could be handed out now."""
        return any(lane.queue and self._may_go_on(user, lane) for user, lane in self._lanes.items())

    def opened(self, user: str) -> None:
        """A question of this user is being looked into."""
        self._open[user] = self._open.get(user, 0) + 1

    def closed(self, user: str) -> None:
        """That came to its end."""
        self._open[user] -= 1
        if not self._open[user]:
            del self._open[user]

    def renew(self) -> None:
        """The core has taken all that was handed out: everybody has a new share."""
        for user, lane in list(self._lanes.items()):
            lane.count = lane.bytes = 0
            if not lane.queue:
                del self._lanes[user]

    def take(self, port: Port, boot: float, user_of: Callable[[Peer], str]) -> Iterator[Received]:
        """The messages for this tick, each in an envelope, in order per user. `user_of` a stranger is ''."""
        if self._last is not None:
            self._patience = min(STRANGER_BURST, self._patience + max(0.0, boot - self._last) * STRANGER_RATE)
        self._last = boot
        for received in port.receive(MAX_RECEIVED):
            self._keep(user_of(received.peer), received)
        turns = deque((user, lane) for user, lane in self._lanes.items() if lane.queue)
        while turns:
            user, lane = turns.popleft()
            if self._may_go_on(user, lane):
                yield lane.next()
                if lane.queue:
                    turns.append((user, lane))

    def forget_old(self) -> None:
        """Nothing is kept of a user beyond what waits; the count of dropped envelopes starts anew."""
        self.dropped = 0

    def _keep(self, user: str, received: Received) -> None:
        if not user:
            if self._patience < 1:
                self.dropped += 1
                return
            self._patience -= 1
        lane = self._lanes.setdefault(user, _Lane())
        if len(lane.queue) >= MAX_WAITING or lane.waiting >= MAX_WAITING_BYTES:
            self.dropped += 1
        elif received.letter is None or received.letter.messages:
            lane.queue.append(received)
            lane.waiting += received.size

    def _may_go_on(self, user: str, lane: _Lane) -> bool:
        # strangers ask nothing of the database
        return lane.has_share and (not user or self._open.get(user, 0) < MAX_OPEN)
