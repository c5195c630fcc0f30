"""What each message from above means to an exec-server: events for the core, or an answer. One function a message."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hq import VERSION
from hq.core.runner_events import BlobsArrived, Event, Granted, HoldAsked, Ordered, OrderRefused, SignalAsked, SlotsSet, StopAsked
from hq.errors import HqError
from hq.execserver.outputs import read_piece
from hq.kernel.clock import Now
from hq.model.runs import StartOrder
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import LogData, LogFetch
from hq.protocol.peers import PeerAsk, PeerBye, PeerFacts, PeerHeartbeat, PeerRefused, PeerShutdown
from hq.protocol.runs import BlobPut, ExecWelcome, RunHold, RunRecorded, RunSignal, RunStart, RunStop

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer

#: Largest piece of output in one answer.
MAX_PIECE = 4 << 20


def on_start(server: ExecServer, message: RunStart, now: Now) -> list[Event]:
    """Orders: checked against the user's signature, written down, then known to the core."""
    events: list[Event] = []
    for order in message.orders:
        if server.runner.is_known(order.key):
            if not order.is_ahead:
                events.append(Granted(order))
            continue
        signed = message.specs.get(order.job)
        admitted = server.orders.admit(order, signed)
        if isinstance(admitted, str):
            server.log.warning("%s refused: %s", order.key, admitted)
            events.append(OrderRefused(order, admitted))
            continue
        assert signed is not None
        server.take_order(order, signed)
        events.append(Ordered(order, admitted))
    return events


def on_stop(server: ExecServer, message: RunStop, now: Now) -> list[Event]:
    """Runs are to end."""
    events: list[Event] = []
    for key in message.runs:
        run = server.runner.runs.get(key)
        if message.is_only_queued and run is not None and run.is_live:
            events.append(StopAsked(key, message.outcome, message.reason, is_only_queued=True))  # of the moment: it is not written down
            continue
        server.journal.note(t="stop", key=key, outcome=message.outcome, reason=message.reason)
        events.append(StopAsked(key, message.outcome, message.reason, message.is_only_queued))
    return events


def on_signal(server: ExecServer, message: RunSignal, now: Now) -> list[Event]:
    """A signal for runs. A number that is no signal is nonsense."""
    if not 0 < message.signal <= 64:
        server.log.warning("signal %d is none", message.signal)
        return []
    return [SignalAsked(key, message.signal) for key in message.runs]


def on_hold(server: ExecServer, message: RunHold, now: Now) -> list[Event]:
    """What has not begun is to be held, or let go on."""
    return [HoldAsked(key, message.is_held) for key in message.runs]


def on_recorded(server: ExecServer, message: RunRecorded, now: Now) -> list[Event]:
    """Reports are committed: the spool forgets them."""
    if message.sequence > server.spool.last:
        server.log.warning("sequence %d was recorded, and the last sent is %d", message.sequence, server.spool.last)
    elif server.spool.recorded(message.sequence):
        server.journal.note(t="recorded", sequence=message.sequence)
    return []


def on_blobs(server: ExecServer, message: BlobPut, now: Now) -> list[Event]:
    """Environments and scripts came."""
    present = set()
    for digest, sealed in message.blobs.items():
        try:
            is_kept = server.launcher.blobs.put(digest, sealed)
        except OSError as error:
            server.log.error("a blob cannot be kept: %s", error)
            continue
        if is_kept:
            present.add(digest)
            server.wanted.discard(digest)
        else:
            server.log.warning("a blob does not fit its digest %.40s", digest)
    return [BlobsArrived(frozenset(present), frozenset(message.missing))]


def on_welcome(server: ExecServer, message: ExecWelcome, now: Now) -> list[Event]:
    """The user-server let us in."""
    server.linked(message, now)
    return [SlotsSet(max(1, message.slots))]


def on_refused(server: ExecServer, message: PeerRefused, now: Now) -> list[Event]:
    """The user-server does not want us: noted, and tried again later."""
    server.log.warning("refused by the user-server: %s", message.reason)
    server.dialer.refused(message.reason, now)
    return []


def on_shutdown(server: ExecServer, message: PeerShutdown, now: Now) -> list[Event]:
    """End as soon as no run is left."""
    server.is_retiring = True
    return []


def nothing(server: ExecServer, message: Message, now: Now) -> list[Event]:
    """A sign of life, no more."""
    return []


def on_bye(server: ExecServer, message: PeerBye, now: Now) -> list[Event]:
    """The user-server stops. Runs run on; it is dialled again until it (or another one) is back."""
    server.log.info("the user-server says goodbye: %s", message.reason)
    server.lease.suspended(now)
    server.dialer.lost("said goodbye", now)
    return []


HANDLERS: dict[type[Message], Callable[[Any, Any, Now], list[Event]]] = {
    RunStart: on_start,
    RunStop: on_stop,
    RunSignal: on_signal,
    RunHold: on_hold,
    RunRecorded: on_recorded,
    BlobPut: on_blobs,
    ExecWelcome: on_welcome,
    PeerRefused: on_refused,
    PeerShutdown: on_shutdown,
    PeerHeartbeat: nothing,
    PeerBye: on_bye,
}


def answer(server: ExecServer, message: Message, now: Now) -> Message | None:
    """The answer to a request, None if the message is no request."""
    if isinstance(message, PeerAsk):
        return facts(server, message)
    if isinstance(message, LogFetch):
        return fetch_log(server, message)
    if isinstance(message, PeerShutdown):
        return PeerBye(reason="ends when its last run has ended")
    return None


def facts(server: ExecServer, message: PeerAsk) -> PeerFacts:
    """What this exec-server is and does."""
    runner = server.runner
    return PeerFacts(
        facts={
            "version": VERSION,
            "host": server.bootstrap.host,
            "user": server.bootstrap.user,
            "pid": os.getpid(),
            "route": server.dialer.route,
            "slots": runner.slots,
            "slots in use": runner.used,
            "runs": len(runner.runs),
            "reports not yet recorded": sum(map(len, server.spool.batches.values())),
            "control groups": server.has_cgroups,
            **(server.batch.facts() if server.batch is not None else {}),
        }
    )


def fetch_log(server: ExecServer, message: LogFetch) -> Message:
    """A piece of the output of a run. The path follows from what the user signed, and from nothing else."""
    try:
        order = StartOrder(message.job, message.index, message.attempt, ())
        spec = server.orders.admit(order, message.signed)
        if isinstance(spec, str):
            return Problem(text=spec)
        path = server.launcher.paths(spec, order).of_stream(message.stream)
        if not path:
            return Problem(text=f"{order.key.task} has no {message.stream}" + (" file: it was submitted without --logfile" if message.stream == "log" else ""))
        piece = read_piece(path, message.offset, max(1, min(message.limit, MAX_PIECE)))
    except HqError as error:
        return Problem(text=f"on {server.bootstrap.host}: {error}", exit_code=1)
    is_end = piece.offset + len(piece.data) >= piece.size and not server.is_live(order.key)
    return LogData(data=piece.data, offset=piece.offset, size=piece.size, is_end=is_end, path=os.fsdecode(path).encode("utf-8", "replace").decode())
