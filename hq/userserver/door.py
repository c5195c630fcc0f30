"""The Unix socket of the user's own commands: JSON lines, one message a line, answered in order; nobody else gets in.

Never blocks: each connection has its buffers, and one that does not read holds up nobody. It knows messages, not their meaning:
whoever makes it says which requests may be worked on while earlier ones of the same connection are not answered yet. All sockets
hang on one epoll object, so that the daemon's loop watches a single descriptor.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable

from hq.errors import RemoteError
from hq.protocol.base import Message, Problem
from hq.protocol.codec import MAX_FRAME, decode_line, encode_line

#: Longest line, in bytes.
MAX_LINE = MAX_FRAME
#: A stream waits while so much is not read; a connection on which so much more piles up is closed.
ROOM = 1 << 20
MAX_UNREAD = 2 * MAX_FRAME
#: Well below the 1,024 open files of a login shell: links to hosts, the spool and the ledger need some, too.
MAX_CONNECTIONS = 500
#: Requests of one connection that are worked on at once, and their bytes.
MAX_TURNS = 512
MAX_TURN_BYTES = 4 << 20
#: Requests of one connection that `poll` hands out at once: a long pipeline holds up nobody.
PER_POLL = 64
_PIECE = 1 << 18


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


class _EndlessLineError(RemoteError):
    """Where the next line begins cannot be known any more."""


class Turn:
    """One request of a connection. As an Asker, it answers when all requests before it have been answered; until then its answers wait."""

    __slots__ = ("_connection", "is_ended", "kept", "size")

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection = connection
        self.size = size
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
        self.kept += encode_line(message)
        self.is_ended = self.is_ended or is_last
        self._connection.advance(self)


class Connection:
    """One command's connection: its buffers and the requests that are being worked on."""

    def __init__(self, door: Door, sock: socket.socket) -> None:
        self.sock = sock
        self.is_gone = False
        self._door = door
        self._in = bytearray()
        self._scanned = 0
        self._out = bytearray()
        self._is_ended = False  # the other side sends no more
        self._turns: deque[Turn] = deque()
        self._turn_bytes = 0
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
        return self._held is not None or (
            bool(self._turns) and (not self._is_pipeline or len(self._turns) >= MAX_TURNS or self._turn_bytes >= MAX_TURN_BYTES)
        )

    def next_turn(self) -> tuple[Turn, Message] | None:
        """The next request that may be worked on now, None if there is none. Raises RemoteError for what is no message."""
        if self._held is None:
            if self.is_busy or (line := self.next_line()) is None:
                return None
            self._held = (decode_line(line), len(line))
        message, size = self._held
        may_follow = self._door.may_follow(message)
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
        self._turn_bytes += size
        return turn

    def advance(self, turn: Turn) -> None:
        """Something was answered: pass on what is next in order."""
        if self.is_gone:
            return
        while self._turns and (first := self._turns[0]).kept:
            self._out += first.kept
            first.kept.clear()
            if not first.is_ended:
                break
            self._turns.popleft()
            self._turn_bytes -= first.size
        if len(self._out) > MAX_UNREAD or len(turn.kept) > MAX_UNREAD:
            self._door.drop(self, "it does not read its answers")
            return
        self._door.note(self)

    def read(self) -> None:
        """Take what has arrived. Raises OSError if the connection broke."""
        if self._is_ended:
            return
        for _ in range(16):
            if self.is_busy and len(self._in) > ROOM:
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
                raise _EndlessLineError(f"a line of more than {MAX_LINE >> 20} MiB")
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
        return (self._held is not None and not self._turns) or (not self.is_busy and self._scanned < len(self._in))

    @property
    def wanted_events(self) -> int:
        """What epoll shall tell of. A hang-up is always told."""
        events = 0 if self._is_ended or (self.is_busy and len(self._in) > ROOM) else select.EPOLLIN
        return events | (select.EPOLLOUT if self._out else 0)


class Door:
    """The listening socket and the connections."""

    def __init__(self, log: logging.Logger, uid: int, uid_of: Callable[[socket.socket], int] = peer_uid) -> None:
        self._log = log
        self._uid = uid
        self._uid_of = uid_of
        self._epoll = select.epoll()
        self._listener: socket.socket | None = None
        self._path = ""
        self._connections: dict[int, Connection] = {}
        self._ready: dict[int, Connection] = {}
        self._answered: dict[int, Connection] = {}
        #: Whether a message may be worked on while earlier such ones of its connection are not answered yet.
        self.may_follow: Callable[[Message], bool] = lambda message: False
        self._gone: list[Connection] = []

    def __len__(self) -> int:
        return len(self._connections)

    def fileno(self) -> int:
        """The descriptor that is readable when `poll` has something to do."""
        return self._epoll.fileno()

    def listen(self, path: str) -> None:
        """Open the socket at `path`, mode 0600; the caller holds the lock, so what lies there is stale. Raises OSError."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        listener.listen(128)
        self._listener, self._path = listener, path
        self._epoll.register(listener.fileno(), select.EPOLLIN)

    def adopt(self, sock: socket.socket) -> bool:
        """Take a new connection in, if the process at its other end is the user's."""
        try:
            uid = self._uid_of(sock)
        except OSError as error:
            self._log.warning("a connection was closed: its user cannot be told: %s", error)
            sock.close()
            return False
        if uid != self._uid:
            self._log.warning("user id %d was refused at the socket", uid)
            sock.setblocking(False)
            try:
                sock.send(encode_line(Problem(text=f"this user-server is of user id {self._uid}; you are user id {uid}")))
            except OSError:
                pass
            sock.close()
            return False
        sock.setblocking(False)
        connection = Connection(self, sock)
        self._connections[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), connection.wanted_events)
        self._ready[sock.fileno()] = connection
        return True

    @property
    def has_more(self) -> bool:
        """Whether `poll` has something to do whatever the descriptor says."""
        return bool(self._ready)

    def poll(self) -> list[tuple[Turn, Message]]:
        """Requests that have arrived and may be worked on, some of each connection. Call it again while `has_more`."""
        for descriptor, events in self._epoll.poll(0):
            connection = self._connections.get(descriptor)
            if connection is not None:
                self._serve(connection, events)
            elif self._listener is not None and descriptor == self._listener.fileno():
                self._accept(self._listener)
        asked: list[tuple[Turn, Message]] = []
        ready, self._ready = list(self._ready.values()), {}
        for connection in ready:
            if connection.is_gone:
                continue
            try:
                connection.read()
                self._take(connection, asked)
            except OSError as error:
                self.drop(connection, str(error))
                continue
            if connection.has_more:
                self._ready[connection.sock.fileno()] = connection
            self._update(connection)
        return asked

    def _take(self, connection: Connection, asked: list[tuple[Turn, Message]]) -> None:
        for _ in range(PER_POLL):
            try:
                found = connection.next_turn()
            except RemoteError as error:
                self._log.warning("a client sent nonsense: %s", error)
                connection.refuse(Problem(text=str(error), exit_code=2))
                if isinstance(error, _EndlessLineError):
                    self.flush()
                    self.drop(connection, str(error))
                    return
                continue
            if found is None:
                return
            asked.append(found)

    def gone(self) -> list[Connection]:
        """Connections that ended since the last time."""
        gone, self._gone = self._gone, []
        return gone

    def note(self, connection: Connection) -> None:
        """There are answers to send, and perhaps a further request can be worked on."""
        self._answered[connection.sock.fileno()] = connection

    def flush(self) -> None:
        """Send what was answered, as far as the connections take it now; the rest follows when they can."""
        answered, self._answered = list(self._answered.values()), {}
        for connection in answered:
            if connection.is_gone:
                continue
            try:
                connection.write()
            except OSError as error:
                self.drop(connection, str(error))
                continue
            if connection.has_more:
                self._ready[connection.sock.fileno()] = connection
            self._update(connection)

    def drop(self, connection: Connection, reason: str) -> None:
        """Close a connection."""
        if connection.is_gone:
            return
        descriptor = connection.sock.fileno()
        connection.is_gone = True
        self._connections.pop(descriptor, None)
        self._ready.pop(descriptor, None)
        self._answered.pop(descriptor, None)
        self._epoll.unregister(descriptor)
        connection.sock.close()
        self._gone.append(connection)
        if reason:
            self._log.info("a client's connection was closed: %s", reason)
        if self._listener is not None and len(self._connections) == MAX_CONNECTIONS - 1:
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Send what has been answered, close everything and remove the socket."""
        self.flush()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            try:
                os.unlink(self._path)
            except FileNotFoundError:
                pass
        for connection in list(self._connections.values()):
            self.drop(connection, "")
        if not self._epoll.closed:
            self._epoll.close()

    def _accept(self, listener: socket.socket) -> None:
        while len(self._connections) < MAX_CONNECTIONS:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.adopt(sock)
        self._log.warning("%d connections are open; further ones wait", len(self._connections))
        self._epoll.modify(listener.fileno(), 0)

    def _serve(self, connection: Connection, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                connection.write()
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                connection.read()
        except OSError as error:
            self.drop(connection, str(error))
            return
        if events & (select.EPOLLHUP | select.EPOLLERR) or connection.is_over:
            self.drop(connection, "")
            return
        self._ready[connection.sock.fileno()] = connection
        self._update(connection)

    def _update(self, connection: Connection) -> None:
        if connection.is_gone:
            return
        if connection.is_over:
            self.drop(connection, "")
            return
        wanted = connection.wanted_events
        if wanted != connection.events:
            connection.events = wanted
            self._epoll.modify(connection.sock.fileno(), wanted)
