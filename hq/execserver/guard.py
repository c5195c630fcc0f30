"""What becomes of a worker whose supervisor was killed: it takes the lock of the run directory itself and goes on."""

from __future__ import annotations

import os
from logging import Logger

from hq.errors import HqError
from hq.kernel.clock import Now
from hq.kernel.daemon import Daemon
from hq.kernel.files import Lock, lock_file


class Guarded:
    """A daemon that also looks after its supervisor. The worker is a child subreaper too, so its own runs lose nothing."""

    def __init__(self, daemon: Daemon, lock_path: str, supervisor: int, log: Logger) -> None:
        self._daemon = daemon
        self._lock_path = lock_path
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

    @property
    def is_done(self) -> bool:
        """As Daemon.is_done."""
        return self._daemon.is_done
