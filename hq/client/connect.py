"""The way to the caller's user-server: its Unix socket, else its address on another machine, else it is started.

Standard library only. One conversation is one connection; a request is one line of JSON, its answer one line, a stream several.
"""

from __future__ import annotations

import os

from hq.client.links import ANSWER_TIMEOUT, dial_unix, is_this_machine, read_access
from hq.errors import HqError, RefusedError, UnavailableError, UsageError
from hq.kernel.places import find_etc, read_client_config, user_run_dir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from hq.client.links import Link
    from hq.kernel.places import ClientConfig


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
