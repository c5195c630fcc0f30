"""Messages about runs: reports, rolls, blobs. Whose they are is the connection's word, not theirs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hq.core.events import RollCalled, RunsReported
from hq.core.restored import is_awaited
from hq.errors import RemoteError
from hq.model.ids import AttemptKey
from hq.model.runs import RunReport
from hq.protocol.base import Message
from hq.protocol.runs import BlobGet, BlobPut, RunRecorded, RunReported, RunRoll
from hq.server import blobs
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

MAX_REASON = 2000
MAX_DIGESTS = 1000
_MAX = 1 << 62


def _moment(value: float | None, otherwise: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) and 0 <= value < 1e11 else otherwise


def _within(value: int | None, low: int, high: int) -> int | None:
    return value if value is not None and low <= value <= high else None


def _is_sound(report: RunReport) -> bool:
    """Whether there is nothing to take out, which is asked for each task. NaN is between no two numbers."""
    return (
        0 <= report.at < 1e11 and (report.started is None or 0 <= report.started < 1e11) and (report.pid is None or 0 < report.pid < 2**31)
        and (report.exit_code is None or 0 <= report.exit_code < 256) and (report.signal is None or 0 < report.signal < 128)
        and (report.max_rss is None or 0 <= report.max_rss <= _MAX) and (report.cpu is None or 0 <= report.cpu < 1e12)
        and len(report.reason) <= MAX_REASON
    )  # fmt: skip


def clean_report(report: RunReport, sent: float) -> RunReport:
    """The report with what no process can have taken out: a peer's numbers must fit the database's columns."""
    if _is_sound(report):
        return report
    cpu = report.cpu if report.cpu is not None and math.isfinite(report.cpu) and 0 <= report.cpu < 1e12 else None
    at = _moment(report.at, sent)
    assert at is not None
    return replace(report, at=at, started=_moment(report.started, None), pid=_within(report.pid, 1, 2**31 - 1),
                   exit_code=_within(report.exit_code, 0, 255), signal=_within(report.signal, 1, 127),
                   max_rss=_within(report.max_rss, 0, _MAX), cpu=cpu, reason=report.reason[:MAX_REASON])  # fmt: skip


def is_key(key: AttemptKey) -> bool:
    """Whether an attempt can have this name."""
    return 0 < key.job < _MAX and -1 <= key.index < 2**31 and 0 < key.attempt < 2**31


def _check_host(request: Request, host: str) -> None:
    """An exec-server's own connection speaks for its host only; a user-server for all of its user's."""
    if request.caller.host and request.caller.host != host:
        raise RemoteError(f"a connection of {request.caller.host} reports about {host[:255]}")


def reported(server: Server, request: Request, message: RunReported) -> None:
    """Reports of an exec-server; acknowledged when they are durable."""
    _check_host(request, message.host)
    if not 0 <= message.sequence < _MAX:
        raise RemoteError(f"run.reported of {message.host[:255]} has the sequence number {message.sequence}")
    if is_awaited(server.cluster, request.caller.user):
        return  # a database that has forgotten the job must not acknowledge its end: all is told anew after the comparison
    sent = _moment(message.sent, None)
    now = server.now.wall
    reports = tuple(clean_report(report, now if sent is None else sent) for report in message.reports if is_key(report.key))
    if reports and message.host in server.cluster.hosts:
        skew = 0.0 if sent is None else server.clocks.difference((request.caller.user, message.host), now - sent)
        server.add(RunsReported(user=request.caller.user, host=message.host, reports=reports, skew=skew))
    if message.sequence and request.peer is not None:
        peer, answer, cluster = request.peer, RunRecorded(host=message.host, sequence=message.sequence), server.cluster

        def acknowledge() -> None:
            # it counts for all reports before this one, too: of those that a rebuilt core has forgotten all is told anew
            if server.cluster is cluster:
                server.outbox.tell(peer, answer)

        server.after_commit(acknowledge)


def roll(server: Server, request: Request, message: RunRoll) -> None:
    """What an exec-server has, after it came (back)."""
    _check_host(request, message.host)
    if message.host in server.cluster.hosts and not is_awaited(server.cluster, request.caller.user):
        server.add(RollCalled(user=request.caller.user, host=message.host, runs=frozenset(key for key in message.runs if is_key(key))))


def get_blobs(server: Server, request: Request, message: BlobGet) -> None:
    """Sealed environments and scripts of the caller's own jobs."""
    user, digests = request.caller.user, message.digests[:MAX_DIGESTS]

    def answer(found: dict[str, bytes]) -> None:
        missing = tuple(digest for digest in message.digests if digest not in found)
        request.reply(BlobPut(blobs=found, missing=missing))

    server.when_settled(request, lambda: server.ask(request, lambda: blobs.own_blobs(server.store, digests, user), answer))


HANDLERS: dict[type[Message], Any] = {RunReported: reported, RunRoll: roll, BlobGet: get_blobs}
