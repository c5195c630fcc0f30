"""What a transport is: it starts the user's exec-server on a host, proves that it could, and keeps the way back open.

All calls block and are meant for background threads; each ends by its deadline. ssh's own words stand verbatim in the errors.
A transport does not know what an exec-server does, does not retry and does not decide when to start one: that is the user-server's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from typing import Any, Protocol

from hq.errors import RefusedError, RemoteError
from hq.model.batch import BatchSettings
from hq.model.host import HostSpec
from hq.protocol.peers import CheckStep

#: An answer line longer than this is no answer of ours.
ANSWER_LIMIT = 1 << 20


class Cancel(Protocol):
    """What `threading.Event` is: set by somebody else when the call should be given up."""

    def is_set(self) -> bool:
        """Whether to give up."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What an exec-server is told over its stdin. Keys are Z85 or hex text, as `hq.kernel.keys` makes them.

    `local_port` does not travel: it is the TCP port on which the user-server listens here. If it is set, the ssh transports add a
    reverse forward to it as the last of `upstreams`. `idle`: seconds without anything to do until the exec-server ends. `home`: HQ_HOME on
    the host, empty: its default. `server`, `standbys`, `server_key`: where hq-server is or may be, for when
    the user-server is away. `batch`: with the backend of a batch system, how it is used.
    """

    instance: str
    host: str
    user: str
    upstreams: tuple[str, ...]
    upstream_key: str
    public: str
    secret: str = field(repr=False)
    sign_public: str
    seal_key: str = field(repr=False)
    slots: int
    heartbeat: float
    version: str
    protocol: int
    allow_root: bool = False
    idle: float = 600.0
    home: str = ""
    server: str = ""
    standbys: tuple[str, ...] = ()
    server_key: str = ""
    backend: str = "process"
    batch: BatchSettings | None = None
    local_port: int | None = None

    def with_upstream(self, address: str) -> Bootstrap:
        """The same with one more way back, tried last."""
        return replace(self, upstreams=(*self.upstreams, address))

    def to_line(self) -> bytes:
        """The one JSON line, with its newline."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "local_port"}
        told["batch"] = None if self.batch is None else asdict(self.batch)
        return json.dumps(told).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An exec-server that runs. `machine`: what it said of its machine. `is_adopted`: it was there before and re-dials.

    `forwarded_port` is the port on the host's loopback that leads back to the user-server; `note` says why there is none.
    """

    pid: int
    machine: Any = None
    is_adopted: bool = False
    forwarded_port: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How to reach hosts. Times in seconds.

    `exec_server` is the command on ssh hosts, `local_exec_server` the one of this machine; both are argument lists without options.
    `run_dir` is the user-server's local run directory (ControlPath sockets lie there).
    """

    run_dir: str
    exec_server: tuple[str, ...] = ("hq-exec-server",)
    local_exec_server: tuple[str, ...] = ("hq-exec-server",)
    connect_timeout: float = 10.0
    login_timeout: float = 30.0
    start_timeout: float = 60.0
    check_timeout: float = 60.0
    keepalive: float = 15.0
    environment: Mapping[str, str] | None = None  # of child processes; None: ours


class Transport(Protocol):
    """One way to reach hosts. May be called from several threads at once; calls for the same host wait for each other."""

    def start(self, host: HostSpec, bootstrap: Bootstrap, cancel: Cancel | None = None) -> Started:
        """Start the exec-server, or find the one that runs and give it `bootstrap`.

        Raises UnavailableError (no answer in time, connection lost: try again) or RefusedError (login, host key, or the exec-server said no).
        """
        ...

    def check(self, host: HostSpec, upstreams: Sequence[str] = (), local_port: int | None = None) -> list[CheckStep]:
        """Prove login, python, version, way back, limits, lingering. Never raises for what the host does wrong.

        The way back is tried to each of `upstreams`, and by a reverse forward to 127.0.0.1:`local_port` here if that is given.
        """
        ...

    def forward(self, host: HostSpec, local_port: int) -> int:
        """Open a port on the host's loopback that leads to 127.0.0.1:`local_port` here, and keep the connection. Returns the remote port.

        The same pair asked again gives the same port while the connection lives. Raises UnavailableError or RefusedError.
        """
        ...

    def release(self, host: HostSpec) -> None:
        """The exec-server got through without the forward: close the connection. Raises UnavailableError if another call holds it too long."""
        ...

    def close(self, host: HostSpec | None = None) -> None:
        """Close the connection to a host, or all connections."""
        ...


def parse_answer(line: bytes, place: str, stderr: str = "") -> dict[str, Any]:
    """The JSON object in an answer line of an exec-server. Raises RemoteError with what came instead, verbatim."""
    heard = "; ".join(part for part in (line.decode(errors="replace").strip(), stderr.strip()) if part)
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise RemoteError(f"{place}: no answer of an exec-server but: {heard[:2000] or 'nothing'}")
    return answer


def read_started(line: bytes, place: str, stderr: str = "") -> Started:
    """The answer to a bootstrap. Raises RefusedError with the exec-server's own reason, or RemoteError."""
    answer = parse_answer(line, place, stderr)
    if not answer.get("ok"):
        raise RefusedError(f"{place}: hq-exec-server does not start: {answer.get('reason') or 'it gives no reason'}")
    pid = answer.get("pid")
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise RemoteError(f"{place}: an exec-server answered without its process id: {line[:500]!r}")
    return Started(pid=pid, machine=answer.get("machine"), is_adopted=bool(answer.get("adopted", False)))


def transport_for(host: HostSpec, settings: TransportSettings) -> Transport:
    """A new transport of the kind that the host's row names. Raises RefusedError for an unknown kind."""
    # The kinds are imported here: paramiko alone takes longer to import than a local start takes.
    if host.transport == "local":
        from hq.userserver.transports.local import LocalTransport

        return LocalTransport(settings)
    if host.transport == "ssh":
        from hq.userserver.transports.paramiko_ssh import ParamikoTransport

        return ParamikoTransport(settings)
    if host.transport == "openssh":
        from hq.userserver.transports.openssh import OpensshTransport

        return OpensshTransport(settings)
    raise RefusedError(f"host {host.name}: unknown transport '{host.transport}' in cluster.tab; there are ssh, openssh and local")


class Transports:
    """All transports of a user-server behind one door: each host by its own kind, one object a kind. Itself a Transport."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._kinds: dict[str, Transport] = {}
        self._lock = Lock()

    def transport_for(self, host: HostSpec) -> Transport:
        """The transport of the host's kind, made at first use. Raises RefusedError for an unknown kind."""
        with self._lock:
            if host.transport not in self._kinds:
                self._kinds[host.transport] = transport_for(host, self._settings)
            return self._kinds[host.transport]

    def get_ready(self, hosts: Iterable[HostSpec]) -> None:
        """Import what these hosts need: a daemon does not read its program while it runs, for that may have been replaced."""
        for host in hosts:
            with suppress(RefusedError):
                self.transport_for(host)

    def start(self, host: HostSpec, bootstrap: Bootstrap, cancel: Cancel | None = None) -> Started:
        """As Transport.start."""
        return self.transport_for(host).start(host, bootstrap, cancel)

    def check(self, host: HostSpec, upstreams: Sequence[str] = (), local_port: int | None = None) -> list[CheckStep]:
        """As Transport.check."""
        return self.transport_for(host).check(host, upstreams, local_port)

    def forward(self, host: HostSpec, local_port: int) -> int:
        """As Transport.forward."""
        return self.transport_for(host).forward(host, local_port)

    def release(self, host: HostSpec) -> None:
        """As Transport.release."""
        self.transport_for(host).release(host)

    def close(self, host: HostSpec | None = None) -> None:
        """As Transport.close."""
        with self._lock:
            kinds = list(self._kinds.values())
        for kind in kinds:
            kind.close(host)
