"""Ways of logging in that sites have: keys with a passphrase, certificates, jump hosts, an sshd that forwards nothing. Each works or says why not."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hq.model.host import HostSpec
from tests.support.driver import SUPPORT, Driver
from tests.support.hosts import Hosts
from tests.support.proc import is_running
from tests.support.site import Site
from tests.support.users import run_as
from tests.support.wait import until

KINDS = pytest.mark.parametrize("kind", ["ssh", "openssh"])
PASSPHRASE = "a secret of hers"


@pytest.fixture(scope="module")
def alice(hosts: Hosts) -> Driver:
    """Calls transports as alice; the hosts run a stand-in of an exec-server."""
    stand_in = hosts.directory / "stand_in"
    shutil.copy(SUPPORT / "stand_in.py", stand_in)
    stand_in.chmod(0o755)
    return Driver(hosts)


@dataclass
class Keys:
    """A key of alice that no host knows, and an ssh configuration that names it alone for the address `here`."""

    alice: Driver
    folder: Path
    here: str

    @property
    def key(self) -> Path:
        """The private key's file."""
        return self.folder / "key"

    def run(self, *words: str, env: dict[str, str] | None = None) -> str:
        """A command as alice; what it printed."""
        done = run_as("alice", list(words), env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def make(self, passphrase: str = "") -> None:
        """Make the key."""
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(self.key))

    def authorize(self) -> None:
        """Let the hosts take the plain key."""
        with (self.alice.home / ".ssh" / "authorized_keys").open("a") as file:
            file.write(self.key.with_suffix(".pub").read_text())

    def configure(self, host: str, *lines: str) -> HostSpec:
        """Write the configuration for a host; the row of cluster.tab."""
        address, tag = self.alice.hosts.address(host), self.alice.hosts.tag
        block = self.alice.home / ".ssh" / f"hq-{tag}-login.conf"
        block.write_text(
            f"Host {self.here}\n HostName {address}\n UserKnownHostsFile {self.alice.home}/.ssh/hq-{tag}.known\n IdentityFile {self.key}\n"
            + "".join(f" {line}\n" for line in lines)
        )
        os.chown(block, pwd.getpwnam("alice").pw_uid, pwd.getpwnam("alice").pw_gid)
        return HostSpec(name=host, address=self.here, total=1, slots=1)

    def add_to_agent(self, socket_path: Path) -> None:
        """Give the key to an agent; she types the passphrase."""
        ask = self.folder / "ask"
        ask.write_text(f"#!/bin/sh\necho '{PASSPHRASE}'\n")
        ask.chmod(0o755)
        env = {"SSH_AUTH_SOCK": str(socket_path), "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
        self.run("ssh-add", "-q", str(self.key), env=env)


@pytest.fixture
def keys(alice: Driver) -> Iterator[Keys]:
    ssh = alice.home / ".ssh"
    folder = Path(f"/var/tmp/hq-login-{alice.hosts.tag}")
    folder.mkdir(mode=0o700)
    os.chown(folder, pwd.getpwnam("alice").pw_uid, pwd.getpwnam("alice").pw_gid)
    authorized = (ssh / "authorized_keys").read_text()
    yield Keys(alice, folder, f"login.{alice.hosts.tag}")
    (ssh / "authorized_keys").write_text(authorized)
    (ssh / f"hq-{alice.hosts.tag}-login.conf").unlink(missing_ok=True)
    shutil.rmtree(folder)
    alice.env = {}


@pytest.fixture
def agent(keys: Keys) -> Iterator[Path]:
    """The socket of an agent of hers."""
    path = keys.folder / "agent"
    pid = int(keys.run("ssh-agent", "-a", str(path)).split("SSH_AGENT_PID=")[1].split(";")[0])
    yield path
    os.kill(pid, 15)
    # it takes the socket away when it ends, and the next one would have its own there
    until(lambda: not is_running(pid), what="the agent to end")


def of_kind(spec: HostSpec, kind: str) -> HostSpec:
    return HostSpec(name=spec.name, address=spec.address, total=1, slots=1, transport=kind)


@KINDS
@pytest.mark.parametrize("extra", [(), ("IdentitiesOnly yes",)], ids=["", "IdentitiesOnly"])
def test_a_key_with_a_passphrase_works_once_it_is_in_the_agent(keys: Keys, agent: Path, kind: str, extra: tuple[str, ...]) -> None:
    keys.make(PASSPHRASE)
    keys.authorize()
    spec = of_kind(keys.configure("node1", "IdentitiesOnly yes"), kind)
    value, error, text, _ = keys.alice.one("start", spec)
    assert (value, error) == (None, "RefusedError")
    assert (f"{keys.key}: has a passphrase: ssh-add {keys.key}" if kind == "ssh" else "Permission denied (publickey)") in text
    assert f"Try yourself: ssh {keys.here}" in text
    keys.add_to_agent(agent)
    keys.configure("node1", *extra)
    keys.alice.env = {"SSH_AUTH_SOCK": str(agent)}
    value, error, text, _ = keys.alice.one("start", spec)
    assert value is not None, text


@pytest.fixture
def certified(keys: Keys, hosts: Hosts) -> Iterator[Callable[..., None]]:
    """node1 trusts an authority, and the plain key is worth nothing there; what it gives signs the key."""
    authority = hosts.directory / "authority"
    assert run_as("root", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(authority)]).returncode == 0

    def sign(validity: str = "+1h", principal: str = "alice") -> None:
        done = run_as("root", ["ssh-keygen", "-q", "-s", str(authority), "-I", "her", "-n", principal, "-V", validity, str(keys.key) + ".pub"])
        assert done.returncode == 0, done.stderr
        os.chown(f"{keys.key}-cert.pub", pwd.getpwnam("alice").pw_uid, -1)

    with hosts.sshd_says("node1", f"TrustedUserCAKeys {authority}.pub"):
        yield sign
    for path in (authority, authority.with_suffix(".pub")):
        path.unlink()


@KINDS
@pytest.mark.parametrize("where", ["beside the key", "CertificateFile", "agent", "key in the agent"])
def test_a_certificate_is_shown_wherever_it_is(keys: Keys, agent: Path, certified: Callable[..., None], kind: str, where: str) -> None:
    keys.make(PASSPHRASE if "agent" in where else "")
    certified()
    # ssh takes a certificate from the agent for what it is: no identity of the configuration
    lines = [] if where == "agent" else ["IdentitiesOnly yes"]
    beside = Path(f"{keys.key}-cert.pub")
    if where == "CertificateFile":
        beside.rename(keys.folder / "my-certificate")
        lines.append(f"CertificateFile {keys.folder / 'my-certificate'}")
    elif where == "agent":
        # ssh-add takes the certificate along, and then it is away
        keys.add_to_agent(agent)
        beside.unlink()
    elif where == "key in the agent":
        beside.rename(keys.folder / "away")
        keys.add_to_agent(agent)
        (keys.folder / "away").rename(beside)
    if "agent" in where:
        keys.alice.env = {"SSH_AUTH_SOCK": str(agent)}
    value, _, text, _ = keys.alice.one("start", of_kind(keys.configure("node1", *lines), kind))
    assert value is not None, text


@KINDS
def test_a_certificate_that_has_run_out_is_refused_and_does_not_spoil_its_key(keys: Keys, certified: Callable[..., None], kind: str) -> None:
    keys.make()
    certified("-2h:-1h")
    spec = of_kind(keys.configure("node1", "IdentitiesOnly yes"), kind)
    value, error, text, _ = keys.alice.one("start", spec)
    assert (value, error) == (None, "RefusedError")
    assert ("key-cert.pub" if kind == "ssh" else "Permission denied (publickey)") in text
    keys.authorize()
    value, _, text, _ = keys.alice.one("start", spec)
    assert value is not None, text


def test_a_host_known_by_an_authority_only_is_for_openssh(keys: Keys, hosts: Hosts) -> None:
    known = keys.folder / "known"
    _, kind, key = hosts.known_hosts_line("node1").split()
    known.write_text(f"@cert-authority * {kind} {key}\n")
    known.chmod(0o644)
    spec = keys.configure("node1", "StrictHostKeyChecking yes")
    block = keys.alice.home / ".ssh" / f"hq-{hosts.tag}-login.conf"
    block.write_text(block.read_text().replace(f"{keys.alice.home}/.ssh/hq-{hosts.tag}.known", str(known)))
    value, error, text, _ = keys.alice.one("start", of_kind(spec, "ssh"))
    assert (value, error) == (None, "RefusedError")
    assert "certificate authority" in text and "transport to openssh" in text


def test_a_jump_host_is_passed_by_openssh_and_the_way_back_goes_over_it(keys: Keys, hosts: Hosts) -> None:
    """far answers nobody but node1, as behind a firewall."""
    spec = of_kind(keys.configure("far", f"ProxyJump {hosts.address('node1')}", f"IdentityFile {keys.alice.home}/.ssh/id_ed25519"), "openssh")
    wall = ["/usr/sbin/iptables", "-I", "INPUT", "!", "-s", hosts.address("node1"), "-p", "tcp", "--dport", "22", "-j", "DROP"]
    assert hosts.exec("far", wall).returncode == 0
    try:
        assert keys.alice.one("start", hosts.spec("far", transport="openssh"), settings={"connect_timeout": 3.0})[1] == "UnavailableError"
        told = keys.alice(("check", spec), ("start", spec), way_back=True, meet=1, wait=20)
    finally:
        hosts.exec("far", ["-D" if word == "-I" else word for word in wall])
    checked, started = told["outcomes"]
    assert checked["value"][0][:2] == ["login", True], told
    assert started["error"] is None, told
    assert started["value"]["machine"]["environ"]["SSH_CLIENT"].split()[0] == hosts.address("node1")
    assert list(told["met"].values()) == [True]


@KINDS
@pytest.mark.parametrize("word", ["AllowTcpForwarding no", "DisableForwarding yes", "PermitListen none"])
def test_an_sshd_that_forwards_nothing_is_no_hindrance_where_there_is_another_way(alice: Driver, hosts: Hosts, kind: str, word: str) -> None:
    with hosts.sshd_says("node1", word):
        told = alice(("start", hosts.spec("node1", transport=kind)), way_back=True, meet=1, wait=20, listen="0.0.0.0",
                     upstreams=[f"tcp://{hosts.gateway}:{{port}}"])  # fmt: skip
    (outcome,) = told["outcomes"]
    assert outcome["error"] is None, told
    assert list(told["met"].values()) == [True]
    assert outcome["value"]["forwarded_port"] is None
    assert "no reverse forward" in outcome["value"]["note"] and "AllowTcpForwarding" in outcome["value"]["note"]


@pytest.fixture(scope="module")
def far_site(install: Path, hosts: Hosts) -> Iterator[Site]:
    with Site(install, rows=["far:2:ssh"], hosts=hosts, users=("alice",)) as site:
        yield site


def test_where_no_way_leads_back_the_user_is_told_which_were_tried(far_site: Site, hosts: Hosts) -> None:
    denied = "no reverse forward: host far: ssh to"
    with hosts.sshd_says("far", "AllowTcpForwarding no"):
        job = far_site.submit("alice", "true")
        proof = far_site.client("alice", "checkhost", "far")
        assert proof.rc == 1
        (step,) = [line for line in proof.out.splitlines() if "way back" in line]
        assert step.startswith("FAIL") and f"tcp://{hosts.gateway}:" in step and "timed out" in step and denied in step
        said = until(lambda: denied in (done := far_site.client("alice", "why", job)).out and done.out, 90, "the reason")
        assert "AllowTcpForwarding of the host's sshd" in said
        far_site.client("alice", "cancel", job).ok()
