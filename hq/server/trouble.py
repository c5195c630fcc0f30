"""A state database that is away: noted in the log, and whoever waits for a commit is told so instead of waiting in silence.

The daemon's heartbeat calls often enough. What was asked stays in its batch and is carried out once the database is back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from hq.errors import UnavailableError
from hq.server.batch import Batch
from hq.server.requests import Request

#: Seconds that a request waits for the database in silence.
PATIENCE = 5.0
KEPT = "hq-server holds your request and carries it out afterwards, if it is not stopped before: look before you repeat it"


class Trouble:
    """Watches what the writer says. Moments are CLOCK_BOOTTIME."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._text: str | None = None
        self._since = 0.0
        self._told: set[Request] = set()

    def watch(self, text: str | None, now: float, batches: Iterable[Batch]) -> None:
        """Take the writer's present trouble, None if all is well; `batches` are those that are not committed."""
        if text is None:
            if self._text is not None:
                self._log.warning("the state database is back after %.0f s", now - self._since)
                self._text = None
                self._told.clear()
            return
        if self._text is None:
            self._since = now
        if text != self._text:
            self._log.error("nothing can be recorded now: %s", text)
            self._text = text
        if now - self._since < PATIENCE:
            return
        for batch in batches:
            for event in batch.events:
                token = getattr(event, "token", None)
                if isinstance(token, Request) and token not in self._told:
                    self._told.add(token)
                    token.fail(UnavailableError(f"{text} ({KEPT})"))
