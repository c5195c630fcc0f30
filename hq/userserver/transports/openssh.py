"""The transport `openssh`: the system's ssh, with all that its configuration can do (Kerberos, jump hosts, certificates).

One master connection a host (ControlMaster); commands and forwards go over it. If the user's own configuration has a ControlPath and a
master of his is up, that one is used and left up: so he gives his second factor once, by hand. Else the master is ours, in the
user-server's run directory. ssh never asks here.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from hq.errors import RefusedError, UnavailableError
from hq.model.host import HostSpec
from hq.userserver.transports.base import TransportSettings
from hq.userserver.transports.deadline import Deadline
from hq.userserver.transports.processes import run_process, start_process, stop_process
from hq.userserver.transports.sessions import Connection, Ran, SshTransport

#: A Unix socket's path may have 107 bytes, and ssh appends 17 of its own while it makes the socket.
PATH_LIMIT = 107 - 17
#: Words of ssh that mean: do not just try again.
_REFUSALS = re.compile(
    r"Permission denied|Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|Too many authentication failures"
    r"|Bad configuration option|bad owner or permissions",
    re.IGNORECASE,
)
_FAST = 10.0


def control_path(run_dir: str, host: str) -> str:
    """The control socket of a host. Raises RefusedError if the run directory's name is too long for a socket."""
    path = os.path.join(run_dir, "ssh-" + hashlib.sha256(host.encode()).hexdigest()[:12])
    if len(os.fsencode(path)) > PATH_LIMIT:
        raise RefusedError(f"the path {path} is too long for a socket of ssh: at most {PATH_LIMIT} bytes")
    return path


def master_argv(address: str, control: str, connect_timeout: float, keepalive: float) -> list[str]:
    """The ssh that holds the connection and runs nothing."""
    options = {
        "BatchMode": "yes",
        "ControlMaster": "yes",
        "ControlPath": control,
        "ControlPersist": "no",
        "ConnectTimeout": str(max(1, round(connect_timeout))),
        "ServerAliveInterval": str(max(1, round(keepalive))),
        "ServerAliveCountMax": "3",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "ForwardX11": "no",
        "ForwardAgent": "no",
    }
    words = ["ssh", "-N", "-T"]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return [*words, "--", address]


def command_argv(address: str, control: str | None, command: str) -> list[str]:
    """An ssh that runs a command line over the master (None: the user's own), and makes no connection of its own."""
    options = ["-T", "-o", "BatchMode=yes", "-o", "ProxyCommand=false"]
    if control is None:
        options += ["-o", "ControlMaster=no", "-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"]
    return ["ssh", *_master_options(control), *options, "--", address, command]


def control_argv(address: str, control: str | None, order: str, *options: str) -> list[str]:
    """An order to the master: check, exit, forward, cancel."""
    return ["ssh", *_master_options(control), "-O", order, *options, "--", address]


def _master_options(control: str | None) -> list[str]:
    # Over a master of ours only the name of the socket counts, and nothing in the user's configuration can redirect us.
    return [] if control is None else ["-F", "none", "-S", control]


def parse_allocated(output: str) -> int | None:
    """The port that sshd chose, as `ssh -O forward` (a number) or `ssh -R` (a sentence) tells it."""
    match = re.search(r"^(?:Allocated port )?(\d{1,5})(?: for remote forward.*)?\s*$", output, re.MULTILINE)
    return int(match[1]) if match else None


class OpensshTransport(SshTransport):
    """Logs in by the system's ssh."""

    def connect(self, host: HostSpec, deadline: Deadline) -> Connection:
        """As SshTransport.connect."""
        if not host.address or host.address.startswith("-"):
            raise RefusedError(f"host {host.name}: '{host.address}' is not an address for ssh; see cluster.tab")
        what = f"host {host.name}: ssh {host.address}"
        environment = self._settings.environment
        if _order(host.address, None, "check", deadline=deadline, environment=environment)[0] == 0:
            return OpensshConnection(None, host.address, None, what, self._settings)
        control = control_path(self._settings.run_dir, f"{host.name} {host.address}")
        if os.path.exists(control):
            # Left by a user-server that was killed: its forwards lead nowhere.
            _order(host.address, control, "exit", environment=environment)
            with suppress(FileNotFoundError):
                os.unlink(control)
        timeout = min(self._settings.connect_timeout, deadline.seconds)
        process = start_process(master_argv(host.address, control, timeout, self._settings.keepalive), what, environment)
        try:
            _wait_master(process, host.address, control, deadline, what)
        except BaseException:
            stop_process(process)
            raise
        return OpensshConnection(process, host.address, control, what, self._settings)


class OpensshConnection:
    """A running master: `process` with its socket `control`, or, both None, the user's own."""

    def __init__(
        self, process: subprocess.Popen[bytes] | None, address: str, control: str | None, what: str, settings: TransportSettings
    ) -> None:
        self._process = process
        self._address = address
        self._control = control
        self._what = what
        self._settings = settings
        self._forwards: list[str] = []  # as asked for: by the same words they are cancelled

    @property
    def is_alive(self) -> bool:
        """As Connection.is_alive."""
        if self._process is None or self._control is None:
            try:
                return _order(self._address, None, "check", environment=self._settings.environment)[0] == 0
            except UnavailableError:
                return False
        assert self._process.stderr is not None
        with suppress(BlockingIOError):
            # What a master says in the course of time must not fill its pipe.
            os.read(self._process.stderr.fileno(), 65536)
        return self._process.poll() is None and os.path.exists(self._control)

    def run(self, command: str, stdin: bytes, deadline: Deadline) -> Ran:
        """As Connection.run."""
        ran = run_process(command_argv(self._address, self._control, command), stdin, deadline, self._what, self._settings.environment)
        if not ran.answer and ran.status == 255:
            # 255 is ssh's own: the connection broke, not the command.
            raise UnavailableError(f"{self._what}: {ran.stderr.strip() or 'the connection ended'}")
        return ran

    def forward(self, local_port: int, deadline: Deadline) -> int:
        """As Connection.forward."""
        forward = f"127.0.0.1:0:127.0.0.1:{local_port}"
        options = ("-R", forward)
        status, words = _order(self._address, self._control, "forward", *options, deadline=deadline, environment=self._settings.environment)
        port = parse_allocated(words)
        if status != 0 or port is None:
            raise RefusedError(f"{self._what}: reverse forward: {words or 'no port'} (AllowTcpForwarding of the host's sshd)")
        self._forwards.append(forward)
        return port

    def close(self) -> None:
        """As Connection.close. The user's own master stays; only our forwards go."""
        if self._process is None or self._control is None:
            for forward in self._forwards:
                with suppress(UnavailableError):
                    _order(self._address, None, "cancel", "-R", forward, environment=self._settings.environment)
            self._forwards.clear()
            return
        if self._process.poll() is None:
            # By TERM ssh removes its socket.
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                pass
        stop_process(self._process)
        with suppress(FileNotFoundError):
            os.unlink(self._control)


def _order(
    address: str, control: str | None, order: str, *options: str, deadline: Deadline | None = None, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Send an order to the master; its status and words. Raises UnavailableError at the deadline."""
    timeout = _FAST if deadline is None else deadline.remaining(f"ssh -O {order} {address}")
    try:
        ran = subprocess.run(
            control_argv(address, control, order, *options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=None if environment is None else dict(environment),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"ssh -O {order} {address}: {error}") from error
    return ran.returncode, (ran.stdout + ran.stderr).decode(errors="replace").strip()


def _wait_master(process: subprocess.Popen[bytes], address: str, control: str, deadline: Deadline, what: str) -> None:
    """Until the master's socket is there. Raises RefusedError or UnavailableError with all that ssh said."""
    assert process.stderr is not None and process.stdin is not None and process.stdout is not None
    process.stdin.close()
    process.stdout.close()
    os.set_blocking(process.stderr.fileno(), False)
    said = bytearray()
    while True:
        with suppress(BlockingIOError):
            said += os.read(process.stderr.fileno(), 65536)
        words = said.decode(errors="replace").strip()
        if process.poll() is not None:
            with suppress(BlockingIOError):
                words = (said + os.read(process.stderr.fileno(), 65536)).decode(errors="replace").strip()
            text = f"{what}: {words or f'ssh ended with status {process.returncode}'}"
            if _REFUSALS.search(words):
                raise RefusedError(f"{text.rstrip('.')}. Try yourself: {shlex.join(['ssh', address])}")
            raise UnavailableError(text)
        if os.path.exists(control):
            return
        try:
            # ssh makes the socket only once it is logged in; there is nothing else to wait on.
            process.wait(min(0.02, deadline.step(what)))
        except subprocess.TimeoutExpired:
            continue
        except UnavailableError as error:
            raise UnavailableError(f"{error}{f'; ssh said: {words}' if words else ''}") from error
