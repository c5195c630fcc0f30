"""The way up: which address of the user-server is tried, for how long, and when again. It speaks hello and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hq.kernel.bus import Port, Received
from hq.kernel.clock import Now
from hq.kernel.zmqbus import ZmqClient
from hq.protocol.base import Message
from hq.protocol.codec import envelope

CONNECT_WITHIN = 3.0  # seconds that an address has for a connection: one without a way answers nothing at all
ANSWER_WITHIN = 10.0  # seconds that it has after that for its welcome
PAUSES = (1.0, 2.0, 5.0, 10.0, 30.0)  # seconds between rounds over all addresses
REFUSED_PAUSE = 30.0
SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT = 0.05, 600.0  # seconds; what a welcome says beyond the longest is not taken
KNOCK_EVERY = 0.2  # seconds between looks whether the connection is up


class Dialer:
    """One link upward. `make_port(address)` opens a connection; `on_open` and `on_close` tell the loop of its descriptors."""

    def __init__(
        self, upstreams: tuple[str, ...], heartbeat: float, make_port: Callable[[str], Port], hello: Callable[[str], Message]
    ) -> None:
        self._upstreams = upstreams
        self._make_port = make_port
        self._hello = hello
        self.heartbeat = heartbeat
        self.on_open: Callable[[Any], None] = lambda port: None
        self.on_close: Callable[[Any], None] = lambda port: None
        self.port: Port | None = None
        self.is_linked = False
        self.route = ""
        self.trouble: list[str] = []
        self._is_greeted = False
        self._which = 0
        self._round = 0
        self._deadline = 0.0  # of the present try, of the silence, or of the pause
        self._next_beat = 0.0

    def receive(self, now: Now) -> list[Received]:
        """What came in. Any readable word from above is a sign of life."""
        if self.port is None:
            return []
        got = self.port.receive()
        if self.is_linked and any(each.letter is not None for each in got):
            self._deadline = now.boot + 3 * self.heartbeat
        return got

    def has_news(self) -> bool:
        """Whether something may have come in. A port that does not tell may always have."""
        return self.port is not None and (not isinstance(self.port, ZmqClient) or self.port.is_ready())

    def welcomed(self, heartbeat: float, now: Now) -> None:
        """The user-server let us in."""
        self.is_linked = True
        if 0 < heartbeat <= LONGEST_HEARTBEAT:  # nonsense (NaN too) must not make us wait for ever, nor spin
            self.heartbeat = max(heartbeat, SHORTEST_HEARTBEAT)
        self._round = 0
        self._deadline = now.boot + 3 * self.heartbeat
        self._next_beat = now.boot + self.heartbeat

    def refused(self, reason: str, now: Now) -> None:
        """The user-server does not want us: try again later."""
        self.trouble = [f"{self._upstreams[self._which]}: refused: {reason}"]
        self._hang_up()
        self._which = 0
        self._deadline = now.boot + REFUSED_PAUSE

    def send(self, *messages: Message, re: int = 0) -> bool:
        """Send upward; False if there is no link or its queue is full."""
        return self.port is not None and self.is_linked and self.port.send(envelope(*messages, re=re))

    def is_beat_due(self, now: Now) -> bool:
        """Whether a heartbeat is to be sent now; asked once a tick."""
        if not self.is_linked or now.boot < self._next_beat:
            return False
        self._next_beat = now.boot + self.heartbeat
        return True

    def keep_up(self, now: Now) -> float:
        """Dial, give up, dial the next. Returns when to be called again (CLOCK_BOOTTIME)."""
        if self.port is not None and now.boot >= self._deadline:
            address = self._upstreams[self._which]
            if self.is_linked:
                self.trouble = [f"{address}: silent for {3 * self.heartbeat:g} s"]
                self._hang_up()
                self._which = 0
                self._deadline = now.boot
            else:
                waited = f"no answer within {ANSWER_WITHIN:g} s" if self._is_greeted else f"no connection within {CONNECT_WITHIN:g} s"
                self.trouble.append(f"{address}: {waited}")
                self._hang_up()
                self._which += 1
                self._deadline = now.boot
                if self._which >= len(self._upstreams):
                    self._which = 0
                    self._deadline = now.boot + PAUSES[min(self._round, len(PAUSES) - 1)]
                    self._round += 1
        if self.port is None and now.boot >= self._deadline:
            self._dial(now)
        if self.is_linked:
            return min(self._deadline, self._next_beat)
        if self.port is not None and not self._is_greeted:
            self._greet(now)
            return min(self._deadline, now.boot + KNOCK_EVERY)
        return self._deadline

    def lost(self, why: str, now: Now) -> None:
        """The other end is gone: dial again after a moment."""
        self.trouble = [f"{self._upstreams[self._which]}: {why}"]
        self._hang_up()
        self._which = 0
        self._deadline = now.boot + PAUSES[0]

    def redial(self, upstreams: tuple[str, ...], heartbeat: float) -> None:
        """Begin anew, with the addresses of a new bootstrap."""
        self._hang_up()
        self._upstreams, self.heartbeat = upstreams, heartbeat
        self._which = self._round = 0
        self._deadline = 0.0
        self.trouble = []

    def close(self) -> None:
        """Give up the link for good."""
        self._hang_up()

    def _dial(self, now: Now) -> None:
        address = self._upstreams[self._which]
        if self._which == 0 and self._round:
            self.trouble = self.trouble[-len(self._upstreams) :]
        self.route = address + (f" ({'; '.join(self.trouble)})" if self.trouble else "")
        self.port = self._make_port(address)
        self.on_open(self.port)
        self._is_greeted = False
        self._deadline = now.boot + CONNECT_WITHIN
        self._greet(now)

    def _greet(self, now: Now) -> None:
        """Say hello as soon as there is a connection: a port takes nothing before."""
        assert self.port is not None
        if self.port.send(envelope(self._hello(self.route))):
            self._is_greeted = True
            self._deadline = now.boot + ANSWER_WITHIN

    def _hang_up(self) -> None:
        self.is_linked = False
        if self.port is not None:
            self.on_close(self.port)
            self.port.close()
            self.port = None
