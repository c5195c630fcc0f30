"""What the two ssh transports have in common: one connection a host, the dialogue with the exec-server, the way back.

How a connection is made and a command is run over it is in `paramiko_ssh` and `openssh`.
"""

from __future__ import annotations

import json
import shlex
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Protocol

from hq.errors import HqError, RefusedError, RemoteError, UnavailableError
from hq.model.host import HostSpec
from hq.protocol.peers import CheckStep
from hq.userserver.transports.base import ANSWER_LIMIT, Bootstrap, Cancel, Started, TransportSettings, read_started
from hq.userserver.transports.check import check_line, failed_login, steps_of
from hq.userserver.transports.deadline import Deadline

#: Exit status of a shell that did not find the command, or could not execute it.
NOT_THERE = (126, 127)


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that ran on a host: the first line that looks like an answer, what else it printed, how it ended (None: not yet)."""

    answer: bytes
    noise: str
    stderr: str
    status: int | None


class Connection(Protocol):
    """A live, authenticated connection to one host."""

    @property
    def is_alive(self) -> bool:
        """Whether it can still be used, as far as is known without asking the host."""
        ...

    def run(self, command: str, stdin: bytes, deadline: Deadline) -> Ran:
        """Run a command line, give it `stdin` and then end of file, and wait for its answer line or its end. Raises UnavailableError."""
        ...

    def forward(self, local_port: int, deadline: Deadline) -> int:
        """A port on the host's loopback that leads to 127.0.0.1:`local_port` here. Raises UnavailableError or RefusedError."""
        ...

    def close(self) -> None:
        """Close it, and all its forwards."""
        ...


class AnswerReader:
    """Finds the answer line, one JSON object, in what a login shell and a command print."""

    def __init__(self) -> None:
        self._pending = b""
        self._noise: list[bytes] = []
        self.answer = b""

    def feed(self, data: bytes) -> bool:
        """Take what was read; True once the answer is complete."""
        self._pending += data
        while not self.answer and b"\n" in self._pending:
            line, self._pending = self._pending.split(b"\n", 1)
            self._take(line)
        if len(self._pending) > ANSWER_LIMIT:
            self._noise.append(self._pending[:500])
            self._pending = b""
        return bool(self.answer)

    def end(self) -> None:
        """No more will come: what has no newline is a line too."""
        if self._pending and not self.answer:
            self._take(self._pending)
        self._pending = b""

    def _take(self, line: bytes) -> None:
        try:
            is_answer = isinstance(json.loads(line), dict)
        except ValueError:
            is_answer = False
        if is_answer:
            self.answer = line
        elif line.strip() and len(self._noise) < 50:
            self._noise.append(line[:500])

    @property
    def noise(self) -> str:
        """What was printed besides."""
        return "\n".join(line.decode(errors="replace") for line in self._noise)


@dataclass(slots=True)
class _Seat:
    """What is kept of a host: its lock, the connection if there is one, forwards by local port."""

    lock: Lock
    connection: Connection | None
    forwards: dict[int, int]


class SshTransport(ABC):
    """A transport over ssh. Subclasses say how to connect."""

    def __init__(self, settings: TransportSettings) -> None:
        self._settings = settings
        self._seats: dict[str, _Seat] = {}
        self._lock = Lock()

    @abstractmethod
    def connect(self, host: HostSpec, deadline: Deadline) -> Connection:
        """Log in. Raises UnavailableError or RefusedError, ssh's words verbatim."""

    def start(self, host: HostSpec, bootstrap: Bootstrap, cancel: Cancel | None = None) -> Started:
        """As Transport.start."""
        place = f"host {host.name}"
        deadline = Deadline(self._settings.start_timeout, cancel)
        with self._seat(host, deadline) as seat:
            connection = self._connected(host, seat, deadline)
            is_in_use = bool(seat.forwards)
            port: int | None = None
            note = ""
            try:
                if bootstrap.local_port is not None:
                    try:
                        port = self._forwarded(seat, connection, bootstrap.local_port, deadline)
                    except (RefusedError, UnavailableError) as error:
                        # Only the last of three ways back: the exec-server may well get through without.
                        note = f"no reverse forward: {error}"
                    else:
                        bootstrap = bootstrap.with_upstream(f"tcp://127.0.0.1:{port}")
                ran = connection.run(self._command("--bootstrap"), bootstrap.to_line(), deadline)
                started = self._started(place, ran)
            except HqError:
                if not is_in_use:
                    # Nothing of ours was started that could use the forward.
                    self._drop(seat)
                raise
            if not seat.forwards:
                self._drop(seat)
            return replace(started, forwarded_port=port, note=note)

    def check(self, host: HostSpec, upstreams: Sequence[str] = (), local_port: int | None = None) -> list[CheckStep]:
        """As Transport.check."""
        deadline = Deadline(self._settings.check_timeout)
        place = f"host {host.name}"
        try:
            with self._seat(host, deadline) as seat:
                try:
                    connection = self._connected(host, seat, deadline)
                except HqError as error:
                    return failed_login(str(error))
                is_in_use = bool(seat.forwards)
                try:
                    reverse, unforwarded = self._reverse_way(seat, connection, local_port, deadline)
                    ways = [*upstreams, *reverse]
                    ran = connection.run(self._command("--check"), check_line(ways), deadline)
                except HqError as error:
                    return steps_of(b"", problem=str(error))
                finally:
                    if not is_in_use:
                        self._drop(seat)
                problem = "" if ran.answer else self._complaint(place, ran)
                return steps_of(ran.answer, problem=problem, noise=ran.noise, unforwarded=unforwarded)
        except UnavailableError as error:
            return failed_login(str(error))

    def forward(self, host: HostSpec, local_port: int) -> int:
        """As Transport.forward."""
        deadline = Deadline(self._settings.login_timeout)
        with self._seat(host, deadline) as seat:
            return self._forwarded(seat, self._connected(host, seat, deadline), local_port, deadline)

    def release(self, host: HostSpec) -> None:
        """As Transport.release. Waits for a call that is under way for the host."""
        with self._seat(host, Deadline(self._settings.start_timeout)) as seat:
            self._drop(seat)

    def close(self, host: HostSpec | None = None) -> None:
        """As Transport.close. A call that is under way for the host ends with an error."""
        with self._lock:
            seats = [seat for name, seat in self._seats.items() if host is None or name == host.name]
        for seat in seats:
            # Without the lock: a call that hangs is what we want to end.
            self._drop(seat)

    @contextmanager
    def _seat(self, host: HostSpec, deadline: Deadline) -> Iterator[_Seat]:
        with self._lock:
            seat = self._seats.setdefault(host.name, _Seat(Lock(), None, {}))
        what = f"host {host.name}: another call over its ssh connection is under way"
        while not seat.lock.acquire(timeout=deadline.step(what)):
            pass
        try:
            yield seat
        finally:
            seat.lock.release()

    def _connected(self, host: HostSpec, seat: _Seat, deadline: Deadline) -> Connection:
        if seat.connection is not None and seat.connection.is_alive:
            return seat.connection
        self._drop(seat)
        seat.connection = self.connect(host, deadline.within(self._settings.login_timeout))
        return seat.connection

    def _forwarded(self, seat: _Seat, connection: Connection, local_port: int, deadline: Deadline) -> int:
        if local_port not in seat.forwards:
            seat.forwards[local_port] = connection.forward(local_port, deadline)
        return seat.forwards[local_port]

    def _reverse_way(self, seat: _Seat, connection: Connection, local_port: int | None, deadline: Deadline) -> tuple[list[str], str]:
        """The address of a reverse forward, on the host; none if sshd refuses it, and why: then the other ways must do."""
        if local_port is None:
            return [], ""
        try:
            return [f"tcp://127.0.0.1:{self._forwarded(seat, connection, local_port, deadline)}"], ""
        except (RefusedError, UnavailableError) as error:
            return [], str(error)

    @staticmethod
    def _drop(seat: _Seat) -> None:
        connection, seat.connection = seat.connection, None
        seat.forwards.clear()
        if connection is not None:
            connection.close()

    def _command(self, option: str) -> str:
        # The host's login shell reads this line: it holds nothing but the configured command, quoted, and one of our own words.
        return shlex.join([*self._settings.exec_server, option])

    def _complaint(self, place: str, ran: Ran) -> str:
        words = "; ".join(part for part in (ran.stderr.strip(), ran.noise.strip()) if part) or "it printed nothing"
        command = shlex.join(self._settings.exec_server)
        if ran.status in NOT_THERE:
            return (
                f"{place}: cannot run '{command}' there: {words}. Install hq at the same path, "
                "or name the command in client.yaml (exec_server)"
            )
        ending = "" if ran.status is None else f" (exit status {ran.status})"
        return f"{place}: '{command}' gave no answer{ending}: {words[:2000]}"

    def _started(self, place: str, ran: Ran) -> Started:
        if not ran.answer:
            raise RefusedError(self._complaint(place, ran))
        try:
            return read_started(ran.answer, place, ran.stderr)
        except RemoteError as error:
            raise RefusedError(str(error)) from error
