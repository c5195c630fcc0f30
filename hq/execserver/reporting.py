"""What goes up on the link to the user-server: the roll, heartbeats with the load, reports until they are recorded.

The roll opens a link: before it the user-server passes no order on. So while the user-server is behind a newer hq-server that was heard of here
(see `epochs`) the roll is kept back, and orders wait where they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hq.execserver.watch import host_load
from hq.kernel.clock import Now
from hq.protocol.base import Message, Problem
from hq.protocol.peers import PeerHeartbeat
from hq.protocol.runs import BlobGet, ExecWelcome, RunReported, RunRoll

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer

RESEND_AFTER = 30.0  # seconds without an acknowledgement until reports are sent once more
RESEND_AT_MOST = 200  # batches at once


class Reporting:
    """The state of one link after the other."""

    def __init__(self, now: Now) -> None:
        self._has_rolled = False
        self._sent = 0  # highest sequence that was sent on this link
        self._sent_at = now.boot

    def welcomed(self, server: ExecServer, message: ExecWelcome, now: Now) -> None:
        """The link is there (again): say what is here, and all that is not yet recorded."""
        self._has_rolled = False
        if server.epochs.take(message.epoch, server.lease.seconds, now):
            self.call_roll(server)
            return
        text = f"orders wait: they come from an older hq-server (epoch {message.epoch}) than was heard of here ({server.epochs.newest})"
        server.log.warning("%s", text)
        server.dialer.send(Problem(text=text))

    def call_roll(self, server: ExecServer) -> None:
        """Say what is here, once on a link."""
        if self._has_rolled or not server.dialer.is_linked:
            return
        self._has_rolled = True
        server.dialer.send(*_load_here(server), RunRoll(host=server.bootstrap.host, runs=server.roll()))
        self._sent = 0
        if server.wanted:
            server.dialer.send(BlobGet(digests=tuple(server.wanted)))

    def speak(self, server: ExecServer, now: Now) -> None:
        """Heartbeat, load, and reports that were not sent or not acknowledged."""
        if not server.dialer.is_linked:
            return
        if server.dialer.is_beat_due(now):
            server.dialer.send(PeerHeartbeat(), *_load_here(server))
        if not self._has_rolled:
            return
        if server.spool.batches and now.boot - self._sent_at >= RESEND_AFTER:
            self._sent = 0
        count = 0
        for sequence, reports in server.spool.batches.items():
            if sequence <= self._sent:
                continue
            message = RunReported(host=server.bootstrap.host, sequence=sequence, sent=now.wall, reports=reports)
            if count >= RESEND_AT_MOST or not server.dialer.send(message):
                break
            self._sent, self._sent_at = sequence, now.boot
            count += 1


def _load_here(server: ExecServer) -> tuple[Message, ...]:
    """The load of this machine; that of a login node says nothing about the batch system behind it."""
    return (host_load(server.bootstrap.host),) if server.batch is None else ()
