"""`hq-exec-server --check`: facts about this machine for `checkhost`, as JSON. It judges nothing."""

from __future__ import annotations

import os
import pwd
import resource
import socket
import sys
from typing import Any

from hq import VERSION
from hq.execserver.backends.cgroup import delegated, own_group
from hq.protocol.base import PROTOCOL

CONNECT_WITHIN = 3.0
_LIMITS = {
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
    "fsize": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "stack": resource.RLIMIT_STACK,
}


def machine_facts() -> dict[str, Any]:
    """What a host is: for the answer to a bootstrap and for checks. Sizes in bytes."""
    return {
        "hostname": socket.gethostname(),
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
        "cores": os.cpu_count() or 1,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def check_facts(upstreams: list[str]) -> dict[str, Any]:
    """All facts. `upstreams` are addresses of the user-server, each of which is tried."""
    return {
        **machine_facts(),
        "version": VERSION,
        "protocol": PROTOCOL,
        "uid": os.geteuid(),
        "ulimits": {name: _limit(number) for name, number in _LIMITS.items()},
        "lingering": lingering(),
        "cgroup_delegation": cgroup_directory() is not None,
        "way_back": {address: try_address(address) for address in upstreams},
    }


def cgroup_directory() -> str | None:
    """The delegated control group of this process, None if there is none."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return delegated(own_group(file.read()))
    except OSError:
        return None


def lingering() -> bool | None:
    """Whether systemd-logind lets the user's processes outlive his login; None without logind."""
    if not os.path.isdir("/run/systemd/seats"):
        return None
    return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}")


def try_address(address: str) -> str | None:
    """Connect to `tcp://host:port`; why not, None if it answers."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_WITHIN):
            return None
    except (OSError, ValueError, OverflowError) as error:
        return (getattr(error, "strerror", None) or str(error)) or type(error).__name__


def _limit(number: int) -> int | None:
    soft = resource.getrlimit(number)[0]
    return None if soft == resource.RLIM_INFINITY else soft
