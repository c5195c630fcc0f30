"""Makes the processes of runs: written down before, made, noted after. All that may begin now goes together.

Order matters: `starting` is in the journal before the process is made, so that a worker that was killed in between is followed by one that
looks for it by its name.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hq.core.runner_events import Event, RunStarted, RunWaits, Spawn, StartFailed
from hq.execserver.backends.base import NotStarted, Started
from hq.kernel.clock import Now

if TYPE_CHECKING:
    from hq.execserver.app import ExecServer


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
    events: list[Event] = []
    for spawn, tag in zip(spawns, tags, strict=True):
        key = spawn.order.key
        launch = server.launcher.launch(spawn.spec, spawn.order, tag)
        made = launch if isinstance(launch, NotStarted) else server.backend.start(launch)
        if isinstance(made, NotStarted):
            server.log.info("%s not started: %s", key, made.reason)
            note(t="unstarted", key=key)
            events.append(StartFailed(key, made.reason, now.wall, made.exit_code, is_refused=made.is_refused))
            continue
        if not isinstance(made, Started):
            server.tags[key] = (tag, 0, 0, ())
            events.append(RunWaits(key, ""))
            continue
        assert not isinstance(launch, NotStarted)
        note(t="started", key=key, pid=made.pid, starttime=made.starttime, at=now.wall, outputs=made.outputs)
        server.tags[key] = (tag, made.pid, made.starttime, made.outputs)
        server.outputs.add(key, spawn.spec, launch.stdout, launch.stderr, made.outputs)
        events.append(RunStarted(key, made.pid, now.wall))
        # at once: of one that a worker killed here did not note, only its name is known, and it may be gone when it is looked for
        server.flush()
    server.flush()
    return events
