"""The slow path: a user-server on another login machine, over CURVE, found by its access file. Imports ZeroMQ and the codec."""

from __future__ import annotations

import json
import time
from collections import deque
from typing import Any

import zmq

from hq.errors import HqError, RemoteError, SecurityError
from hq.kernel.zmqbus import ZmqClient, reachable_address
from hq.protocol.codec import decode_line, encode_line, envelope
from hq.protocol.peers import PeerAsk, PeerHeartbeat

#: Seconds in which a user-server that is there has answered a ping, over any network.
DIAL_TIMEOUT = 5.0
#: Seconds without a connection after which no answer to what was asked on it will come.
GONE_AFTER = 1.0


class RemoteLink:
    """Messages as dicts over one CURVE connection; the other end's key is the one in the access file."""

    is_pipeline = False

    def __init__(self, port: ZmqClient) -> None:
        self._port = port
        self._waiting: deque[dict[str, Any]] = deque()
        self._asked = 0
        self._poller = zmq.Poller()
        for fd in port.fds():
            self._poller.register(fd, zmq.POLLIN)

    def send(self, message: dict[str, Any]) -> None:
        """As Link.send."""
        self._asked += 1
        letter = envelope(decode_line(json.dumps(message).encode()), id=self._asked)
        end = time.monotonic() + DIAL_TIMEOUT
        while not self._port.send(letter):
            if time.monotonic() > end:
                raise ConnectionResetError("the user-server on the other machine cannot be reached")
            # the connection is being made: its descriptor wakes us, or a little later we look again
            self._poller.poll(50)
            self._port.is_ready()

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """As Link.receive. Answers to earlier requests are left out. Raises ConnectionResetError if the other end is gone."""
        end = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        while not self._waiting:
            for received in self._port.receive():
                if received.letter is None:
                    raise RemoteError(f"the user-server's answer cannot be read: {received.note}")
                if received.letter.re in (0, self._asked):
                    for message in received.letter.messages:
                        if not isinstance(message, PeerHeartbeat):
                            self._waiting.append(json.loads(encode_line(message)))
            if self._waiting:
                break
            left = 1.0 if end is None else min(1.0, end - time.monotonic())
            if left <= 0:
                raise TimeoutError
            if self._port.is_connected():
                heard = time.monotonic()
            elif time.monotonic() - heard > GONE_AFTER:
                raise ConnectionResetError("the connection broke before the answer came")
            if not self._port.is_ready():
                # ZeroMQ's descriptor is edge-triggered: a missed edge costs a fifth of a second, not for ever
                self._poller.poll(int(min(left, 0.2) * 1000))
        return self._waiting.popleft()

    def close(self) -> None:
        """As Link.close."""
        self._port.close()


def dial_remote(access: dict[str, Any]) -> RemoteLink | None:
    """Connect by what the access file says; None if nobody answers there in time. Raises SecurityError for a file that is not whole."""
    try:
        address = reachable_address(str(access["host"]), int(access["port"]))
        port = ZmqClient(address, str(access["public"]), str(access["client_public"]), str(access["client_secret"]))
    except (KeyError, ValueError, TypeError, HqError, zmq.ZMQError):
        raise SecurityError("access.json is not whole: stop your user-server on the machine where it runs (hq-client shutdown), then try again") from None
    link = RemoteLink(port)
    try:
        link.send(json.loads(encode_line(PeerAsk(what="ping"))))
        is_there = link.receive(DIAL_TIMEOUT)["type"] == "peer.facts"
    except (TimeoutError, ConnectionError, RemoteError):
        is_there = False
    if not is_there:
        link.close()
        return None
    return link
