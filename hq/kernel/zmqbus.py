"""The bus over TCP: ZeroMQ with CURVE on every socket. The interface is `hq.kernel.bus.Port`.

Any key may connect: the handler of ZeroMQ's authentication protocol (ZAP) passes the key on, and it stands in
`Received.peer.key`; what a key may say is the daemon's decision, message by message. Without the handler no connection comes
about at all (ZAP_ENFORCE_DOMAIN; by itself ZAP fails open).

Routing ids are given by the server's socket, never by a peer: an id that a peer chose is refused, as it could be a copy of
another's. So a peer that lost its connection comes back under a new route: a daemon finds its session by `peer.key` and
answers to the peer of the latest message. HANDOVER is off, and an id is bound to the first key that used it.
"""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

import zmq
from zmq.utils import z85

from hq.errors import InputError, RemoteError, UnavailableError
from hq.kernel.bus import Peer, Received
from hq.kernel.portguard import LOOK_EVERY, PortGuard
from hq.protocol.codec import MAX_FRAME, Envelope, decode, encode

HANDSHAKE_MS = 10_000
ALIVE_MS = 10_000  # ZeroMQ's own heartbeat: a half-open connection is noticed and dialled again
DEAD_MS = 30_000
LINGER_MS = 500
RECEIVE_QUEUE = 100  # frames a peer: what does not fit stays in his socket, so that one peer's flood is his own
SEND_QUEUE = 1000
RECEIVE_BYTES = 16 << 20  # taken at once, about: the rest stays where it is for the next time
MAX_ROUTES = 100_000
_OWN_ROUTE = 5  # bytes of an id that ROUTER made: a zero and a counter that begins at random, so nobody guesses another's
_ZAP = "inproc://zeromq.zap.01"
_DOMAIN = b"hq"


class ZmqServer:
    """A server's end: many peers, each known by its CURVE key. `port` is the TCP port that was bound."""

    def __init__(
        self, bind_address: str, public: str, secret: str, *, context: zmq.Context[zmq.Socket[bytes]] | None = None, has_handler: bool = True
    ) -> None:
        """Listen at `tcp://HOST:PORT`; port 0 takes a free one. Raises UnavailableError if the port is taken.

        `has_handler` False is for the test that then nothing comes through.
        """
        self._own_context = context is None
        self._context = context or zmq.Context(1)
        self.guard = PortGuard()
        self._handler = _ZapHandler(self._context, self.guard.look) if has_handler else None
        self._socket = self._context.socket(zmq.ROUTER)
        _set_common(self._socket, public, secret)
        self._socket.curve_server = True
        self._socket.zap_domain = _DOMAIN
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._routes: OrderedDict[bytes, tuple[str, int]] = OrderedDict()  # key and descriptor
        try:
            self._socket.bind(_with_port(bind_address))
        except zmq.ZMQError as error:
            self.close()
            raise UnavailableError(f"cannot listen at {bind_address}: {error.strerror}; is another server running, or is the address not this machine's?") from None
        endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.port = self.guard.port = int(endpoint.rpartition(":")[2])

    def send(self, letter: Envelope, peer: Peer | None = None) -> bool:
        """As Port.send."""
        assert peer is not None, "a server's end needs to be told the peer"
        key, descriptor = self._routes.get(peer.route, ("", -1))
        if key != peer.key:
            return False
        frame = encode(letter)
        try:
            self._socket.send_multipart((peer.route, frame), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                del self._routes[peer.route]
                return False
            if error.errno == zmq.EAGAIN:
                return False
            raise
        self.guard.gave(descriptor, len(frame))
        return True

    def receive(self, limit: int = 1000) -> list[Received]:
        """As Port.receive."""
        got: list[Received] = []
        size = 0
        while len(got) < limit and size < RECEIVE_BYTES:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self.guard.drained()
                break
            length = sum(map(len, frames))
            size += length
            got.append(self._read(frames, length))
        return got

    def _read(self, frames: list[zmq.Frame], length: int) -> Received:
        route = frames[0].bytes
        last = frames[-1]
        descriptor = int(last.get(zmq.SRCFD))
        key = str(_property(last, "User-Id"))
        self.guard.took(descriptor, key, length)
        peer = Peer(key, route)
        if not key or len(frames) < 2:
            return Received(peer, None, f"a message without a key or without content came from {_property(last, 'Peer-Address')}")
        if len(route) != _OWN_ROUTE or route[:1] != b"\0":
            return Received(Peer(key), None, f"the peer at {_property(last, 'Peer-Address')} chose its own routing id")
        if self._routes.setdefault(route, (key, descriptor))[0] != key:
            return Received(Peer(key), None, f"the peer at {_property(last, 'Peer-Address')} used a routing id of another key")
        self._routes.move_to_end(route)
        while len(self._routes) > MAX_ROUTES:
            # whoever was silent longest is known again with his next word
            self._routes.popitem(last=False)
        if len(frames) != 2:
            return Received(peer, None, f"a message of {len(frames) - 1} frames came, one is expected")
        return _decoded(peer, last)

    def fds(self) -> list[int]:
        """Descriptors for the loop."""
        return [int(self._socket.getsockopt(zmq.FD))]

    def is_ready(self) -> bool:
        """Whether something has arrived."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def close(self) -> None:
        """As Port.close. What was sent has half a second to leave."""
        if self._socket.closed:
            return
        self._socket.close()
        if self._handler is not None:
            self._handler.close()
        if self._own_context:
            self._context.term()


class ZmqClient:
    """A client's end: dials one server, whose key it knows, and dials again for ever when the connection breaks."""

    def __init__(self, address: str, server_key: str, public: str, secret: str) -> None:
        """Dial `tcp://HOST:PORT`. Returns at once: whether anybody answers shows when somebody does."""
        self._peer = Peer(server_key)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1)
        self._socket = self._context.socket(zmq.DEALER)
        _set_common(self._socket, public, secret)
        self._socket.curve_serverkey = server_key.encode()
        self._socket.setsockopt(zmq.RECONNECT_IVL, 100)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 5000)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, 10_000)
        # without a connection nothing is queued: a queue would be sent to a server that has forgotten us
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        try:
            self._socket.connect(_with_port(address))
        except zmq.ZMQError as error:
            self.close()
            raise InputError(f"'{address}' cannot be dialled: {error.strerror}") from None

    def send(self, letter: Envelope, peer: Peer | None = None) -> bool:
        """As Port.send. False while there is no connection."""
        try:
            self._socket.send(encode(letter), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self, limit: int = 1000) -> list[Received]:
        """As Port.receive. All that comes is from the server with the key that was dialled."""
        got: list[Received] = []
        size = 0
        while len(got) < limit and size < RECEIVE_BYTES:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            size += sum(map(len, frames))
            if len(frames) != 1:
                got.append(Received(self._peer, None, f"a message of {len(frames)} frames came, one is expected"))
            else:
                got.append(_decoded(self._peer, frames[0]))
        return got

    def fds(self) -> list[int]:
        """Descriptors for the loop."""
        return [int(self._socket.getsockopt(zmq.FD))]

    def is_ready(self) -> bool:
        """Whether something has arrived."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)

    def is_connected(self) -> bool:
        """Whether something could be sent now."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def close(self) -> None:
        """As Port.close. What was sent has half a second to leave."""
        if not self._socket.closed:
            self._socket.close()
            self._context.term()


class _ZapHandler:
    """Answers ZeroMQ's question who may connect: every CURVE key, under its own name (RFC 27). A thread, for handshakes must not wait for a tick."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], look: Callable[[], None]) -> None:
        """`look` is called now and then, for the daemon's thread may be asleep."""
        self._look = look
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ZAP)
        self._end = context.socket(zmq.PAIR)
        name = f"inproc://hq-zap-end-{id(self)}"
        self._end.bind(name)
        self._stop = context.socket(zmq.PAIR)
        self._stop.linger = 0
        self._stop.connect(name)
        self._thread = threading.Thread(target=self._serve, name="hq-zap", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._end, zmq.POLLIN)
        while True:
            ready = dict(poller.poll(int(LOOK_EVERY * 1000)))
            with suppress(OSError):  # no descriptor is free: it looks again
                self._look()
            if self._end in ready:
                break
            if self._socket in ready:
                self._socket.send_multipart(zap_answer(self._socket.recv_multipart()))
        self._socket.close()
        self._end.close(0)

    def close(self) -> None:
        self._stop.send(b"")
        self._thread.join()
        self._stop.close()


def zap_answer(frames: list[bytes]) -> list[bytes]:
    """The answer to a ZAP request: 200 with the key as user id for CURVE in our domain, else 400. Never raises."""
    request = frames[1] if len(frames) > 1 else b""
    if len(frames) == 7 and frames[0] == b"1.0" and frames[2] == _DOMAIN and frames[5] == b"CURVE" and len(frames[6]) == 32:
        return [b"1.0", request, b"200", b"OK", z85.encode(frames[6]), b""]
    return [b"1.0", request, b"400", b"only CURVE is spoken here", b"", b""]


def reachable_address(host: str, port: int) -> str:
    """The `tcp://host:port` of a listening end as others dial it."""
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def own_host_name() -> str:
    """This machine's name as others should find it: fully qualified if it resolves, else the plain one."""
    name = socket.getfqdn()
    return socket.gethostname() if name in ("localhost", "localhost.localdomain") or name.endswith(".arpa") else name


def _set_common(sock: zmq.Socket[bytes], public: str, secret: str) -> None:
    sock.linger = LINGER_MS
    sock.curve_publickey = public.encode()
    sock.curve_secretkey = secret.encode()
    sock.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    sock.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.setsockopt(zmq.HEARTBEAT_IVL, ALIVE_MS)
    sock.setsockopt(zmq.HEARTBEAT_TIMEOUT, DEAD_MS)
    sock.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
    sock.setsockopt(zmq.SNDHWM, SEND_QUEUE)
    sock.setsockopt(zmq.IPV6, 1)


def _with_port(address: str) -> str:
    """Check the form `tcp://HOST:PORT`; port 0 becomes ZeroMQ's `*`. Raises InputError."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        port = None
    if port is None or parts.scheme != "tcp" or not parts.hostname:
        raise InputError(f"'{address}' is not an address: write tcp://HOST:PORT")
    return address if port else address.rpartition(":")[0] + ":*"


def _property(frame: zmq.Frame, name: str) -> object:
    try:
        return frame.get(name)
    except zmq.ZMQError:
        return ""


def _decoded(peer: Peer, frame: zmq.Frame) -> Received:
    size = len(frame)
    try:
        return Received(peer, decode(frame.buffer), size=size)
    except RemoteError as error:
        return Received(peer, None, str(error), size)




