"""The Unix socket of the user's own commands: JSON lines, one message a line, answered in order; nobody else gets in.

Never blocks: each connection has its buffers, and one that does not read holds up nobody. It knows messages, not their meaning.
All sockets hang on one epoll object, so that the daemon's loop watches a single descriptor.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
from collections.abc import Callable

from hq.errors import RemoteError
from hq.protocol.base import Message, Problem
from hq.protocol.codec import MAX_FRAME, decode_line, encode_line

#: Longest line, in bytes.
MAX_LINE = MAX_FRAME
#: A stream waits while so much is not read; a connection on which so much more piles up is closed.
ROOM = 1 << 20
MAX_UNREAD = 2 * MAX_FRAME
MAX_CONNECTIONS = 1000
_PIECE = 1 << 18


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


class _EndlessLineError(RemoteError):
    """Where the next line begins cannot be known any more."""


class Connection:
    """One command's connection. As an Asker, it answers the request that is being worked on; further ones wait for that."""

    def __init__(self, door: Door, sock: socket.socket) -> None:
        self.sock = sock
        self.is_busy = False
        self.is_gone = False
        self._door = door
        self._in = bytearray()
        self._scanned = 0
        self._out = bytearray()
        self._is_ended = False  # the other side sends no more
        self.events = int(select.EPOLLIN)

    @property
    def has_room(self) -> bool:
        """As Asker.has_room."""
        return len(self._out) < ROOM

    def answer(self, message: Message, *, is_last: bool = True) -> None:
        """As Asker.answer."""
        if self.is_gone:
            return
        self._out += encode_line(message)
        if is_last:
            self.is_busy = False
            self._door.wake(self)
        if len(self._out) > MAX_UNREAD:
            self._door.drop(self, "it does not read its answers")
            return
        self._door.push(self)

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
        return self._is_ended and not self.is_busy and not self._out and b"\n" not in self._in

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

    def poll(self) -> list[tuple[Connection, Message]]:
        """Requests that have arrived, at most one a connection that is not busy. Call it until there are none."""
        for descriptor, events in self._epoll.poll(0):
            connection = self._connections.get(descriptor)
            if connection is not None:
                self._serve(connection, events)
            elif self._listener is not None and descriptor == self._listener.fileno():
                self._accept(self._listener)
        asked: list[tuple[Connection, Message]] = []
        ready, self._ready = list(self._ready.values()), {}
        for connection in ready:
            if connection.is_gone or connection.is_busy:
                continue
            try:
                connection.read()
                line = connection.next_line()
                if line is not None:
                    connection.is_busy = True
                    asked.append((connection, decode_line(line)))
            except RemoteError as error:
                self._log.warning("a client sent nonsense: %s", error)
                connection.answer(Problem(text=str(error), exit_code=2))
                if isinstance(error, _EndlessLineError):
                    self.drop(connection, str(error))
            except OSError as error:
                self.drop(connection, str(error))
                continue
            self._update(connection)
        return asked

    def gone(self) -> list[Connection]:
        """Connections that ended since the last time."""
        gone, self._gone = self._gone, []
        return gone

    def wake(self, connection: Connection) -> None:
        """The connection may have a further request in its buffer."""
        self._ready[connection.sock.fileno()] = connection

    def push(self, connection: Connection) -> None:
        """Send what the connection takes now; the rest follows when it can."""
        try:
            connection.write()
        except OSError as error:
            self.drop(connection, str(error))
            return
        self._update(connection)

    def drop(self, connection: Connection, reason: str) -> None:
        """Close a connection."""
        if connection.is_gone:
            return
        descriptor = connection.sock.fileno()
        connection.is_gone = True
        self._connections.pop(descriptor, None)
        self._ready.pop(descriptor, None)
        self._epoll.unregister(descriptor)
        connection.sock.close()
        self._gone.append(connection)
        if reason:
            self._log.info("a client's connection was closed: %s", reason)
        if self._listener is not None and len(self._connections) == MAX_CONNECTIONS - 1:
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Close everything and remove the socket."""
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
