"""The file `statuses`: exit statuses of runs that ended while there was no worker, written by the supervisor.

One line each: `pid starttime status max_rss_kib cpu_seconds`, status as wait(2) gives it. Appended, never rewritten.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Status(NamedTuple):
    """How a process ended: exit code or signal, peak memory in bytes, CPU seconds."""

    exit_code: int | None
    signal: int | None
    max_rss: int
    cpu: float


def status_line(pid: int, starttime: int, status: int, max_rss_kib: int, cpu: float) -> bytes:
    """One line of the file."""
    return b"%d %d %d %d %.6f\n" % (pid, starttime, status, max_rss_kib, cpu)


class StatusReader:
    """Reads the file as it grows."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self._found: dict[tuple[int, int], Status] = {}
        self._starts: dict[int, list[int]] = {}

    def find(self, pid: int, until: int) -> Status | None:
        """How the process ended that had this pid at the moment `until` (clock ticks since boot), as of the last `read`."""
        begun = [starttime for starttime in self._starts.get(pid, ()) if starttime <= until]
        return self._found[pid, max(begun)] if begun else None

    def read(self) -> dict[tuple[int, int], Status]:
        """All statuses so far by (pid, start time). Lines that make no sense are passed over."""
        try:
            with open(self._path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self._offset:
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return self._found
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                pid, starttime, status, rss, cpu = line.split()
                raw = int(status)
                code = os.waitstatus_to_exitcode(raw)
                self._found[int(pid), int(starttime)] = Status(
                    code if code >= 0 else None, -code if code < 0 else None, int(rss) * 1024, float(cpu)
                )
                self._starts.setdefault(int(pid), []).append(int(starttime))
            except ValueError:
                continue
        return self._found

    def clear(self) -> None:
        """Empty the file: every status in it has been taken."""
        try:
            os.truncate(self._path, 0)
        except OSError:
            pass
        self._offset, self._rest, self._found, self._starts = 0, b"", {}, {}
