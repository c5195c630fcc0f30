"""The links of a login node's exec-server to its pilots: to them it is what a user-server is to any exec-server.

A pilot is known by the key of its connection. It gets signed orders and sealed blobs, and checks them as every exec-server does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from logging import Logger

from hq.core.clocks import Clocks
from hq.kernel.bus import Peer, Port
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome
from hq.protocol.base import Message
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerBye, PeerHeartbeat, PeerShutdown
from hq.protocol.runs import (
    BlobGet,
    BlobPut,
    ExecHello,
    ExecWelcome,
    RunHold,
    RunRecorded,
    RunReported,
    RunRoll,
    RunSignal,
    RunStart,
    RunStop,
)

HEARTBEAT = 5.0
SILENT = 4  # heartbeats
SHORT = 2.0  # seconds: runs that are shorter are ordered ahead of their slots
HORIZON = 0.5  # seconds of work that are ordered ahead
AHEAD = 60  # orders ahead for each slot at most


@dataclass(slots=True)
class Link:
    """A pilot that has said hello. `runs`: what was given to it, with the slots there; `ahead`: what of that came ahead of its slots, how
    many it needs, and its job. Those begin with the slots of a run that ends there (its heirs), so that no two runs have the same."""

    tag: str
    peer: Peer
    slots: int
    heard: float
    machine: str = ""
    runs: dict[AttemptKey, tuple[int, ...]] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    ahead: dict[AttemptKey, tuple[int, SignedSpec]] = field(default_factory=dict)
    has_rolled: bool = False
    typical: float = 60.0  # seconds that its runs take, the last ones most

    @property
    def room(self) -> int:
        """Slots that orders may be given for: with short runs also for those that follow, so that none waits for our next word."""
        ahead = self.slots * max(1, min(AHEAD, int(HORIZON / max(self.typical, 0.001)))) if self.typical < SHORT else 0
        return len(self.free) + max(0, ahead - sum(count for count, _ in self.ahead.values()))

    def is_silent(self, boot: float) -> bool:
        """Whether it was not heard for too long."""
        return boot - self.heard > SILENT * HEARTBEAT

    def note(self, seconds: float) -> None:
        """A run took so long."""
        self.typical += 0.2 * (seconds - self.typical)


def moved(report: RunReport, skew: float) -> RunReport:
    """A report whose moments are by our clock."""
    return replace(report, at=report.at + skew, started=None if report.started is None else report.started + skew)


class PilotRelay:
    """All links. `tags` maps public keys of pilots to their tags; whoever else speaks is not heard."""

    def __init__(self, port: Port, host: str, log: Logger) -> None:
        self.tags: dict[str, tuple[str, int]] = {}  # key → tag, slots
        self.links: dict[str, Link] = {}
        self._port = port
        self._host = host
        self.blob: Callable[[str], bytes | None] = lambda digest: None
        self._log = log
        self._next_beat = 0.0
        self._clocks = Clocks()

    def receive(self, boot: float) -> tuple[list[tuple[Link, RunReport]], list[tuple[Link, RunReported]], list[Link]]:
        """Reports in their order, the messages that they came in (to be recorded), and pilots that told their roll."""
        reports: list[tuple[Link, RunReport]] = []
        batches: list[tuple[Link, RunReported]] = []
        rolled: list[Link] = []
        for received in self._port.receive():
            known = self.tags.get(received.peer.key)
            if received.letter is None or known is None:
                self._log.warning("somebody who is no pilot of ours spoke: %s", received.note or received.peer.key)
                continue
            tag, slots = known
            link = self.links.get(tag)
            if link is None:
                link = self.links[tag] = Link(tag, received.peer, slots, boot, free=list(range(slots)))
                if not any(isinstance(message, ExecHello) for message in received.letter.messages):
                    # it is linked to an earlier one of us: a welcome makes it call its roll
                    self._send(link, ExecWelcome(heartbeat=HEARTBEAT, epoch=0, slots=slots))
            link.peer, link.heard = received.peer, boot
            for message in received.letter.messages:
                if isinstance(message, ExecHello):
                    link.machine = message.machine
                    self._send(link, ExecWelcome(heartbeat=HEARTBEAT, epoch=0, slots=slots), re=received.letter.id)
                elif isinstance(message, RunRoll):
                    link.has_rolled = True
                    self._rolled(link, message)
                    rolled.append(link)
                elif isinstance(message, RunReported):
                    skew = self._clocks.difference((tag, ""), time.time() - message.sent)
                    reports += [(link, moved(report, skew)) for report in message.reports]
                    batches.append((link, message))
                elif isinstance(message, BlobGet):
                    found = {digest: self.blob(digest) for digest in message.digests}
                    missing = tuple(digest for digest, blob in found.items() if blob is None)
                    self._send(link, BlobPut(blobs={digest: blob for digest, blob in found.items() if blob is not None}, missing=missing))
                elif isinstance(message, PeerBye):
                    self.links.pop(tag, None)
        return reports, batches, rolled

    def _rolled(self, link: Link, message: RunRoll) -> None:
        """What it has and we did not know of was given to it before we were started anew."""
        for run in message.runs:
            key = AttemptKey(*run)
            if key not in link.runs:
                link.runs[key] = ()

    def recorded(self, link: Link, message: RunReported) -> None:
        """All of a message is in our journal."""
        self._send(link, RunRecorded(host=self._host, sequence=message.sequence))

    def give(self, link: Link, specs: dict[int, SignedSpec], orders: Iterable[StartOrder]) -> None:
        """Orders for a pilot; the slots are its own."""
        mine = []
        for order in orders:
            count = max(1, len(order.slots))
            is_ahead = bool(link.ahead) or len(link.free) < count
            if is_ahead:
                link.ahead[order.key] = (count, specs[order.job])
            slots = () if is_ahead else self._take(link, count)
            link.runs[order.key] = slots
            mine.append(StartOrder(order.job, order.index, order.attempt, slots, is_ahead))
        self._send(link, RunStart(host=self._host, specs=specs, orders=tuple(mine)))

    def _take(self, link: Link, count: int) -> tuple[int, ...]:
        slots = tuple(link.free[:count])
        del link.free[:count]
        return slots

    def over(self, link: Link, key: AttemptKey, heir: AttemptKey | None = None) -> None:
        """An attempt is over there, and its slots are the heir's."""
        slots = link.runs.pop(key, ())
        link.ahead.pop(key, None)
        if heir is not None and heir in link.runs:
            link.ahead.pop(heir, None)
            # it may have been given others meanwhile, which it does not use
            slots, link.runs[heir] = link.runs[heir], slots
        link.free += slots

    def promote(self, link: Link) -> None:
        """Slots that nobody inherited go to the first that came ahead.

        Where others have slots, which pass on, they go to the last: the first has begun by now.
        """
        orders, specs = [], {}
        is_still = not (link.ahead and link.free and any(link.runs.values()))
        while link.ahead:
            key = next(iter(link.ahead) if is_still else reversed(link.ahead))
            if len(link.free) < link.ahead[key][0]:
                break
            # with its job: the first order may be in the same batch there
            count, specs[key.job] = link.ahead.pop(key)
            link.runs[key] = self._take(link, count)
            orders.append(StartOrder(*key, link.runs[key]))
        if orders:
            self._send(link, RunStart(host=self._host, specs=specs, orders=tuple(orders)))

    def stop(self, link: Link, key: AttemptKey, reason: str) -> None:
        """End a run: TERM, grace and KILL are the pilot's business."""
        self._send(link, RunStop(host=self._host, runs=(key,), outcome=Outcome.CANCELLED, reason=reason))

    def signal(self, link: Link, key: AttemptKey, number: int) -> None:
        """Send a signal."""
        self._send(link, RunSignal(host=self._host, runs=(key,), signal=number))

    def hold(self, link: Link, key: AttemptKey, is_held: bool) -> None:
        """What it has not begun is given back."""
        self._send(link, RunHold(host=self._host, runs=(key,), is_held=is_held))

    def dismiss(self, link: Link) -> None:
        """It is to end once it has nothing to do."""
        self._send(link, PeerShutdown())

    def beat(self, boot: float) -> float:
        """Speak to all now and then. Returns when again."""
        if boot >= self._next_beat:
            self._next_beat = boot + HEARTBEAT
            for link in self.links.values():
                self._send(link, PeerHeartbeat())
        return self._next_beat

    def _send(self, link: Link, message: Message, re: int = 0) -> None:
        self._port.send(envelope(message, re=re), link.peer)
