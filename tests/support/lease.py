"""Names that tests hold while their process lives, so that a later run can clean up after one that was killed.

A lease is a locked file below /run/hq-testbed. The kernel lets go of the lock with the process, whatever ended it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

ROOT = Path("/run/hq-testbed")
_numbers = count()


class Lease:
    """A name that is ours until `end`. `record` keeps lines for whoever has to clean up."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.name = path.stem
        self._descriptor = descriptor

    def record(self, line: str) -> None:
        """Note something that must be undone if this process dies."""
        os.write(self._descriptor, line.encode() + b"\n")

    def lines(self) -> list[str]:
        """What was noted."""
        return self.path.read_text().splitlines()

    def end(self) -> None:
        """Everything is undone."""
        self.path.unlink(missing_ok=True)
        os.close(self._descriptor)


def take_lease(kind: str) -> Lease:
    """A new name, unique on this machine."""
    ROOT.mkdir(mode=0o755, exist_ok=True)
    path = ROOT / f"{kind}-{os.getpid()}-{next(_numbers)}.lease"
    lease = _open(path, os.O_CREAT)
    assert lease is not None
    return lease


def stale_leases(kind: str) -> Iterator[Lease]:
    """Leases whose process is gone. Each is ours while it is looked at; `end` it when its traces are removed."""
    for path in sorted(ROOT.glob(f"{kind}-*.lease")):
        lease = _open(path, 0)
        if lease is not None:
            yield lease


def _open(path: Path, flags: int) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not path.exists():
        # Its owner ended it between our open and our lock.
        os.close(descriptor)
        return None
    return Lease(path, descriptor)


@contextmanager
def locked(name: str, shared: bool = False) -> Iterator[None]:
    """Hold a lock of this machine's testbeds."""
    ROOT.mkdir(mode=0o755, exist_ok=True)
    with open(ROOT / f"{name}.lock", "a") as stream:
        fcntl.flock(stream, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
