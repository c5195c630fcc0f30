"""Which function handles which message, and what a disabled user's daemons may still say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hq.protocol.base import Message
from hq.protocol.ledgers import LedgerStatement
from hq.protocol.peers import HostLink, HostLoad, KeyEnrol, KeyRegister, PeerAsk, PeerBye, PeerHeartbeat, PeerHello
from hq.protocol.runs import BlobGet, ExecHello, RunReported, RunRoll
from hq.server import (
    enrolment,
    handlers_admin,
    handlers_execs,
    handlers_jobs,
    handlers_ledgers,
    handlers_peers,
    handlers_reads,
    handlers_runs,
)
from hq.server.requests import Caller, Request, disabled_text

if TYPE_CHECKING:
    from hq.server.daemon import Server

Handler = Callable[["Server", Request, Any], None]

HANDLERS: dict[type[Message], Handler] = {
    KeyEnrol: enrolment.take_message,
    **handlers_peers.HANDLERS,
    **handlers_runs.HANDLERS,
    **handlers_ledgers.HANDLERS,
    **handlers_execs.HANDLERS,
    **handlers_jobs.HANDLERS,
    **handlers_reads.HANDLERS,
    **handlers_admin.HANDLERS,
}

#: What counts even from a disabled user: the truth about what runs already.
_REPORTING = (PeerHeartbeat, PeerBye, RunReported, RunRoll, HostLink, HostLoad, BlobGet, ExecHello, KeyRegister, LedgerStatement)
_FIRST_WORDS = (PeerHello, ExecHello, KeyEnrol, PeerAsk)


def refusal(caller: Caller, message: Message) -> str | None:
    """Why this caller's message is not heard, although its role would allow it; None: it is."""
    if caller.user and not caller.is_enabled and not isinstance(message, (*_REPORTING, PeerHello)):
        return disabled_text(caller.user)
    if type(message) not in HANDLERS:
        return f"hq-server has nothing to do with {type(message).__struct_config__.tag}"
    return None


def is_first_word(message: Message) -> bool:
    """Whether a connection may begin with this message, before it has said hello."""
    return isinstance(message, _FIRST_WORDS)


def handle(server: Server, request: Request, message: Message) -> None:
    """Do what the message wants. Raises HqError, which is the answer."""
    HANDLERS[type(message)](server, request, message)
