"""Test hosts on this machine: each a network, UTS, PID and mount namespace with its own address, host name and sshd.

All share this machine's file system, so homes are shared as over NFS. Several testbeds may run at once: every name carries the
process id, every testbed takes an own /24. Whatever a killed run left is removed by the next one. Needs root.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from hq.model.host import HostSpec
from tests.support.lease import ROOT, Lease, locked, stale_leases, take_lease
from tests.support.users import Users, login_environment, setpriv_argv
from tests.support.wait import until

NETWORKS = [f"10.199.{third}" for third in range(1, 255)]
_INCLUDE = "Include hq-*.conf\n"
TOOLS = ("ip", "iptables", "nsenter", "unshare", "setpriv", "ssh", "ssh-keygen", "/usr/sbin/sshd")


def missing_for_hosts() -> str:
    """Why test hosts cannot be made here, in words; empty if they can."""
    if os.geteuid() != 0:
        return "test hosts (network namespaces) need root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass(slots=True)
class _Host:
    """One host: names of its namespace and link, address, directory, and the process that holds it."""

    name: str
    namespace: str
    link: str
    address: str
    directory: Path
    holder: subprocess.Popen[bytes] | None = None


class Hosts:
    """Test hosts as a context manager.

    `no_way_back`: hosts that are reached by ssh and whose own connections to other machines get no answer at all.
    `gateway` is this machine's address as the hosts see it. `tag` is unique to the testbed.
    """

    def __init__(self, *names: str, users: Sequence[str] = ("alice", "bob"), no_way_back: Sequence[str] = ()) -> None:
        assert set(no_way_back) <= set(names)
        self.names = names
        self.users = tuple(users)
        self._no_way_back = frozenset(no_way_back)
        self._hosts: dict[str, _Host] = {}
        self._lease: Lease | None = None
        self._users = Users(users)
        self.tag = ""
        self.directory = Path()
        self.gateway = ""

    def __enter__(self) -> Hosts:
        reason = missing_for_hosts()
        assert not reason, reason
        remove_stale()
        self._lease = lease = take_lease("hosts")
        self.tag = f"{os.getpid()}x{lease.name.rsplit('-', 1)[1]}"
        self.directory = ROOT / self.tag
        lease.record(f"directory {self.directory}")
        try:
            self._users.__enter__()
            self.directory.mkdir(mode=0o755)
            self._make_network(lease)
            for name in self.names:
                self.start(name)
            self._tell_users(lease)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts.values():
            _power_off(host)
        if self._lease is not None:
            _undo(self._lease)
            self._lease = None
        self._hosts.clear()
        self._users.__exit__()

    def _make_network(self, lease: Lease) -> None:
        bridge = f"hqb{self.tag}"
        lease.record(f"link {bridge}")
        _ip("link", "add", bridge, "type", "bridge")
        with locked("networks"):
            network = next(net for net in NETWORKS if net not in _networks_in_use())
            self.gateway = f"{network}.1"
            _ip("addr", "add", f"{self.gateway}/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for number, name in enumerate(self.names):
            host = _Host(name, f"hq{self.tag}-{name}", f"hv{self.tag}{number}", f"{network}.{11 + number}", self.directory / name)
            host.directory.mkdir()
            self._hosts[name] = host
            lease.record(f"namespace {host.namespace}")
            _ip("netns", "add", host.namespace)
            lease.record(f"link {host.link}")
            _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
            _ip("link", "set", host.link, "master", bridge, "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            _ip("-n", host.namespace, "link", "set", "eth0", "up")
            _ip("-n", host.namespace, "link", "set", "lo", "up")
            if name in self._no_way_back:
                # Only what opens a connection is dropped: answers of its sshd go out.
                rule = ["OUTPUT", "!", "-o", "lo", "-p", "tcp", "--syn", "-j", "DROP"]
                _call("ip", "netns", "exec", host.namespace, "iptables", "-A", *rule)
            self._configure(host)
        lines = ["127.0.0.1 localhost", f"{self.gateway} gateway", *(f"{h.address} {h.name}" for h in self._hosts.values())]
        (self.directory / "hosts").write_text("\n".join(lines) + "\n")

    def _configure(self, host: _Host) -> None:
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", host.name, "-f", str(host.directory / "hostkey"))
        (host.directory / "sshd_config").write_text(
            f"ListenAddress {host.address}:22\nHostKey {host.directory}/hostkey\nPidFile none\nUsePAM no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPrintMotd no\nUseDNS no\n"
            f"AllowUsers {' '.join(self.users)}\nSubsystem sftp internal-sftp\nMaxStartups 100\nMaxSessions 100\n"
        )

    def _tell_users(self, lease: Lease) -> None:
        """Give each user the host keys and a block of ssh configuration, for these addresses only."""
        with locked("users"):
            for user in self.users:
                entry = pwd.getpwnam(user)
                ssh = Path(entry.pw_dir) / ".ssh"
                known, block, config = ssh / f"hq-{self.tag}.known", ssh / f"hq-{self.tag}.conf", ssh / "config"
                lease.record(f"include {config}")
                for path in (known, block):
                    lease.record(f"file {path}")
                known.write_text("".join(self.known_hosts_line(name) for name in self.names))
                block.write_text(
                    "".join(f"Host {h.name}.{self.tag}\n  HostName {h.address}\n" for h in self._hosts.values())
                    + f"Host {' '.join(f'{h.address} {h.name}.{self.tag}' for h in self._hosts.values())}\n"
                    + f"  UserKnownHostsFile {known}\n  ConnectTimeout 3\n"
                )
                text = config.read_text() if config.exists() else ""
                if _INCLUDE not in text:
                    config.write_text(_INCLUDE + text)
                for path in (known, block, config):
                    os.chown(path, entry.pw_uid, entry.pw_gid)
                    path.chmod(0o600)

    def known_hosts_line(self, name: str) -> str:
        """The host's line of known_hosts."""
        kind, key = (self._hosts[name].directory / "hostkey.pub").read_text().split()[:2]
        return f"{self._hosts[name].address} {kind} {key}\n"

    def address(self, name: str) -> str:
        """The host's address; what stands in cluster.tab."""
        return self._hosts[name].address

    def spec(self, name: str, slots: int = 2, transport: str = "ssh") -> HostSpec:
        """The host as a row of cluster.tab."""
        return HostSpec(name=name, address=self.address(name), total=slots, slots=slots, transport=transport)

    def start(self, name: str) -> None:
        """Power on: returns when its sshd answers."""
        host = self._hosts[name]
        assert host.holder is None or host.holder.poll() is not None, f"{name} runs"
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (host.directory / "sshd.log").open("ab") as log:
            host.holder = subprocess.Popen(
                # With us dies the holder, and with the holder all that is in the PID namespace.
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", host.namespace]
                + ["unshare", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "bash"]
                + [str(Path(__file__).with_name("hosts.sh")), name, str(self.directory / "hosts"), str(host.directory / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self._is_up(host), 60, f"sshd of {name}; see {host.directory}/sshd.log")

    @staticmethod
    def _is_up(host: _Host) -> bool:
        """Whether its sshd greets: one that only listens is not yet ready for signals. Asked on the host itself, whose cable may be out."""
        assert host.holder is not None and host.holder.poll() is None, (host.directory / "sshd.log").read_text()
        ask = ["timeout", "5", "bash", "-c", 'exec 3<>"/dev/tcp/$0/22" && head -c 4 <&3', host.address]
        done = subprocess.run(["ip", "netns", "exec", host.namespace, *ask], capture_output=True, check=False)
        return done.stdout == b"SSH-"

    @contextmanager
    def sshd_says(self, name: str, *lines: str) -> Iterator[None]:
        """For a while the host's sshd has these lines first in its configuration; the first word on an option counts."""
        path = self._hosts[name].directory / "sshd_config"
        text = path.read_text()
        try:
            self._read_again(name, "".join(f"{line}\n" for line in lines) + text)
            yield
        finally:
            self._read_again(name, text)

    def _read_again(self, name: str, text: str) -> None:
        host = self._hosts[name]
        assert host.holder is not None
        (host.directory / "sshd_config").write_text(text)
        log = host.directory / "sshd.log"
        before = log.read_text().count("Server listening on")
        os.kill(_first_process(host.holder.pid), signal.SIGHUP)
        until(lambda: log.read_text().count("Server listening on") > before and self._is_up(host), 60, f"sshd of {name} to read its configuration again; see {log}")

    def cut(self, name: str) -> None:
        """Pull the network cable: packets vanish without a word."""
        _ip("link", "set", self._hosts[name].link, "down")

    def join(self, name: str) -> None:
        """Plug it in again."""
        _ip("link", "set", self._hosts[name].link, "up")

    def kill(self, name: str) -> None:
        """Power off: every process of the host is gone at once. (Its connections are reset; cut it first for a power loss.)"""
        _power_off(self._hosts[name])

    def exec(
        self, name: str, argv: Sequence[str], *, user: str | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the host, as root or as `user`, not over ssh."""
        words = [*self.nsenter_argv(name), *(setpriv_argv(user) if user else []), *argv]
        environment = {**login_environment(user or "root"), **(env or {})}
        return subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)

    def nsenter_argv(self, name: str) -> list[str]:
        """The words before a command that make it run on the host."""
        host = self._hosts[name]
        assert host.holder is not None and host.holder.poll() is None, f"{name} does not run"
        return ["nsenter", "-t", str(_first_process(host.holder.pid)), "-n", "-u", "-p", "-m", "--"]

    def pids(self, name: str) -> list[int]:
        """Processes of the host, by their ids on this machine."""
        done = subprocess.run(["ip", "netns", "pids", self._hosts[name].namespace], capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]


def remove_stale() -> None:
    """Remove what testbeds left whose process was killed."""
    for lease in stale_leases("hosts"):
        _undo(lease)


def _undo(lease: Lease) -> None:
    for line in reversed(lease.lines()):
        what, _, name = line.partition(" ")
        match what:
            case "namespace":
                for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split():
                    with suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGKILL)
                subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
            case "link":
                subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)
            case "file":
                Path(name).unlink(missing_ok=True)
            case "include":
                _take_back_include(Path(name))
            case "directory":
                shutil.rmtree(name, ignore_errors=True)
    lease.end()


def _take_back_include(config: Path) -> None:
    with locked("users"):
        # Another testbed may still need the line; files are undone before this, so what is left is another's.
        if config.exists() and not list(config.parent.glob("hq-*.conf")):
            config.write_text(config.read_text().replace(_INCLUDE, "", 1))


def _power_off(host: _Host) -> None:
    holder, host.holder = host.holder, None
    if holder is None:
        return
    if holder.poll() is None:
        children = psutil.Process(holder.pid).children(recursive=True)
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(_first_process(holder.pid), signal.SIGKILL)
        holder.wait(60)
        psutil.wait_procs(children, 60)


def _first_process(holder: int) -> int:
    """PID 1 of the host, by its id here: the only child of unshare."""
    children = psutil.Process(holder).children()
    return children[0].pid if children else holder


def _networks_in_use() -> set[str]:
    told = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    return {info["local"].rpartition(".")[0] for link in told for info in link.get("addr_info", ()) if info.get("family") == "inet"}


def _ip(*words: str) -> None:
    _call("ip", *words)


def _call(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr or done.stdout}"


def _main() -> int:
    """`python -m tests.support.hosts NAME…`: hosts to play with until Enter is pressed."""
    with Hosts(*(sys.argv[1:] or ["hqa", "hqb"])) as hosts:
        for name in hosts.names:
            print(f"{name}: setpriv --reuid=alice --regid=alice --init-groups env HOME=/home/alice ssh {hosts.address(name)}")
        input("Enter ends them. ")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
