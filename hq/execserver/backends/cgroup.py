"""Control groups (version 2) where systemd or the site delegated them to the user: memory limit, peak, and a sure KILL.

Every call works on plain files below one directory, so that tests can imitate it. Where nothing is delegated there is no
CgroupManager, and the watch of the process tree does the work. Failures here never fail a run.
"""

from __future__ import annotations

import os
from typing import NamedTuple

MOUNT = "/sys/fs/cgroup"
_DAEMONS = "hq-daemons"


class CgroupUsage(NamedTuple):
    """What a run's group saw: peak of memory in bytes (0: unknown) and how many processes the kernel killed at the limit."""

    peak: int
    oom_kills: int


class CgroupManager:
    """Groups of runs below a delegated group."""

    def __init__(self, root: str) -> None:
        self._root = root

    def _path(self, tag: str) -> str:
        return os.path.join(self._root, f"hq-run-{tag}")

    def enter(self, tag: str, pid: int, memory: int | None) -> bool:
        """Make the group of a run with its limit and put the process in. False if that failed."""
        path = self._path(tag)
        try:
            os.mkdir(path, 0o755)
        except FileExistsError:
            pass
        except OSError:
            return False
        if memory is not None:
            _write(path, "memory.max", str(memory))
            # without this a job at its limit swaps for ever instead of ending
            _write(path, "memory.swap.max", "0")
        return _write(path, "cgroup.procs", str(pid))

    def current(self, tag: str) -> int:
        """Bytes in use now, without page cache that can be dropped; 0 if unknown."""
        return _number(_fields(self._path(tag), "memory.stat").get("anon", ""))

    def kill(self, tag: str) -> None:
        """KILL everything in the group at once (kernel 5.14 and later)."""
        path = self._path(tag)
        if os.path.exists(os.path.join(path, "cgroup.kill")):
            _write(path, "cgroup.kill", "1")

    def leave(self, tag: str) -> CgroupUsage | None:
        """What the group saw; it is removed once empty. None if there is no such group."""
        path = self._path(tag)
        if not os.path.isdir(path):
            return None
        usage = CgroupUsage(_number(_read(path, "memory.peak")), _number(_fields(path, "memory.events").get("oom_kill", "")))
        self.kill(tag)
        try:
            os.rmdir(path)
        except OSError:
            pass  # processes are still dying in it; `sweep` takes it later
        return usage

    def sweep(self) -> None:
        """Remove empty groups of runs that are over."""
        try:
            names = [name for name in os.listdir(self._root) if name.startswith("hq-run-")]
        except OSError:
            return
        for name in names:
            try:
                os.rmdir(os.path.join(self._root, name))
            except OSError:
                continue


def own_group(text: str) -> str | None:
    """The version 2 group in the text of /proc/self/cgroup, None if there is none."""
    for line in text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


def delegated(group: str | None, mount: str = MOUNT) -> str | None:
    """The directory of our group if we may make groups below it and it has the memory controller, else None."""
    if group is None:
        return None
    path = os.path.join(mount, group.lstrip("/"))
    controllers = _read(path, "cgroup.controllers").split()
    if "memory" not in controllers or not os.access(path, os.W_OK) or not os.access(os.path.join(path, "cgroup.procs"), os.W_OK):
        return None
    # the root of the hierarchy is the machine's own, never ours, root or not
    return None if os.path.realpath(path) == os.path.realpath(mount) else path


def prepare(root: str, pids: list[int]) -> CgroupManager | None:
    """Move our own daemons into a leaf (a group with processes may not hand controllers down) and hand memory down.

    None if others' processes are in the group too, or the kernel refuses.
    """
    inside = {int(word) for word in _read(root, "cgroup.procs").split() if word.isdigit()}
    if inside - set(pids):
        return None
    leaf = os.path.join(root, _DAEMONS)
    try:
        os.makedirs(leaf, exist_ok=True)
    except OSError:
        return None
    if not all(_write(leaf, "cgroup.procs", str(pid)) for pid in pids if pid in inside):
        return None
    return CgroupManager(root) if _write(root, "cgroup.subtree_control", "+memory") else None


def _write(path: str, name: str, value: str) -> bool:
    try:
        with open(os.path.join(path, name), "w", encoding="ascii") as file:
            file.write(value)
        return True
    except OSError:
        return False


def _read(path: str, name: str) -> str:
    try:
        with open(os.path.join(path, name), encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _fields(path: str, name: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in _read(path, name).splitlines() if " " in line)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
