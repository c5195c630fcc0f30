"""When memory is ahead of the database, or may be half changed: what is recorded counts. The core is built anew, and everybody comes in again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hq.core.cluster import Cluster
from hq.core.events import ConfigurationRead
from hq.errors import DatabaseError, FencedError, HqError
from hq.server.batch import Batch
from hq.server.configuration import read_configuration
from hq.server.requests import Request

if TYPE_CHECKING:
    from hq.server.daemon import Server

#: Seconds between two tries to build the core anew from a database that refused a commit and then went away.
PAUSE = 5.0
#: Commits that the database may refuse one after the other before hq-server gives up.
MAX_REJECTED = 2


class Rebuilding:
    """`at`: when to build the core anew (CLOCK_BOOTTIME), None: no need."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.rejected = 0

    def reject(self, server: Server, batch: Batch, error: BaseException) -> None:
        """The database refused the data of a commit."""
        log = server.log.category("database")
        if isinstance(error, FencedError):
            log.error("a commit was refused: %s", error)
            server.standing.fenced(str(error))
            return
        log.error("a commit was refused, the state is read again from the database: %s", error)
        self.fail(batch, error if isinstance(error, HqError) else DatabaseError("the state database refused this: hq-server's log says why"))
        self.at = server.now.boot
        self.rejected += 1
        if self.rejected > MAX_REJECTED:
            server.failure = str(error)
            server.stop(server.now)

    def fail(self, batch: Batch, error: HqError) -> None:
        """Tell whoever waits for a batch that it came to nothing."""
        for event in batch.events:
            token = getattr(event, "token", None)
            if isinstance(token, Request):
                token.fail(error)

    def rebuild(self, server: Server) -> None:
        """Build the core anew from what is recorded; what has not been tried yet is kept."""
        try:
            snapshot = server.store.load()
        except Exception as error:  # noqa: BLE001 - whatever the driver raises: it is tried again
            server.log.category("database").error("the state cannot be read: %s", error)
            self.at = server.now.boot + PAUSE
            return
        self.at = None
        server.settings = dict(snapshot.settings)
        server.cluster = Cluster(server.instance, snapshot, server.now.wall)
        waiting, server.batch = server.batch, Batch()
        server.batch.events.append(read_configuration(server.etc, server.config))
        server.batch.events.extend(event for event in waiting.events if not isinstance(event, ConfigurationRead))
        server.batch.after, server.batch.extra = waiting.after, waiting.extra
        server.dismiss("hq-server has read its state again")
