"""Starting exec-servers for `execs`: a start under way, its outcome, and the connection that is closed when it is not needed as a way back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from hq.core.agent import Links
from hq.errors import HqError
from hq.kernel.clock import Now
from hq.model.host import HostSpec
from hq.protocol.peers import CheckStep
from hq.userserver.hosts import HostMemory
from hq.userserver.starter import Starter
from hq.userserver.waysback import WaysBack


class Dialling:
    """`is_in_use(host)`: whether an exec-server is, or may be, on the host already."""

    def __init__(self, links: Links, starter: Starter, memory: HostMemory, log: logging.Logger, is_in_use: Callable[[str], bool]) -> None:
        self.hosts: Mapping[str, HostSpec] = {}
        self._links = links
        self._starter = starter
        self._memory = memory
        self._log = log
        self._is_in_use = is_in_use
        self._ways_back = WaysBack()

    def dial(self, host: str, now: Now) -> None:
        """Start the exec-server on a host, or find the one that runs."""
        spec = self.hosts.get(host)
        if spec is None:
            self._links.failed(host, f"there is no host {host} in the cluster", now.boot)
            return
        self._memory.add(host)
        self._log.info("starting the exec-server on %s (%s)", host, spec.transport)
        try:
            self._starter.start(spec, lambda value, error, now: self._dialled(host, value, error, now))
        except (HqError, OSError) as error:
            self._failed(host, str(error), now)

    def check(self, spec: HostSpec, done: Callable[[list[CheckStep] | HqError], None]) -> None:
        """Let the transport prove that an exec-server can run on a host; if it can, what failed is tried again at once."""
        def ended(value: Any, error: BaseException | None, now: Now) -> None:
            if error is None:
                if all(step.is_ok for step in value):
                    self._links.nudge(now.boot, host=spec.name, since=0.0)
                done(value)
            else:
                done(error if isinstance(error, HqError) else HqError(f"the check of {spec.name} failed: {error}"))

        self._starter.check(spec, ended)

    def came(self, host: str, route: str) -> None:
        """The exec-server on a host got through, by this address."""
        self._ways_back.came(host, route)
        self._release(host)

    def left(self, host: str) -> None:
        """The exec-server on a host is gone."""
        self._ways_back.left(host)

    def _dialled(self, host: str, started: Any, error: BaseException | None, now: Now) -> None:
        if error is not None:
            if not isinstance(error, HqError):
                self._log.error("starting the exec-server on %s failed", host, exc_info=error)
            self._failed(host, str(error), now)
            return
        self._log.info("exec-server on %s: pid %d%s", host, started.pid, ", found running" if started.is_adopted else "")
        if started.forwarded_port is not None:
            self._ways_back.opened(host, started.forwarded_port)
            self._release(host)
        self._links.started(host, now.boot, note=started.note)

    def _release(self, host: str) -> None:
        if host in self.hosts and self._ways_back.take_unused(host):
            self._starter.release(self.hosts[host], self._released)

    def _failed(self, host: str, reason: str, now: Now) -> None:
        self._log.warning("the exec-server on %s cannot be started: %s", host, reason)
        is_new = not self._is_in_use(host)
        self._links.failed(host, reason, now.boot)
        if is_new:
            self._memory.remove(host)

    def _released(self, value: Any, error: BaseException | None, now: Now) -> None:
        if error is not None:
            self._log.info("closing a connection: %s", error)
