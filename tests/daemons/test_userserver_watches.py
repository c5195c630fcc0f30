"""Watches through the user-server: news until the end, and a word for who waits in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import RefusedError
from hq.model.rows import JobCounts
from hq.model.selection import Selection
from hq.protocol.jobs import JobProgress, JobUnwatch, JobWatch
from hq.protocol.peers import PeerHeartbeat
from tests.support.userserver_rig import Rig, host, order, start


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two hosts, hq-server has let us in."""
    made = Rig(tmp_path, [host("n1"), host("n2")])
    made.welcome()
    return made


def test_who_waits_is_told_once_why_nothing_of_his_can_start(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobWatch(selection=Selection(is_all=True)))
    request, _ = rig.take_request(JobWatch)
    for name in ("n1", "n2"):
        rig.transport.trouble[name] = RefusedError(f"{name}: Permission denied (publickey).")
    rig.tell(start("n1", order(1)), start("n2", order(2)))
    for _ in range(20):
        rig.tell(PeerHeartbeat())
        rig.move(1)
    [warned] = client.answers()
    assert isinstance(warned, JobProgress) and not warned.is_done and not warned.jobs
    assert "nothing of yours can start" in warned.note and "n1: Permission denied (publickey)." in warned.note
    last = JobProgress(jobs=(JobCounts(1, {"finished": 1}, True, 0),), is_done=True)
    rig.reply(request, last)
    rig.tick()
    assert client.answers() == [last]


def test_who_waits_is_not_bothered_with_one_host_among_others(rig: Rig) -> None:
    client = rig.client()
    rig.ask(client, JobWatch(selection=Selection(is_all=True)))
    rig.transport.trouble["n1"] = RefusedError("Permission denied (publickey).")
    rig.tell(start("n2", order(2)))
    rig.exec_comes("n2")
    rig.tell(start("n1", order(1)))
    rig.move(1)
    assert client.answers() == []


def test_a_watch_streams_until_done_and_ends_with_its_client(rig: Rig) -> None:
    client, other = rig.client(), rig.client()
    rig.ask(client, JobWatch(selection=Selection(is_last=True)))
    request, _ = rig.take_request(JobWatch)
    news = JobProgress(jobs=(JobCounts(1, {"running": 1}, False),), is_done=False)
    last = JobProgress(jobs=(JobCounts(1, {"finished": 1}, True, 0),), is_done=True)
    rig.reply(request, news, news)
    rig.tick()
    rig.reply(request, last)
    rig.tick()
    assert client.answers() == [news, news, last]
    rig.ask(other, JobWatch(selection=Selection(is_last=True)))
    request, _ = rig.take_request(JobWatch)
    other.sock.close()
    rig.tick()
    assert rig.server_got(JobUnwatch) == [JobUnwatch(request=request)]
    assert len(rig.us.upstream.requests) == 0 and len(rig.door) == 1
