"""The Unix socket of the user's own commands: JSON lines, one message a line, answered in order; nobody else gets in.

Never blocks: one that does not read holds up nobody. What is asked on a connection and answered is in `turns`; here are the sockets.
All hang on one epoll object, so that the daemon's loop watches a single descriptor.
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
from hq.protocol.codec import MAX_FRAME, encode_line
from hq.userserver.turns import Connection, EndlessLineError, Turn

#: Well below the 1,024 open files of a login shell: links to hosts, the spool and the ledger need some, too.
MAX_CONNECTIONS = 500
#: Bytes that all connections together hold: beyond this each may have one request worked on; beyond that the largest is closed.
MUCH = MAX_FRAME
MOST = 4 * MAX_FRAME
#: Requests of one connection that `poll` hands out at once: a long pipeline holds up nobody.
PER_POLL = 64


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


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
        self._size = 0

    @property
    def is_full(self) -> bool:
        """As Keeper.is_full."""
        return self._size > MUCH

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
            self._update(connection)
        return asked

    def _take(self, connection: Connection, asked: list[tuple[Turn, Message]]) -> None:
        for _ in range(PER_POLL):
            try:
                found = connection.next_turn()
            except RemoteError as error:
                self._log.warning("a client sent nonsense: %s", error)
                connection.refuse(Problem(text=str(error), exit_code=2))
                if isinstance(error, EndlessLineError):
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
            self._update(connection)
        while self._size > MOST:
            self.drop(max(self._connections.values(), key=lambda each: each.counted), f"all together hold more than {MOST >> 20} MiB, and this one most")

    def drop(self, connection: Connection, reason: str) -> None:
        """Close a connection."""
        if connection.is_gone:
            return
        descriptor = connection.sock.fileno()
        connection.is_gone = True
        self._size -= connection.counted
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
        """Something was done for a connection: what is next for it?"""
        if connection.is_gone:
            return
        if connection.is_over:
            self.drop(connection, "")
            return
        size = connection.size
        self._size += size - connection.counted
        connection.counted = size
        if connection.has_more:
            self._ready[connection.sock.fileno()] = connection
        wanted = connection.wanted_events
        if wanted != connection.events:
            connection.events = wanted
            self._epoll.modify(connection.sock.fileno(), wanted)
