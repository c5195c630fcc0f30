"""Which hq-server an exec-server believes, when its user-server is behind or ahead of what was heard here: clock and bus in hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.execserver.app import ExecServer
from hq.execserver.bootstrap import Bootstrap
from hq.execserver.epochs import PATIENCE
from hq.kernel.bus import MemoryBus, Peer
from hq.kernel.clock import ManualClock
from hq.kernel.log import open_log
from hq.model.ids import PLAIN, AttemptKey
from hq.model.runs import StartOrder
from hq.model.states import RunKind
from hq.protocol.base import Message, Problem
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerBye, PeerHeartbeat
from hq.protocol.runs import ExecHello, ExecWelcome, RunRecorded, RunReported, RunRoll, RunStart, RunStop
from tests.support.execserver import User
from tests.support.machine import FakeBackend, Machine

HEARTBEAT = 5.0


class Site:
    """One exec-server with both ways up, whose other ends are played here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.lease = 120.0
        self.user = User("i-00000001")
        self.bus, self.clock, self.machine = MemoryBus(), ManualClock(), Machine()
        self.ports = {name: self.bus.listen(name, name) for name in ("user", "server")}
        self.peers: dict[str, Peer] = {}
        self.got: dict[str, list[Message]] = {"user": [], "server": []}
        self.start()

    def start(self) -> None:
        """A (new) worker."""
        told = Bootstrap(instance="i-00000001", host="h", user="alice", upstreams=("user",), upstream_key="u" * 40, public="p" * 40, secret="s" * 40,
                         sign_public=self.user.sign_public, seal_key=self.user.seal_key, slots=2, heartbeat=HEARTBEAT, idle=1e9,
                         home=str(self.directory / "home"), server="server")  # fmt: skip
        self.worker = ExecServer(told, str(self.directory), open_log("exec", None), lambda address: self.bus.dial(address, "exec"), self.clock.now(),
                                 processes=lambda note, statuses, cgroups: FakeBackend(self.machine, self.clock, note, lambda: None))  # type: ignore[arg-type]  # fmt: skip

    def kill(self) -> None:
        """As KILL does to the worker."""
        self.worker.dialer.close()
        self.worker.second.close()
        os.close(self.worker.journal._fd)

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass, and take what is said."""
        self.clock.move(seconds)
        for _ in range(3):
            self.worker.tick(self.clock.now())
            for name, port in self.ports.items():
                for received in port.receive():
                    assert received.letter is not None
                    self.peers[name] = received.peer
                    self.got[name] += received.letter.messages

    def say(self, name: str, *messages: Message, epoch: int) -> None:
        """Somebody above says something."""
        assert self.ports[name].send(envelope(*messages, epoch=epoch), self.peers[name])
        self.tick()

    def take(self, name: str, kind: type[Message]) -> list[Message]:
        """What came of one kind since the last time."""
        found = [message for message in self.got[name] if isinstance(message, kind)]
        self.got[name] = [message for message in self.got[name] if not isinstance(message, kind)]
        return found

    def welcome(self, name: str, epoch: int) -> None:
        """Wait for the hello, and let it in."""
        for _ in range(100):
            if self.take(name, ExecHello):
                break
            self.tick(0.5)
        self.say(name, ExecWelcome(heartbeat=HEARTBEAT, epoch=epoch, slots=2, lease=self.lease), epoch=epoch)

    def lose(self, name: str) -> None:
        """Somebody above is gone."""
        self.ports[name].close()
        self.tick(3 * HEARTBEAT + 1)

    def come_back(self, name: str) -> None:
        """He is there again, and has forgotten everything."""
        self.ports[name] = self.bus.listen(name, name)

    def beat(self, name: str, epoch: int, seconds: float) -> None:
        """Heartbeats, for so long."""
        for _ in range(int(seconds / HEARTBEAT)):
            self.say(name, PeerHeartbeat(), epoch=epoch)
            self.tick(HEARTBEAT)

    def order(self, job: int, epoch: int, *, seconds: str = "1000", is_rerunnable: bool = False) -> AttemptKey:
        """The user-server passes an order on."""
        signed = self.user.sign(self.user.spec("run", seconds, "0", is_shell=False, is_rerunnable=is_rerunnable))
        order = StartOrder(job, PLAIN, 1, (0,))
        self.say("user", RunStart(host="h", specs={job: signed}, orders=(order,)), epoch=epoch)
        return order.key

    def meet_newer(self) -> None:
        """Its user-server's hq-server has epoch 5; while that is away another one is heard, with 6."""
        self.welcome("user", 5)
        self.lose("user")
        self.welcome("server", 6)
        self.come_back("user")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    tmp_path.chmod(0o700)
    made = Site(tmp_path)
    yield made
    made.kill()


def test_orders_of_an_older_hq_server_wait_until_the_user_server_has_heard_of_the_newer(site: Site) -> None:
    site.meet_newer()
    site.take("user", RunRoll)
    site.welcome("user", 5)
    assert site.take("user", RunRoll) == [], "without a roll the user-server passes nothing on"
    assert ["older hq-server" in problem.text for problem in site.take("user", Problem) if isinstance(problem, Problem)] == [True]
    site.order(1, 5)
    assert site.machine.starts == [], "even if one came"
    site.say("user", PeerHeartbeat(), epoch=6)
    (roll,) = site.take("user", RunRoll)
    assert isinstance(roll, RunRoll) and roll.runs == ()
    key = site.order(1, 6)
    assert site.machine.starts == [key]


def test_not_for_ever(site: Site) -> None:
    """An older database was put back, and nobody said so: the user-server that is started after that knows the lower epoch only."""
    site.meet_newer()
    site.welcome("user", 5)
    site.take("user", RunRoll)
    site.beat("user", 5, PATIENCE - 3 * HEARTBEAT)
    assert site.take("user", RunRoll) == []
    site.beat("user", 5, 4 * HEARTBEAT)
    assert len(site.take("user", RunRoll)) == 1
    key = site.order(1, 5)
    assert site.machine.starts == [key]
    site.lose("user")
    site.welcome("server", 5)
    assert site.worker.second.is_linked, "nor does hq-server itself stay an older one"


def test_who_says_no_epoch_is_no_older_one(site: Site) -> None:
    """The user-server was started anew and has not reached hq-server yet; or it is a pilot's."""
    site.meet_newer()
    site.take("user", RunRoll)
    site.welcome("user", 0)
    assert len(site.take("user", RunRoll)) == 1


def test_a_worker_that_is_killed_does_not_forget(site: Site) -> None:
    for _ in range(2):  # the second one reads the journal that the first one wrote anew
        site.meet_newer()
        site.kill()
        site.start()
        site.welcome("user", 5)
        site.order(1, 5)
        assert site.machine.starts == []
        site.say("user", PeerBye(), epoch=5)
    site.welcome("user", 7)
    assert site.machine.starts == []
    assert site.order(1, 7) in site.machine.starts


def test_what_an_older_one_says_holds_no_lease_and_records_nothing_but_its_stops_count(site: Site) -> None:
    site.welcome("user", 5)
    long, ended = site.order(1, 5), site.order(2, 5, seconds="1")
    site.tick(2.0)
    (last, *_) = [message.sequence for message in site.take("user", RunReported) if isinstance(message, RunReported)
                  and any(report.kind is RunKind.ENDED and report.key == ended for report in message.reports)]  # fmt: skip
    site.lose("user")
    site.welcome("server", 6)
    site.come_back("user")
    site.welcome("user", 5)
    site.say("user", RunRecorded(host="h", sequence=last), epoch=5)
    assert site.worker.spool.batches, "it may have been recorded in a database that is no more"
    heard = site.worker.lease.wake()
    site.beat("user", 5, 8 * HEARTBEAT)
    assert site.worker.lease.wake() == heard
    assert site.take("user", RunReported) == [], "reports follow the roll"
    site.say("user", RunStop(host="h", runs=(long,)), epoch=5)
    assert [process.signal for process in site.machine.processes.values() if process.key == long] == [15]
    site.say("user", PeerHeartbeat(), epoch=6)
    assert site.worker.lease.wake() != heard
    assert any(report.key == ended for message in site.take("user", RunReported) if isinstance(message, RunReported) for report in message.reports)
    site.say("user", RunRecorded(host="h", sequence=last), epoch=6)
    assert last not in site.worker.spool.batches


def test_a_short_lease_does_not_end_for_it(site: Site) -> None:
    """What may run again is not ended for want of a hq-server that will never be heard again."""
    site.lease = 20.0
    site.welcome("user", 6)
    site.order(1, 6, is_rerunnable=True)
    site.lose("user")
    site.come_back("user")
    site.welcome("user", 5)
    site.beat("user", 5, 60.0)
    assert [process.signal for process in site.machine.processes.values()] == [None]
    site.lose("user")
    site.tick(20.0)
    assert [process.signal for process in site.machine.processes.values()] == [15], "but for want of any"
