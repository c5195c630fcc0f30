"""Files that matter for security: secrets, private directories, locks. Standard library only and cheap to import.

Every check is made on the open descriptor or by lstat, so that a symbolic link never leads elsewhere. Not the place for
formats: what stands in the files is other modules' business.
"""

from __future__ import annotations

import fcntl
import os
import stat

from hq.errors import InputError, SecurityError, UnavailableError

_NETWORK = frozenset(
    "nfs nfs4 cifs smb2 smb3 smbfs afs ncpfs lustre gpfs beegfs ceph glusterfs ocfs2 gfs2 orangefs pvfs2 9p panfs wekafs "
    "fuse.sshfs fuse.glusterfs fuse.ceph fuse.ceph-fuse fuse.rclone fuse.s3fs fuse.davfs".split()
)


def read_secret(path: str) -> str:
    """The text of a secret file, without trailing newline.

    Raises SecurityError unless it is a regular file of the caller, closed to all others; InputError if it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if os.path.islink(path):
            raise SecurityError(f"{path} is a symbolic link: a secret must be a plain file") from None
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    try:
        _check_private(os.fstat(descriptor), path, "600", stat.S_ISREG)
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, encoding="utf-8") as file:
        try:
            return file.read().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot be read: {error}", file=path) from None


def write_secret(path: str, text: str) -> None:
    """Write a file of mode 0600 in one step: a reader sees the old content or the new one. Raises OSError as open(2) does."""
    # on a home of several machines a process id is not enough
    temporary = f"{path}.{os.urandom(6).hex()}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        _unlink(temporary)
        raise


def write_anew(path: str, data: bytes) -> int:
    """Replace a file of the caller's own directory by these bytes, mode 0600, on the disk on return. Returns a descriptor that appends to it.

    Raises OSError, and then the old one stands and nothing else is left on a disk that may be full.
    """
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.close(descriptor)
        _unlink(temporary)
        raise
    return descriptor


def make_private_dir(path: str) -> str:
    """Make a directory of mode 0700, with its parents, unless it is there. Returns the path.

    Raises SecurityError if it (or a parent that stands in a directory like /tmp) belongs to another, is a symbolic link or
    is open to others.
    """
    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    if not os.path.lexists(parent):
        make_private_dir(parent)
    elif _is_shared(os.path.dirname(parent)):
        # whoever owns the parent could swap what stands below it
        found = os.lstat(parent)
        if stat.S_ISLNK(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise SecurityError(f"{parent} belongs to user id {found.st_uid} or is a symbolic link: ask its owner to remove it")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"the directory cannot be made: {error.strerror}", file=path) from None
    _check_private(os.lstat(path), path, "700", stat.S_ISDIR)
    return path


def check_not_writable_by_others(path: str) -> None:
    """Raises SecurityError if group or others may write the file or directory, InputError if it is not there."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None
    if found.st_mode & 0o022:
        raise SecurityError(f"others may write {path}, so what it says cannot be trusted: chmod go-w {path}")


def is_network_filesystem(path: str) -> bool:
    """Whether the path (or its nearest existing parent) lies on a file system shared over a network."""
    return filesystem_type(path) in _NETWORK


def filesystem_type(path: str) -> str:
    """The type of the file system that the path lies on, as mount(8) names it; empty if the kernel does not tell."""
    place = os.path.realpath(path)
    best, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                left, _, right = line.partition(" - ")
                fields, details = left.split(" "), right.split(" ")
                if len(fields) < 5:
                    continue
                point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
                # later lines hide earlier ones at the same point
                if len(point) >= len(best) and (place == point or place.startswith(point.rstrip("/") + "/")):
                    best, kind = point, details[0]
    except OSError:
        return ""
    return kind


class Lock:
    """An exclusive lock on a file, held until `release` or the end of the process, however it ends."""

    def __init__(self, descriptor: int, path: str) -> None:
        self._descriptor = descriptor
        self.path = path

    def release(self) -> None:
        """Let go. The file stays: removing it would let two holders in."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def write_holder(self) -> None:
        """Write this process's id into the file, for those who find it locked. Needed again after a fork."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, b"%d\n" % os.getpid(), 0)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock_file(path: str) -> Lock:
    """Take the lock of a file, made if absent (mode 0600). Raises UnavailableError that names the holder's pid; never waits."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"the lock cannot be opened: {error.strerror}", file=path) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise UnavailableError(f"{path} is locked by {f'process {holder}' if holder.isdigit() else 'another process'}") from None
    except OSError as error:
        os.close(descriptor)
        raise InputError(f"the lock cannot be taken: {error.strerror}", file=path) from None
    lock = Lock(descriptor, path)
    lock.write_holder()
    return lock


def _check_private(found: os.stat_result, path: str, mode: str, is_kind: object) -> None:
    """The owner must be the caller, the kind as expected, and nobody else may have any right."""
    if not callable(is_kind) or not is_kind(found.st_mode):
        raise SecurityError(f"{path} is not a {'directory' if mode == '700' else 'plain file'}: move it away")
    if found.st_uid != os.geteuid():
        raise SecurityError(f"{path} belongs to user id {found.st_uid}, not to you (user id {os.geteuid()}): it is not trusted")
    if found.st_mode & 0o077:
        raise SecurityError(f"others have rights on {path}: chmod {mode} {path}")


def _is_shared(path: str) -> bool:
    """Whether anybody may make entries in the directory, as in /tmp."""
    return bool(os.stat(path).st_mode & 0o002)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
