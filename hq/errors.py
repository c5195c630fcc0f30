"""Every exception of hq, in one tree.

    HqError
    ├── UsageError            wrong words on a command line (exit code 2)
    ├── InputError            a file, a line or a value from outside that cannot be read (exit code 2)
    ├── RefusedError          understood, and not done; the message says why and what to do (exit code 1)
    │   ├── NotAllowedError   the caller may not do this
    │   └── NeverError        a request that no host can ever satisfy
    ├── UnavailableError      a peer, a host or the database does not answer now; trying again may help (exit code 1)
    ├── RemoteError           a peer sent nonsense: noted in the log, never fatal
    ├── DatabaseError         the state database cannot be used as it is (revision, rights, URL)
    │   └── FencedError       another hq-server has the state database now: this one must write no more
    └── SecurityError         a key or file that must not be trusted (mode, owner, signature)

Messages are for people: what happened, to what, what to do. `assert` is for what only our own code can break.
This module is not the place for formatting or for exit code policy beyond the class attribute.
"""

from __future__ import annotations


class HqError(Exception):
    """Root of the tree. `exit_code` is what a command returns when this error ends it."""

    exit_code = 1


class UsageError(HqError):
    """The command line is wrong."""

    exit_code = 2


class InputError(HqError):
    """A file, line or value from outside cannot be read.

    `file`, `line` (from 1) and `column` (a name) say where, if it came from a file.
    """

    exit_code = 2

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None, column: str | None = None) -> None:
        place = ", ".join(
            part
            for part in (file, f"line {line}" if line is not None else None, f"column {column}" if column else None)
            if part
        )
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column


class RefusedError(HqError):
    """The request was understood and is not done."""


class NotAllowedError(RefusedError):
    """The caller may not do this."""


class NeverError(RefusedError):
    """No host can ever satisfy the request, whatever ends or is freed."""


class UnavailableError(HqError):
    """Somebody does not answer now. The same call may succeed later."""


class RemoteError(HqError):
    """A peer sent what it must not send."""


class DatabaseError(HqError):
    """The state database cannot be used as it is."""


class FencedError(DatabaseError):
    """Another hq-server has taken the state database over."""


class SecurityError(HqError):
    """A key, a file or a signature that must not be trusted."""
