"""Messages that bring ledgers and state database together: what others have cancelled, and, after a restore, what the ledgers know."""

from __future__ import annotations

from typing import ClassVar

from hq.model.restored import Cancel, JobWord, Ranges
from hq.protocol.base import DOWN, USER, Message


class LedgerWanted(Message, frozen=True, kw_only=True, tag="ledger.wanted"):
    """The state database was restored: what do you know of these jobs (ranges of ids), and of all above an id?"""

    sent_by: ClassVar = DOWN
    jobs: Ranges
    above: int


class LedgerStatement(Message, frozen=True, kw_only=True, tag="ledger.statement"):
    """What a ledger says, in pieces; the next one goes after the answer to this. `since`: from when on it knows of every start, by hq-server's
    clock; 0: not known. `sent`: the clock to which all moments in it were moved, on sending. `blobs`: sealed environments and scripts."""

    sent_by: ClassVar = USER
    answered_by: ClassVar = ("ledger.noted", "problem")
    jobs: tuple[JobWord, ...]
    blobs: dict[str, bytes] = {}
    since: float = 0.0
    sent: float = 0.0
    is_last: bool = False


class LedgerNoted(Message, frozen=True, kw_only=True, tag="ledger.noted"):
    """A piece was compared, and what follows from it is committed. `text`: what it came to."""

    sent_by: ClassVar = DOWN
    text: str


class LedgerCancelled(Message, frozen=True, kw_only=True, tag="ledger.cancelled"):
    """Others than their owner have cancelled these jobs and tasks: an administrator. `told` goes into the next hello: hq-server's
    incarnation, and the number up to which all such are known now. Only to those whose hello says that they take it."""

    sent_by: ClassVar = DOWN
    cancels: tuple[Cancel, ...]
    told: tuple[int, int]
