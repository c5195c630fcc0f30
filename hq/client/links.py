"""Links to a user-server: the Unix socket of one on this machine, and what its access file says of one elsewhere.

Standard library only: every command passes here. Starting one (`spawn`) and asking one (`connect`) stand elsewhere.
"""

from __future__ import annotations

import json
import os
import socket
import stat

from hq.errors import RemoteError, SecurityError
from hq.kernel.files import read_secret
from hq.kernel.places import hq_home

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Link(Protocol):
        """A connection that carries messages as dicts. `is_pipeline`: requests may follow each other before the first one is answered."""

        is_pipeline: bool

        def send(self, message: dict[str, Any]) -> None:
            """Hand over one message. Raises ConnectionError."""
            ...

        def receive(self, timeout: float | None) -> dict[str, Any]:
            """The next message. Raises TimeoutError, ConnectionError (the peer is gone), RemoteError."""
            ...

        def close(self) -> None:
            """Hang up."""
            ...


#: How long a request may take, in seconds. A commit behind a slow database takes its time.
ANSWER_TIMEOUT = 60.0


class UnixLink:
    """JSON lines on the Unix socket of a user-server of our own uid."""

    is_pipeline = True

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = bytearray()
        self._scanned = 0

    def send(self, message: dict[str, Any]) -> None:
        """As Link.send."""
        self._socket.settimeout(ANSWER_TIMEOUT)
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """As Link.receive."""
        self._socket.settimeout(timeout)
        while (end := self._buffer.find(b"\n", self._scanned)) < 0:
            self._scanned = len(self._buffer)
            chunk = self._socket.recv(1 << 18)
            if not chunk:
                raise ConnectionResetError("the user-server hung up")
            self._buffer += chunk
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise RemoteError("the user-server's answer cannot be read: is it of another version?")
        return message

    def close(self) -> None:
        """As Link.close."""
        self._socket.close()


def check_private(directory: str) -> None:
    """Refuse a directory that is not ours alone: somebody else could have put a socket there. Raises SecurityError."""
    found = os.lstat(directory)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SecurityError(f"{directory} is not a directory of yours alone (mode 0700): somebody may have made it; look at it, then remove it")


def dial_unix(path: str) -> UnixLink | None:
    """Connect to the socket; None if nobody listens there. Raises SecurityError if directory or listener is not ours."""
    try:
        check_private(os.path.dirname(path))
    except FileNotFoundError:
        return None
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        connected.close()
        return None
    # struct ucred: pid, uid, gid, each an int
    uid = int.from_bytes(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], "little")
    if uid != os.geteuid():
        connected.close()
        raise SecurityError(f"{path} is served by uid {uid}, not by you: nothing was sent")
    return UnixLink(connected)


def read_access(instance: str) -> dict[str, Any] | None:
    """What access.json says of the user-server's whereabouts; None if there is none. Raises SecurityError if others can read it."""
    path = os.path.join(hq_home(), instance, "access.json")
    if not os.path.lexists(path):
        return None
    try:
        access = json.loads(read_secret(path))
    except ValueError:
        return None
    return access if isinstance(access, dict) else None


def is_this_machine(host: str) -> bool:
    """Whether a host name (short or long) or loopback address means the machine that we are on."""
    here = os.uname().nodename
    return not host or host in ("localhost", "127.0.0.1", "::1", here) or host.partition(".")[0] == here.partition(".")[0]
