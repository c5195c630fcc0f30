"""An exec-server is told nonsense by its own user-server: its run goes on, it takes the next one, and its worker is the same."""

from __future__ import annotations

import zmq

from tests.support.execserver import ExecSite
from tests.support.fuzz import Fuzz


def test_nonsense_harms_nothing(site: ExecSite) -> None:
    (key,) = site.upstream.start(site.spec("while [ ! -e go ]; do sleep 0.05; done; exit 4"))
    site.upstream.started(key)
    worker = site.worker_pid()
    for number, frame in enumerate(Fuzz(3, without=("peer.shutdown", "peer.refused", "peer.bye")).frames(800)):
        assert site.upstream.peer is not None
        try:
            site.upstream.port._socket.send_multipart((site.upstream.peer.route, frame))
        except zmq.ZMQError:  # it was told goodbye, or something like it, and dials again
            site.upstream.peer = None
            site.upstream.until(lambda: site.upstream.peer is not None, "it to come back", 60)
        if number % 50 == 0:
            site.upstream.pump()
    (site.work / "go").touch()
    assert site.upstream.ended(key, 60).exit_code == 4
    site.upstream._jobs = 4320  # a number that no nonsense was about
    site.upstream.epoch = 2**63 - 1  # of whatever hq-server the nonsense spoke, this one is no older
    assert site.run("exit 3", timeout=60).exit_code == 3
    assert site.worker_pid() == worker, site.log_text()
