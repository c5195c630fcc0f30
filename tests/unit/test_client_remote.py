"""Commands over CURVE: the other end that goes away is noticed, not waited for."""

from __future__ import annotations

import pytest

from hq.client.remote import RemoteLink
from hq.kernel.keys import make_curve_pair
from hq.kernel.zmqbus import ZmqClient, ZmqServer
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
