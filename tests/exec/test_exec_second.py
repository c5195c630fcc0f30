"""A real exec-server whose user-server is gone: it goes to hq-server for reports and stops, and comes back to its user-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.model.states import Outcome, RunKind
from hq.protocol.base import Problem
from hq.protocol.peers import PeerAsk, PeerBye, PeerHeartbeat
from tests.support.execserver import ExecSite, Upstream

#: Silence is noticed after three of them; a link on which something is yet to be said must not fall silent.
HEARTBEAT = 2.0


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ExecSite]:
    """An exec-server that knows both ways up."""
    made = ExecSite(tmp_path, heartbeat=HEARTBEAT)
    yield made
    made.close()


@pytest.fixture
def server(site: ExecSite) -> Iterator[Upstream]:
    """hq-server's end."""
    made = Upstream(site.user, heartbeat=HEARTBEAT)
    made.exec_public, made.exec_secret = site.upstream.exec_public, site.upstream.exec_secret
    answer = site.bootstrap(server=f"tcp://127.0.0.1:{made.number}", server_key=made.public)
    assert answer["ok"], answer
    site.linked()
    yield made
    made.close()


def leave(upstream: Upstream) -> None:
    """Be gone, and say so: silence would be noticed later."""
    upstream.send(PeerBye(reason="stops"))
    upstream.close()


def test_reports_and_stops_go_by_hq_server_while_the_user_server_is_away(site: ExecSite, server: Upstream) -> None:
    short, long = site.upstream.start(site.spec("read x < fifo; exit 3"), site.spec("sleep 600"))
    (site.work / "fifo").unlink(missing_ok=True)
    long_pid = site.upstream.started(long).pid
    assert long_pid
    leave(site.upstream)
    server.until(lambda: server.rolls, "the roll at hq-server")
    assert long in server.rolls[-1].runs
    server.stop(long)
    assert server.ended(long).outcome is Outcome.CANCELLED
    (queued,) = server.start(site.spec("touch", "started"))
    assert queued
    site.upstream.come_back()
    site.linked()
    assert site.upstream.ended(long).outcome is Outcome.CANCELLED, "its user-server hears of it, too"
    assert site.upstream.ended(short).kind is RunKind.ENDED
    assert not (site.work / "started").exists(), "hq-server starts nothing by this way"


def test_a_user_server_that_has_not_heard_of_a_newer_hq_server_starts_nothing_until_it_has(site: ExecSite, server: Upstream) -> None:
    server.epoch = 2
    leave(site.upstream)
    server.until(lambda: server.rolls, "the roll at hq-server")
    site.upstream.come_back()
    hellos, rolls = len(site.upstream.hellos), len(site.upstream.rolls)
    site.upstream.until(lambda: len(site.upstream.hellos) > hellos, "a hello")
    (key,) = site.upstream.start(site.spec("touch", "started"))
    site.upstream.ask(PeerAsk(what="ping"))
    assert len(site.upstream.rolls) == rolls and not (site.work / "started").exists()
    assert any(isinstance(message, Problem) and "older hq-server (epoch 1)" in message.text for message in site.upstream.heard)
    site.upstream.epoch = 2
    site.upstream.send(PeerHeartbeat())
    site.linked()
    assert site.upstream.rolls[-1].runs == () and site.upstream.find(key, RunKind.STARTED, RunKind.ENDED) is None
    (again,) = site.upstream.start(site.spec("touch", "started"))
    assert site.upstream.ended(again).outcome is Outcome.OK and (site.work / "started").exists()


def test_the_one_that_stood_by_is_found_when_the_other_is_gone(site: ExecSite) -> None:
    server = Upstream(site.user, heartbeat=HEARTBEAT)
    server.exec_public, server.exec_secret = site.upstream.exec_public, site.upstream.exec_secret
    # nobody listens at port 1
    answer = site.bootstrap(server="tcp://127.0.0.1:1", standbys=[f"tcp://127.0.0.1:{server.number}"], server_key=server.public)
    assert answer["ok"], answer
    site.linked()
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 3"))
    site.upstream.started(key)
    leave(site.upstream)
    server.until(lambda: server.rolls, "the roll at the second address")
    (site.work / "go").touch()
    assert server.ended(key).exit_code == 3
    server.close()
