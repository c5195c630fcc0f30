"""Going into the background: the command returns once the daemon is up, or says why it is not.

To be called before sockets, threads and locks are made, for none of them survives a fork well.
"""

from __future__ import annotations

import os
import sys
from typing import Any


class Starting:
    """How a starting daemon tells the one who called it how it went. In the foreground it prints only failures."""

    def __init__(self, pipe: int | None = None) -> None:
        self._pipe = pipe
        self.is_over = False  # it came up once

    def up(self) -> None:
        """The daemon is up: the command that started it returns 0; from now on nobody reads what is printed."""
        self.is_over = True
        self._tell(b"0")

    def fail(self, reason: str, exit_code: int = 1) -> None:
        """The daemon does not come up: the command prints the reason on stderr and returns `exit_code`."""
        if self._pipe is None:
            print(reason, file=sys.stderr)
        self._tell(b"%d %s" % (exit_code, reason.encode("utf-8", "replace")))

    def _tell(self, word: bytes) -> None:
        if self._pipe is None:
            return
        while word:
            word = word[os.write(self._pipe, word) :]
        os.close(self._pipe)
        self._pipe = None
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        os.close(null)


def detach() -> Starting:
    """Fork into a new session. Returns in the daemon; the caller's process waits for `up` or `fail` and ends with the exit code."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(writer)
        _wait_for(child, reader)
    os.close(reader)
    os.setsid()
    # the second fork: a session leader could get a terminal by opening one
    if os.fork():
        os._exit(0)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    return Starting(writer)


def _wait_for(child: int, reader: int) -> Any:
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        code, _, reason = pipe.read().decode("utf-8", "replace").partition(" ")
    if not code:
        code, reason = "1", "the daemon ended while it was starting"
    if code != "0":
        print(reason, file=sys.stderr, flush=True)
    os._exit(int(code))
