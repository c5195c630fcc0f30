"""How every command begins and ends: arguments in, exit code out, errors as lines on stderr, never a traceback for people's mistakes."""

from __future__ import annotations

import errno
import os
import sys

from hq.errors import HqError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: What a write to standard output fails with for reasons that are not ours.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)


class OutputError(Exception):
    """Standard output takes no more; the cause is the OSError. It is no HqError: nothing else can be done than to end."""


def say(program: str, text: str) -> None:
    """A line (or several) on stderr, with the program's name in front."""
    for line in text.splitlines() or [""]:
        print(f"{program}: {line}", file=sys.stderr)


def write_out(data: bytes) -> None:
    """Write bytes to standard output now. Raises OutputError, which cannot be taken for the failure of a connection."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise OutputError from error


def run(program: str, function: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    _prepare_streams()
    try:
        code = function(list(sys.argv[1:] if argv is None else argv))
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            discard_output()
        return code
    except HqError as error:
        say(program, str(error))
        _flush_if_possible()
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OutputError as error:
        assert isinstance(error.__cause__, OSError)
        return _end_output(program, error.__cause__)
    except OSError as error:
        if isinstance(error, BrokenPipeError) or (error.errno in _UNWRITABLE and error.filename is None):
            return _end_output(program, error)
        raise


def _end_output(program: str, error: OSError) -> int:
    discard_output()
    if isinstance(error, BrokenPipeError):
        # the reader went away (`| head`): that is no error of ours
        return 0
    say(program, f"standard output cannot be written: {error.strerror}")
    return 1


def _flush_if_possible() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        discard_output()


def discard_output() -> None:
    """Nobody reads standard output any more: what it holds and what comes goes nowhere. Python would complain at exit otherwise."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prepare_streams() -> None:
    """Where a standard stream is closed (`>&-`), nothing else may come to stand in its place: a socket would be written into.

    What the terminal's character set does not have (foreign names in a Latin-1 locale) is shown as an escape.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        stream = getattr(sys, name)
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
