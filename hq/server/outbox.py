"""Messages on their way out, batched: one envelope a peer and tick for what answers nothing, one for each request that is answered.

Not the place for who may get what.
"""

from __future__ import annotations

import logging

from hq.kernel.bus import Peer, Port
from hq.protocol.base import Message
from hq.protocol.codec import MAX_FRAME, encode, envelope

#: Beyond this size a batch is sent as several envelopes.
MAX_BATCH = MAX_FRAME // 4
MAX_MESSAGES = 2000


class Outbox:
    """Collects messages during a tick. Answers leave before what nobody asked for, each in order."""

    def __init__(self, port: Port, log: logging.Logger) -> None:
        self.epoch = 0
        self.port = port
        self._log = log
        self._answers: dict[tuple[Peer, int], list[Message]] = {}
        self._news: dict[Peer, list[Message]] = {}

    def answer(self, peer: Peer, request: int, message: Message) -> None:
        """Answer a request of a peer."""
        if request:
            self._answers.setdefault((peer, request), []).append(message)
        else:
            self.tell(peer, message)

    def tell(self, peer: Peer, message: Message) -> None:
        """Tell a peer something that it did not ask for."""
        self._news.setdefault(peer, []).append(message)

    def tell_once(self, peer: Peer, message: Message) -> None:
        """The same, but what it was told last it is not told again in this tick."""
        if self._news.get(peer, [None])[-1] != message:
            self.tell(peer, message)

    def flush(self) -> list[Peer]:
        """Send everything. Returns the peers that are not there or do not read."""
        lost = []
        for (peer, request), messages in self._answers.items():
            if not self._send(peer, request, messages):
                lost.append(peer)
        for peer, messages in self._news.items():
            if not self._send(peer, 0, messages):
                lost.append(peer)
        self._answers.clear()
        self._news.clear()
        return lost

    def _send(self, peer: Peer, request: int, messages: list[Message]) -> bool:
        is_sent = True
        for start in range(0, len(messages), MAX_MESSAGES):
            is_sent = self._send_piece(peer, request, messages[start : start + MAX_MESSAGES]) and is_sent
        return is_sent

    def _send_piece(self, peer: Peer, request: int, messages: list[Message]) -> bool:
        letter = envelope(*messages, re=request, epoch=self.epoch)
        if len(messages) > 1 and len(encode(letter)) > MAX_BATCH:
            middle = len(messages) // 2
            first = self._send_piece(peer, request, messages[:middle])
            return self._send_piece(peer, request, messages[middle:]) and first
        if self.port.send(letter, peer):
            return True
        self._log.info("%d messages (%s, ...) to %.8s were dropped: no such peer, or it does not read", len(messages),
                       type(messages[0]).__struct_config__.tag, peer.key)  # fmt: skip
        return False
