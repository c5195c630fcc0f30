"""Who may say what: the role comes from the key of the connection, the rights from the declaration of the message."""

from __future__ import annotations

from hq.model.user import Role
from hq.protocol.base import Message
from hq.protocol.peers import KeyEnrol


def may_send(message: Message, role: Role) -> bool:
    """Whether a connection of this role may carry the message. A stranger may ask to be enrolled and nothing else."""
    return isinstance(message, KeyEnrol) if role is Role.STRANGER else role in type(message).sent_by
