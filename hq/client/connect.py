"""The way to the caller's user-server: its Unix socket, else its address on another machine, else it is started.

Standard library only. One conversation is one connection; a request is one line of JSON, its answer one line, a stream several.
"""

from __future__ import annotations

import json
import os
import socket
import stat

from hq.errors import HqError, RefusedError, RemoteError, SecurityError, UnavailableError, UsageError
from hq.kernel.files import read_secret
from hq.kernel.places import find_etc, hq_home, read_client_config, user_run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, Protocol

    from hq.kernel.places import ClientConfig

    class Link(Protocol):
        """A connection that carries messages as dicts."""

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


def connect(config: ClientConfig, *, may_start: bool = True) -> Link:
    """A link to the caller's user-server, which is started if need be. Raises UnavailableError with its own words."""
    run_dir = user_run_dir(config.instance)
    path = os.path.join(run_dir, "client.sock")
    link: Link | None = dial_unix(path)
    if link is not None:
        return link
    access = read_access(config.instance)
    if access is not None and not is_this_machine(str(access.get("host", ""))):
        from hq.client.remote import dial_remote

        link = dial_remote(access)
        if link is not None:
            return link
    if not may_start:
        raise UnavailableError("your user-server is not running (hq-submit and hq-client start it when they need it)")
    from hq.client.spawn import spawn

    return spawn(config, run_dir, path)


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


class Session:
    """A conversation with the caller's own user-server: ask, or listen to a stream. One thing at a time."""

    def __init__(self, config: ClientConfig, *, may_start: bool = True) -> None:
        self.config = config
        self._may_start = may_start
        self._link: Link | None = None

    @classmethod
    def open(cls, etc: str | None = None, *, may_start: bool = True) -> Session:
        """Find the configuration. The connection is made by the first message. Raises InputError."""
        return cls(read_client_config(find_etc(etc)), may_start=may_start)

    def ask(self, message: dict[str, Any], *, timeout: float | None = ANSWER_TIMEOUT) -> dict[str, Any]:
        """Send a request and return its answer.

        A connection that broke is made again once and the request repeated: all requests of commands are harmless to repeat.
        Raises RefusedError, UsageError or UnavailableError for a `problem`, with its words.
        """
        try:
            return self._exchange(message, timeout)
        except ConnectionError:
            self.close()
        try:
            return self._exchange(message, timeout)
        except ConnectionError as error:
            raise UnavailableError(f"the connection to your user-server broke twice ({error}): see {self.log_path}") from None

    def stream(self, message: dict[str, Any], *, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """Send a request and yield its answers until the caller has enough and closes the session.

        Raises ConnectionError when the user-server goes away, otherwise as `ask`.
        """
        yield self._exchange(message, timeout or ANSWER_TIMEOUT)
        assert self._link is not None
        while True:
            yield checked(self._link.receive(timeout))

    def close(self) -> None:
        """Hang up; a later request connects again."""
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def log_path(self) -> str:
        """Where the user-server on this machine writes its log."""
        return os.path.join(user_run_dir(self.config.instance), "log", "user-server.log")

    def _exchange(self, message: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        if self._link is None:
            self._link = connect(self.config, may_start=self._may_start)
        try:
            self._link.send(message)
            return checked(self._link.receive(timeout))
        except TimeoutError:
            self.close()
            raise UnavailableError(
                f"your user-server has not answered for {timeout or ANSWER_TIMEOUT:.0f} s; the request may still be carried out: see {self.log_path}"
            ) from None


def checked(message: dict[str, Any]) -> dict[str, Any]:
    """The message, unless it is a `problem`: that is raised."""
    if message["type"] != "problem":
        return message
    text = str(message.get("text", "the user-server gave no reason"))
    kind: type[HqError] = RefusedError
    if message.get("exit_code") == 2:
        kind = UsageError
    elif message.get("is_transient"):
        kind = UnavailableError
    raise kind(text)
