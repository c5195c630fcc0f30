"""A real user-server between a scripted hq-server and scripted exec-servers, on the bus in memory, with a clock that the test moves."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hq.errors import HqError
from hq.kernel.bus import MemoryBus, MemoryPort, Peer
from hq.kernel.clock import ManualClock
from hq.kernel.daemon import InlineBackground
from hq.kernel.keys import Sealer, Signer, make_curve_pair
from hq.model.host import HostSpec
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import StartOrder
from hq.protocol.base import PROTOCOL, Message
from hq.protocol.codec import decode_line, encode_line, envelope
from hq.protocol.peers import CheckStep, PeerHello, PeerWelcome
from hq.protocol.runs import ExecHello, RunRoll, RunStart
from hq.userserver.access import AccessFile
from hq.userserver.door import Door
from hq.userserver.enrol import KeyEnroller
from hq.userserver.execs import ExecLinks
from hq.userserver.hosts import HostMemory, Routes
from hq.userserver.keyring import ExecKeys, load_keyring
from hq.userserver.ledger import LedgerFile
from hq.userserver.server import UserServer
from hq.userserver.spool import SubmissionSpool
from hq.userserver.starter import Starter
from hq.userserver.submit import Preparer
from hq.userserver.transports.base import Bootstrap, Started
from hq.userserver.upstream import ServerLink

M = TypeVar("M", bound=Message)
INSTANCE = "test-00000000"
HEARTBEAT = 5.0
ALICE = 1000
SPEC = SignedSpec(b"body", b"signature")


def host(name: str, **fields: Any) -> HostSpec:
    """A host that needs no login."""
    return HostSpec(**{"name": name, "address": name, "total": 4, "slots": 4, "transport": "local", **fields})


def order(job: int, attempt: int = 1, index: int = -1) -> StartOrder:
    """An order for one attempt."""
    return StartOrder(job, index, attempt, (0,))


def start(name: str, *orders: StartOrder) -> RunStart:
    """run.start for some orders."""
    return RunStart(host=name, specs={each.job: SPEC for each in orders}, orders=orders)


class FakeTransport:
    """Starts nothing. `trouble[host]` makes a start fail; otherwise `on_start(bootstrap)` is called and it has worked."""

    def __init__(self) -> None:
        self.trouble: dict[str, HqError] = {}
        self.started: list[Bootstrap] = []
        self.on_start: Callable[[Bootstrap], None] = lambda bootstrap: None

    def start(self, host: HostSpec, bootstrap: Bootstrap, cancel: Any = None) -> Started:
        """As Transport.start."""
        self.started.append(bootstrap)
        if host.name in self.trouble:
            raise self.trouble[host.name]
        self.on_start(bootstrap)
        return Started(pid=4711, machine=host.name)

    def check(self, host: HostSpec, upstreams: Sequence[str] = (), local_port: int | None = None) -> list[CheckStep]:
        """As Transport.check."""
        return [CheckStep("login", host.name not in self.trouble, str(self.trouble.get(host.name, "ok")))]

    def forward(self, host: HostSpec, local_port: int) -> int:
        """As Transport.forward."""
        return local_port

    def release(self, host: HostSpec) -> None:
        """As Transport.release."""

    def close(self, host: HostSpec | None = None) -> None:
        """As Transport.close."""


class Client:
    """A command at the Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def send(self, message: Message) -> None:
        """Send one line."""
        self.sock.sendall(encode_line(message))

    def answers(self) -> list[Message]:
        """Everything that has come."""
        self.sock.setblocking(False)
        try:
            while piece := self.sock.recv(1 << 20):
                self._buffer += piece
        except BlockingIOError:
            pass
        *lines, self._buffer = self._buffer.split(b"\n")
        return [decode_line(line) for line in lines]

    @property
    def is_closed(self) -> bool:
        """Whether the other side hung up."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False


class Rig:
    """All of it. `server` is hq-server's end, `execs[host]` an exec-server's."""

    def __init__(self, tmp_path: Path, hosts: Sequence[HostSpec] = (), *, uid: int = ALICE, idle: float | None = 600.0) -> None:
        self.bus = MemoryBus()
        self.clock = ManualClock()
        self.background = InlineBackground()
        self.transport = FakeTransport()
        self.hosts = list(hosts)
        self.server = self.bus.listen("server", "server-key")
        self.server_peer: Peer | None = None
        self.at_server: list[tuple[int, Message]] = []
        self.execs: dict[str, MemoryPort] = {}
        self.at_exec: dict[str, list[tuple[int, Message]]] = {}
        self.socket_uid = uid
        home = tmp_path / "home"
        keys = home / INSTANCE / "keys"
        self.keyring = load_keyring(str(keys))
        self.exec_keys = ExecKeys(str(keys))
        self.exec_keys.load()
        self.access_path = home / INSTANCE / "access.json"
        self.port = self.bus.listen("tcp://127.0.0.1:7000", self.keyring.public)
        self.log = logging.getLogger("userserver-test")
        self.home = home
        self._build(str(tmp_path / "hosts.json"), uid, idle)

    def _build(self, memory_path: str, uid: int, idle: float | None) -> None:
        now = self.clock.now()
        memory = HostMemory(memory_path, self.log)
        starter = Starter(
            transport=self.transport, background=self.background, routes=Routes(7000), keys=self.exec_keys, keyring=self.keyring,
            memory=memory, instance=INSTANCE, user="alice", heartbeat=HEARTBEAT,
        )  # fmt: skip
        self.links = ExecLinks(port=self.port, starter=starter, memory=memory, log=self.log, seed=1, heartbeat=HEARTBEAT,
                               ledger=LedgerFile(os.path.join(os.path.dirname(memory_path), "ledger"), self.log, now),
                               on_ended=lambda tasks: self.us.on_ended(tasks))  # fmt: skip
        self.enroller = KeyEnroller(
            keyring=self.keyring, user="alice", enrol_socket="", instance=INSTANCE, home=str(self.home), ssh_command="ssh SERVER hq-client enrol",
            token_places=("", str(self.home / INSTANCE / "token")), background=self.background, log=self.log,
        )  # fmt: skip
        self.door = Door(self.log, uid, lambda sock: self.socket_uid)
        access = AccessFile(str(self.access_path), host="login1", port=7000, boot="boot-1", public=self.keyring.public)
        self.client_key = access.client_public
        self.us = UserServer(
            instance=INSTANCE, user="alice", uid=uid, etc="/etc/hq", address="login1:7000", server_address="tcp://server:1", door=self.door,
            port=self.port, keys=self.exec_keys, preparer=Preparer(INSTANCE, "alice", Signer(self.keyring.sign_secret), Sealer(self.keyring.seal_key)),
            spool=SubmissionSpool(os.path.join(os.path.dirname(memory_path), "spool"), self.log),
            background=self.background, access=access, now=now, log=lambda name: self.log, idle=idle,
            keepalive_sentence=lambda: "not kept up",
        )  # fmt: skip
        hello = PeerHello(version="0", protocol=PROTOCOL, boot="boot-1", machine="login1", address="login1:7000", sign_public=self.keyring.sign_public)
        upstream = ServerLink(
            self.bus.dial("server", self.keyring.public), "tcp://server:1", lambda: hello, self.enroller, self.log, now,
            on_message=self.us.on_message, on_welcome=self.us.on_welcome, on_refused=self.us.on_refused,
        )  # fmt: skip
        self.enroller.send = upstream.send_enrol
        self.us.connect(upstream, self.links)

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, times: int = 3) -> float | None:
        """Let the user-server work, and take in what it sent."""
        deadline = None
        for _ in range(times):
            if self.us.is_done:
                break
            deadline = self.us.tick(self.clock.now())
        self._collect()
        return deadline

    def move(self, seconds: float) -> None:
        """Let time pass, in steps of a heartbeat at most, with heartbeats of nobody."""
        while seconds > 0:
            step = min(seconds, 1.0)
            self.clock.move(step)
            seconds -= step
            self.tick(1)

    def _collect(self) -> None:
        for received in self.server.receive():
            assert received.letter is not None, received.note
            self.server_peer = received.peer
            self.at_server += [(received.letter.id, message) for message in received.letter.messages]
        for name, port in self.execs.items():
            for received in port.receive():
                assert received.letter is not None, received.note
                self.at_exec[name] += [(received.letter.id or received.letter.re, message) for message in received.letter.messages]

    # --- hq-server's end --------------------------------------------------------------------------------------------

    def welcome(self, epoch: int = 1) -> None:
        """Answer the hello that is there."""
        self.tick()
        request, _ = self.take_request(PeerHello)
        welcome = PeerWelcome(version="0", instance=INSTANCE, epoch=epoch, user="alice", heartbeat=HEARTBEAT, hosts=tuple(self.hosts))
        self.reply(request, welcome, epoch=epoch)
        self.tick()

    def reply(self, request: int, *messages: Message, epoch: int = 1) -> None:
        """Answer a request."""
        assert self.server_peer is not None
        assert self.server.send(envelope(*messages, re=request, epoch=epoch), self.server_peer)

    def tell(self, *messages: Message, epoch: int = 1) -> None:
        """hq-server says something by itself; then a tick."""
        self.reply(0, *messages, epoch=epoch)
        self.tick()

    def take_request(self, kind: type[M]) -> tuple[int, M]:
        """The first message of a kind that came to hq-server, taken out."""
        for place, (request, message) in enumerate(self.at_server):
            if isinstance(message, kind):
                del self.at_server[place]
                return request, message
        raise AssertionError(f"no {kind.__name__} came to hq-server, but {[type(message).__name__ for _, message in self.at_server]}")

    def server_got(self, kind: type[M]) -> list[M]:
        """All messages of a kind that came to hq-server, taken out."""
        found = [message for _, message in self.at_server if isinstance(message, kind)]
        self.at_server = [(request, message) for request, message in self.at_server if not isinstance(message, kind)]
        return found

    # --- an exec-server's end ----------------------------------------------------------------------------------------

    def exec_comes(self, name: str, runs: Sequence[AttemptKey] = (), *, with_roll: bool = True, memory: str = "", protocol: int = PROTOCOL) -> None:
        """The exec-server on a host says hello and calls its roll. `memory`: the name of its journal."""
        public, _ = self.exec_keys.of(name)
        port = self.execs[name] = self.bus.dial("tcp://127.0.0.1:7000", public)
        self.at_exec.setdefault(name, [])
        hello = ExecHello(version="0", protocol=protocol, boot="b", host=name, machine=name, pid=1, route="tcp://127.0.0.1:7000", memory=memory)
        port.send(envelope(hello))
        self.tick()
        if with_roll:
            self.exec_says(name, RunRoll(host=name, runs=tuple(runs)))

    def exec_says(self, name: str, *messages: Message, id: int = 0, re: int = 0) -> None:
        """Messages from the exec-server on a host; then a tick."""
        self.execs[name].send(envelope(*messages, id=id, re=re))
        self.tick()

    def exec_got(self, name: str, kind: type[M]) -> list[M]:
        """All messages of a kind that came to an exec-server, taken out."""
        found = [message for _, message in self.at_exec[name] if isinstance(message, kind)]
        self.at_exec[name] = [(request, message) for request, message in self.at_exec[name] if not isinstance(message, kind)]
        return found

    def exec_request(self, name: str, kind: type[M]) -> tuple[int, M]:
        """The first message of a kind that came to an exec-server, with its number, taken out."""
        for place, (request, message) in enumerate(self.at_exec[name]):
            if isinstance(message, kind):
                del self.at_exec[name][place]
                return request, message
        raise AssertionError(f"no {kind.__name__} came to the exec-server on {name}")

    # --- clients ----------------------------------------------------------------------------------------------------

    def client(self) -> Client:
        """A command that connects."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.door.adopt(theirs)
        return Client(ours)

    def bus_client(self, key: str | None = None) -> MemoryPort:
        """A command on another machine, with the key of the access file or another one."""
        return self.bus.dial("tcp://127.0.0.1:7000", key or self.client_key)

    def ask(self, client: Client, message: Message) -> None:
        """A command asks; then a tick."""
        client.send(message)
        self.tick()


def stranger_key() -> str:
    """A key that nobody knows."""
    return make_curve_pair()[0]


def mode_of(path: Path) -> int:
    """The permission bits of a file."""
    return os.stat(path).st_mode & 0o777
