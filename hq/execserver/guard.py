"""A worker and its supervisor: if that was killed, the worker takes the lock of the run directory itself and goes on; if another program
was named, it makes room for that one's worker.
"""

from __future__ import annotations

import os
from logging import Logger

from hq.errors import HqError
from hq.execserver.program import Program, load_program
from hq.kernel.clock import Now
from hq.kernel.daemon import Daemon
from hq.kernel.files import Lock, lock_file


class Guarded:
    """A daemon that also looks after its supervisor. The worker is a child subreaper too, so its own runs lose nothing."""

    def __init__(self, daemon: Daemon, run_dir: str, supervisor: int, program: Program, log: Logger) -> None:
        self.is_swapping = False
        self._daemon = daemon
        self._run_dir = run_dir
        self._lock_path = os.path.join(run_dir, "lock")
        self._program = program
        self._supervisor = supervisor
        self._log = log
        self._lock: Lock | None = None

    def tick(self, now: Now) -> float | None:
        """As Daemon.tick."""
        if self._lock is None and os.getppid() != self._supervisor:
            try:
                self._lock = lock_file(self._lock_path)
                self._log.warning("the supervisor is gone; the worker goes on alone")
            except HqError as error:
                # another exec-server has begun: two must not run on one journal
                self._log.error("the supervisor is gone, and another has its place: %s", error)
                self._daemon.stop(now)
                return None
        return self._daemon.tick(now)

    def stop(self, now: Now) -> None:
        """As Daemon.stop."""
        self._daemon.stop(now)

    def reload(self, now: Now) -> None:
        """As the daemon's. A start line that cannot be read changes nothing."""
        try:
            self._daemon.reload(now)  # type: ignore[attr-defined]
        except HqError as error:
            self._log.error("not reloaded: %s", error)
            return
        named = load_program(self._run_dir)
        if named is None or named == self._program:
            return
        if self._lock is not None or os.getppid() != self._supervisor:
            self._log.warning("hq %s is there now; without a supervisor this worker stays hq %s until its runs have ended", named.version, self._program.version)
            return
        self._log.info("a worker of hq %s takes the place of this one, of hq %s; runs run on", named.version, self._program.version)
        self.is_swapping = True
        self._daemon.make_room(now)  # type: ignore[attr-defined]

    @property
    def is_done(self) -> bool:
        """As Daemon.is_done."""
        return self._daemon.is_done
