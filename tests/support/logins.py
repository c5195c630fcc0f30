"""Login machines: test hosts on which users type hq's commands, while hq-server runs on this machine, out of sight but for its port.

The file system is one over all test hosts, as over NFS; what is local to a real machine is made so: /var/tmp of hq, and the
`client.yaml` that knows hq-server by its address and has no enrolment socket. Also an sshd on hq-server's own machine.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.hosts import Hosts
from tests.support.proc import Result, end_process
from tests.support.site import Site
from tests.support.users import login_environment, setpriv_argv
from tests.support.wait import until


class LoginMachine:
    """One of the test hosts, as a login machine of a site. A context manager; what users started there is ended after."""

    def __init__(self, hosts: Hosts, name: str, site: Site) -> None:
        self.hosts = hosts
        self.name = name
        self.site = site
        self._mounts: list[str] = []

    def __enter__(self) -> LoginMachine:
        folder = self.folder
        folder.mkdir()
        lines = (self.site.etc / "client.yaml").read_text().splitlines()
        told = {"server": f"tcp://{self.hosts.gateway}:{next(line for line in lines if line.startswith('server:')).rpartition(':')[2]}",
                "enrol_socket": "/nowhere/enrol.sock"}  # fmt: skip
        text = "".join(f"{line.partition(':')[0]}: {told[line.partition(':')[0]]}\n" if line.partition(":")[0] in told else f"{line}\n" for line in lines)
        (folder / "client.yaml").write_text(text)
        for user in self.site.users:
            uid = pwd.getpwnam(user).pw_uid
            for path in (folder / user, Path(f"/var/tmp/hq-{uid}")):
                path.mkdir(mode=0o700, exist_ok=True)
                os.chown(path, uid, -1)
        self.mount()
        return self

    def mount(self) -> None:
        """Put in place what is this machine's own; a reboot takes it away."""
        self._mounts.clear()
        self.put(self.folder / "client.yaml", self.site.etc / "client.yaml")
        for user in self.site.users:
            self.put(self.folder / user, Path(f"/var/tmp/hq-{pwd.getpwnam(user).pw_uid}"))

    def reboot(self) -> None:
        """Every process of the machine is gone at once, and its sshd comes up again."""
        self.hosts.kill(self.name)
        self.hosts.start(self.name)
        self.mount()

    @property
    def folder(self) -> Path:
        """What is on this machine's own disks."""
        return self.site.folder / f"login-{self.name}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for user in self.site.users:
            if self.has_user_server(user):
                self.run(user, "hq-client", "shutdown", "--hosts", timeout=30)
        for place in reversed(self._mounts):
            self.hosts.exec(self.name, ["umount", "-l", place])
        shutil.rmtree(self.folder, ignore_errors=True)

    def argv(self, user: str, *words: str) -> list[str]:
        """What runs a command of hq, or another, on this machine as a user."""
        command = str(self.site.bin / words[0]) if words[0].startswith("hq-") else words[0]
        return [*self.hosts.nsenter_argv(self.name), *setpriv_argv(user), command, *words[1:]]

    def environment(self, user: str, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """His environment after the login."""
        return login_environment(user, self.site.bin, {"HQ_ETC": str(self.site.etc), **(env or {})})

    def run(self, user: str, *words: str, env: Mapping[str, str] | None = None, timeout: float = 60) -> Result:
        """Run a command there to its end."""
        argv = self.argv(user, *words)
        done = subprocess.run(argv, env=self.environment(user, env), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        return Result(tuple(argv), done.returncode, done.stdout.decode(), done.stderr.decode())

    def has_user_server(self, user: str) -> bool:
        """Whether a user-server of his listens on this machine."""
        path = self.folder / user / self.site.instance / "client.sock"
        with socket.socket(socket.AF_UNIX) as probe:
            return path.exists() and probe.connect_ex(str(path)) == 0

    def put(self, source: Path, target: Path) -> None:
        """Let `target` be `source` on this machine."""
        done = self.hosts.exec(self.name, ["mount", "--bind", str(source), str(target)])
        assert done.returncode == 0, done.stderr
        self._mounts.append(str(target))


class ServerSshd:
    """An sshd on hq-server's machine, at the address by which login machines know it; their users' ssh knows its key. A context manager."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._folder = hosts.directory / "gateway"
        self._blocks: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServerSshd:
        self._folder.mkdir()
        key = self._folder / "hostkey"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        gateway = self._hosts.gateway
        with socket.create_server((gateway, 0)) as probe:
            port = probe.getsockname()[1]
        (self._folder / "sshd_config").write_text(
            f"ListenAddress {gateway}:{port}\nHostKey {key}\nPidFile none\nUsePAM no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nUseDNS no\nAllowUsers {' '.join(self._hosts.users)}\n"
        )
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", str(self._folder / "sshd_config")], stdin=subprocess.DEVNULL,
                                             stdout=log, stderr=log, start_new_session=True)  # fmt: skip
        until(lambda: _listens(gateway, port), 60, f"sshd at {gateway}:{port}; see {self._folder}/log")
        known = f"[{gateway}]:{port} {' '.join(key.with_suffix('.pub').read_text().split()[:2])}\n"
        for user in self._hosts.users:
            entry = pwd.getpwnam(user)
            for name, text in (("known", known), ("conf", f"Host {gateway}\n  Port {port}\n  UserKnownHostsFile ~/.ssh/hq-{self._hosts.tag}-gw.known\n")):
                path = Path(entry.pw_dir) / ".ssh" / f"hq-{self._hosts.tag}-gw.{name}"
                self._blocks.append(path)
                path.write_text(text)
                os.chown(path, entry.pw_uid, entry.pw_gid)
                path.chmod(0o600)
        return self

    def __exit__(self, *_: object) -> None:
        for path in self._blocks:
            path.unlink(missing_ok=True)
        if self._process is not None:
            end_process(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


def typed(line: str) -> list[str]:
    """A command line that was printed for a user, as his shell runs it."""
    return ["/bin/sh", "-c", line]


def line_with(text: str, words: str) -> str:
    """The command line, beginning with `words`, that a message names on a line of its own."""
    (found,) = [line[line.index(words) :] for line in text.splitlines() if words in line]
    return found


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True
