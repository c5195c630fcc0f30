"""How an account proves a key to hq-server from another machine: the nonce file in its home, and the command to be run over ssh.

The proof of a nonce file is its *owner*, so it may be read by all; it lies in the home itself, for `~/.hq` is closed to hq-server's
account. It names instance and key: written for one, it is worth nothing for another, whoever handed on the nonce. Who reads and
judges it is `hq.server.enrolment`.
"""

from __future__ import annotations

import os
import re
import shlex
import stat

from hq.errors import RemoteError, UnavailableError
from hq.kernel.places import ClientConfig

PREFIX = ".hq-enrol-"
_NONCE = re.compile(r"[0-9a-f]{64}")


def nonce_file_name(nonce: str) -> str:
    """The name of the file in the home. Raises RemoteError if that is no nonce, so that no other file is ever named."""
    if _NONCE.fullmatch(nonce) is None:
        raise RemoteError("what hq-server sent is no nonce: no file is written for it")
    return PREFIX + nonce[:8]


def nonce_file_text(instance: str, key: str, nonce: str) -> str:
    """The content: what the account vouches for."""
    return f"hq {instance} enrols {key} {nonce}\n"


def write_nonce_file(home: str, instance: str, key: str, nonce: str) -> str:
    """Make the file, which must not exist, readable for all. Its path. Raises RemoteError (no nonce), UnavailableError."""
    path = os.path.join(home, nonce_file_name(nonce))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(nonce_file_text(instance, key, nonce))
            file.flush()
            # whatever the umask says
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
    except OSError as error:
        raise UnavailableError(f"the file {path}, which would prove your key, cannot be written: {error.strerror}") from None
    return path


def forget_nonce_files(home: str, before: float) -> None:
    """Remove what a user-server that was killed has left: our own nonce files older than the wall clock time `before`."""
    try:
        with os.scandir(home) as entries:
            found = [entry.path for entry in entries if entry.name.startswith(PREFIX) and _is_old(entry, before)]
        for path in found:
            os.unlink(path)
    except OSError:
        # a home that cannot be listed or written is told when the next file is made
        return


def _is_old(entry: os.DirEntry[str], before: float) -> bool:
    found = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and found.st_mtime < before


def ssh_proof_command(config: ClientConfig, program: str, public: str, sign_public: str) -> str:
    """What to type so that sshd on hq-server's machine proves who we are. `program` is hq-client. Keys in hex: two shells read the line."""
    host = config.server.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    words = [program, "enrol", "--etc", config.etc, "--public", public, "--sign-public", sign_public]
    line = shlex.join(words)
    return f"ssh {host} {line if line == ' '.join(words) else shlex.quote(line)}"
