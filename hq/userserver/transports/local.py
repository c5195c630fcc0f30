"""The transport of this machine: the exec-server is a child process that detaches itself. No ssh, no way back to look for."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from hq.errors import RefusedError, RemoteError, UnavailableError
from hq.model.host import HostSpec
from hq.protocol.peers import CheckStep
from hq.userserver.transports.base import Bootstrap, Cancel, Started, TransportSettings, read_started
from hq.userserver.transports.check import check_line, steps_of
from hq.userserver.transports.deadline import Deadline
from hq.userserver.transports.processes import run_process


class LocalTransport:
    """Starts exec-servers here."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings

    def start(self, host: HostSpec, bootstrap: Bootstrap, cancel: Cancel | None = None) -> Started:
        """As Transport.start."""
        place = f"host {host.name}"
        deadline = Deadline(self._settings.start_timeout, cancel)
        ran = run_process([*self._settings.local_exec_server, "--bootstrap"], bootstrap.to_line(), deadline, place, self._settings.environment)
        if not ran.answer:
            words = "; ".join(part for part in (ran.stderr.strip(), ran.noise.strip()) if part) or "it printed nothing"
            command = shlex.join(self._settings.local_exec_server)
            raise RefusedError(f"{place}: '{command}' gave no answer (exit status {ran.status}): {words[:2000]}")
        try:
            return read_started(ran.answer, place, ran.stderr)
        except RemoteError as error:
            raise RefusedError(str(error)) from error

    def check(self, host: HostSpec, upstreams: Sequence[str] = (), local_port: int | None = None) -> list[CheckStep]:
        """As Transport.check."""
        place = f"host {host.name}"
        deadline = Deadline(self._settings.check_timeout)
        try:
            ran = run_process(
                [*self._settings.local_exec_server, "--check"], check_line(upstreams), deadline, place, self._settings.environment
            )
        except (RefusedError, UnavailableError) as error:
            return steps_of(b"", problem=str(error), is_local=True)
        problem = "" if ran.answer else f"{place}: no answer (exit status {ran.status}): {ran.stderr.strip() or ran.noise}"
        return steps_of(ran.answer, problem=problem, is_local=True)

    def forward(self, host: HostSpec, local_port: int) -> int:
        """The port itself: this machine's loopback is ours."""
        return local_port

    def release(self, host: HostSpec) -> None:
        """Nothing is kept."""

    def close(self, host: HostSpec | None = None) -> None:
        """Nothing is kept."""
