"""Carries the bytes of one forwarded connection between an ssh channel and a local socket, both ways, until both have ended."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Protocol

_CHUNK = 64 * 1024


class Channel(Protocol):
    """What is needed of a `paramiko.Channel`."""

    def recv(self, nbytes: int) -> bytes:
        """Bytes, or nothing at the end."""
        ...

    def sendall(self, s: bytes) -> None:
        """Send all."""
        ...

    def shutdown_write(self) -> None:
        """No more will be sent."""
        ...

    def close(self) -> None:
        """End both ways."""
        ...


def hang_up(channel: Channel) -> None:
    """Close it. With the connection gone it is closed already, and paramiko finds nobody to tell."""
    with suppress(OSError, EOFError):
        channel.close()


def start_pump(channel: Channel, port: int, connect_timeout: float = 5.0) -> None:
    """Connect to 127.0.0.1:`port` and carry bytes, in threads of its own. Returns at once; if nobody listens the channel is closed."""
    threading.Thread(target=_pump, args=(channel, port, connect_timeout), name=f"hq-pump-{port}", daemon=True).start()


def _pump(channel: Channel, port: int, connect_timeout: float) -> None:
    try:
        local = socket.create_connection(("127.0.0.1", port), connect_timeout)
    except OSError:
        # The other end sees its connection closed, and tries again by its own rules.
        hang_up(channel)
        return
    local.settimeout(None)
    outward = threading.Thread(target=_to_channel, args=(local, channel), name=f"hq-pump-{port}-out", daemon=True)
    outward.start()
    try:
        while data := channel.recv(_CHUNK):
            local.sendall(data)
        local.shutdown(socket.SHUT_WR)
    except (OSError, EOFError):
        # One end is gone in the middle: end the other one as well.
        with suppress(OSError):
            local.shutdown(socket.SHUT_RDWR)
    outward.join()
    local.close()
    hang_up(channel)


def _to_channel(local: socket.socket, channel: Channel) -> None:
    try:
        while data := local.recv(_CHUNK):
            channel.sendall(data)
        channel.shutdown_write()
    except (OSError, EOFError):
        hang_up(channel)
