"""Connections that have said hello: one user-server a user, when it was last heard, what it watches.

Pure bookkeeping. Time is CLOCK_BOOTTIME, seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hq.kernel.bus import Peer
from hq.server.requests import Request

#: A user-server that was silent for so many heartbeats is gone.
SILENT_BEATS = 3.0


@dataclass(slots=True)
class Cancels:
    """How far a user-server knows what others have cancelled. `above`: the highest number that it was told."""

    above: int
    is_due: bool = True
    is_read: bool = False  # the database is being asked


@dataclass(slots=True)
class Session:
    """A user-server that is in."""

    user: str
    peer: Peer
    boot: str
    machine: str
    address: str
    version: str
    heard: float
    since: float
    lock: str = ""
    watches: set[Request] = field(default_factory=set)
    cancels: Cancels | None = None  # None: it takes no word of them


class Sessions:
    """All user-servers that are in, by user."""

    def __init__(self) -> None:
        self._by_user: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_user.values()))

    def __len__(self) -> int:
        return len(self._by_user)

    def of(self, user: str) -> Session | None:
        """The session of a user."""
        return self._by_user.get(user)

    def at(self, user: str, peer: Peer | None) -> Session | None:
        """The session of a user if it is this very connection."""
        session = self._by_user.get(user)
        return session if session is not None and session.peer == peer else None

    def rival(self, user: str, boot: str, now: float, lease: float, lock: str = "") -> Session | None:
        """Another process's session of the user that was heard within `lease` seconds, unless it held the very lock that the asker holds now."""
        session = self._by_user.get(user)
        if session is None or session.boot == boot or now - session.heard >= lease or (lock and lock == session.lock):
            return None
        return session

    def put(self, session: Session) -> Session | None:
        """Let a session in. Returns the one that it replaces."""
        before = self._by_user.get(session.user)
        if before is not None and before.boot == session.boot:
            session.watches |= before.watches
            session.since = before.since
        self._by_user[session.user] = session
        return before

    def drop(self, user: str) -> Session | None:
        """Forget a user's session."""
        return self._by_user.pop(user, None)

    def silent(self, now: float, lease: float) -> list[Session]:
        """Sessions that were not heard for `lease` seconds."""
        return [session for session in self._by_user.values() if now - session.heard >= lease]

    def by_key(self, key: str) -> list[Session]:
        """Sessions that came by this key."""
        return [session for session in self._by_user.values() if session.peer.key == key]
