"""How fast the worker makes, ends and reports runs. The figure is printed; the bound is far below it, for machines that do other things."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path

import pytest

from hq.execserver.app import ExecServer
from hq.execserver.bootstrap import parse_bootstrap
from hq.kernel.bus import MemoryBus
from hq.kernel.clock import SystemClock
from hq.kernel.log import open_log
from hq.model.runs import StartOrder
from hq.model.states import RunKind
from hq.protocol.codec import envelope
from hq.protocol.runs import ExecHello, ExecWelcome, RunRecorded, RunReported, RunStart
from tests.bench.references import spawn_limit
from tests.support.execserver import ExecSite


def test_thousands_of_small_runs_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        orders = tuple(StartOrder(1, index, 1, (index % 4,)) for index in range(1, count + 1))
        bare = spawn_limit(500)
        begin, cpu = time.monotonic(), time.process_time()
        up.send(envelope(RunStart(host="alpha", specs={1: signed}, orders=orders)), hello.peer)
        ended = 0
        while ended < count:
            assert time.monotonic() - begin < 60
            server.tick(clock.now())
            for received in up.receive():
                assert received.letter is not None
                for message in received.letter.messages:
                    if isinstance(message, RunReported):
                        ended += sum(report.kind is RunKind.ENDED for report in message.reports)
                        up.send(envelope(RunRecorded(host="alpha", sequence=message.sequence)), hello.peer)
        wall, cpu = time.monotonic() - begin, time.process_time() - cpu
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"\n{count / wall:.0f} runs/s, {cpu / count * 1e6:.0f} us of the worker's CPU each, children {children.ru_utime + children.ru_stime:.1f} s")
        print(f"bare posix_spawn at the same time: {bare:.0f}/s")
        assert count / wall > bare / 10
    finally:
        server.stop(clock.now())
        log.close()
        site.close()
