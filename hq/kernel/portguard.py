"""Against what ZeroMQ keeps without measure: it counts messages, not bytes, and of a message without end it keeps all parts until the last has come.

Whoever has a key, be it a stranger's, could fill the memory of a daemon by that: by sending more than is read, and by asking without reading
the answers. So when this process has grown, or once it had to act, it is asked of the kernel how much each connection at the port has sent and taken. The largest
connections of a key that makes us keep more than any message may have are hung up on, and so are the largest of all if all together do.
ZeroMQ then frees what it kept. Linux only, as `hq.execserver`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from hq.protocol.codec import MAX_FRAME

#: Bytes that one key may make us keep: sent and not read yet, or answered and not taken.
MOST_OF_ONE = 2 * MAX_FRAME
#: The same of all connections together.
MOST_OF_ALL = 8 * MAX_FRAME
#: Bytes that the process must have grown by until it looks.
GROWTH = MAX_FRAME
#: Seconds between two looks at the size of the process.
LOOK_EVERY = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ACKED = 120  # where struct tcp_info has tcpi_bytes_acked and, after it, tcpi_bytes_received
_WRAPPING = 33  # bytes that CURVE adds to a message


@dataclass(slots=True)
class _Count:
    """What the daemon's thread counts of a connection, for ever."""

    key: str
    read: int = 0
    written: int = 0


@dataclass(slots=True)
class _Seen:
    """How a connection stood at the last look."""

    inode: int
    acked: int
    received: int
    read: int
    written: int
    unread: int
    unsent: int


class PortGuard:
    """Looks after the connections at one port. `took`, `gave` and `drained` are called by the daemon's thread, the rest by one other."""

    def __init__(self) -> None:
        self.port = 0
        self.hung_up = 0
        self._counts: dict[int, _Count] = {}  # by descriptor
        self._seen: dict[int, _Seen] = {}
        self._drains = self._drains_seen = 0
        self._size = _resident()

    def took(self, descriptor: int, key: str, size: int) -> None:
        """A message came, whole, by this connection."""
        count = self._counts.get(descriptor)
        if count is None or count.key != key:
            count = self._counts[descriptor] = _Count(key)
        count.read += size + _WRAPPING

    def gave(self, descriptor: int, size: int) -> None:
        """A message was given to ZeroMQ for this connection."""
        count = self._counts.get(descriptor)
        if count is not None:
            count.written += size + _WRAPPING

    def drained(self) -> None:
        """Everything that had come, whole, was read."""
        self._drains += 1

    def look(self) -> None:
        """Hang up on whoever makes us keep too much."""
        size = _resident()
        # what was freed the C library may keep: a process that has seen such peers does not grow by the next ones
        if not self.hung_up and size < self._size + GROWTH:
            self._size = min(size, self._size)
            return
        self._size = size
        kept = self._kept()
        by_key: dict[str, int] = {}
        for _, key, count in kept:
            by_key[key] = by_key.get(key, 0) + count
        rest = sum(by_key.values())
        for descriptor, key, count in sorted(kept, key=lambda each: -each[2]):
            if by_key[key] > MOST_OF_ONE or rest > MOST_OF_ALL:
                rest -= count
                by_key[key] -= count
                self.hung_up += 1
                with suppress(OSError):
                    _shut_down(descriptor)

    def _kept(self) -> list[tuple[int, str, int]]:
        """Descriptor, key and what is kept of and for each connection, as far as is known."""
        found: list[tuple[int, str, int]] = []
        seen: dict[int, _Seen] = {}
        is_drained, self._drains_seen = self._drains != self._drains_seen, self._drains
        for descriptor, inode, acked, received in _connections(self.port):
            count = self._counts.get(descriptor)
            read, written = (count.read, count.written) if count is not None else (0, 0)
            before = self._seen.get(descriptor)
            if before is None or before.inode != inode or read < before.read:
                now = _Seen(inode, acked, received, read, written, 0 if read else received, 0)
            else:
                unread = max(0, before.unread + received - before.received - (read - before.read))
                unsent = max(0, before.unsent + written - before.written - (acked - before.acked))
                # heartbeats and the like are counted as sent only: what was read to its end begins anew
                now = _Seen(inode, acked, received, read, written, 0 if is_drained and read != before.read else unread, unsent)
            seen[descriptor] = now
            found.append((descriptor, count.key if count is not None else str(inode), now.unread + now.unsent))
        self._seen = seen
        # what is not there any more must not be taken for the next one of this number
        for descriptor in list(self._counts):
            if descriptor not in seen:
                del self._counts[descriptor]
        return found


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE


def _connections(port: int) -> Iterator[tuple[int, int, int, int]]:
    """Descriptor, inode, bytes taken by the other end and bytes received of each TCP connection of this process that came to the port."""
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
                yield descriptor, int(link[8:-1]), *struct.unpack_from("QQ", info, _ACKED)


def _shut_down(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.shutdown(socket.SHUT_RDWR)
