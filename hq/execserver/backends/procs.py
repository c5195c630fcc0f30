"""Processes of this machine as /proc shows them: who is whose child, how big, and signals that no reused pid receives."""

from __future__ import annotations

import os
import signal
import time
from typing import NamedTuple

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


def ticks_now() -> int:
    """Now, as /proc counts the moments at which processes begin."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


class Proc(NamedTuple):
    """One line of /proc/PID/stat. `starttime` in clock ticks since boot, `rss` in bytes, `cpu` in seconds, of children it has waited for, too."""

    pid: int
    ppid: int
    group: int
    session: int
    state: str
    starttime: int
    rss: int
    cpu: float

    @property
    def is_alive(self) -> bool:
        """A zombie is not."""
        return self.state not in "ZX"


def parse_stat(data: bytes) -> Proc:
    """Read /proc/PID/stat. The name in parentheses may hold anything, so it is skipped from its last parenthesis. Raises ValueError."""
    pid = int(data[: data.index(b" ")])
    rest = data[data.rindex(b")") + 2 :].split()
    try:
        cpu = sum(map(int, rest[11:15])) / _TICKS
        return Proc(pid, int(rest[1]), int(rest[2]), int(rest[3]), rest[0].decode("ascii"), int(rest[19]), int(rest[21]) * _PAGE, cpu)
    except IndexError:
        raise ValueError("short line") from None


def read_proc(pid: int) -> Proc | None:
    """The process with this pid now, None if there is none."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return parse_stat(os.read(fd, 4096))
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


def own_processes(uid: int) -> dict[int, Proc]:
    """All processes of a user id, zombies too."""
    found: dict[int, Proc] = {}
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                try:
                    if entry.stat().st_uid != uid:
                        continue
                except OSError:
                    continue
                proc = read_proc(int(entry.name))
                if proc is not None:
                    found[proc.pid] = proc
    return found


class Children:
    """Children of this process, orphans that came to it included. The file stays open: it is read after each end of a run.

    Only the first thread makes children here, and orphans go to it, too.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._pid = 0

    def read(self) -> list[int] | None:
        """Their pids; None if this kernel does not list them."""
        try:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._fd = os.open(f"/proc/self/task/{self._pid}/children", os.O_RDONLY | os.O_CLOEXEC)
            data = b""
            while piece := os.pread(self._fd, 65536, len(data)):
                data += piece
                if len(piece) < 4000:  # more would have filled the page
                    break
        except OSError:
            return None
        return [int(word) for word in data.split()]


def tag_of(pid: int) -> str:
    """The value of HQ_RUN in the environment that the process was started with; empty if there is none or it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            data = file.read()
    except OSError:
        return ""
    for entry in data.split(b"\0"):
        if entry.startswith(b"HQ_RUN="):
            return entry[7:].decode("ascii", "replace")
    return ""


def memory_of(procs: list[Proc]) -> int:
    """Bytes that some processes hold together: resident sizes, with shared pages counted once as far as the kernel tells (PSS)."""
    if len(procs) == 1:
        return procs[0].rss
    return sum(_pss(proc) for proc in procs)


def _pss(proc: Proc) -> int:
    try:
        with open(f"/proc/{proc.pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return proc.rss


def send(proc: Proc, number: int) -> bool:
    """Send a signal to exactly this process; False if it is gone (or its pid is another's now) or may not be signalled."""
    try:
        fd = os.pidfd_open(proc.pid)
    except OSError:
        return False
    try:
        # the descriptor is fixed to whoever has the pid now; only then is it asked who that is
        now = read_proc(proc.pid)
        if now is None or now.starttime != proc.starttime:
            return False
        signal.pidfd_send_signal(fd, number)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def boot_id() -> str:
    """A name of this boot of the machine: pids and start times mean nothing after another."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
