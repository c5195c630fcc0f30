"""Users, roles and keys: who somebody is and what his messages may say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

from hq.errors import InputError


class Role(str, Enum):
    """What a connection is. The role comes from the key of the connection, never from a message."""

    STRANGER = "stranger"  # a key that nobody registered: may only ask to be enrolled
    SERVER = "server"
    USER_SERVER = "user-server"
    EXEC_SERVER = "exec-server"
    CLIENT = "client"  # the user's own commands, at his own user-server
    ADMIN = "admin"
    WEB = "web"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """A user of the instance. `roles` are words of the file `users`: `user`, `admin`."""

    name: str
    roles: frozenset[str] = field(default_factory=lambda: frozenset({"user"}))
    is_enabled: bool = True

    @property
    def is_admin(self) -> bool:
        """Whether the user may send an administrator's messages."""
        return "admin" in self.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """A registered CURVE key. `public` is the Z85 text, 40 characters; it is also the fingerprint."""

    public: str
    user: str
    role: Role
    host: str = ""
    sign_public: str = ""  # hex of the Ed25519 key of the user's user-server
    is_enabled: bool = True
    created: float = 0.0
    proof: str = ""  # how it was enrolled: peercred, ssh, nonce file, token, init


_NAME = re.compile(r"[a-z_][a-z0-9_.-]{0,31}\$?", re.ASCII)


def parse_user_name(text: str) -> str:
    """A Unix user name as useradd(8) takes it. Raises InputError."""
    if _NAME.fullmatch(text) is None:
        raise InputError(f"'{text}' is not a user name")
    return text
