"""What hq-server needs of a database writer. `hq.db.writer` is the one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from hq.model.changes import Changes


class Outcome(Protocol):
    """A commit that has ended: what it was called, and the error if the database will never take it."""

    @property
    def token(self) -> Any:
        """What `submit` was given."""
        ...

    @property
    def error(self) -> BaseException | None:
        """None: it is committed."""
        ...


class WriterLike(Protocol):
    """Commits changes in order, beside the loop. A transient failure is retried for ever and shows as `trouble`."""

    def submit(self, token: Any, changes: Changes) -> None:
        """Commit these changes; the outcome comes back by `finished` under `token`."""
        ...

    def finished(self) -> Sequence[Outcome]:
        """Commits that have ended since the last time. `error` only where the database refused the data."""
        ...

    @property
    def trouble(self) -> str | None:
        """What keeps the database from taking the commit that is under way; None: nothing."""
        ...
