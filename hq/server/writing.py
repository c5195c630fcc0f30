"""What hq-server needs of a database writer. `hq.db.writer` is the one."""

from __future__ import annotations

from typing import Any, Protocol

from hq.kernel.daemon import Done
from hq.model.changes import Changes


class WriterLike(Protocol):
    """Commits changes in order, beside the loop. A transient failure is retried for ever and shows as `trouble`."""

    def submit(self, token: Any, changes: Changes) -> None:
        """Commit these changes; the outcome comes back by `finished` under `token`."""
        ...

    def finished(self) -> list[Done]:
        """Commits that have ended since the last time. `error` only where the database refused the data."""
        ...

    @property
    def trouble(self) -> str | None:
        """What keeps the database from taking the commit that is under way; None: nothing."""
        ...
