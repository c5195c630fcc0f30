"""What the function of a verb is given: one call of it. Which verbs there are stands in `verbs`, how one is found in `commands`."""

from __future__ import annotations

import time

from hq.client.connect import Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hq.client.verbs import Verb


class Call:
    """One call of a verb: its options, the session (opened when it is first used), the clock."""

    def __init__(self, verb: Verb, values: dict[str, Any], *, now: Callable[[], float] = time.time) -> None:
        self.verb = verb
        self.values = values
        self.now = now
        self.may_start = True
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The conversation with the user-server."""
        if self._session is None:
            self._session = Session.open(self.values.get("etc"), may_start=self.may_start)
        return self._session

    @property
    def is_json(self) -> bool:
        """Whether JSON is asked for."""
        return bool(self.values.get("json"))

    @property
    def is_quiet(self) -> bool:
        """Whether only ids are asked for."""
        return bool(self.values.get("quiet"))
