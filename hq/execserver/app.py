"""The worker of an exec-server: one object that takes what came, lets the core decide, and performs it. All else is beside it.

Order of a tick: words from above and processes that ended → events → core → journal → processes → reports → journal → upward.
What must survive a KILL is in the journal before it is acted upon.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from logging import Logger

from hq import VERSION
from hq.core.runner import Runner
from hq.core.runner_events import (
    BlobsArrived,
    Event,
    FetchBlobs,
    Forget,
    HoldRun,
    LeftoversGone,
    MemorySeen,
    RecallRun,
    SignalRun,
    Spawn,
)  # fmt: skip
from hq.core.runner_spool import Spool
from hq.execserver.backends.base import Backend
from hq.execserver.backends.cgroup import CgroupManager
from hq.execserver.backends.process import LEFTOVER_POLL, ProcessBackend
from hq.execserver.backends.procs import boot_id
from hq.execserver.backends.statuses import StatusReader
from hq.execserver.batchnews import NewsBackend, batch_events, scripts_dir
from hq.execserver.bootstrap import Bootstrap
from hq.execserver.dial import Dialer
from hq.execserver.endings import ended_events
from hq.execserver.epochs import OF_NOW, Epochs
from hq.execserver.handlers import HANDLERS, answer
from hq.execserver.journal import REWRITE_SIZE, Journal, read_journal
from hq.execserver.launch import BlobStore, Launcher
from hq.execserver.lease import Lease, end_of_lease
from hq.execserver.orders import OrderBook
from hq.execserver.pacing import Armed, HeldReports, spool_reports
from hq.execserver.recovery import journal_lines, recover
from hq.execserver.reporting import Reporting
from hq.execserver.second import SecondUpstream
from hq.execserver.starts import Relay, RunNames, make_runs
from hq.execserver.summary import write_summary
from hq.execserver.watch import OutputWatch
from hq.kernel.bus import Port
from hq.kernel.clock import Now
from hq.kernel.identity import may_send
from hq.kernel.keys import Sealer
from hq.kernel.log import Log
from hq.kernel.places import hq_home
from hq.model.ids import AttemptKey
from hq.model.job import SignedSpec
from hq.model.runs import StartOrder
from hq.model.states import RunKind
from hq.model.user import Role
from hq.protocol.base import PROTOCOL, Message, Problem
from hq.protocol.peers import PeerBye
from hq.protocol.runs import BlobGet, ExecHello, ExecWelcome

LOOK_EVERY = 1.0  # seconds between looks at memory and output sizes
FIRST_LOOK = 0.2  # seconds after a start: the peak of short runs is known by a look only, see ProcessBackend._end


class ExecServer:
    """The daemon. `make_port(address)` dials; `on_port` and `off_port` may be set so that the loop waits for the link's descriptors."""

    def __init__(
        self, bootstrap: Bootstrap, run_dir: str, log: Log, make_port: Callable[[str], Port], now: Now, *,
        load: Callable[[], Bootstrap] | None = None, cgroups: CgroupManager | None = None, batch: NewsBackend | None = None,
        processes: type[ProcessBackend] = ProcessBackend,
    ) -> None:  # fmt: skip
        self.bootstrap = bootstrap
        self.log: Logger = log.category("runs")
        self._link_log = log.category("link")
        self._files = log
        self._load = load
        self._run_dir = run_dir
        self._boot = secrets.token_hex(8)
        self.memory = ""  # the name of its journal, see Recovered
        self.is_retiring = False
        self._is_done = False
        self.has_cgroups = cgroups is not None
        self.orders = OrderBook(bootstrap.instance, bootstrap.user, bootstrap.sign_public)
        self.launcher = Launcher(
            bootstrap.host, bootstrap.home or hq_home(), BlobStore(os.path.join(run_dir, "blobs")),
            scripts_dir(bootstrap, run_dir), Sealer(bootstrap.seal_key),
        )  # fmt: skip
        path = os.path.join(run_dir, "journal")
        recovered = read_journal(path)
        self.journal = Journal(path)
        self.epochs = Epochs(recovered.epoch, self.journal, now)
        self.statuses = StatusReader(os.path.join(run_dir, "statuses"))
        self.batch = batch
        own = processes(self._note_status, self.statuses, cgroups)
        self._processes = own if batch is None else None
        self.backend: Backend = own if batch is None else batch
        self.outputs = OutputWatch(log.category("output").warning)
        self.runner = Runner(bootstrap.slots)
        self.held, self.armed = HeldReports(), Armed()
        # sequences of a journal that was lost must not come again
        self.spool = Spool(recovered.last or int(now.wall * 1000))
        self.specs: dict[int, SignedSpec] = {}
        self.live_of: dict[int, set[AttemptKey]] = {}  # the runs of a job that are here, so that its spec can go with the last
        self.tags: dict[AttemptKey, tuple[str, int, int, tuple[tuple[int, int], ...]]] = {}
        self.names, self.relay = RunNames(), Relay()
        self._deadline, self._polled = 0.0, now
        self.wanted: set[str] = set()
        self.reporting = Reporting(now)
        self._next_look = now.boot + LOOK_EVERY
        self._idle_since: float | None = None
        self.events: deque[Event] = deque()
        self.trouble = ""
        self.lease = Lease(os.path.join(run_dir, "heard"), boot_id(), now, self._link_log.warning)
        self.dialer = Dialer(bootstrap.upstreams, bootstrap.heartbeat, make_port, self.hello)
        self.second = SecondUpstream(make_port, HANDLERS)
        recover(self, recovered, now)

    # --- Daemon -----------------------------------------------------------------------------------------------------

    def tick(self, now: Now) -> float | None:
        """As Daemon.tick."""
        self._polled = now
        if self._processes is not None:
            self._processes.reap(now.wall)
        if (rest := self.relay.rests_until(now)) is not None and now.boot < self._deadline and not self.dialer.has_news():
            return min(rest, self._deadline)
        self._poll(now)
        self._step(self.relay.take(), now)
        events: list[Event] = list(self.events)
        self.events.clear()
        for received in self.dialer.receive(now):
            if received.letter is None:
                self._link_log.warning("from the user-server: %s", received.note)
                continue
            is_older = not self.epochs.take(received.letter.epoch, self.lease.seconds, now)
            if not is_older:
                self.lease.heard(now)
            for message in received.letter.messages:
                events.extend(self._heard(message, received.letter.id, now, is_older))
            if received.letter.epoch and not is_older:
                self.reporting.call_roll(self)
        events.extend(self.second.tick(self, now))
        events.extend(end_of_lease(self, now))
        if now.boot >= self._next_look:
            self._next_look = now.boot + LOOK_EVERY
            events.extend(MemorySeen(seen.key, seen.memory) for seen in self.backend.look() if seen.memory)
            events.extend(self.outputs.look())
        wake = self._step(events, now)
        self._keep_journal(now)
        self.reporting.speak(self, now)
        self._rest(now)
        deadlines = [self.dialer.keep_up(now), self._next_look if self.runner.runs else None, wake]
        if self.batch is not None:
            deadlines.append(self.batch.wake())
        if self.backend.is_watching_leftovers:
            deadlines.append(now.boot + LEFTOVER_POLL)
        if self._idle_since is not None:
            deadlines.append(self._idle_since + self.bootstrap.idle)
        deadlines += [each for each in (self.lease.wake(), self.second.wake()) if each is not None]
        if self.events or self.journal.is_behind:
            deadlines.append(now.boot + (0.0 if self.events else 1.0))
        self._deadline = min(each for each in deadlines if each is not None)
        return self._deadline

    def stop(self, now: Now) -> None:
        """Say goodbye. Runs run on, and the journal has all that the next worker needs."""
        self._link_log.info("stops, %d runs run on", sum(run.is_live for run in self.runner.runs.values()))
        self.dialer.send(PeerBye(reason="stops"))
        self.make_room(now)

    def make_room(self, now: Now) -> None:
        """End without a word: the next worker is there in a moment, and the journal has all that it needs."""
        spool_reports(self)
        self.flush(is_synced=True)
        self.dialer.close()
        self.second.close()
        self._is_done = True

    def reload(self, now: Now) -> None:
        """A new bootstrap may be there: read it, and dial the addresses in it. The log goes on in a new file if the old one was moved."""
        self._files.reopen()
        self.is_retiring = False
        self._idle_since = None
        if self._load is None:
            return
        told = self._load()
        same_link = (told.upstreams, told.upstream_key, told.public) == (
            self.bootstrap.upstreams, self.bootstrap.upstream_key, self.bootstrap.public)  # fmt: skip
        if told.sign_public != self.bootstrap.sign_public:
            self.orders = OrderBook(told.instance, told.user, told.sign_public)
        if told.seal_key != self.bootstrap.seal_key:
            self.launcher = Launcher(told.host, self.launcher.home, self.launcher.blobs, scripts_dir(told, self._run_dir), Sealer(told.seal_key))
        self.bootstrap = told
        if not same_link or not self.dialer.is_linked:
            self._link_log.info("told to dial %s", ", ".join(told.upstreams))
            self.dialer.redial(told.upstreams, told.heartbeat)

    @property
    def is_done(self) -> bool:
        """As Daemon.is_done."""
        return self._is_done

    # --- words from above -------------------------------------------------------------------------------------------

    def _heard(self, message: Message, request: int, now: Now, is_older: bool) -> Sequence[Event]:
        if not may_send(message, Role.USER_SERVER):
            self._link_log.warning("a user-server does not send %s", type(message).__name__)
            return ()
        if is_older and isinstance(message, OF_NOW):
            self._link_log.warning("a %s of an older hq-server was ignored", message.__struct_config__.tag)
            return ()
        handler = HANDLERS.get(type(message))
        reply = answer(self, message, now)
        if handler is None and reply is None:
            self._link_log.warning("%s is nothing for an exec-server", type(message).__name__)
            if request:
                self.dialer.send(Problem(text="an exec-server does not answer that"), re=request)
            return ()
        if reply is not None:
            self.dialer.send(reply, re=request)
        return handler(self, message, now) if handler is not None else ()

    def hello(self, route: str) -> Message:
        """The first word on a link."""
        return ExecHello(
            version=VERSION, protocol=PROTOCOL, boot=self._boot, host=self.bootstrap.host, machine=os.uname().nodename,
            pid=os.getpid(), route=route, memory=self.memory,
        )  # fmt: skip

    def linked(self, message: ExecWelcome, now: Now) -> None:
        """Welcomed (again)."""
        if not self.dialer.is_linked:
            self._link_log.info("linked by %s", self.dialer.route)
        self.dialer.welcomed(message.heartbeat, now)
        self.lease.given(message.lease, now)
        self.reporting.welcomed(self, message, now)

    def roll(self) -> tuple[AttemptKey, ...]:
        """What is here: queued, running, or ended and not yet recorded."""
        spool_reports(self)
        return tuple(dict.fromkeys((*self.runner.runs, *self.spool.attempts())))

    def take_order(self, order: StartOrder, signed: SignedSpec) -> None:
        """Write down an order that was found good."""
        if self.specs.get(order.job) != signed:
            self.specs[order.job] = signed
            self.journal.note(t="spec", job=order.job, body=signed.body, signature=signed.signature)
        self.live_of.setdefault(order.job, set()).add(order.key)
        self.journal.note(t="order", key=order.key, slots=order.slots, ahead=order.is_ahead)

    def is_live(self, key: AttemptKey) -> bool:
        """Whether the attempt may still write output."""
        return key in self.runner.runs

    # --- step and perform -------------------------------------------------------------------------------------------

    def _poll(self, now: Now) -> None:
        """What it means that runs have ended, for the core."""
        ended, gone = self.backend.poll(now.boot)
        if self.batch is not None:
            self.relay.tell(batch_events(self, self.batch, now))
        self.relay.tell(ended_events(self, ended, now))
        self.relay.tell(LeftoversGone(key) for key in gone)

    def _step(self, events: list[Event], now: Now) -> float | None:
        """Let the core decide until it has no more orders. Outcomes of actions are events again."""
        reports = []
        while True:
            step = self.runner.step(events, now)
            reports.extend(step.reports)
            events = []
            spawns = [action for action in step.actions if isinstance(action, Spawn)]
            for action in step.actions:
                if isinstance(action, FetchBlobs):
                    events.extend(self._fetch(action))
                elif isinstance(action, SignalRun):
                    self.backend.signal(action.key, action.signal, action.is_ending)
                    if self.batch is not None:
                        events.extend(batch_events(self, self.batch, now))
                elif isinstance(action, HoldRun | RecallRun) and self.batch is not None:
                    if isinstance(action, HoldRun):
                        self.batch.hold(action.key, action.is_held)
                    else:
                        self.batch.recall(action.key)
                    events.extend(batch_events(self, self.batch, now))
                elif isinstance(action, Forget):
                    self._forget(action)
            if spawns:
                events.extend(make_runs(self, spawns, now))
                self._next_look = min(self._next_look, now.boot + FIRST_LOOK)
            if not events:
                break
        spool_reports(self, reports, now.boot, may_wait=self.runner.queue.ahead > len(self.held) + len(reports))
        return min((each for each in (step.wake, self.held.due) if each is not None), default=None)

    def _fetch(self, action: FetchBlobs) -> list[Event]:
        present = frozenset(digest for digest in action.digests if self.launcher.blobs.has(digest))
        missing = action.digests - present
        self.wanted |= missing
        if missing:
            self.dialer.send(BlobGet(digests=tuple(missing)))
        return [BlobsArrived(present)] if present else []

    def _forget(self, action: Forget) -> None:
        key = action.key
        self.backend.forget(key)
        self.outputs.forget(key)
        self.armed.forget(key)
        was_here = self.tags.pop(key, None) is not None
        signed = self.specs.get(key.job)
        if was_here and signed is not None and action.report.kind is RunKind.ENDED:
            try:
                write_summary(self.launcher, self.orders.open(signed), StartOrder(*key, ()), action.report)
            except OSError as error:
                self.log.warning("%s: the summary cannot be written: %s", key, error)
        here = self.live_of.get(key.job, set())
        here.discard(key)
        if not here:
            self.live_of.pop(key.job, None)
            self.specs.pop(key.job, None)

    def _note_status(self, key: AttemptKey, code: int | None, signal: int | None) -> None:
        """Called before the kernel forgets the status. What follows a run that went well is made here: one write for both."""
        self.journal.note(t="ended", key=key, code=code, signal=signal)
        if code == 0:
            self.relay.follow(self, key, self._polled)
        else:
            self.relay.leave(self, key)
        self.flush()

    # --- the journal ------------------------------------------------------------------------------------------------

    def _keep_journal(self, now: Now) -> None:
        """Write what could not be written before; begin a new journal when the old one is mostly past."""
        self.flush()
        if self.journal.size > REWRITE_SIZE:
            spool_reports(self)
            try:
                self.journal.rewrite(journal_lines(self))
            except OSError as error:
                self.log.error("the journal cannot be rewritten: %s", error)

    def flush(self, is_synced: bool = False) -> bool:
        """Write the journal, to the disk with `is_synced`. False if it cannot be: what depends on it must not happen."""
        try:
            self.journal.flush(is_synced)
        except OSError as error:
            if self.trouble != str(error):
                self.log.error("the journal cannot be written: %s", error)
            self.trouble = str(error)
            return False
        self.trouble = ""
        return True

    def _rest(self, now: Now) -> None:
        """End when there has been nothing to do for long enough, or at once when told so."""
        if not self.runner.is_idle or (self.spool.batches and not self.second.has_all(self) and not (self.is_retiring and not self.dialer.is_linked)):
            self._idle_since = None
            return
        if self._idle_since is None:
            self._idle_since = now.boot
        if self.is_retiring or now.boot - self._idle_since >= self.bootstrap.idle:
            self._link_log.info("ends: %s", "told so" if self.is_retiring else "nothing to do")
            self.launcher.clear()
            self.stop(now)
