"""Who asks, and how the answer finds its way back. Not the place for what is answered.

A `Request` is the `token` of an event: it goes through the core untouched and comes back in the `Reply`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hq.errors import HqError, UnavailableError
from hq.kernel.bus import Peer
from hq.model.user import Role
from hq.protocol.base import Message, Problem


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose connection it is. Comes from the key of the connection, never from a field of a message."""

    user: str
    role: Role
    host: str = ""
    key: str = ""
    is_enabled: bool = True

    @property
    def is_admin(self) -> bool:
        """Whether the connection is an administrator's (the role of its key, not of its user)."""
        return self.role is Role.ADMIN


STRANGER = Caller("", Role.STRANGER)


def disabled_text(user: str) -> str:
    """What a disabled user is told, everywhere the same."""
    return f"the user {user} is disabled: ask the owner of the instance ('hq-admin enableuser {user}')"


def _no_answer(value: object) -> Message | None:
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One message of a caller that may want an answer. `render` makes the answer from the core's reply."""

    caller: Caller
    send: Callable[[Message], None]
    peer: Peer | None = None
    number: int = 0  # of the peer's request
    render: Callable[[object], Message | None] = _no_answer
    takes_errors: bool = False  # `render` is given the core's errors, too

    def with_render(self, render: Callable[[object], Message | None]) -> Request:
        """The same request, answered by what `render` makes of the core's reply."""
        return replace(self, render=render)

    def reply(self, message: Message) -> None:
        """Send an answer."""
        self.send(message)

    def fail(self, error: HqError | str, *, exit_code: int = 1, is_transient: bool = False) -> None:
        """Answer with a problem."""
        if isinstance(error, HqError):
            self.send(Problem(text=str(error), exit_code=error.exit_code, is_transient=isinstance(error, UnavailableError)))
        else:
            self.send(Problem(text=error, exit_code=exit_code, is_transient=is_transient))

    def settle(self, value: object) -> None:
        """Answer with the core's reply: an error as a problem, anything else as `render` makes it."""
        if isinstance(value, HqError) and not self.takes_errors:
            self.fail(value)
            return
        message = self.render(value)
        if message is not None:
            self.send(message)
