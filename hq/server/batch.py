"""What the tick gathers: events for one step with all that hangs on its commit, and calls that run beside the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hq.core.events import Event
from hq.model.changes import Changes
from hq.server.requests import Request


@dataclass(slots=True)
class Batch:
    """What goes into one step and is finished by its commit."""

    events: list[Event] = field(default_factory=list)
    extra: Changes = field(default_factory=Changes)  # audit rows and settings of the handlers
    after: list[Callable[[], None]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.events or self.after or self.extra)


@dataclass(frozen=True, slots=True)
class Ask:
    """A blocking call in the background, for a request."""

    request: Request | None
    then: Callable[[Any], None]
