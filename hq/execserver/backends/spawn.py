"""How the process of a run is made: its streams, the file that its command means, posix_spawn(3), and what each failure means."""

from __future__ import annotations

import errno
import os
import signal
import stat
from typing import NamedTuple

from hq.execserver.backends.base import CANNOT_EXECUTE, CANNOT_PREPARE, NOT_FOUND, Launch, NotStarted

DEFAULT_PATH = b"/usr/local/bin:/usr/bin:/bin"

#: Dispositions that Python or a shell may have set to "ignore" and that a command expects as they are after login.
_DEFAULT_SIGNALS = [signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD,
                    signal.SIGXFSZ, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2]  # fmt: skip


_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class Streams(NamedTuple):
    """What the child makes its three streams of, and device and inode of the output files that are regular."""

    actions: list[tuple[object, ...]]
    outputs: tuple[tuple[int, int], ...]


def open_streams(launch: Launch, files: list[int]) -> Streams | NotStarted:
    """Open the files here, not in the child, so that the reason names the one that fails. What was opened is added to `files`."""
    actions: list[tuple[object, ...]] = []
    outputs: list[tuple[int, int]] = []
    for target, path, flags, what in (
        (0, launch.stdin, _READ, "standard input"), (1, launch.stdout, _APPEND, "the output file"), (2, launch.stderr, _APPEND, "the error output file"),
    ):  # fmt: skip
        if not path:
            actions.append((os.POSIX_SPAWN_OPEN, target, b"/dev/null", os.O_RDONLY, 0))
            continue
        if target == 2 and path == launch.stdout:
            actions.append((os.POSIX_SPAWN_DUP2, files[-1], 2))
            continue
        try:
            # O_NONBLOCK: a fifo without a partner must not hold us up
            try:
                fd = os.open(path, flags, 0o666)
            except FileNotFoundError:
                if not launch.directory or not path.startswith(launch.directory):
                    raise
                os.makedirs(launch.directory, mode=0o700, exist_ok=True)
                fd = os.open(path, flags, 0o666)
        except OSError as error:
            return cannot(f"{what} {shown(path)}", error, "cannot be opened")
        files.append(fd)
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            return NotStarted(f"{what} {shown(path)} is a directory", CANNOT_PREPARE)
        if target and stat.S_ISREG(found.st_mode):
            outputs.append((found.st_dev, found.st_ino))
        os.set_blocking(fd, True)
        actions.append((os.POSIX_SPAWN_DUP2, fd, target))
    return Streams(actions, tuple(outputs))


def spawn(path: bytes, launch: Launch, actions: list[tuple[object, ...]]) -> int:
    """Make the process. Raises OSError, see `spawn_failure`."""
    argv = launch.argv
    for _ in range(2):
        try:
            return os.posix_spawn(
                path, argv, launch.env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
            )
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                # as execvp(3): a text file without #! is for the shell
                path, argv = b"/bin/sh", (b"/bin/sh", path, *launch.argv[1:])
                continue
            raise
    raise OSError(errno.ENOEXEC, os.strerror(errno.ENOEXEC))


def find_command(name: bytes, path: bytes) -> bytes | NotStarted:
    """The file that a command means, relative to the current directory. NotStarted with 127 or 126 as a shell would say."""
    if not name:
        return NotStarted("the command is empty", NOT_FOUND)
    found: bytes | None = None
    for candidate in (name,) if b"/" in name else tuple(os.path.join(part or b".", name) for part in path.split(b":")):
        try:
            mode = os.stat(candidate).st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            found = found or (candidate if b"/" in name else None)
            continue
        if os.access(candidate, os.X_OK):
            return candidate
        found = found or candidate
    if found is None:
        where = "" if b"/" in name else " in the PATH of the job"
        return NotStarted(f"command not found{where}: {shown(name)}", NOT_FOUND)
    if os.path.isdir(found):
        return NotStarted(f"cannot be executed, it is a directory: {shown(found)}", CANNOT_EXECUTE)
    return NotStarted(f"cannot be executed, permission denied: {shown(found)}", CANNOT_EXECUTE)


def spawn_failure(error: OSError, path: bytes) -> NotStarted:
    """What an error of posix_spawn(3) means."""
    if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return NotStarted(f"no process could be made on this host: {error.strerror}")
    if error.errno == errno.E2BIG:
        return NotStarted("command and environment together are too long for this host's kernel", CANNOT_EXECUTE)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotStarted(f"cannot be executed, the interpreter that it names is missing: {shown(path)}", CANNOT_EXECUTE)
    return NotStarted(f"cannot be executed, {(error.strerror or str(error)).lower()}: {shown(path)}", CANNOT_EXECUTE)


def cannot(what: str, error: OSError, verb: str) -> NotStarted:
    """A file or directory that stands in the way, named."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return NotStarted(f"{what} {verb}: {error.strerror}")
    return NotStarted(f"{what} {verb}: {error.strerror}", CANNOT_PREPARE)


def shown(path: bytes) -> str:
    """A path for a reason, on one line."""
    text = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
    return repr(text) if not text.isprintable() else text[:200]
