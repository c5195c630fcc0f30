"""The user-server's link to hq-server, when that one is another process than a moment ago."""

from __future__ import annotations

from pathlib import Path

from hq.model.selection import Selection
from hq.protocol.jobs import JobQuery, JobRows
from hq.protocol.peers import PeerBye
from tests.support.userserver_rig import Rig


def test_a_request_that_meets_a_new_server_is_asked_again_after_the_welcome(tmp_path: Path) -> None:
    """A new hq-server does not know the connection and says goodbye to whatever comes by it: that is no answer. Found by `make chaos`."""
    rig = Rig(tmp_path)
    rig.welcome()
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_last=True)))
    request, _ = rig.take_request(JobQuery)
    rig.reply(request, PeerBye(reason="say hello first: hq-server does not know this connection (any more)"))
    rig.tick()
    assert client.answers() == []
    rig.move(2)
    rig.welcome(epoch=2)
    again, _ = rig.take_request(JobQuery)
    rig.reply(again, JobRows(rows=()), epoch=2)
    rig.tick()
    assert [type(answer) for answer in client.answers()] == [JobRows]
