"""Connections of exec-servers: which peer is which host, what leaves for it with this tick, and what it was asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from hq.kernel.bus import Peer, Port
from hq.protocol.base import Message, Problem
from hq.protocol.codec import MAX_FRAME, encode, envelope

OnAnswer = Callable[[Message], None]
#: Messages in one envelope, and its size, beyond which a batch is split.
MAX_MESSAGES = 2000
MAX_BATCH = MAX_FRAME // 4


class ExecConnections:
    """One connection a host: the one that spoke last with the host's key."""

    def __init__(self, port: Port, log: logging.Logger) -> None:
        self.epoch = 0
        self._port = port
        self._log = log
        self._peers: dict[str, Peer] = {}
        self._out: dict[str, list[Message]] = {}
        self._asked: dict[tuple[str, int], tuple[OnAnswer, float]] = {}
        self._last = 0

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._peers))

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, host: object) -> bool:
        return host in self._peers

    def is_of(self, host: str, peer: Peer) -> bool:
        """Whether this is the host's connection."""
        return self._peers.get(host) == peer

    def put(self, host: str, peer: Peer) -> None:
        """The host speaks by this connection from now on; what was meant for an older one is void."""
        self._forget(host, f"the exec-server on {host} came anew")
        self._peers[host] = peer

    def drop(self, host: str) -> None:
        """The host's exec-server is gone."""
        self._forget(host, f"the exec-server on {host} has stopped")
        self._peers.pop(host, None)

    def send(self, host: str, message: Message) -> None:
        """Send with the end of the tick."""
        self._out.setdefault(host, []).append(message)

    def reply(self, peer: Peer, request: int, message: Message) -> None:
        """Answer a peer now."""
        self._port.send(envelope(message, re=request, epoch=self.epoch), peer)

    def answer(self, host: str, request: int, message: Message) -> None:
        """Answer a request of a host now."""
        if host in self._peers:
            self.reply(self._peers[host], request, message)

    def ask(self, host: str, message: Message, on_answer: OnAnswer, deadline: float) -> bool:
        """Ask a host; a problem is the answer after `deadline` (CLOCK_BOOTTIME). False: it could not be sent."""
        peer = self._peers.get(host)
        self._last += 1
        if peer is None or not self._port.send(envelope(message, id=self._last, epoch=self.epoch), peer):
            return False
        self._asked[host, self._last] = (on_answer, deadline)
        return True

    def answered(self, host: str, re: int, message: Message) -> None:
        """An answer came."""
        asked = self._asked.pop((host, re), None)
        if asked is not None:
            asked[0](message)

    def let_time_pass(self, boot: float) -> None:
        """Give up what has waited too long."""
        for key, (on_answer, deadline) in list(self._asked.items()):
            if boot >= deadline:
                del self._asked[key]
                on_answer(Problem(text=f"the exec-server on {key[0]} has not answered", is_transient=True))

    def wake(self) -> float | None:
        """When something will have waited too long."""
        return min((deadline for _, deadline in self._asked.values()), default=None)

    def flush(self) -> list[tuple[str, list[Message]]]:
        """Send everything. Returns what could not be sent, by host."""
        out, self._out = self._out, {}
        failed = []
        for host, messages in out.items():
            peer = self._peers.get(host)
            if peer is None:
                continue
            for first in range(0, len(messages), MAX_MESSAGES):
                piece = messages[first : first + MAX_MESSAGES]
                if not self._send_piece(peer, piece):
                    self._log.warning("%d messages to the exec-server on %s were dropped", len(piece), host)
                    failed.append((host, piece))
        return failed

    def close(self) -> None:
        """Hang up."""
        self._port.close()

    def _send_piece(self, peer: Peer, messages: list[Message]) -> bool:
        letter = envelope(*messages, epoch=self.epoch)
        if len(messages) > 1 and len(encode(letter)) > MAX_BATCH:
            middle = len(messages) // 2
            return self._send_piece(peer, messages[:middle]) and self._send_piece(peer, messages[middle:])
        return self._port.send(letter, peer)

    def _forget(self, host: str, reason: str) -> None:
        self._out.pop(host, None)
        for key in [key for key in self._asked if key[0] == host]:
            self._asked.pop(key)[0](Problem(text=reason, is_transient=True))


def bound(host: str, message: Any, log: logging.Logger) -> Message:
    """The message under the name of the host whose key brought it."""
    if message.host != host:
        log.warning("the exec-server on %s sent a %s for %s: its key counts", host, message.__struct_config__.tag, message.host[:255])
        message = msgspec.structs.replace(message, host=host)
    assert isinstance(message, Message)
    return message
