"""Thousands of short runs at once: each is reported once, and many go up in one message. How fast that is, the bench says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from hq.execserver.app import ExecServer
from hq.execserver.bootstrap import parse_bootstrap
from hq.execserver.pacing import HOLD
from hq.kernel.bus import MemoryBus
from hq.kernel.clock import SystemClock
from hq.kernel.log import open_log
from hq.model.runs import StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.codec import envelope
from hq.protocol.runs import ExecHello, ExecWelcome, RunRecorded, RunReported, RunStart
from tests.support.execserver import ExecSite


def test_thousands_of_short_runs_are_reported_once_each_and_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the worker goes to the jobs' directories; here the worker is this process
    site = ExecSite(tmp_path)
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    (run_dir / "log").mkdir()
    bus, clock = MemoryBus(), SystemClock()
    up = bus.listen("up", "server")
    told = parse_bootstrap(json.dumps(site.line(upstreams=["up"], home=str(site.home))))
    log = open_log("exec-server", str(run_dir / "log"))
    server = ExecServer(told, str(run_dir), log, lambda address: bus.dial(address, "exec"), clock.now())
    try:
        server.tick(clock.now())
        (hello,) = up.receive()
        assert hello.letter is not None and isinstance(hello.letter.messages[0], ExecHello)
        up.send(envelope(ExecWelcome(heartbeat=5.0, epoch=1, slots=4)), hello.peer)
        count = 3000
        signed = site.user.sign(site.user.spec("/bin/true", "x", indices=f"1-{count}", stdout=b"/dev/null", stderr=b"/dev/null"))
        orders = tuple(StartOrder(1, index, 1, (index - 1,) if index <= 4 else (), is_ahead=index > 4) for index in range(1, count + 1))
        up.send(envelope(RunStart(host="alpha", specs={1: signed}, orders=orders)), hello.peer)
        ended: Counter[int] = Counter()
        messages = 0
        begin = clock.now().boot
        while ended.total() < count:
            assert clock.now().boot < begin + 300, f"{ended.total()} have ended"
            server.tick(clock.now())
            for received in up.receive():
                assert received.letter is not None
                for message in received.letter.messages:
                    if isinstance(message, RunReported):
                        messages += 1
                        ended.update(report.index for report in message.reports if report.kind is RunKind.ENDED and report.outcome is Outcome.OK)
                        up.send(envelope(RunRecorded(host="alpha", sequence=message.sequence)), hello.peer)
        assert ended == Counter(range(1, count + 1))
        # one for each moment that reports are held, and of the last ones, behind which few wait, each may have its own
        assert messages < (clock.now().boot - begin) / HOLD + count / 20
    finally:
        server.stop(clock.now())
        log.close()
        site.close()
