"""After a restore of the state database: each user-server is asked for its ledger, and its words go to the core. The rules are in `hq.core.restored`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hq.core.events import LedgerCompared
from hq.core.restored import is_awaited
from hq.errors import HqError, RemoteError
from hq.kernel.keys import digest_of
from hq.model.ids import AttemptKey
from hq.model.job import check_wishes
from hq.model.restored import JobWord, Ranges, Tally, TaskWord
from hq.protocol.base import Message
from hq.protocol.jobs import SubmitItem
from hq.protocol.ledgers import LedgerNoted, LedgerStatement, LedgerWanted
from hq.protocol.peers import PeerBye
from hq.server.handlers_jobs import MAX_BLOB, submission
from hq.server.handlers_runs import clean_report, is_key
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

MAX_NAME = 255
_MAX = 1 << 62


def want(server: Server, request: Request) -> None:
    """Ask a user-server that has just come in for its ledger, if that is awaited."""
    user = request.caller.user
    if is_awaited(server.cluster, user) and request.peer is not None:
        server.log.category("jobs").info("the database was restored: the ledger of %s is asked for", user)
        jobs = _ranges(sorted(server.cluster.jobs_of.get(user, ())))
        server.outbox.tell(request.peer, LedgerWanted(jobs=jobs, above=server.cluster.restored.above))


def _ranges(ids: list[int]) -> Ranges:
    found: list[tuple[int, int]] = []
    for id in ids:
        if found and found[-1][1] == id - 1:
            found[-1] = (found[-1][0], id)
        else:
            found.append((id, id))
    return tuple(found)


def check_last_job(server: Server, user: str, last: int) -> None:
    """A user-server that knows of jobs which this database never gave: somebody forgot to say that it was restored."""
    if last > server.cluster.last_id:
        server.log.category("error").error(
            "the user-server of %s knows a job %d, and the state database has given ids up to %d only: was it restored without hq-dbadmin --restored?",
            user, last, server.cluster.last_id,
        )  # fmt: skip


def stated(server: Server, request: Request, message: LedgerStatement) -> None:
    """A user-server tells what its ledger says; after the last piece all is told anew, to a database that knows what it is about."""
    user, now = request.caller.user, server.now.wall
    if not (math.isfinite(message.sent) and math.isfinite(message.since) and 0 <= message.sent < 1e11):
        raise RemoteError("a ledger.statement has moments that cannot be")
    for digest, body in message.blobs.items():
        if len(body) > MAX_BLOB or digest_of(body) != digest:
            raise RemoteError("a ledger.statement has a script or environment that is not the one that its digest names")
    jobs = tuple(_word(server, user, word, message.sent) for word in message.jobs if 0 < word.id < _MAX)
    log = server.log.category("jobs")

    def render(value: object) -> Message:
        assert isinstance(value, Tally)
        if value.ended or value.running or value.taken_back or value.unknown or value.held:
            log.info("the ledger of %s was compared with the restored database: %s", user, value)
        if message.is_last and request.peer is not None:
            server.outbox.tell(request.peer, PeerBye(reason="your ledger was compared with the restored database: say hello"))
        return LedgerNoted(text=str(value))

    server.add(LedgerCompared(token=request.with_render(render), user=user, jobs=jobs, blobs=message.blobs, since=message.since,
                              skew=now - message.sent, is_last=message.is_last))  # fmt: skip


def _word(server: Server, user: str, word: JobWord, sent: float) -> JobWord:
    """A job's word with what nobody can have said taken out, and its spec read if it is a good one."""
    tasks = tuple(
        replace(task, host=task.host[:MAX_NAME], reports=tuple(clean_report(report, sent) for report in task.reports))
        for task in word.tasks
        if task.host and is_key(AttemptKey(word.id, task.index, task.attempt)) and all(_is_about(word, task, key) for key in (r.key for r in task.reports))
    )
    spec = None
    if word.signed is not None:
        try:
            check_wishes(word.wishes)
            spec = submission(server, user, SubmitItem(word.key, word.signed, word.wishes)).spec
        except HqError as error:
            server.log.category("security").warning("job %d in the ledger of %s cannot be taken: %s", word.id, user, error)
    submitted = word.submitted if math.isfinite(word.submitted) and 0 <= word.submitted < 1e11 else sent
    return replace(word, tasks=tasks, spec=spec, submitted=submitted)


def _is_about(word: JobWord, task: TaskWord, key: AttemptKey) -> bool:
    return key == AttemptKey(word.id, task.index, task.attempt)


HANDLERS: dict[type[Message], Any] = {LedgerStatement: stated}
