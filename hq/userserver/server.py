"""The user-server's daemon object: one `tick` for all that arrives, by socket, by bus, from threads.

It owns the parts and lets them work in turn; what they do stands in their own modules. Built by `app.py`, and by tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from hq.core.agent_upstream import IdleRule
from hq.errors import HqError
from hq.kernel.bus import Peer, Port
from hq.kernel.clock import Now
from hq.kernel.daemon import Background
from hq.kernel.identity import may_send
from hq.model.ids import TaskKey
from hq.model.selection import Selection
from hq.model.user import Role
from hq.protocol.base import Message
from hq.protocol.codec import envelope
from hq.protocol.jobs import JobQuery, JobRows, JobSubmitted, SubmitItem
from hq.protocol.ledgers import LedgerCancelled, LedgerWanted
from hq.protocol.peers import HostsListed, PeerRefused, PeerWelcome
from hq.protocol.runs import RunHold, RunRecorded, RunSignal, RunStart, RunStop
from hq.userserver import comparing, requests
from hq.userserver.access import AccessFile
from hq.userserver.asker import Asker
from hq.userserver.door import Door
from hq.userserver.execs import ExecLinks
from hq.userserver.keyring import ExecKeys
from hq.userserver.logs import LogReader
from hq.userserver.spool import SubmissionSpool
from hq.userserver.submit import Preparer
from hq.userserver.upstream import ServerLink

#: Digests of contents that hq-server is known to have.
MAX_KNOWN = 100_000
#: After a refusal for good, commands that come now are told why before the end (seconds).
LAST_WORDS = 5.0
#: How often the door is asked for more in one tick.
DOOR_ROUNDS = 4
#: How long a user-server without hq-server goes on, in idle times.
PATIENT = 10.0


class BusAsker:
    """A client by CURVE, on another login machine."""

    def __init__(self, port: Port, peer: Peer, request: int) -> None:
        self.is_gone = False
        self._port = port
        self._peer = peer
        self._request = request

    @property
    def has_room(self) -> bool:
        """As Asker.has_room. The bus does not tell; a stream is paced by its source."""
        return True

    def answer(self, message: Message, *, is_last: bool = True) -> None:
        """As Asker.answer."""
        if not self.is_gone and not self._port.send(envelope(message, re=self._request), self._peer):
            self.is_gone = True


class UserServer:
    """One user's user-server. The parts are made by the caller; `upstream`, `execs` and `logs` know each other by `connect`."""

    upstream: ServerLink
    execs: ExecLinks
    logs: LogReader

    def __init__(
        self, *, instance: str, user: str, uid: int, etc: str, address: str, server_address: str, door: Door, port: Port, keys: ExecKeys,
        preparer: Preparer, spool: SubmissionSpool, background: Background, access: AccessFile, now: Now, log: Callable[[str], logging.Logger],
        idle: float | None = 600.0, allow_root: bool = False, keepalive_sentence: Callable[[], str] = lambda: "",
        reopen_log: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.instance = instance
        self.user = user
        self.uid = uid
        self.etc = etc
        self.address = address
        self.server_address = server_address
        self.door = door
        door.may_follow = requests.may_follow
        self.preparer = preparer
        self.spool = spool
        self.background = background
        self.now = now
        self.started = now
        self.log = log
        self.allow_root = allow_root
        self.keepalive_sentence = keepalive_sentence
        self.known_blobs: set[str] = set()
        self.watches: dict[int, Asker] = {}
        self.watches_warned: set[int] = set()
        self.exit_code = 0
        self._port = port
        self._keys = keys
        self._access = access
        self._idle = IdleRule(idle, now.boot)
        self._reopen_log = reopen_log
        self._is_asking_idle = False
        self._end_at: float | None = None
        self._end_reason = ""
        self._is_done = False

    def connect(self, upstream: ServerLink, execs: ExecLinks) -> None:
        """Put the parts together that know each other."""
        self.upstream, self.execs = upstream, execs
        self.spool.upstream, self.spool.on_taken = upstream, self.taken
        execs.upstream = upstream
        self.logs = LogReader(upstream, execs)

    # --- Daemon ---------------------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """As Daemon.is_done."""
        return self._is_done

    def tick(self, now: Now) -> float | None:
        """As Daemon.tick."""
        self.now = now
        self.execs.set_now(now)
        for done in self.background.finished():
            done.token(done.value, done.error, now)
        self.upstream.tick(now)
        self._receive()
        # a start order waits for nothing else that is to be done here
        self.execs.flush()
        self._serve_clients()
        self.logs.tick(now)
        self.spool.tick(now)
        self.execs.tick(now)
        self.execs.flush()
        self.upstream.flush()
        self.door.flush()
        self.execs.ledger.keep(now)
        self._consider_end()
        return self._wake()

    def stop(self, now: Now) -> None:
        """As Daemon.stop: exec-servers and runs go on."""
        self._end(self._end_reason or "stopped")

    def reload(self, now: Now) -> None:
        """SIGHUP: begin a new log file, if the old one was moved away."""
        self._reopen_log()

    # --- what parts call ------------------------------------------------------------------------------------------

    def on_message(self, message: Message) -> None:
        """hq-server said something that answers no request."""
        if isinstance(message, RunStart):
            self.execs.start(message)
        elif isinstance(message, RunStop):
            self.execs.stop(message)
        elif isinstance(message, RunSignal):
            self.execs.signal(message)
        elif isinstance(message, RunHold):
            self.execs.hold(message)
        elif isinstance(message, RunRecorded):
            self.execs.recorded(message)
        elif isinstance(message, HostsListed):
            self.execs.set_hosts(message.hosts)
        elif isinstance(message, LedgerWanted):
            comparing.tell(self, message)
        elif isinstance(message, LedgerCancelled):
            self.execs.ledger.cancelled_by_others(message.cancels, message.told)
        else:
            self.log("link").warning("hq-server sent a %s that nobody asked for: ignored", message.__struct_config__.tag)

    def on_welcome(self, message: PeerWelcome) -> None:
        """hq-server let us in."""
        if message.instance != self.instance:
            self.log("link").warning("hq-server is of the instance %s, this user-server of %s", message.instance, self.instance)
        self.execs.ledger.welcomed(message.now)
        self.execs.welcomed(message.hosts)
        self.spool.came_back()
        try:
            # not before: another machine's user-server may be the one that is up
            self._access.write()
        except (OSError, HqError) as error:
            self.log("system").warning("the access file cannot be written, commands on other machines do not find us: %s", error)

    def on_refused(self, message: PeerRefused) -> None:
        """hq-server said no for good: commands that are just coming are told why, then it is over."""
        self.exit_code = 1
        self._end_reason = message.reason
        self._end_at = self.now.boot + LAST_WORDS

    def on_ended(self, tasks: list[TaskKey]) -> None:
        """Reports of the ends of these tasks passed by."""
        self.logs.ended(tasks)

    def taken(self, items: Iterable[SubmitItem], blobs: dict[str, bytes], answer: JobSubmitted) -> None:
        """hq-server has taken these jobs: ledger and run book know them from now on."""
        ids = {item.key: item.id for item in answer.items}
        jobs = [(ids[item.key], item) for item in items if ids.get(item.key)]
        self.execs.ledger.submitted(jobs, blobs)

    def remember_blobs(self, blobs: dict[str, bytes]) -> None:
        """hq-server has these now; our exec-servers will ask for them soon."""
        if len(self.known_blobs) > MAX_KNOWN:
            self.known_blobs.clear()
        self.known_blobs.update(blobs)
        self.execs.blobs.cache.put(blobs.items())

    def shut_down(self, reason: str, *, and_hosts: bool = False, after: float = 0.0) -> None:
        """Stop with the end of this tick, or so many seconds later."""
        self.execs.shut_down(and_hosts)
        self._end_reason = reason
        self._end_at = self.now.boot + after

    # --- inside ---------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        for received in self._port.receive():
            peer, letter, note, _ = received
            host = self._keys.host_of(peer.key)
            if letter is None:
                self.log("security").warning("from %s (%.8s): %s", host or "a stranger", peer.key, note)
                continue
            role = Role.EXEC_SERVER if host else Role.CLIENT if peer.key == self._access.client_public else Role.STRANGER
            if host:
                self.execs.heard(host, peer)
            for message in letter.messages:
                if not may_send(message, role) or role is Role.STRANGER:
                    self.log("security").warning("a %s (%.8s) sent a %s: ignored", role.value, peer.key, message.__struct_config__.tag)
                elif host:
                    self.execs.take(host, peer, letter.id, letter.re, message)
                else:
                    self._idle.busy(self.now.boot)
                    requests.handle(self, BusAsker(self._port, peer, letter.id), message)

    def _serve_clients(self) -> None:
        for _ in range(DOOR_ROUNDS):
            for turn, message in self.door.poll():
                self._idle.busy(self.now.boot)
                requests.handle(self, turn, message)
            self.door.flush()
            if not self.door.has_more:
                break
        self.door.gone()
        for request, asker in list(self.watches.items()):
            if asker.is_gone:
                del self.watches[request]
                self.upstream.drop(request)
        requests.warn_watchers(self)

    def _consider_end(self) -> None:
        boot = self.now.boot
        if self._end_at is not None:
            if boot >= self._end_at:
                self._end(self._end_reason)
            return
        if len(self.door) or len(self.logs) or len(self.spool) or self.execs.is_busy:
            self._idle.busy(boot)
        if not self._idle.is_over(boot) or self._is_asking_idle:
            return
        if self.upstream.is_up:
            # jobs that wait at hq-server can only start while we are here
            self._is_asking_idle = True
            self.upstream.ask(JobQuery(selection=Selection(is_all=True), limit=1), self._idle_answer)
        elif self._idle.after is not None and boot - self.upstream.rule.since >= PATIENT * self._idle.after:
            self._end("nothing to do, and hq-server is away")

    def _idle_answer(self, answer: Message, is_last: bool) -> None:
        self._is_asking_idle = False
        if isinstance(answer, JobRows) and not answer.rows and self._idle.is_over(self.now.boot):
            self.execs.memory.keep([])
            self._end_reason, self._end_at = "nothing to do", self.now.boot
        else:
            self._idle.busy(self.now.boot)

    def _end(self, reason: str) -> None:
        if self._is_done:
            return
        self._is_done = True
        self.log("system").info("ends: %s", reason)
        self._access.remove()
        self.door.close()
        self.execs.flush()
        self.upstream.close(reason)
        self.execs.close()

    def _wake(self) -> float | None:
        if self._is_done:
            return None
        moments: list[Any] = [self.upstream.wake(), self.execs.wake(), self.logs.wake(), self.spool.wake(), self._end_at]
        if not self._is_asking_idle and not len(self.door):
            wake = self._idle.wake()
            # while something keeps it busy the rule is looked at now and then
            moments.append(max(wake, self.now.boot + 1.0) if wake is not None else None)
        if self.door.has_more:
            moments.append(self.now.boot)
        return min((moment for moment in moments if moment is not None), default=None)
