"""The daemon object of hq-server: the tick. Frames in, events to the core, one commit, actions and replies out.

Not the place for what a message means (`handlers_*`), nor for how an action is done (`performers`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from hq.core.clocks import Clocks
from hq.core.cluster import Cluster
from hq.core.events import Action, CleaningDue, Event, Unwatched, UserServerWent
from hq.core.leases import Leases
from hq.db.store import Store
from hq.errors import HqError, RefusedError, UnavailableError
from hq.kernel.bus import Peer, Port, Received
from hq.kernel.clock import Now
from hq.kernel.config import ServerConfig
from hq.kernel.daemon import Background, Done
from hq.kernel.identity import may_send
from hq.kernel.log import Log
from hq.kernel.timers import Timers
from hq.model.changes import AuditRecord
from hq.model.user import Role
from hq.protocol.base import Message
from hq.protocol.peers import PeerBye, PeerHeartbeat
from hq.server import admin_daemon, cancels, enrolment, handlers, handlers_execs, leases, performers, probe
from hq.server.batch import Ask, Batch
from hq.server.configuration import read_configuration
from hq.server.ending import STOP_PATIENCE, TROUBLE_PATIENCE, Ending
from hq.server.enrolsocket import EnrolSocket
from hq.server.gate import Gate
from hq.server.outbox import Outbox
from hq.server.rebuilding import Rebuilding
from hq.server.requests import STRANGER, Caller, Request
from hq.server.seat import PAUSE, Standing
from hq.server.sessions import SILENT_BEATS, Session, Sessions
from hq.server.trouble import Trouble
from hq.server.writing import WriterLike

#: Daemons that say hello before anything else.
HELLO_ROLES = frozenset({Role.USER_SERVER, Role.EXEC_SERVER})
CATEGORIES = ("database", "error", "jobs", "network", "requests", "security", "system")
#: hq-admin enrols its key when an answer begins so.
UNKNOWN_KEY = "hq-server does not know this key"
#: How often what nobody needs any more is taken out of the database, in seconds; the first time not before.
CLEANING = 3600.0


class Server:
    """hq-server. Tests call `tick` by hand; `hq.server.app` gives it to the loop."""

    def __init__(self, *, instance: str, etc: str, config: ServerConfig, port: Port, store: Store, writer: WriterLike,
                 background: Background, log: Log, now: Now, epoch: int = 0, enrol: EnrolSocket | None = None,
                 standing: Standing | None = None) -> None:  # fmt: skip
        self.instance = instance
        self.etc = etc
        self.config = config
        self.store = store
        self.writer = writer
        self.background = background
        self.log = log
        for category in CATEGORIES:
            log.category(category)
        self.now = now
        self.started = now
        self.sessions = Sessions()
        self.enrol_socket = enrol
        self.enrolment = enrolment.Enrolment(instance)
        self.gate = Gate()
        self.leases = Leases()
        self.visits = handlers_execs.Visits()
        self.clocks = Clocks()
        snapshot = store.load()
        self.settings = dict(snapshot.settings)
        self.cluster = Cluster(instance, snapshot, now.wall)
        self.outbox = Outbox(port, log.category("network"))
        self.outbox.epoch = self.epoch = epoch
        self.failure: str | None = None
        self.standing = standing or Standing()
        self._rebuilding = Rebuilding()
        self.timers = Timers()
        self.timers.add("heartbeat", config.heartbeat, now.boot)
        self.timers.add("probe", config.probe_interval, now.boot)
        self.timers.add("housekeeping", 60.0, now.boot)
        self.timers.add("cleaning", CLEANING, now.boot + CLEANING)
        self.batch = Batch()
        self.counts = {"messages": 0, "commits": 0, "refused": 0, "faults": 0}
        self.is_probing = False
        self._in_flight: tuple[Batch, list[Action]] | None = None
        self._settled: deque[tuple[Request | None, Callable[[], None]]] = deque()
        self._wake: float | None = None
        self._trouble = Trouble(log.category("database"))
        self.ending = Ending()
        self.batch.events.append(read_configuration(etc, config))

    # --- what handlers and performers use -----------------------------------------------------------------------

    def add(self, event: Event) -> None:
        """Tell the core something with the next step."""
        self.batch.events.append(event)

    def after_commit(self, function: Callable[[], None]) -> None:
        """Call `function` once everything that was added until now is durable."""
        self.batch.after.append(function)

    def audit(self, actor: str, role: str, action: str, owner: str, target: str, detail: str = "") -> None:
        """Note who did what, in the next commit."""
        self.batch.extra.audit.append(
            AuditRecord(at=self.now.wall, actor=actor, role=role, action=action, owner=owner, target=target, detail=detail[:1000])
        )

    def set_setting(self, name: str, value: str) -> None:
        """Keep a setting of the instance, durable with the next commit."""
        self.settings[name] = value
        self.batch.extra.settings[name] = value

    def when_settled(self, request: Request | None, function: Callable[[], None]) -> None:
        """Call `function` at a moment when memory and database say the same: no commit is under way (or the database is away)."""
        self.gate.opened(_user_of(request))
        self._settled.append((request, function))

    def ask(self, request: Request | None, function: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Run a blocking call beside the loop, then `then(value)`. Its failure is the request's answer."""
        self.gate.opened(_user_of(request))
        self.background.run(Ask(request, then), function)

    def caller_of(self, key: str) -> Caller:
        """Whose key it is, now: a key that was revoked a moment ago is a stranger's."""
        record = self.cluster.key(key)
        if record is None or not record.is_enabled:
            return STRANGER
        user = self.cluster.user(record.user)
        if user is None or (record.role is Role.ADMIN and not user.is_admin):
            return STRANGER
        return Caller(record.user, record.role, record.host, key, user.is_enabled)

    def end_session(self, session: Session, reason: str) -> None:
        """Forget a user-server; nothing of its user is lost by that."""
        if self.sessions.of(session.user) is session:
            self.sessions.drop(session.user)
            self.add(UserServerWent(user=session.user, reason=reason))
        for token in session.watches:
            self.add(Unwatched(token))
        self.log.category("system").info("user-server of %s went: %s", session.user, reason)

    def dismiss(self, reason: str) -> None:
        """Send everybody away: they say hello again, here or elsewhere."""
        for peer in self.visits.clear():
            self.outbox.tell(peer, PeerBye(reason=reason))
        for session in self.sessions:
            self.outbox.tell(session.peer, PeerBye(reason=reason))
            self.end_session(session, reason)

    # --- the tick -----------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> float | None:
        """Take all that has arrived, act on it, and return when to be called at the latest (CLOCK_BOOTTIME)."""
        self.now = now
        if not self.standing.may_act(self, now):
            return self._hold_still()
        self._receive()
        for done in self.background.finished():
            self._take(done)
        for name in self.timers.due(now.boot):
            self._beat(name)
        self._commits()
        self._run_settled()
        if not self.ending.is_begun:
            self._step()
        if not self.batch:
            self.gate.renew()
        self._trouble.watch(self.writer.trouble, now.boot, (self._in_flight[0], self.batch) if self._in_flight else ())
        self.ending.look(now.boot, is_committing=self._in_flight is not None)
        for peer in self.outbox.flush():
            self._unreachable(peer)
        return self._deadline()

    def _hold_still(self) -> float:
        """Another hq-server may be the active one, or is."""
        if self.standing.is_lost:
            self.ending.begin(self.now.boot, 0.0)
        self.ending.look(self.now.boot, is_committing=True)
        return self.now.boot + PAUSE

    def _receive(self) -> None:
        for received in self.gate.take(self.outbox.port, self.now.boot, self._user_at):
            self._open(received)
        if self.enrol_socket is not None:
            for line in self.enrol_socket.poll(self.now.boot):
                enrolment.take_line(self, line)

    def _user_at(self, peer: Peer) -> str:
        """Whose connection it is. What he says may wait for its turn: that he is there is seen now."""
        user = self.caller_of(peer.key).user
        session = self.sessions.at(user, peer)
        if session is not None:
            session.heard = self.now.boot
        return user

    def _open(self, received: Received) -> None:
        peer, letter, note, _ = received
        if letter is None:
            self.log.category("security").warning("from %.8s: %s", peer.key, note)
            return
        if 0 < letter.epoch < self.epoch:
            # meant for an earlier hq-server, or for the database before it was restored: what still holds is told anew after the hello
            self.outbox.tell_once(peer, PeerBye(reason="say hello first: this was meant for an earlier hq-server"))
            return
        for message in letter.messages:
            self.counts["messages"] += 1
            self._dispatch(peer, letter.id, message)

    def _dispatch(self, peer: Peer, number: int, message: Message) -> None:
        caller = self.caller_of(peer.key)
        outbox = self.outbox  # a later rebuild keeps it
        request = Request(caller, lambda answer: outbox.answer(peer, number, answer), peer, number)
        tag = str(message.__struct_config__.tag)
        refusal = handlers.refusal(caller, message) if may_send(message, caller.role) else self._not_allowed(caller, tag)
        if refusal is not None:
            self.counts["refused"] += 1
            self.log.category("security").warning("%s of %s (%.8s) refused: %s", tag, caller.user or "a stranger", peer.key, refusal)
            request.fail(refusal)
            return
        is_here = self.sessions.at(caller.user, peer) is not None or self.visits.heard(caller, peer, self.now.boot)
        if not is_here and caller.role in HELLO_ROLES and not handlers.is_first_word(message):
            request.reply(PeerBye(reason="say hello first: hq-server does not know this connection (any more)"))
            return
        self._guarded(request, f"{tag} of {caller.user}", lambda: handlers.handle(self, request, message))

    def _guarded(self, request: Request | None, what: str, function: Callable[[], None]) -> None:
        """Do something for a request. What is refused is the answer; a fault of ours is noted, told, and never the end of everybody's server."""
        try:
            function()
        except HqError as error:
            self.log.category("requests").info("%s: %s", what, error)
            if request is not None:
                request.fail(error)
        except Exception as error:  # noqa: BLE001 - a peer's message must not end the server
            self.counts["faults"] += 1
            self.log.category("error").error("%s: %s", what, error, exc_info=error)
            if request is not None:
                request.fail("hq-server failed over this request: its log says why")

    def _not_allowed(self, caller: Caller, tag: str) -> str:
        if caller.role is Role.STRANGER:
            return (
                f"{UNKNOWN_KEY}: it was never enrolled, was revoked, or its user is no longer in the file users. "
                "Enrol it again, or ask the owner of the instance"
            )
        return f"a {caller.role.value} may not send {tag}"

    def _take(self, done: Done) -> None:
        ask = done.token
        assert isinstance(ask, Ask)
        self.gate.closed(_user_of(ask.request))
        if done.error is None:
            self._guarded(ask.request, "an outcome", lambda: ask.then(done.value))
            return
        if isinstance(done.error, HqError):
            problem: HqError = done.error
        else:
            self.log.category("database").error("%s", done.error, exc_info=done.error)
            problem = UnavailableError("the state database does not answer now: try again in a moment (hq-server's log says why)")
        if ask.request is not None:
            ask.request.fail(problem)

    def _beat(self, name: str) -> None:
        if name == "heartbeat":
            lease = SILENT_BEATS * self.timers.intervals()["heartbeat"]
            for session in self.sessions.silent(self.now.boot, lease):
                self.end_session(session, f"silent for {self.now.boot - session.heard:.0f} s")
            for session in self.sessions:
                self.outbox.tell(session.peer, PeerHeartbeat())
            handlers_execs.beat(self)
            leases.look(self)
            cancels.beat(self)
        elif name == "probe":
            probe.start(self)
        elif name == "housekeeping":
            self.enrolment.forget_old(self.now.boot)
            self.gate.forget_old()
        elif name == "cleaning":
            days = self.config.history_days
            self.add(CleaningDue(self.now.wall - days * 86400.0 if days else None))

    # --- commits ------------------------------------------------------------------------------------------------

    def _commits(self) -> None:
        for done in self.writer.finished():
            assert self._in_flight is not None and done.token is self._in_flight[0]
            batch, actions = self._in_flight
            self._in_flight = None
            if done.error is not None:
                self._rebuilding.reject(self, batch, done.error)
            else:
                self.counts["commits"] += 1
                self._rebuilding.rejected = 0
                self._complete(batch, actions)

    def _complete(self, batch: Batch, actions: list[Action]) -> None:
        performers.perform(self, actions)
        for function in batch.after:
            function()

    def _run_settled(self) -> None:
        if self._in_flight is None or self.writer.trouble:
            while self._settled:
                request, function = self._settled.popleft()
                self.gate.closed(_user_of(request))
                self._guarded(request, "a read", function)

    def _step(self) -> None:
        if self._rebuilding.at is not None and self._rebuilding.at <= self.now.boot:
            self._rebuilding.rebuild(self)
            self._wake = None
        while self._in_flight is None and self._rebuilding.at is None and not self.standing.is_refused:
            is_due = self._wake is not None and self._wake <= self.now.wall
            if not self.batch and not is_due:
                return
            batch, self.batch = self.batch, Batch()
            try:
                step = self.cluster.step(batch.events, self.now.wall)
            except Exception as error:  # noqa: BLE001 - the state in memory may be half changed: what is recorded counts
                self.counts["faults"] += 1
                self.log.category("error").critical("the core failed over %d events", len(batch.events), exc_info=error)
                self._rebuilding.fail(batch, RefusedError("hq-server failed over this request: its log says why"))
                self._rebuilding.at = self.now.boot
                return
            self._wake = step.wake
            changes = step.changes
            changes.audit.extend(batch.extra.audit)
            changes.settings.update(batch.extra.settings)
            if changes:
                self._in_flight = (batch, step.actions)
                self.writer.submit(batch, changes)
                self._commits()  # an inline writer has ended already
            else:
                self._complete(batch, step.actions)
            if is_due and self._wake is not None and self._wake <= self.now.wall:
                return  # a core that wants the same moment again must not hold the loop

    def _unreachable(self, peer: Peer) -> None:
        for session in self.sessions.by_key(peer.key):
            if session.peer == peer:
                self.log.category("network").info("user-server of %s does not take messages now", session.user)

    def _deadline(self) -> float | None:
        moments = [self.timers.next()]
        if self.standing.is_refused:
            moments.append(self.now.boot)
        if self._in_flight is None and self._rebuilding.at is None:
            if self._wake is not None:
                moments.append(self.now.boot + max(0.01, self._wake - self.now.wall))
            if self.batch or self._settled:
                moments.append(self.now.boot)
        moments.append(self._rebuilding.at)
        moments.append(self.ending.wake(is_committing=self._in_flight is not None))
        if self.gate.has_more:
            moments.append(self.now.boot)
        return min((moment for moment in moments if moment is not None), default=None)

    # --- life ---------------------------------------------------------------------------------------------------

    def reload(self, now: Now) -> None:
        """Re-read cluster.tab, users and hq.yaml (SIGHUP). Errors are reported, and everything stays as it was."""
        self.now = now
        try:
            admin_daemon.reload_now(self)
        except HqError as error:
            self.log.category("system").error("reload: nothing was changed: %s", error)

    def stop(self, now: Now) -> None:
        """Say goodbye. Jobs run on; what is under way is committed before the loop ends."""
        self.now = now
        if self.ending.begin(now.boot, TROUBLE_PATIENCE if self.writer.trouble else STOP_PATIENCE):
            for session in self.sessions:
                self.outbox.tell(session.peer, PeerBye(reason="hq-server stops"))
            self.outbox.flush()

    @property
    def is_done(self) -> bool:
        """Whether the loop should end."""
        return self.ending.is_over


def _user_of(request: Request | None) -> str:
    return request.caller.user if request is not None else ""
