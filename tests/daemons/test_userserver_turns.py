"""A user-server's link to hq-server where several addresses are known: it goes to the one that is active, and hears no older one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from hq.core.agent_turns import ANSWER, BREAK, CONNECT
from hq.kernel.bus import MemoryBus, MemoryPort
from hq.kernel.clock import ManualClock, Now
from hq.kernel.turning import TurningPort
from hq.model.runs import StartOrder
from hq.protocol.base import PROTOCOL, Message
from hq.protocol.codec import envelope
from hq.protocol.peers import HostQuery, HostRows, PeerBye, PeerHeartbeat, PeerHello, PeerWelcome
from hq.protocol.runs import RunStart
from hq.userserver.upstream import ServerLink

HEARTBEAT = 5.0


class Machine:
    """A hq-server's end at an address."""

    def __init__(self, bus: MemoryBus, address: str, epoch: int) -> None:
        self.port: MemoryPort = bus.listen(address, "server-key")
        self.epoch = epoch
        self.is_silent = False
        self.hellos = 0
        self.peer: Any = None

    def say(self, *messages: Message, re: int = 0) -> None:
        self.port.send(envelope(*messages, re=re, epoch=self.epoch), self.peer)

    def serve(self) -> None:
        for received in self.port.receive():
            assert received.letter is not None
            self.peer = received.peer
            for message in received.letter.messages:
                self.hellos += isinstance(message, PeerHello)
                if self.is_silent:
                    continue
                if isinstance(message, PeerHello):
                    self.say(PeerWelcome(version="1", instance="i", epoch=self.epoch, user="alice", heartbeat=HEARTBEAT, hosts=()), re=received.letter.id)
                elif isinstance(message, HostQuery):
                    self.say(HostRows(rows=()), re=received.letter.id)
                else:
                    self.say(PeerHeartbeat())


class NoEnroller:
    """Every key is known."""

    def begin(self, now: Now, done: Callable[[str | None], None]) -> None:
        raise AssertionError("nobody asked for an enrolment")


class Link:
    """The link, its clock, and what it hears."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        self.clock = ManualClock()
        self.machines: list[Machine] = []
        self.heard: list[Message] = []
        self.port = TurningPort(("tcp://one:1", "tcp://two:1"), lambda address: self.bus.dial(address, "alice-key"))
        hello = PeerHello(version="1", protocol=PROTOCOL, boot="b", machine="m", address="m:1")
        self.link = ServerLink(self.port, "tcp://one:1", lambda: hello, NoEnroller(), logging.getLogger("turns"), self.clock.now(),
                               on_message=self.heard.append, on_welcome=lambda welcome: None, on_refused=lambda refused: None)  # fmt: skip

    def machine(self, name: str, epoch: int) -> Machine:
        made = Machine(self.bus, f"tcp://{name}:1", epoch)
        self.machines.append(made)
        return made

    def move(self, seconds: float) -> None:
        end = self.clock.now().boot + seconds
        while self.clock.now().boot < end:
            self.clock.move(0.05)
            self.link.tick(self.clock.now())
            self.link.flush()
            for machine in self.machines:
                machine.serve()
        self.link.tick(self.clock.now())


@pytest.fixture
def link() -> Link:
    return Link()


def test_the_active_one_is_found_wherever_it_is(link: Link) -> None:
    link.machine("two", 1)
    link.move(CONNECT + 0.5)
    assert link.link.is_up and link.port.address == "tcp://two:1"


def test_when_it_dies_the_other_one_is_found_and_what_was_asked_is_asked_there(link: Link) -> None:
    one = link.machine("one", 1)
    link.move(1.0)
    assert link.link.is_up and link.port.address == "tcp://one:1"
    one.port.close()
    link.machines.remove(one)
    answers: list[Message] = []
    link.link.ask(HostQuery(), lambda answer, is_last: answers.append(answer))
    link.move(BREAK + 0.3)
    assert not link.link.is_up
    link.machine("two", 2)
    link.move(4 * CONNECT)
    assert link.link.is_up and link.link.epoch == 2 and [type(answer) for answer in answers] == [HostRows]


def test_one_that_is_stopped_is_left_although_it_takes_connections(link: Link) -> None:
    one = link.machine("one", 1)
    link.move(1.0)
    one.is_silent = True
    link.machine("two", 2)
    link.move(1.5 * HEARTBEAT + 1.5)
    assert link.link.is_up and link.port.address == "tcp://two:1"


def test_one_that_says_goodbye_is_left_at_once(link: Link) -> None:
    one = link.machine("one", 1)
    link.move(1.0)
    link.machine("two", 2)
    one.is_silent = True
    one.say(PeerBye(reason="another hq-server is the active one"))
    link.move(0.5)
    assert link.link.is_up and link.port.address == "tcp://two:1"


def test_an_older_one_is_neither_heard_nor_believed(link: Link) -> None:
    two = link.machine("two", 7)
    link.move(CONNECT + 0.5)
    old = link.machine("one", 6)
    two.is_silent = True
    link.move(1.5 * HEARTBEAT + 2.0)
    assert old.hellos and not link.link.is_up, "its welcome does not count"
    old.say(RunStart(host="node", specs={}, orders=(StartOrder(1, -1, 1, (0,)),)))
    two.is_silent = False
    link.move(2 * ANSWER)
    assert link.link.is_up and link.link.epoch == 7 and link.port.address == "tcp://two:1"
    assert not [message for message in link.heard if isinstance(message, RunStart)], "nor its orders"
