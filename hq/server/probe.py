"""Whether hosts can be reached from hq-server: a TCP connection to the ssh port, beside the loop. Logs in nowhere."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from hq.core.events import HostsProbed
from hq.errors import UnavailableError
from hq.model.host import HostSpec

if TYPE_CHECKING:
    from hq.server.daemon import Server

SSH_PORT = 22
AT_ONCE = 32

_PORT = re.compile(r"(.+):([0-9]{1,5})", re.ASCII)


def ssh_place(address: str) -> tuple[str, int]:
    """Host and port of an address of cluster.tab: `NAME`, `NAME:PORT`, `[IPV6]:PORT` or a bare IPv6 address."""
    if address.count(":") > 1 and not address.startswith("["):
        return address, SSH_PORT
    found = _PORT.fullmatch(address)
    name, port = (found[1], int(found[2])) if found else (address, SSH_PORT)
    return name.strip("[]"), port


def probe(spec: HostSpec, timeout: float) -> str | None:
    """None if the host takes a connection, else why not. Blocks up to `timeout` seconds. Raises UnavailableError."""
    if spec.transport == "local":
        return None
    name, port = ssh_place(spec.address)
    try:
        with socket.create_connection((name, port), timeout):
            return None
    except socket.gaierror:
        # to a user's own ssh configuration it may be an alias
        raise UnavailableError(f"the name {name} means nothing on this machine") from None
    except OverflowError:
        return f"{port} is no TCP port"
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        return f"{name} port {port}: {reason}"


def probe_all(specs: list[HostSpec], timeout: float) -> dict[str, str | None]:
    """As `probe`, a few at a time, by host name; hosts of which nothing can be told from here are absent."""
    if not specs:
        return {}
    results: dict[str, str | None] = {}
    with ThreadPoolExecutor(min(AT_ONCE, len(specs)), "hq-probe") as pool:
        calls = {spec.name: pool.submit(probe, spec, timeout) for spec in specs}
        for name, call in calls.items():
            with suppress(UnavailableError):
                results[name] = call.result()
    return results


def start(server: Server) -> None:
    """Look at all listed hosts, unless the last round still goes on. The outcome is an event."""
    if server.is_probing:
        return
    specs = [host.record.spec for host in server.cluster.hosts.values() if host.record.is_listed]
    if not specs:
        return
    timeout = server.config.probe_timeout
    server.is_probing = True

    def take(results: dict[str, str | None]) -> None:
        server.is_probing = False
        server.add(HostsProbed(results=results))

    server.ask(None, lambda: probe_all(specs, timeout), take)
