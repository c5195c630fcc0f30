"""Makes the processes of runs: written down before, made, noted after. All that may begin now goes together.

Order matters: `starting` is in the journal before the process is made, so that a worker that was killed in between is followed by one that
looks for it by its name.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from hq.core.runner_events import Event, RunStarted, RunWaits, Spawn, StartFailed
from hq.core.runner_run import Demands, Run
from hq.execserver.backends.base import NotStarted, Started
from hq.kernel.clock import Now
from hq.model.ids import AttemptKey
from hq.model.job import JobSpec
from hq.model.runs import StartOrder

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer

BOOKS = 0.025  # seconds that the core may be behind while runs follow each other
MOST_FOLLOW = 100  # runs; so that nothing above waits for runs that end faster than they are made


class RunNames:
    """Names of runs (the value of HQ_RUN), never the same twice, whatever else has run on this host."""

    def __init__(self) -> None:
        self._mine = secrets.token_hex(8)
        self._count = 0

    def next(self) -> str:
        """A new one."""
        self._count += 1
        return f"{self._mine}{self._count:08x}"


def make_runs(server: ExecServer, spawns: Sequence[Spawn], now: Now) -> list[Event]:
    """Write down that these processes are about to be made, make them, note their pids."""
    note = server.journal.note
    tags = [server.names.next() for _ in spawns]
    for spawn, tag in zip(spawns, tags, strict=True):
        note(t="starting", key=spawn.order.key, tag=tag, at=now.wall, since=now.boot)
    armed = server.armed.to_arm(spawns, server.runner.queue.upcoming())
    server.journal.note_all("armed", armed or ())
    if not server.flush(is_synced=armed is not None):
        return [StartFailed(spawn.order.key, f"the exec-server cannot write its journal: {server.trouble}", now.wall) for spawn in spawns]
    return [make_run(server, spawn.spec, spawn.order, tag, now) for spawn, tag in zip(spawns, tags, strict=True)]


def make_run(server: ExecServer, spec: JobSpec, order: StartOrder, tag: str, now: Now) -> Event:
    """Make one process, whose start is written down, and note its pid."""
    key = order.key
    launch = server.launcher.launch(spec, order, tag)
    made = launch if isinstance(launch, NotStarted) else server.backend.start(launch)
    if isinstance(made, NotStarted):
        server.log.info("%s not started: %s", key, made.reason)
        server.journal.note(t="unstarted", key=key)
        return StartFailed(key, made.reason, now.wall, made.exit_code, is_refused=made.is_refused)
    if not isinstance(made, Started):
        server.tags[key] = (tag, 0, 0, ())
        return RunWaits(key, "")
    assert not isinstance(launch, NotStarted)
    server.journal.note(t="started", key=key, pid=made.pid, starttime=made.starttime, at=now.wall, outputs=made.outputs)
    server.tags[key] = (tag, made.pid, made.starttime, made.outputs)
    server.outputs.add(key, spec, launch.stdout, launch.stderr, made.outputs)
    # at once: of one that a worker killed here did not note, only its name is known, and it may be gone when it is looked for
    server.flush()
    return RunStarted(key, made.pid, now.wall)


class Relay:
    """Lets runs follow each other: when one has gone well, the next is made at once in its slots, and the books are kept for many together.

    Only where the core would do just that: the first that came ahead with the same demands, which may be run again or stands in the journal
    as one that may have begun. It has been told everything up to now when `follow` is called, so what is in its queue is wanted.
    """

    def __init__(self) -> None:
        self._news: list[Event] = []  # what the core has to be told, in order
        self._heirs: dict[AttemptKey, tuple[AttemptKey, Event]] = {}  # by whom they follow: what follows, and what became of its process
        self._slots: dict[AttemptKey, tuple[int, ...]] = {}  # of those that follow and that the core does not know as begun
        self._queues: dict[Demands, Iterator[Run]] = {}
        self._until: float | None = None

    def follow(self, server: ExecServer, ended: AttemptKey, now: Now) -> None:
        """A run went well, and its status is noted: the next one is made, if there is one."""
        run = server.runner.runs.get(ended)
        if run is None or run.cause is not None or (self._until is not None and len(self._slots) >= MOST_FOLLOW):
            self.leave(server, ended)
            return
        if run.demands not in self._queues:
            self._queues[run.demands] = server.runner.queue.followers(run.demands)
        heir = next(self._queues[run.demands], None)
        if heir is None or not self._may_follow(server, heir, ended):
            self.leave(server, ended)  # in order, or not at all
            return
        key, slots, tag = heir.key, self._slots.get(ended, run.order.slots), server.names.next()
        server.journal.note(t="starting", key=key, tag=tag, at=now.wall)
        if not server.flush():
            server.journal.note(t="unstarted", key=key)
            self.leave(server, ended)
            return
        self._heirs[ended] = key, make_run(server, heir.spec, StartOrder(*key, slots), tag, now)
        self._slots[key] = slots
        if self._until is None:
            self._until = now.boot + BOOKS

    def leave(self, server: ExecServer, ended: AttemptKey) -> None:
        """Of this end the core hears first, and now: it says who gets the slots, so until then nobody else is made to follow in that queue."""
        self._until = 0.0
        run = server.runner.runs.get(ended)
        if run is not None:
            self._queues[run.demands] = iter(())

    def _may_follow(self, server: ExecServer, heir: Run, ended: AttemptKey) -> bool:
        key = heir.key
        return key.attempt == 1 and key[:2] != ended[:2] and heir.due is None and (heir.spec.is_rerunnable or key in server.armed)

    def followed(self, ended: AttemptKey) -> tuple[AttemptKey, Event] | None:
        """What followed a run that has ended, and what became of its process."""
        return self._heirs.pop(ended, None)

    def tell(self, events: Iterable[Event]) -> None:
        """Keep this for the core."""
        self._news.extend(events)

    def take(self) -> list[Event]:
        """All that the core has to be told. It is, before anything else happens."""
        news, self._news = self._news, []
        self._slots.clear()
        self._queues.clear()
        self._until = None
        return news

    def rests_until(self, now: Now) -> float | None:
        """Until when (CLOCK_BOOTTIME) the books may wait; None: they are to be kept now."""
        return self._until if self._until is not None and now.boot < self._until and len(self._slots) < MOST_FOLLOW else None
