"""The transport `ssh`: paramiko, with the user's ssh configuration, agent, keys and known_hosts. Unknown host keys are refused.

Kerberos, jump hosts, host certificates and second factors are not for it: `transport: openssh` uses the system's ssh.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress

import paramiko

from hq.errors import RefusedError, UnavailableError
from hq.model.host import HostSpec
from hq.userserver.transports.base import TransportSettings
from hq.userserver.transports.deadline import Deadline, bounded
from hq.userserver.transports.known_hosts import Verdict, fingerprint, has_authority, judge, key_kinds, read_known_hosts
from hq.userserver.transports.pump import hang_up, start_pump
from hq.userserver.transports.sessions import AnswerReader, Connection, Ran, SshTransport
from hq.userserver.transports.ssh_config import SshTarget, read_target
from hq.userserver.transports.ssh_keys import login_keys

_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")
_STDERR_LIMIT = 64 * 1024
#: How long a command that closed its output may take to say how it ended. Seconds.
_PATIENCE = 5.0


class ParamikoTransport(SshTransport):
    """Logs in by paramiko."""

    def __init__(self, settings: TransportSettings) -> None:
        super().__init__(settings)
        # paramiko logs what it also raises; without a handler Python would print that on a daemon's stderr.
        logger = logging.getLogger("paramiko")
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())

    def connect(self, host: HostSpec, deadline: Deadline) -> Connection:
        """As SshTransport.connect."""
        place = f"host {host.name}"
        target = bounded(lambda: read_target(host), deadline, f"{place}: reading your ssh configuration")
        what = f"{place}: ssh to {target.hostname} port {target.port}"
        timeout = target.connect_timeout or self._settings.connect_timeout
        wire = bounded(lambda: _dial(target, timeout, what), deadline, what, socket.socket.close)
        _keep_alive(wire, self._settings.keepalive)
        try:
            transport = paramiko.Transport(wire)
        except (paramiko.SSHException, OSError) as error:
            wire.close()
            raise UnavailableError(f"{what}: {_words(error)}") from error
        try:
            _shake_hands(transport, target, place, what, deadline)
            bounded(lambda: _log_in(transport, target, place, deadline), deadline, f"{what}: login as {target.user}")
        except BaseException:
            transport.close()
            raise
        transport.set_keepalive(int(self._settings.keepalive))
        return ParamikoConnection(transport, what)


class ParamikoConnection:
    """An authenticated transport of paramiko."""

    def __init__(self, transport: paramiko.Transport, what: str) -> None:
        self._transport = transport
        self._what = what
        self._forwards: dict[int, int] = {}

    @property
    def is_alive(self) -> bool:
        """As Connection.is_alive."""
        return self._transport.is_active()

    def run(self, command: str, stdin: bytes, deadline: Deadline) -> Ran:
        """As Connection.run."""
        answer, stderr = AnswerReader(), bytearray()
        try:
            channel = self._transport.open_session(timeout=deadline.remaining(self._what))
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise UnavailableError(f"{self._what}: {_words(error)}") from error
        try:
            channel.settimeout(deadline.remaining(self._what))
            channel.exec_command(command)
            with suppress(OSError):
                # It may have ended without reading; its output says why.
                channel.sendall(stdin)
                channel.shutdown_write()
            while not answer.answer:
                _drain_stderr(channel, stderr)
                channel.settimeout(deadline.step(self._what))
                try:
                    data = channel.recv(65536)
                except TimeoutError:
                    continue
                if not data:
                    break
                answer.feed(data)
            answer.end()
            status = None if answer.answer else _wait_status(channel, deadline, self._what)
            _drain_stderr(channel, stderr)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise UnavailableError(f"{self._what}: {_words(error)}{_said(stderr, answer)}") from error
        except UnavailableError as error:
            raise UnavailableError(f"{error}{_said(stderr, answer)}") from error
        finally:
            hang_up(channel)
        return Ran(answer.answer, answer.noise, stderr.decode(errors="replace"), status)

    def forward(self, local_port: int, deadline: Deadline) -> int:
        """As Connection.forward."""
        try:
            port = bounded(
                lambda: self._transport.request_port_forward("127.0.0.1", 0, self._arrived), deadline, f"{self._what}: reverse forward"
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise RefusedError(f"{self._what}: reverse forward: {_words(error)} (AllowTcpForwarding of the host's sshd)") from error
        self._forwards[port] = local_port
        return port

    def _arrived(self, channel: paramiko.Channel, origin: tuple[str, int], server: tuple[str, int]) -> None:
        local_port = self._forwards.get(server[1])
        if local_port is None:
            hang_up(channel)
            return
        start_pump(channel, local_port)

    def close(self) -> None:
        """As Connection.close."""
        self._transport.close()


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _said(stderr: bytearray, answer: AnswerReader) -> str:
    words = "; ".join(part for part in (stderr.decode(errors="replace").strip(), answer.noise.strip()) if part)
    return f"; it said: {words[:2000]}" if words else ""


def _drain_stderr(channel: paramiko.Channel, stderr: bytearray) -> None:
    while channel.recv_stderr_ready():
        data = channel.recv_stderr(65536)
        if not data:
            return
        if len(stderr) < _STDERR_LIMIT:
            stderr += data


def _wait_status(channel: paramiko.Channel, deadline: Deadline, what: str) -> int | None:
    patience = deadline.within(_PATIENCE)
    try:
        while not channel.status_event.wait(patience.step(what)):
            pass
    except UnavailableError:
        return None
    return channel.exit_status


def _dial(target: SshTarget, timeout: float, what: str) -> socket.socket:
    """A connected socket, by the first address that answers. Raises UnavailableError."""
    try:
        found = socket.getaddrinfo(target.hostname, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnavailableError(f"{what}: {_words(error)}") from error
    problems = []
    for family, kind, protocol, _, address in found:
        wire = socket.socket(family, kind, protocol)
        wire.settimeout(timeout)
        try:
            wire.connect(address)
        except OSError as error:
            wire.close()
            problems.append(f"{address[0]}: {_words(error) if error.strerror else f'no answer within {timeout:.0f} s'}")
            continue
        return wire
    raise UnavailableError(f"{what}: {'; '.join(problems)}")


def _keep_alive(wire: socket.socket, seconds: float) -> None:
    # paramiko sends keepalives and never looks for their answers: it is the kernel that notices a dead peer.
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 3000))


def _shake_hands(transport: paramiko.Transport, target: SshTarget, place: str, what: str, deadline: Deadline) -> None:
    """Key exchange, and the host's key against known_hosts. Raises RefusedError for a key that is not known to be the host's."""
    entries = read_known_hosts(target.known_hosts)
    security = transport.get_security_options()
    wanted: list[str] = []
    for kind in key_kinds(entries, target.known_name):
        wanted += _RSA_SIGNATURES if kind == "ssh-rsa" else (kind,)
    first = [kind for kind in wanted if kind in security.key_types]
    security.key_types = tuple(first + [kind for kind in security.key_types if kind not in first])
    transport.banner_timeout = deadline.remaining(what)
    try:
        transport.start_client(timeout=deadline.remaining(what))
        deadline.remaining(what)
        key = transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise UnavailableError(f"{what}: {_words(error)}") from error
    verdict, entry = judge(entries, target.known_name, key.asbytes())
    if verdict is Verdict.KNOWN:
        return
    kind, seen = key.get_name(), fingerprint(key.asbytes())
    if verdict is Verdict.REVOKED and entry is not None:
        raise RefusedError(f"{place}: {target.known_name} shows a {kind} key that is revoked by {entry.file} line {entry.line} ({seen})")
    file = target.known_hosts[0] if target.known_hosts else os.path.expanduser("~/.ssh/known_hosts")
    add = f"echo '{target.known_name} {kind} {key.get_base64()}' >> {file}"
    if verdict is Verdict.CHANGED and entry is not None:
        raise RefusedError(
            f"{place}: HOST KEY CHANGED: {target.known_name} shows a {kind} key {seen}, but {entry.file} line {entry.line} has another. "
            "Somebody may be in between. If the host's owner confirms the new key: "
            f"ssh-keygen -R '{target.known_name}' -f {entry.file} && {add}"
        )
    if has_authority(entries, target.known_name):
        raise RefusedError(
            f"{place}: known_hosts trusts a certificate authority for {target.known_name}, which transport 'ssh' does not follow; "
            "set the host's transport to openssh in cluster.tab"
        )
    raise RefusedError(
        f"{place}: the host key of {target.known_name} is not in known_hosts (it shows {kind} {seen}). "
        f"If the host's owner confirms this fingerprint: {add}"
    )


def _log_in(transport: paramiko.Transport, target: SshTarget, place: str, deadline: Deadline) -> None:
    """Try the user's keys until one is taken. Raises RefusedError with what was tried, UnavailableError if the connection broke."""
    tried: list[str] = []
    what = f"{place}: login as {target.user}"
    words = "no key to try"
    for name, key in login_keys(target, tried):
        transport.auth_timeout = deadline.remaining(what)
        try:
            further = transport.auth_publickey(target.user, key)
        except paramiko.AuthenticationException as error:
            tried.append(name)
            words = _words(error)
            if not transport.is_active():
                break
            continue
        except (paramiko.SSHException, OSError, EOFError) as error:
            if not transport.is_active():
                if not tried:
                    raise UnavailableError(f"{what}: {_words(error)}") from error
                words = _words(error)
                break
            tried.append(f"{name}: {_words(error)}")
            continue
        if not further:
            return
        raise RefusedError(
            f"{what}: the host wants more than a key ({', '.join(further)}); set its transport to openssh in cluster.tab and keep a login open"
        )
    raise RefusedError(f"{what} refused: {words} (tried: {', '.join(tried) or 'nothing'}). Try yourself: {target.command}")
