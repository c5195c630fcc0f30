"""Output files of runs: their sizes are watched, too large ones are trimmed, pieces of them are read. Regular files only.

The runs write into their files themselves; nothing of ours stands between, so all of this works on the files from beside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from dataclasses import dataclass

from hq.errors import InputError, RefusedError
from hq.model.quantities import format_bytes

_PUNCH = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_BLOCK = 4096


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    function = libc.fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if function(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def open_output(path: bytes, flags: int = os.O_RDONLY) -> int:
    """Open an output file for us. Symbolic links are the user's own business; fifos, devices and directories are refused.

    Raises InputError if it is not there or may not be read, RefusedError if it is no regular file.
    """
    shown = os.fsdecode(path)
    try:
        # O_NONBLOCK: the open itself must not wait for a fifo's partner
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise InputError(f"the output cannot be read: {error.strerror}", file=shown) from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise RefusedError(f"{shown} is no regular file, so there is nothing to be read back from it")
    return fd


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a file: where it begins, and the size of the file then."""

    data: bytes
    offset: int
    size: int


def read_piece(path: bytes, offset: int, limit: int) -> Piece:
    """Read at most `limit` bytes from `offset` (negative: from the end). What was trimmed away is passed over.

    Raises InputError, RefusedError.
    """
    fd = open_output(path)
    try:
        size = os.fstat(fd).st_size
        start = min(max(0, size + offset), size) if offset < 0 else min(offset, size)
        if start < size:
            try:
                start = os.lseek(fd, start, os.SEEK_DATA)
                limit = min(limit, os.lseek(fd, start, os.SEEK_HOLE) - start)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole up to the end
                    return Piece(b"", size, size)
        return Piece(os.pread(fd, max(0, limit), start), start, size)
    finally:
        os.close(fd)


def trim(path: bytes, limit: int, identity: tuple[int, int]) -> int:
    """Punch out the middle of a file that takes more than `limit` bytes of disk: a quarter of the limit stays at each end.

    `identity` is device and inode of the file that the run opened; another one is left alone. Returns the bytes given back.
    Raises OSError where the file system cannot do that.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != identity or not stat.S_ISREG(found.st_mode):
            return 0
        first = max(_BLOCK, limit // 4 // _BLOCK * _BLOCK)
        last = (found.st_size - max(_BLOCK, limit // 4)) // _BLOCK * _BLOCK
        if last - first <= _BLOCK or found.st_blocks * 512 <= limit:
            return 0
        _fallocate(fd, _PUNCH, first, last - first)
        note = f"\n[hq: {last - first} bytes were cut out here, the output was larger than its limit of {format_bytes(limit)}]\n"
        os.pwrite(fd, note.encode(), first)
        return max(0, (found.st_blocks - os.fstat(fd).st_blocks) * 512)
    finally:
        os.close(fd)


def disk_size(path: bytes, identity: tuple[int, int]) -> int | None:
    """Bytes that the file takes on the disk; None if it is not there any more, or another one is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if (found.st_dev, found.st_ino) != identity:
        return None
    return found.st_blocks * 512


def append(path: bytes, text: bytes, umask: int) -> None:
    """Add to the end of a regular file, which is made if it is not there. Raises OSError."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        os.fchmod(fd, 0o666 & ~umask)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.write(fd, text)
    finally:
        os.close(fd)
