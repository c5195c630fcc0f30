"""Small things about hosts: which ones have an exec-server of ours (remembered over a restart), and by which address they reach us."""

from __future__ import annotations

import json
import logging
import os
import socket

from hq.errors import HqError
from hq.kernel.files import read_secret, write_secret
from hq.kernel.zmqbus import own_host_name, reachable_address
from hq.model.host import HostSpec


class HostMemory:
    """A file in the run directory with the hosts that may have an exec-server of ours, and whether runs as root were allowed."""

    def __init__(self, path: str | None, log: logging.Logger, *, allow_root: bool = False) -> None:
        """`path` None: nothing is kept."""
        self._path = path
        self._log = log
        self._hosts: set[str] = set()
        self._memories: dict[str, str] = {}
        self._is_behind = False  # there was no room for what is known
        self.allow_root = allow_root
        if path is not None and os.path.lexists(path):
            try:
                told = json.loads(read_secret(path))
                self._hosts = {host for host in told["hosts"] if isinstance(host, str)}
                self.allow_root = allow_root or told.get("allow_root") is True
                self._memories = {str(host): str(memory) for host, memory in told.get("memories", {}).items()}
            except (HqError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s cannot be read, exec-servers of before are found when they are needed: %s", path, error)

    def hosts(self) -> list[str]:
        """The hosts."""
        return sorted(self._hosts)

    def add(self, host: str) -> None:
        """An exec-server may be there from now on."""
        if host not in self._hosts:
            self._hosts.add(host)
            self._write()

    def remove(self, host: str) -> None:
        """None is there any more."""
        if host in self._hosts:
            self._hosts.discard(host)
            self._write()

    def is_forgetful(self, host: str, memory: str) -> bool:
        """Whether the exec-server's journal on a host is another than the one that is known; `memory` is its name, empty: it cannot tell."""
        if memory and host not in self._memories:
            self.know(host, memory)
        return bool(memory) and memory != self._memories[host]

    def know(self, host: str, memory: str) -> None:
        """This is the journal there from now on: what became of all that an earlier one had is settled."""
        self._memories[host] = memory
        self._write()

    def keep(self, hosts: list[str]) -> None:
        """Only these need to be found again at the next start."""
        if set(hosts) != self._hosts:
            self._hosts = set(hosts)
            self._write()

    def permit_root(self) -> None:
        """The user allowed runs as root."""
        if not self.allow_root:
            self.allow_root = True
            self._write()

    def tick(self) -> None:
        """Write what could not be written."""
        if self._is_behind:
            self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        try:
            write_secret(self._path, json.dumps({"hosts": self.hosts(), "allow_root": self.allow_root, "memories": self._memories}))
            self._is_behind = False
        except OSError as error:
            if not self._is_behind:
                self._log.warning("%s cannot be written, tried again: %s", self._path, error.strerror)
            self._is_behind = True


class Routes:
    """By which addresses a host's exec-server may reach this user-server."""

    def __init__(self, port: int, advertised: str | None = None) -> None:
        """`advertised`: a host name or address that the site names for this machine."""
        self.port = port
        self._advertised = advertised

    @property
    def name(self) -> str:
        """This machine as others should call it."""
        return self._advertised or own_host_name()

    def to(self, host: HostSpec) -> tuple[str, ...]:
        """Addresses to try, best first. May ask the resolver: to be called in the background."""
        if host.transport == "local":
            return (reachable_address("127.0.0.1", self.port),)
        found = [self._advertised, source_address(host.address), own_host_name()]
        return tuple(reachable_address(each, self.port) for each in dict.fromkeys(each for each in found if each))


def source_address(address: str) -> str | None:
    """The address of ours from which packets to `address` leave; None if there is no way or the name is not known. Sends nothing."""
    try:
        for family, kind, protocol, _, target in socket.getaddrinfo(address, 9, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind, protocol) as probe:
                try:
                    probe.connect(target)
                except OSError:
                    continue
                return str(probe.getsockname()[0])
    except (OSError, UnicodeError):
        pass
    return None
