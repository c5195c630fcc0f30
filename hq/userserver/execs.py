"""The exec-servers of the user: started when they are needed, relayed to and from, their silence noticed.

Who speaks is known by the key of the connection alone. Batches pass by as the objects they were decoded to. What this
user-server itself reports is in `ownreports`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec

from hq.core.agent import Links
from hq.core.agent_orders import LiveRuns, WaitingOrders, stopped_here
from hq.errors import HqError
from hq.kernel.bus import Peer, Port
from hq.kernel.clock import Now
from hq.model.host import HostSpec
from hq.model.ids import AttemptKey, TaskKey
from hq.model.runs import RETURNED
from hq.model.states import LinkState
from hq.protocol.base import Message, Problem
from hq.protocol.peers import CheckStep, HostLink, HostLoad, KeyRegister, PeerBye, PeerHeartbeat, PeerShutdown
from hq.protocol.runs import BlobGet, ExecHello, ExecWelcome, RunHold, RunRecorded, RunReported, RunRoll, RunSignal, RunStart, RunStop
from hq.userserver.blobs import BlobRelay
from hq.userserver.connections import ExecConnections, OnAnswer, bound
from hq.userserver.dialling import Dialling
from hq.userserver.doubts import Doubts
from hq.userserver.foreign import Foreign
from hq.userserver.hosts import HostMemory
from hq.userserver.ledger import LedgerFile
from hq.userserver.ownreports import OwnReports
from hq.userserver.starter import Starter
from hq.userserver.upstream import ServerLink

#: How long a started exec-server has to reach us: several addresses, each with its own patience (seconds).
HELLO_PATIENCE = 60.0

class ExecLinks:
    """All of it. `upstream` is set by the composition root."""

    upstream: ServerLink

    def __init__(
        self, *, port: Port, starter: Starter, memory: HostMemory, log: logging.Logger, seed: int, heartbeat: float,
        ledger: LedgerFile, on_ended: Callable[[list[TaskKey]], None],
    ) -> None:  # fmt: skip
        self.links = Links(seed, heartbeat=heartbeat, hello_patience=HELLO_PATIENCE)
        self.waiting = WaitingOrders()
        self.live = LiveRuns()
        self.hosts: dict[str, HostSpec] = {}
        self.memory = memory
        self._connections = ExecConnections(port, log)
        self.blobs = BlobRelay(lambda message, on_answer: self.upstream.ask(message, on_answer), self._connections.answer)
        self._starter = starter
        self._log = log
        self._heartbeat = heartbeat
        self._on_ended = on_ended
        self.ledger = ledger
        self._doubts = Doubts(log)
        self._foreign = Foreign()
        self._keys: dict[str, str] = {}  # of the exec-servers that came: hq-server may let them in while we are away
        self._unwritten: list[RunStart] = []  # orders that came while the ledger could not be written
        self._ready: set[str] = set()  # hosts whose roll has passed by, so that orders may follow
        self._stops: dict[str, list[RunStop]] = {}
        self._own = OwnReports(ledger, self.live, self._doubts, lambda message: self.upstream.tell(message))
        self._next_beat = 0.0
        self._dialling = Dialling(self.links, starter, memory, log, lambda host: host in self._connections or bool(self.live.count(host)))
        self._to_resume = memory.hosts()
        self._now = Now(0.0, 0.0)

    # --- what comes from hq-server ------------------------------------------------------------------------------

    def set_hosts(self, hosts: Iterable[HostSpec]) -> None:
        """The hosts as hq-server lists them. Those that are gone are not tried any more."""
        self.hosts = self._dialling.hosts = {host.name: host for host in hosts}
        self._starter.get_ready(self.hosts.values())
        for name, link in list(self.links):
            if name not in self.hosts and link.state is not LinkState.ALIVE:
                self._give_back(name, f"the host {name} is not in the cluster any more")
                self.links.left(name, "not in the cluster any more")

    def welcomed(self, hosts: Iterable[HostSpec]) -> None:
        """hq-server is back, and may have lost what we told it: tell it all again, and let the exec-servers do so."""
        self._connections.epoch = self.upstream.epoch
        self.set_hosts(hosts)
        for name in self._to_resume:
            if name in self.hosts:
                self._want(name)
        self._to_resume = []
        for news in self.links.all_news():
            self.upstream.tell(HostLink(host=news.host, state=news.state, reason=news.reason))
        self._own.retell()
        for host, key in self._keys.items():
            self.upstream.tell(KeyRegister(host=host, public=key))
        for host in sorted(self._ready):
            # the answer to a welcome is a roll, followed by what is not recorded
            self._connections.send(host, self._welcome(host))

    def start(self, message: RunStart) -> None:
        """Orders for a host: relayed, kept until its exec-server is up, or given back when it cannot be."""
        host = message.host
        orders = message.orders
        if not orders:
            self._want(host)  # something of ours is there
            return
        back = [order.key for order in orders if order.key in self._own]
        if back:
            self._own.again(host, back)
        if back or any(self.live.is_overtaken(order.key) for order in orders):
            orders = tuple(order for order in orders if order.key not in self._own and not self.live.is_overtaken(order.key))
            message = msgspec.structs.replace(message, orders=orders)
        verdict = self.ledger.admit(message.specs, orders)
        if not verdict.is_kept:
            self._unwritten.append(message)
            return
        self._own.refused(host, self._doubts.sift(host, verdict.refused, is_ready=host in self._ready))
        if self._doubts.is_waiting(host):
            self._want(host)
        again = set(verdict.again).difference(self.waiting.keys(host))
        self._doubts.ordered(host, (order.key for order in verdict.orders if order.key not in verdict.again))
        lost = [key for key in again if host in self._ready and self._doubts.is_forgotten(host, key)]
        self._own.lost(host, lost)
        orders = tuple(order for order in verdict.orders if order.key not in lost)
        if not orders:
            return
        if host not in self._ready:
            self._doubts.sent_before(host, again)
        self.ledger.book.sent(host, orders)
        message = msgspec.structs.replace(message, orders=orders)
        for other, older in self.live.send(host, orders):
            # hq-server gave that one up; it must not go on beside the new one
            self.stop(RunStop(host=other, runs=(older,), reason="replaced by a newer attempt"))
        link = self.links.of(host)
        if host not in self.hosts:
            self._own.never(host, (order.key for order in orders), f"there is no host {host} in the cluster")
        elif host in self._foreign:
            self.waiting.add(host, message.specs, orders)
        elif host in self._ready and link.state is LinkState.ALIVE:
            self._connections.send(host, message)
        elif link.state is LinkState.FAILED:
            self._own.never(host, (order.key for order in orders), link.reason)
            kept = tuple(order for order in orders if self._doubts.may_be_there(host, order.key))
            self.waiting.add(host, message.specs, kept)
        else:
            self.waiting.add(host, message.specs, orders)
            self._want(host)

    def stop(self, message: RunStop) -> None:
        """Stops: of attempts that wait here at once, the others at their exec-server, as soon as it can be reached."""
        host = message.host
        if not message.is_only_queued:
            self.ledger.stopped(message.runs)
        if removed := self._unsent(host, message.runs):
            self._own.tell(host, stopped_here(removed, self._now.wall, message.outcome, message.reason))
            message = msgspec.structs.replace(message, runs=tuple(key for key in message.runs if AttemptKey(*key) not in set(removed)))
        if not message.runs:
            return
        if host in self._ready:
            self._send_stop(host, message)
        elif host in self.hosts:
            self._stops.setdefault(host, []).append(message)
            self._want(host)
        else:
            self._log.warning("cannot stop %d attempts on %s: there is no such host", len(message.runs), host)

    def _send_stop(self, host: str, message: RunStop) -> None:
        """To an exec-server, but for attempts that came before it lost its memory: of them it would say that they never began."""
        lost = [key for key in map(AttemptKey._make, message.runs) if self._doubts.is_forgotten(host, key)]
        self._own.lost(host, lost)
        if runs := tuple(key for key in message.runs if AttemptKey(*key) not in lost):
            self._connections.send(host, msgspec.structs.replace(message, runs=runs))

    def signal(self, message: RunSignal) -> None:
        """A signal is of the moment: without a link it is dropped."""
        if message.host in self._ready:
            self._connections.send(message.host, message)
        else:
            self._log.warning("signal %d for %d attempts on %s was dropped: no link", message.signal, len(message.runs), message.host)

    def hold(self, message: RunHold) -> None:
        """Holds: what waits here is given back. Without a link the rest is dropped: hq-server asks again after the roll."""
        if message.is_held and (removed := self._unsent(message.host, message.runs)):
            self._own.never(message.host, removed, RETURNED)
        if message.host in self._ready:
            self._connections.send(message.host, message)

    def _unsent(self, host: str, runs: Iterable[AttemptKey]) -> list[AttemptKey]:
        """Those of the attempts whose orders have not left here; they never will."""
        return [key for key in self.waiting.remove(host, runs) if not self._doubts.may_be_there(host, key)]

    def recorded(self, message: RunRecorded) -> None:
        """Reports of a host are durable: its spool may forget them."""
        if memory := self._doubts.recorded(message.host, message.sequence):
            self.memory.know(message.host, memory)
        if message.host in self._connections:
            self._connections.send(message.host, message)

    # --- what comes from exec-servers ---------------------------------------------------------------------------

    def take(self, host: str, peer: Peer, request: int, re: int, message: Message) -> None:
        """A message of the exec-server on `host`, whose key the connection proved."""
        if isinstance(message, ExecHello):
            self._hello(host, peer, request, message)
            return
        if not self._connections.is_of(host, peer):
            if isinstance(message, PeerBye):
                return
            # its connection broke and was made again, or we were started anew: what was under way may be lost
            self._came(host, peer)
            self._connections.send(host, self._welcome(host))
        if re:
            self._connections.answered(host, re, message)
        elif isinstance(message, RunReported) and self.ledger.is_retired:
            pass  # it is told to the user-server that goes on
        elif isinstance(message, RunReported):
            self.ledger.reported(message.reports, host, self._now.wall - message.sent)
            self._doubts.reported(host, message.sequence, message.reports)
            self._on_ended(self.live.report(host, message.reports))
            self.upstream.tell(bound(host, message, self._log))
        elif isinstance(message, RunRoll):
            self._roll(host, message)
        elif isinstance(message, HostLoad):
            self.upstream.tell(bound(host, message, self._log))
        elif isinstance(message, BlobGet):
            self.blobs.get(host, request, message)
        elif isinstance(message, PeerBye):
            self._left(host, message.reason)
        elif isinstance(message, Problem):
            self._log.warning("exec-server on %s: %s", host, message.text)

    def heard(self, host: str, peer: Peer) -> None:
        """Something came from a host; one that was silent is welcome again, and calls its roll."""
        if self._connections.is_of(host, peer) and not self.links.heard(host, self._now.boot):
            self.links.came(host, self._now.boot)
            self._ready.discard(host)
            self._connections.send(host, self._welcome(host))

    def _hello(self, host: str, peer: Peer, request: int, message: ExecHello) -> None:
        if message.host != host:
            self._log.warning("the exec-server on %s calls itself %s: its key counts", host, message.host[:255])
        self._log.info("exec-server on %s came: %s, pid %d, hq %s, by %s", host, message.machine, message.pid, message.version, message.route)
        self._doubts.met(host, message.memory, self.memory)
        is_foreign = self._foreign.met(host, message, self._now.boot)
        self._came(host, peer)
        self._connections.reply(peer, request, self._welcome(host))
        self._dialling.came(host, message.route)
        if is_foreign:
            self._dialling.dial(host, self._now)  # the program that is there now may be nearer

    def _came(self, host: str, peer: Peer) -> None:
        self._connections.put(host, peer)
        if self._keys.get(host) != peer.key:
            self._keys[host] = peer.key
            self.upstream.tell(KeyRegister(host=host, public=peer.key))
        self._ready.discard(host)
        self.blobs.forget(host)
        self.links.came(host, self._now.boot)
        self.memory.add(host)

    def _welcome(self, host: str) -> ExecWelcome:
        slots = self.hosts[host].slots if host in self.hosts else 1
        return ExecWelcome(heartbeat=self._heartbeat, epoch=self.upstream.epoch, slots=slots, lease=self.upstream.lease)

    def _roll(self, host: str, message: RunRoll) -> None:
        """What the host has, and what waits here for it: to hq-server both are delivered. Only then may orders follow."""
        there = [AttemptKey(*key) for key in message.runs]
        self._own.tell(host, self._doubts.forgotten_ends(host, there))
        lost = [key for key in self.waiting.keys(host) if self._doubts.is_doubtful(host, key, there)]
        self.waiting.remove(host, lost)
        self._own.lost(host, lost)
        keys = tuple(dict.fromkeys([*there, *self.waiting.keys(host)]))
        self._doubts.ordered(host, keys)
        self.live.roll(host, keys)
        self._own.refused(host, self._doubts.rolled(host, there))
        self.upstream.tell(RunRoll(host=host, runs=keys))
        self._ready.add(host)
        for stop in self._stops.pop(host, ()):
            self._send_stop(host, stop)
        specs, orders = self.waiting.take(host) if host not in self._foreign else ({}, ())
        if orders:
            self._connections.send(host, RunStart(host=host, specs=specs, orders=orders))

    def _left(self, host: str, reason: str) -> None:
        self._log.info("exec-server on %s stopped: %s", host, reason)
        self._connections.drop(host)
        self._foreign.left(host)
        self._ready.discard(host)
        self._dialling.left(host)
        self.links.left(host, reason)
        self.memory.remove(host)
        if self.waiting.keys(host) or self._stops.get(host):
            self._want(host)

    # --- asking an exec-server ------------------------------------------------------------------------------------

    def ask(self, host: str, message: Message, on_answer: OnAnswer, patience: float = 30.0) -> bool:
        """Ask the exec-server on `host`. False: there is no link (it is being started, see `links`)."""
        if host not in self.hosts and host not in self._connections:
            return False
        if not self.links.is_alive(host):
            self._want(host)
            return False
        return self._connections.ask(host, message, on_answer, self._now.boot + patience)

    def check(self, host: str, done: Callable[[list[CheckStep] | HqError], None]) -> None:
        """Let the transport prove that an exec-server can run on `host`."""
        self._dialling.check(self.hosts[host], done)

    # --- the tick -------------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> None:
        """Start what is due, note what is silent, tell hq-server how the links stand."""
        self._now = self._own.now = now
        self.ledger.tick(now)
        self.memory.tick()
        if self._unwritten and not self.ledger.trouble:
            unwritten, self._unwritten = self._unwritten, []
            for message in unwritten:
                self.start(message)
        for host in self.links.due(now.boot):
            self._dialling.dial(host, now)
        self._ready = {host for host in self._ready if self.links.is_alive(host)}
        for news in self.links.news():
            self.upstream.tell(HostLink(host=news.host, state=news.state, reason=news.reason))
        # after the news, so that hq-server does not place them there again
        self._give_back_failed()
        for host, reason in self._foreign.hopeless(now.boot):
            self._give_back(host, reason)
        self._connections.let_time_pass(now.boot)
        if now.boot >= self._next_beat:
            self._next_beat = now.boot + self._heartbeat
            for host in self._connections:
                self._connections.send(host, PeerHeartbeat())

    def flush(self) -> None:
        """Send what was told during the tick, one envelope a host."""
        for host, messages in self._connections.flush():
            if any(isinstance(message, RunStart | RunStop) for message in messages):
                # a new roll tells hq-server what has not arrived
                self._connections.send(host, self._welcome(host))

    def wake(self) -> float | None:
        """When to tick again at the latest."""
        moments = (self._connections.wake(), self.links.wake(), self._foreign.wake() if len(self.waiting) else None, self.ledger.wake(), self._next_beat if len(self._connections) else None)
        return min((moment for moment in moments if moment is not None), default=None)

    def set_now(self, now: Now) -> None:
        """The moment for what is taken before `tick`."""
        self._now = self._own.now = now

    @property
    def is_busy(self) -> bool:
        """Whether runs may be alive or orders wait."""
        return bool(len(self.live) or len(self.waiting))

    def shut_down(self, and_hosts: bool) -> None:
        """Say goodbye; with `and_hosts` exec-servers without runs are told to stop, too."""
        for host in self._connections:
            if and_hosts and not self.live.count(host):
                self._connections.send(host, PeerShutdown())
                self.memory.remove(host)
        self.flush()

    def close(self) -> None:
        """Give up: exec-servers and their runs go on."""
        self._connections.close()
        self._starter.close()
        self.ledger.close()

    # --- inside ---------------------------------------------------------------------------------------------------

    def _want(self, host: str) -> None:
        spec = self.hosts.get(host)
        if spec is not None:
            self.links.want(host, self._now.boot, is_near=spec.transport == "local")

    def _give_back(self, host: str, reason: str) -> None:
        """Orders that wait for `host` will not be delivered: hq-server may place them elsewhere."""
        keys = [key for key in self.waiting.keys(host) if not self._doubts.may_be_there(host, key)]
        if keys:
            self.waiting.remove(host, keys)
            self._own.never(host, keys, reason)

    def _give_back_failed(self) -> None:
        """Orders whose host's last start failed go back."""
        for host in self.waiting.hosts():
            link = self.links.of(host)
            if link.state is LinkState.FAILED or (link.state is LinkState.SUSPECT and link.failures):
                self._give_back(host, link.reason)
