"""Who asked: a client on the Unix socket or one by CURVE. Handlers only know this interface."""

from __future__ import annotations

from typing import Protocol

from hq.protocol.base import Message


class Asker(Protocol):
    """Where the answers to one request go."""

    @property
    def is_gone(self) -> bool:
        """Whether nobody listens any more."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether it reads as fast as we send; a stream waits for that."""
        ...

    def answer(self, message: Message, *, is_last: bool = True) -> None:
        """Send an answer; the request is done with the last one."""
        ...
