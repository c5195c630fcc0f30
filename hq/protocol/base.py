"""What a message is: a typed, tagged, frozen struct that names who may send it and what answers it."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from hq.model.user import Role

#: Raised by one when an older peer could not go on with a newer one. Adjacent numbers talk to each other.
PROTOCOL = 1


def is_near(protocol: int) -> bool:
    """Whether a peer that speaks this protocol and we understand all that the other says. Those further away know the `adopt` words only."""
    return abs(protocol - PROTOCOL) <= 1


#: Who speaks on the links above a user-server.
DOWN = frozenset({Role.SERVER})
USER = frozenset({Role.USER_SERVER})
EXEC = frozenset({Role.EXEC_SERVER})
CLIENT = frozenset({Role.CLIENT})
ADMIN = frozenset({Role.ADMIN})
ANYBODY = frozenset(Role)


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all messages. `sent_by`: the roles whose connection may carry it. `answered_by`: tags of the answers, if any."""

    sent_by: ClassVar[frozenset[Role]] = frozenset()
    answered_by: ClassVar[tuple[str, ...]] = ()


class Problem(Message, frozen=True, kw_only=True, tag="problem"):
    """The answer to anything that was not done: a sentence for people, and what the command should return (1 or 2)."""

    sent_by: ClassVar = ANYBODY
    text: str
    exit_code: int = 1
    is_transient: bool = False  # trying again may help
