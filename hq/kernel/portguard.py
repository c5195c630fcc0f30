"""Against messages without end: ZeroMQ limits the parts of a message, not how many there are, and keeps them all until the last has come.

Whoever has a key, be it a stranger's, could fill the memory of a daemon by that. So when this process has grown, it is asked of the kernel
how much each connection at the port has sent since a message of it was whole. One that has sent more than any message may have is hung up
on, and so are the largest if all together have sent too much. ZeroMQ then frees what it kept. Linux only, as `hq.execserver`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from hq.protocol.codec import MAX_FRAME

#: Bytes that a connection may have sent of a message that is not whole.
MOST_OF_ONE = 2 * MAX_FRAME
#: The same of all connections together.
MOST_OF_ALL = 8 * MAX_FRAME
#: Bytes that the process must have grown by until it looks.
GROWTH = MAX_FRAME
#: Seconds between two looks at the size of the process.
LOOK_EVERY = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_RECEIVED = 120 + 8  # where struct tcp_info has tcpi_bytes_received


@dataclass(slots=True)
class _Seen:
    inode: int
    whole: int  # messages of it that were whole
    base: int  # bytes that it had sent by then


class PortGuard:
    """Looks after the connections at one port. `note` is called by the daemon's thread, the rest by one other."""

    def __init__(self) -> None:
        self.port = 0
        self.hung_up = 0
        self._whole: dict[int, int] = {}  # descriptor → messages that were whole
        self._seen: dict[int, _Seen] = {}
        self._size = _resident()

    def note(self, descriptor: int) -> None:
        """A message came, whole, by this connection."""
        self._whole[descriptor] = self._whole.get(descriptor, 0) + 1

    def look(self) -> None:
        """Hang up on whoever sends without end."""
        size = _resident()
        if size < self._size + GROWTH:
            self._size = min(size, self._size)
            return
        self._size = size
        pending = self._pending()
        rest = sum(pending.values())
        for descriptor, count in sorted(pending.items(), key=lambda each: -each[1]):
            if count > MOST_OF_ONE or rest > MOST_OF_ALL:
                rest -= count
                self.hung_up += 1
                with suppress(OSError):
                    _shut_down(descriptor)

    def _pending(self) -> dict[int, int]:
        """What each connection has sent since a message of it was whole, as far as is known."""
        found: dict[int, int] = {}
        seen: dict[int, _Seen] = {}
        for descriptor, inode, received in _connections(self.port):
            before = self._seen.get(descriptor)
            whole = self._whole.get(descriptor, 0)
            if before is None or before.inode != inode:
                before = _Seen(inode, whole, received if whole else 0)
            elif before.whole != whole:
                before = _Seen(inode, whole, received)
            seen[descriptor] = before
            found[descriptor] = received - before.base
        self._seen = seen
        # what is not there any more must not be taken for the next one of this number
        for descriptor in list(self._whole):
            if descriptor not in seen:
                del self._whole[descriptor]
        return found


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def _connections(port: int) -> Iterator[tuple[int, int, int]]:
    """Descriptor, inode and bytes received of each TCP connection of this process that came to the port."""
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        with suppress(OSError, struct.error):
            link = os.readlink(f"/proc/self/fd/{name}")
            if not link.startswith("socket:["):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.getsockname()[1] != port:
                    continue
                sock.getpeername()  # the listening one has no peer
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                yield descriptor, int(link[8:-1]), struct.unpack_from("Q", info, _RECEIVED)[0]


def _shut_down(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
