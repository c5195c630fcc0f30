"""The name of an exec-server's journal: the user-server knows by it whether the host still knows what it was told."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from hq.execserver.app import ExecServer
from hq.execserver.bootstrap import parse_bootstrap
from hq.execserver.journal import Journal, read_journal
from hq.kernel.bus import MemoryBus
from hq.kernel.clock import ManualClock
from hq.kernel.log import open_log
from hq.protocol.runs import ExecHello
from tests.support.execserver import ExecSite


class Host:
    """Exec-servers one after the other in one run directory."""

    def __init__(self, tmp_path: Path) -> None:
        self.site = ExecSite(tmp_path)
        self.run_dir = tmp_path / "run"
        self.run_dir.mkdir(mode=0o700)
        (self.run_dir / "log").mkdir()
        self.clock = ManualClock()

    def memory(self) -> str:
        """Start one; the name that it says in its hello."""
        bus = MemoryBus()
        up = bus.listen("up", "server")
        told = parse_bootstrap(json.dumps(self.site.line(upstreams=["up"], home=str(self.site.home))))
        log = open_log("exec-server", str(self.run_dir / "log"))
        server = ExecServer(told, str(self.run_dir), log, lambda address: bus.dial(address, "exec"), self.clock.now())
        server.tick(self.clock.now())
        (hello,) = up.receive()
        assert hello.letter is not None and isinstance(hello.letter.messages[0], ExecHello)
        return hello.letter.messages[0].memory


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_journal_keeps_its_name_and_another_has_another(host: Host) -> None:
    first = host.memory()
    assert first and host.memory() == first
    (host.run_dir / "journal").unlink()
    assert host.memory() not in ("", first)


def test_with_a_full_disk_a_new_journal_has_a_name_too_and_keeps_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by make chaos: a host came back from a reboot with an empty and full disk, and ran again what it had run before."""

    def no_room(journal: Journal, lines: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "rewrite", no_room)
        first = host.memory()
    assert first
    assert read_journal(str(host.run_dir / "journal")).memory == first, "written as soon as there was room"
    assert host.memory() == first
