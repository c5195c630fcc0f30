"""What administrators have cancelled goes into the ledger of its owner's user-server, so that no restored backup starts it.

Nothing is kept for that: the audit has each such act under a rising number, and a user-server says in its hello up to which it knows them.
So what was told to one that died in that moment is told again. A restore begins a new incarnation, in which the numbers begin anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hq.db import queries
from hq.errors import HqError
from hq.model.restored import INCARNATION, Cancel
from hq.protocol.ledgers import LedgerCancelled
from hq.server.sessions import Cancels, Session

if TYPE_CHECKING:
    from hq.server.daemon import Server

#: Acts in one message.
PIECE = 1000
_MAX = 1 << 62


def known(server: Server, told: tuple[int, int] | None) -> Cancels | None:
    """What a hello says."""
    if told is None:
        return None
    incarnation, number = told
    return Cancels(number if incarnation == _incarnation(server) and 0 < number < _MAX else 0)


def tell(server: Server, user: str) -> None:
    """Tell his user-server what it does not know yet; one that is not here says hello when it comes."""
    session = server.sessions.of(user)
    if session is not None and session.cancels is not None:
        session.cancels.is_due = True
        _read(server, session, session.cancels)


def beat(server: Server) -> None:
    """Try again what the database did not answer."""
    for session in server.sessions:
        if session.cancels is not None and session.cancels.is_due:
            _read(server, session, session.cancels)


def _read(server: Server, session: Session, cancels: Cancels) -> None:
    if cancels.is_read:
        return
    cancels.is_due, cancels.is_read = False, True
    engine, above = server.store.engine, cancels.above

    def ask() -> tuple[list[Cancel], int] | None:
        try:
            return queries.admin_cancels(engine, session.user, above, PIECE)
        except HqError:
            return None  # hq-server says elsewhere that its database is away

    def then(found: tuple[list[Cancel], int] | None) -> None:
        cancels.is_read = False
        if found is None:
            cancels.is_due = True
            return
        if server.sessions.of(session.user) is not session:
            return
        words, until = found
        if until > above:
            cancels.above = until
            server.outbox.tell(session.peer, LedgerCancelled(cancels=tuple(words), told=(_incarnation(server), until)))
        if until > above or cancels.is_due:
            _read(server, session, cancels)  # there may be more

    server.ask(None, ask, then)


def _incarnation(server: Server) -> int:
    return int(server.settings.get(INCARNATION, "0"))
