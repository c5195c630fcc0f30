"""The Unix socket at which keys are enrolled on hq-server's own machine: JSON lines, and the kernel's word on who speaks.

Never blocks. One descriptor (an epoll) stands for all of them in the loop. Knows no users and no keys.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from hq.errors import HqError, InputError, RemoteError
from hq.protocol.base import Message
from hq.protocol.codec import decode_line, encode_line
from hq.protocol.peers import KeyEnrol

MAX_LINE = 8192
MAX_CONNECTIONS = 100
MAX_OF_ONE = 10  # connections of one user of the machine: the others need theirs
MAX_LINES = 10  # of one connection
PATIENCE = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class EnrolLine:
    """A line that came from the process of `uid`. `message` is None for what could not be read."""

    uid: int
    message: KeyEnrol | None
    answer: Callable[[Message], None]
    note: str = ""


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    uid: int
    until: float
    buffer: bytes = b""
    lines: int = 0


class EnrolSocket:
    """Listens at `path`, open to every user of the machine: who speaks is asked of the kernel."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        try:
            if os.path.lexists(path):
                os.unlink(path)  # we hold the instance's lock: nobody listens there
            self._listener.bind(path)
            os.chmod(path, 0o666)
            self._listener.listen(64)
        except OSError as error:
            self._listener.close()
            self._epoll.close()
            raise InputError(f"the enrolment socket cannot be made: {error.strerror or error}", file=path) from None
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """One descriptor for the loop."""
        return self._epoll.fileno()

    def poll(self, now: float) -> list[EnrolLine]:
        """Lines that have arrived. `now` is CLOCK_BOOTTIME."""
        lines: list[EnrolLine] = []
        for descriptor, _ in self._epoll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept(now)
            elif descriptor in self._connections:
                lines.extend(self._read(self._connections[descriptor]))
        for connection in [each for each in self._connections.values() if each.until < now]:
            self._close(connection)
        return lines

    def _accept(self, now: float) -> None:
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                connected.close()
                continue
            connected.setblocking(False)
            _, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if sum(each.uid == uid for each in self._connections.values()) >= MAX_OF_ONE:
                connected.close()
                continue
            self._connections[connected.fileno()] = _Connection(connected, uid, now + PATIENCE)
            self._epoll.register(connected.fileno(), select.EPOLLIN)

    def _read(self, connection: _Connection) -> list[EnrolLine]:
        try:
            data = connection.socket.recv(MAX_LINE + 1)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        connection.buffer += data
        if not data or (len(connection.buffer) > MAX_LINE and b"\n" not in connection.buffer):
            self._close(connection)
            return []
        *whole, connection.buffer = connection.buffer.split(b"\n")
        lines = [self._line(connection, line) for line in whole if line.strip()][: MAX_LINES - connection.lines]
        connection.lines += len(whole)
        if connection.lines > MAX_LINES:
            self._close(connection)
        return lines

    def _line(self, connection: _Connection, line: bytes) -> EnrolLine:
        def answer(message: Message) -> None:
            try:
                connection.socket.send(encode_line(message))
            except OSError:
                self._close(connection)

        try:
            message = decode_line(line)
            if not isinstance(message, KeyEnrol):
                raise RemoteError("this socket is for key.enrol only")
        except HqError as error:
            return EnrolLine(connection.uid, None, answer, str(error))
        return EnrolLine(connection.uid, message, answer)

    def _close(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        if descriptor >= 0:
            self._connections.pop(descriptor, None)
            self._epoll.unregister(descriptor)
            connection.socket.close()

    def close(self) -> None:
        """Stop listening and remove the socket."""
        for connection in list(self._connections.values()):
            self._close(connection)
        self._epoll.close()
        self._listener.close()
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
