"""What one connection of a command asks, and its answers in the order of its requests. The sockets together are `door`'s.

A connection has its buffers and never blocks. It knows messages, not their meaning: its keeper says which requests may be worked on
while earlier ones are not answered yet.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Protocol

from hq.errors import RemoteError
from hq.protocol.base import Message, Problem
from hq.protocol.codec import MAX_FRAME, decode_line, encode_line

#: Longest line, in bytes.
MAX_LINE = MAX_FRAME
#: A stream waits while so much is not read; a connection on which so much more piles up is closed.
ROOM = 1 << 20
MAX_UNREAD = 2 * MAX_FRAME
#: So much is read ahead of what is worked on.
IN_ROOM = 1 << 18
#: Requests of one connection that are worked on at once, and their bytes; what one costs beside its bytes.
MAX_TURNS = 512
MAX_TURN_BYTES = 4 << 20
TURN_COST = 4 << 10
_PIECE = 1 << 18


class Keeper(Protocol):
    """Whose connections these are."""

    @property
    def is_full(self) -> bool:
        """Whether all connections together hold much: each may have one request worked on then."""
        ...

    def may_follow(self, message: Message) -> bool:
        """Whether a request may be worked on while earlier such ones of its connection are not answered yet."""
        ...

    def note(self, connection: Connection) -> None:
        """There are answers to send, and perhaps a further request can be worked on."""
        ...

    def drop(self, connection: Connection, reason: str) -> None:
        """Close a connection."""
        ...


class EndlessLineError(RemoteError):
    """Where the next line begins cannot be known any more."""


class Turn:
    """One request of a connection. As an Asker, it answers when all requests before it have been answered; until then its answers wait."""

    __slots__ = ("_connection", "is_ended", "kept", "size")

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self.size = size + TURN_COST
        self.kept = bytearray()
        self.is_ended = False

    @property
    def is_gone(self) -> bool:
        """As Asker.is_gone."""
        return self._connection.is_gone

    @property
    def has_room(self) -> bool:
        """As Asker.has_room."""
        return len(self.kept) < ROOM and self._connection.has_room

    def answer(self, message: Message, *, is_last: bool = True) -> None:
        """As Asker.answer."""
        line = encode_line(message)
        self.kept += line
        self._connection.kept += len(line)
        self.is_ended = self.is_ended or is_last
        self._connection.advance(self)


class Connection:
    """One command's connection: its buffers and the requests that are being worked on."""

    def __init__(self, keeper: Keeper, sock: socket.socket) -> None:
        self.sock = sock
        self.is_gone = False
        self._keeper = keeper
        self._in = bytearray()
        self._scanned = 0
        self._out = bytearray()
        self._is_ended = False  # the other side sends no more
        self._turns: deque[Turn] = deque()
        self._turn_bytes = 0
        self.kept = 0  # bytes of answers that wait for their turn
        self.counted = 0  # by the keeper
        self._held: tuple[Message, int] | None = None  # read, but may not be worked on before the earlier ones are answered
        self._is_pipeline = True  # all turns may be followed
        self.events = int(select.EPOLLIN)

    @property
    def has_room(self) -> bool:
        """Whether it reads as fast as we send."""
        return len(self._out) < ROOM

    @property
    def is_busy(self) -> bool:
        """Whether no further request can be taken now."""
        if self._held is not None or not self.has_room:
            return True
        is_enough = not self._is_pipeline or len(self._turns) >= MAX_TURNS or self._turn_bytes >= MAX_TURN_BYTES or self._keeper.is_full
        return bool(self._turns) and is_enough

    @property
    def size(self) -> int:
        """Bytes that it makes us hold."""
        return len(self._in) + len(self._out) + self._turn_bytes + self.kept

    def next_turn(self) -> tuple[Turn, Message] | None:
        """The next request that may be worked on now, None if there is none. Raises RemoteError for what is no message."""
        if self._held is None:
            if self.is_busy or (line := self.next_line()) is None:
                return None
            self._held = (decode_line(line), len(line))
        if not self.has_room:
            return None
        message, size = self._held
        may_follow = self._keeper.may_follow(message)
        if self._turns and not may_follow:
            return None
        self._held = None
        return self._begin(size, may_follow), message

    def refuse(self, problem: Problem) -> None:
        """Answer a line that is no message, in its turn."""
        self._begin(0, True).answer(problem)

    def _begin(self, size: int, may_follow: bool) -> Turn:
        turn = Turn(self, size)
        self._is_pipeline = may_follow
        self._turns.append(turn)
        self._turn_bytes += turn.size
        return turn

    def advance(self, turn: Turn) -> None:
        """Something was answered: pass on what is next in order."""
        if self.is_gone:
            return
        while self._turns and (first := self._turns[0]).kept:
            self._out += first.kept
            self.kept -= len(first.kept)
            first.kept.clear()
            if not first.is_ended:
                break
            self._turns.popleft()
            self._turn_bytes -= first.size
        if len(self._out) > MAX_UNREAD or len(turn.kept) > MAX_UNREAD:
            self._keeper.drop(self, "it does not read its answers")
            return
        self._keeper.note(self)

    def read(self) -> None:
        """Take what has arrived. Raises OSError if the connection broke."""
        if self._is_ended:
            return
        for _ in range(16):
            if self._has_enough:
                return
            try:
                piece = self.sock.recv(_PIECE)
            except BlockingIOError:
                return
            if not piece:
                self._is_ended = True
                return
            self._in += piece

    def write(self) -> None:
        """Send what fits. Raises OSError if the connection broke."""
        while self._out:
            try:
                sent = self.sock.send(memoryview(self._out)[:_PIECE])
            except BlockingIOError:
                return
            del self._out[:sent]

    def next_line(self) -> bytes | None:
        """The next whole line, None if there is none yet. Raises RemoteError for one that is too long."""
        end = self._in.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._in)
            if self._scanned > MAX_LINE:
                raise EndlessLineError(f"a line of more than {MAX_LINE >> 20} MiB")
            return None
        line = bytes(self._in[:end])
        del self._in[: end + 1]
        self._scanned = 0
        return line

    @property
    def is_over(self) -> bool:
        """Whether the other side sends no more and has all its answers."""
        return self._is_ended and not self._turns and self._held is None and not self._out and b"\n" not in self._in

    @property
    def has_more(self) -> bool:
        """Whether a request may stand in the buffer that can be worked on now."""
        return (self._held is not None and not self._turns and self.has_room) or (not self.is_busy and self._scanned < len(self._in))

    @property
    def _has_enough(self) -> bool:
        """Whether to read on later: what has come is not looked through yet, or must wait."""
        return len(self._in) > IN_ROOM and (self.is_busy or self._scanned < len(self._in))

    @property
    def wanted_events(self) -> int:
        """What epoll shall tell of. A hang-up is always told."""
        events = 0 if self._is_ended or self._has_enough else select.EPOLLIN
        return events | (select.EPOLLOUT if self._out else 0)
