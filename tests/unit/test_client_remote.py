"""Commands over CURVE: the other end that goes away is noticed, not waited for."""

from __future__ import annotations

from typing import Any

import pytest

from hq.client.remote import RemoteLink
from hq.kernel.bus import Peer, Received
from hq.kernel.keys import make_curve_pair
from hq.kernel.zmqbus import ZmqClient, ZmqServer
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerBye
from tests.support.wait import until


def test_who_ends_before_it_answers_is_not_waited_for() -> None:
    (server_public, server_secret), (public, secret) = make_curve_pair(), make_curve_pair()
    server = ZmqServer("tcp://127.0.0.1:0", server_public, server_secret)
    link = RemoteLink(ZmqClient(f"tcp://127.0.0.1:{server.port}", server_public, public, secret))
    try:
        link.send({"type": "admin.run", "words": ["shutdown"]})
        assert until(server.receive, 10)
        server.close()
        with pytest.raises(ConnectionResetError, match="before the answer"):
            link.receive(30.0)
    finally:
        link.close()
        server.close()


class Breaking:
    """A port at which the answer comes right after it was found empty, and then the connection breaks."""

    def __init__(self) -> None:
        self.came: list[Received] = []
        self.stands = True

    def receive(self) -> list[Received]:
        got, self.came = self.came, [Received(Peer("k"), envelope(PeerBye(reason="it was done")))] if self.stands else []
        self.stands = False
        return got

    def is_connected(self) -> bool:
        return self.stands

    def is_ready(self) -> bool:
        return bool(self.came)

    def fds(self) -> list[int]:
        return []


def test_the_last_words_are_heard_before_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a command that was stopped while hq-server carried out what it asked for, answered and ended."""
    monkeypatch.setattr("hq.client.remote.GONE_AFTER", -1.0)
    port: Any = Breaking()
    assert RemoteLink(port).receive(30.0)["reason"] == "it was done"
