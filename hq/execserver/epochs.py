"""Which hq-server an exec-server believes: the newest one that it has heard of, by the epoch that every message carries.

A user-server may not have heard of a newer hq-server yet (it stood still, or was replaced on another machine). What it passes on from an
older one starts nothing, is no proof that reports are recorded, and does not hold the lease; stops and requests for output count, whoever asks.
Not for ever: an older database that was put back without a new incarnation counts lower from then on, and the newer one is never heard again.
"""

from __future__ import annotations

from hq.execserver.journal import Journal
from hq.kernel.clock import Now
from hq.protocol.base import Message
from hq.protocol.runs import RunRecorded, RunStart

#: So long after the newer hq-server was heard of last, an older one is believed again (seconds); at most half the lease, which must not end for it.
PATIENCE = 60.0
#: Words of hq-server that only the present one may say.
OF_NOW: tuple[type[Message], ...] = (RunStart, RunRecorded)


class Epochs:
    """The newest one, over a restart of the worker, too; `journal` keeps it. Epoch 0 is said where none is known, and is no older one."""

    def __init__(self, newest: int, journal: Journal, now: Now) -> None:
        self.newest = newest
        self._journal = journal
        self._heard = now.boot

    def take(self, epoch: int, lease: float, now: Now) -> bool:
        """A letter came with this epoch. Returns whether it is no older one's. `lease`: its seconds, 0: none was given."""
        if epoch <= 0:
            return True
        if epoch < self.newest and now.boot - self._heard < min(PATIENCE, lease / 2 or PATIENCE):
            return False
        if epoch != self.newest:
            self.newest = epoch
            self._journal.note(t="epoch", sequence=epoch)
        self._heard = now.boot
        return True
