"""The second way up, straight to hq-server, while the user-server is away: reports, the lease, stops and signals; never a start.

What hq-server acknowledges here stays in the spool until it has gone by the user-server, too: its ledger must know what ended and what
never began. hq-server knows repeated reports by their attempts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from hq.core.runner_events import Event, SlotsSet
from hq.execserver.dial import Dialer
from hq.execserver.reporting import RESEND_AFTER, RESEND_AT_MOST
from hq.kernel.bus import Port
from hq.kernel.clock import Now
from hq.kernel.identity import may_send
from hq.model.ids import AttemptKey
from hq.model.states import RunKind
from hq.model.user import Role
from hq.protocol.base import Message
from hq.protocol.peers import PeerBye, PeerHeartbeat, PeerRefused
from hq.protocol.runs import ExecWelcome, RunHold, RunRecorded, RunReported, RunRoll, RunSignal, RunStop

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer

#: So long without the user-server, then hq-server is dialled (seconds).
PATIENCE = 5.0


class SecondUpstream:
    """The link to hq-server. `handlers` are those for words of the user-server, of which only stops, signals and holds are used."""

    def __init__(self, make_port: Callable[[str], Port], handlers: dict[type[Message], Callable[[Any, Any, Now], list[Event]]]) -> None:
        self._make_port = make_port
        used: tuple[type[Message], ...] = (RunStop, RunSignal, RunHold)
        self._handlers = {kind: handlers[kind] for kind in used}
        self._dialer: Dialer | None = None
        self._alone_since: float | None = None
        self._told = 0  # highest sequence that hq-server has committed
        self._sent = 0
        self._sent_at = 0.0
        self._wake: float | None = None

    @property
    def is_linked(self) -> bool:
        """Whether hq-server has let us in."""
        return self._dialer is not None and self._dialer.is_linked

    def has_all(self, server: ExecServer) -> bool:
        """Whether hq-server knows everything that the spool holds."""
        return all(sequence <= self._told for sequence in server.spool.batches)

    def tick(self, server: ExecServer, now: Now) -> list[Event]:
        """Dial when the user-server is away, hang up when it is back; take what came, send what is to be told."""
        addresses = server.bootstrap.servers
        if server.dialer.is_linked or not addresses:
            self.close()
            self._alone_since = self._wake = None
            return []
        if self._alone_since is None:
            self._alone_since = now.boot
        if now.boot < self._alone_since + PATIENCE:
            self._wake = self._alone_since + PATIENCE
            return []
        dialer = self._dialer
        if dialer is None:
            dialer = self._dialer = Dialer(addresses, server.bootstrap.heartbeat, self._make_port, server.hello)
            dialer.on_open, dialer.on_close = server.dialer.on_open, server.dialer.on_close
        events: list[Event] = []
        for received in dialer.receive(now):
            if received.letter is not None:
                if not server.epochs.take(received.letter.epoch, server.lease.seconds, now):
                    dialer.lost("an older hq-server spoke", now)
                    break
                for message in received.letter.messages:
                    if may_send(message, Role.SERVER):
                        server.lease.heard(now, is_second=True)
                        events.extend(self._take(server, dialer, message, now))
        if dialer.is_linked:
            self._speak(server, dialer, now)
        self._wake = dialer.keep_up(now)
        return events

    def wake(self) -> float | None:
        """When `tick` has something to do (CLOCK_BOOTTIME)."""
        return self._wake

    def close(self) -> None:
        """Hang up."""
        if self._dialer is not None:
            self._dialer.send(PeerBye(reason="its user-server is back"))
            self._dialer.close()
            self._dialer = None

    def _take(self, server: ExecServer, dialer: Dialer, message: Message, now: Now) -> list[Event]:
        if isinstance(message, ExecWelcome):
            dialer.welcomed(message.heartbeat, now)
            server.lease.given(message.lease, now)
            server.log.info("the user-server is away: linked to hq-server at %s", dialer.route)
            dialer.send(RunRoll(host=server.bootstrap.host, runs=server.roll()))
            self._sent = self._told
            return [SlotsSet(max(1, message.slots))]
        if isinstance(message, RunRecorded):
            self._told = max(self._told, min(message.sequence, server.spool.last))
        elif isinstance(message, PeerRefused):
            server.log.warning("refused by hq-server: %s", message.reason)
            dialer.refused(message.reason, now)
        elif isinstance(message, PeerBye):
            dialer.lost(message.reason, now)
        elif isinstance(message, RunStop):
            # of what is not known here only the user-server can say whether it ever came
            known = tuple(key for key in message.runs if server.runner.is_known(AttemptKey(*key)))
            return self._handlers[RunStop](server, msgspec.structs.replace(message, runs=known), now)
        elif type(message) in self._handlers:
            return self._handlers[type(message)](server, message, now)
        return []

    def _speak(self, server: ExecServer, dialer: Dialer, now: Now) -> None:
        if dialer.is_beat_due(now):
            dialer.send(PeerHeartbeat())
        if self._sent > self._told and now.boot - self._sent_at >= RESEND_AFTER:
            self._sent = self._told
        count = 0
        for sequence, reports in server.spool.batches.items():
            if sequence <= self._sent:
                continue
            # what never began is between hq-server and the user-server, who may start it again
            kept = tuple(report for report in reports if report.kind is not RunKind.NEVER_STARTED)
            message = RunReported(host=server.bootstrap.host, sequence=sequence, sent=now.wall, reports=kept)
            if count >= RESEND_AT_MOST or not dialer.send(message):
                break
            self._sent, self._sent_at = sequence, now.boot
            count += 1
