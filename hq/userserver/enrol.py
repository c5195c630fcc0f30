"""Getting the user-server's key registered: by the server's Unix socket, else over the link by a nonce file, else by a token.

The refusal that is shown is the server's own, verbatim, with what the user can do. Of a nonce file the server chooses the nonce and
nothing else, so that a captured one cannot have other files written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from hq.errors import HqError, RefusedError, RemoteError, UnavailableError
from hq.kernel.clock import Now
from hq.kernel.daemon import Background
from hq.kernel.files import read_secret
from hq.kernel.proofs import forget_nonce_files, write_nonce_file
from hq.model.user import Role
from hq.protocol.base import Message, Problem
from hq.protocol.codec import decode_line, encode_line
from hq.protocol.peers import KeyChallenged, KeyEnrol, KeyEnrolled
from hq.userserver.keyring import Keyring
from hq.userserver.upstream import OnAnswer

SOCKET_TIMEOUT = 10.0
#: A nonce file so old (seconds) was left by a user-server that was killed.
OLD = 600.0


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


def read_token(places: tuple[str, ...]) -> tuple[str, str] | None:
    """The first of `places` that exists, and the owner's one-time token in it. Raises SecurityError if others may read it."""
    for path in places:
        if path and os.path.lexists(path):
            return path, read_secret(path)
    return None


class KeyEnroller:
    """Tries the three ways, one after the other."""

    def __init__(
        self, *, keyring: Keyring, user: str, instance: str, enrol_socket: str, home: str, token_places: tuple[str, ...],
        ssh_command: str, background: Background, log: logging.Logger,
    ) -> None:  # fmt: skip
        """`home` is the account's, as hq-server sees it too; `ssh_command` is what the user can type where nothing else proves the key."""
        self._keyring = keyring
        self._user = user
        self._enrol_socket = enrol_socket
        self._instance = instance
        self._home = home
        self._ssh_command = ssh_command
        self._token_places = token_places
        self._background = background
        self._log = log
        self._done: Callable[[str | None], None] = lambda reason: None
        self._notes: list[str] = []
        self._advice = ""
        self._wall = 0.0
        #: Sends a message over the link; set by the composition root, for link and enroller need each other.
        self.send: Callable[[Message, OnAnswer], None] = lambda message, on_answer: None

    def begin(self, now: Now, done: Callable[[str | None], None]) -> None:
        """As Enroller.begin."""
        self._done, self._notes, self._advice, self._wall = done, [], "", now.wall
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
            nonce = answer.nonce
            # the home may lie on a file server that hangs
            self._background.run(self._written, lambda: self._write(nonce))
        else:
            self._judge(answer, self._by_token)

    def _write(self, nonce: str) -> str:
        forget_nonce_files(self._home, self._wall - OLD)
        return write_nonce_file(self._home, self._instance, self._keyring.public, nonce)

    def _written(self, value: Any, error: BaseException | None, now: Now) -> None:
        if error is not None:
            self._notes.append(str(error))
            self._without_nonce_file()
            return

        def judged(verdict: Message, is_last: bool) -> None:
            try:
                os.unlink(value)
            except OSError as error:
                self._log.warning("the nonce file %s stays: %s", value, error.strerror)
            self._judge(verdict, self._without_nonce_file)

        self.send(self._message(user=self._user), judged)

    def _without_nonce_file(self) -> None:
        self._advice = (
            f"\nwhat proves it as well, over ssh:\n{self._ssh_command}\n"
            f"or a one-time token, which the owner's 'hq-admin adduser {self._user}' prints:\nhq-client enrol --token TOKEN"
        )
        self._by_token()

    def _by_token(self) -> None:
        try:
            found = read_token(self._token_places)
        except HqError as error:
            self._notes.append(str(error))
            found = None
        if found is None:
            self._give_up()
            return
        path, token = found

        def judged(answer: Message, is_last: bool) -> None:
            if not (isinstance(answer, Problem) and answer.is_transient):
                # it counts once, and a wrong one never will
                with contextlib.suppress(OSError):
                    os.unlink(path)
            self._judge(answer, self._give_up)

        self.send(self._message(user=self._user, token=token), judged)

    def _give_up(self) -> None:
        self._done(("; ".join(dict.fromkeys(self._notes)) or "hq-server does not know your key") + self._advice)

    def _judge(self, answer: Message, otherwise: Callable[[], None]) -> None:
        if isinstance(answer, KeyEnrolled):
            self._log.info("our key was enrolled: %s", answer.proof)
            self._done(None)
            return
        self._notes.append(answer.text if isinstance(answer, Problem) else f"hq-server answered with {answer.__struct_config__.tag}")
        otherwise()

