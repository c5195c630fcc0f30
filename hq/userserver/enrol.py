"""Getting the user-server's key registered: by the server's Unix socket, else over the link by a nonce file, else by a token.

The refusal that is shown is the server's own, verbatim. The server names the path of the nonce file; it is written only
straight into the user's own `.hq`, so that a captured server cannot have other files written.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
from collections.abc import Callable
from typing import Any

from hq.errors import HqError, RefusedError, RemoteError, UnavailableError
from hq.kernel.clock import Now
from hq.kernel.daemon import Background
from hq.kernel.files import make_private_dir, read_secret
from hq.model.user import Role
from hq.protocol.base import Message, Problem
from hq.protocol.codec import decode_line, encode_line
from hq.protocol.peers import KeyChallenged, KeyEnrol, KeyEnrolled
from hq.userserver.keyring import Keyring
from hq.userserver.upstream import Enroller, OnAnswer

SOCKET_TIMEOUT = 10.0


def enrol_by_socket(path: str, message: KeyEnrol) -> KeyEnrolled:
    """Ask at the server's Unix socket, which sees our user id. Raises UnavailableError if nobody listens, RefusedError with its words."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SOCKET_TIMEOUT)
        try:
            connection.connect(path)
            connection.sendall(encode_line(message))
            with connection.makefile("rb") as file:
                line = file.readline(1 << 20)
        except OSError as error:
            raise UnavailableError(f"{path}: {error.strerror or error}") from None
    if not line:
        raise UnavailableError(f"{path}: hq-server closed the connection")
    answer = decode_line(line)
    if isinstance(answer, KeyEnrolled):
        return answer
    if isinstance(answer, Problem):
        raise RefusedError(answer.text)
    raise RemoteError(f"{path}: hq-server answered with {answer.__struct_config__.tag}")


def check_nonce_path(path: str, homes: tuple[str, ...]) -> str:
    """The path if it names a plain file straight in one of `homes`. Raises RemoteError otherwise."""
    directory, name = os.path.split(path)
    if name.startswith(("nonce", "enrol", "challenge")):
        if any(os.path.normpath(directory) == directory and os.path.realpath(directory) == os.path.realpath(home) for home in homes):
            return path
    raise RemoteError(f"hq-server asks for a file at {path!r}, which is no nonce file in your .hq: not written")


def write_nonce(path: str, nonce: str) -> None:
    """Make the file that proves who we are, mode 0600; it must not exist. Raises UnavailableError."""
    make_private_dir(os.path.dirname(path))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(f"the nonce file {path} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(nonce)
        file.flush()
        os.fsync(file.fileno())


def read_token(places: tuple[str, ...]) -> str | None:
    """The one-time token of the owner, from the first of `places` that exists. Raises SecurityError if others may read it."""
    for path in places:
        if path and os.path.lexists(path):
            return read_secret(path)
    return None


class KeyEnroller(Enroller):
    """Tries the three ways, one after the other."""

    def __init__(
        self, *, keyring: Keyring, user: str, enrol_socket: str, homes: tuple[str, ...], token_places: tuple[str, ...],
        background: Background, log: logging.Logger,
    ) -> None:  # fmt: skip
        self._keyring = keyring
        self._user = user
        self._enrol_socket = enrol_socket
        self._homes = homes
        self._token_places = token_places
        self._background = background
        self._log = log
        self._done: Callable[[str | None], None] = lambda reason: None
        self._notes: list[str] = []
        #: Sends a message over the link; set by the composition root, for link and enroller need each other.
        self.send: Callable[[Message, OnAnswer], None] = lambda message, on_answer: None

    def begin(self, now: Now, done: Callable[[str | None], None]) -> None:
        """As Enroller.begin."""
        self._done, self._notes = done, []
        if self._enrol_socket and os.path.exists(self._enrol_socket):
            message = self._message()
            self._background.run(self._by_socket, lambda: enrol_by_socket(self._enrol_socket, message))
        else:
            self._by_nonce()

    def _message(self, **fields: Any) -> KeyEnrol:
        return KeyEnrol(public=self._keyring.public, role=Role.USER_SERVER, sign_public=self._keyring.sign_public, **fields)

    def _by_socket(self, value: Any, error: BaseException | None, now: Now) -> None:
        if error is None:
            self._log.info("our key was enrolled by the socket of hq-server")
            self._done(None)
        elif isinstance(error, RefusedError):
            # our user id was seen there; no other way says more, except a token that the owner gave
            self._notes.append(str(error))
            self._by_token()
        else:
            self._log.info("not enrolled by the socket: %s", error)
            self._by_nonce()

    def _by_nonce(self) -> None:
        self.send(self._message(user=self._user), self._challenged)

    def _challenged(self, answer: Message, is_last: bool) -> None:
        if isinstance(answer, KeyEnrolled):
            self._done(None)
        elif isinstance(answer, KeyChallenged):
            try:
                path = check_nonce_path(answer.path, self._homes)
                write_nonce(path, answer.nonce)
            except HqError as error:
                self._notes.append(str(error))
                self._by_token()
                return

            def judged(verdict: Message, is_last: bool) -> None:
                try:
                    os.unlink(path)
                except OSError as error:
                    self._log.warning("the nonce file %s stays: %s", path, error.strerror)
                self._judge(verdict, self._by_token)

            self.send(self._message(user=self._user), judged)
        else:
            self._judge(answer, self._by_token)

    def _by_token(self) -> None:
        try:
            token = read_token(self._token_places)
        except HqError as error:
            self._notes.append(str(error))
            token = None
        if token is None:
            self._done("; ".join(dict.fromkeys(self._notes)) or "hq-server does not know your key")
        else:
            self.send(self._message(user=self._user, token=token), lambda answer, is_last: self._judge(answer, None))

    def _judge(self, answer: Message, otherwise: Callable[[], None] | None) -> None:
        if isinstance(answer, KeyEnrolled):
            self._log.info("our key was enrolled: %s", answer.proof)
            self._done(None)
            return
        self._notes.append(answer.text if isinstance(answer, Problem) else f"hq-server answered with {answer.__struct_config__.tag}")
        if otherwise is not None:
            otherwise()
        else:
            self._done("; ".join(dict.fromkeys(self._notes)))


def own_dirs(hq_home: str, instance: str) -> tuple[str, ...]:
    """Where a nonce file may be written: HQ_HOME and the `.hq` of the account's home, and the instance's directory in them."""
    homes = (hq_home, os.path.join(pwd.getpwuid(os.getuid()).pw_dir, ".hq"))
    return (*homes, *(os.path.join(home, instance) for home in homes))
