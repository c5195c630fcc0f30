"""The user's ssh configuration as paramiko's transport reads it."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from hq.errors import RefusedError
from hq.model.host import HostSpec
from hq.userserver.transports.ssh_config import SshTarget, read_target


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ~/.ssh of a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path / ".ssh"


def target(address: str) -> SshTarget:
    return read_target(HostSpec(name="h", address=address, total=1, slots=1))


def test_without_configuration_there_are_defaults(ssh: Path) -> None:
    found = target("node1.example")
    assert (found.hostname, found.port, found.user, found.known_name) == ("node1.example", 22, getpass.getuser(), "node1.example")
    assert found.identities == tuple(str(ssh / name) for name in ("id_rsa", "id_ecdsa", "id_ed25519"))
    assert found.known_hosts[0] == str(ssh / "known_hosts")
    assert not found.has_own_identities


def test_a_host_block_is_followed(ssh: Path) -> None:
    (ssh / "config").write_text(
        "Host n*\n HostName real.example\n Port 2222\n User carol\n IdentityFile ~/.ssh/special\n IdentitiesOnly yes\n"
        " ConnectTimeout 7\n UserKnownHostsFile ~/.ssh/known_a ~/.ssh/known_b\n"
    )
    found = target("node1")
    assert (found.hostname, found.port, found.user) == ("real.example", 2222, "carol")
    assert found.known_name == "[real.example]:2222"
    assert found.identities == (str(ssh / "special"),)
    assert found.identities_only and found.connect_timeout == 7
    assert found.known_hosts[:2] == (str(ssh / "known_a"), str(ssh / "known_b"))


def test_a_user_in_the_address_wins(ssh: Path) -> None:
    (ssh / "config").write_text("Host *\n User carol\n")
    assert target("dave@node1").user == "dave"


def test_a_host_key_alias_is_the_known_name(ssh: Path) -> None:
    (ssh / "config").write_text("Host node1\n HostKeyAlias cluster\n Port 2200\n")
    assert target("node1").known_name == "cluster"


def test_includes_are_followed_and_do_not_leak(ssh: Path) -> None:
    (ssh / "config").write_text("Include conf.d/*.conf\nUser everybody\n")
    (ssh / "conf.d").mkdir()
    (ssh / "conf.d" / "a.conf").write_text("Host node1\n Port 2201\n")
    assert (target("node1").port, target("node1").user) == (2201, "everybody")
    assert (target("node2").port, target("node2").user) == (22, "everybody")


def test_an_include_of_blocks_inside_a_block_is_refused(ssh: Path) -> None:
    (ssh / "config").write_text("Host node1\n Include inner\n")
    (ssh / "inner").write_text("Host other\n Port 1\n")
    with pytest.raises(RefusedError, match="openssh"):
        target("node1")


@pytest.mark.parametrize(
    ("line", "socket"),
    [("", "/run/mine"), ("IdentityAgent none", None), ("IdentityAgent SSH_AUTH_SOCK", "/run/mine"), ("IdentityAgent /run/other", "/run/other"),
     ("IdentityAgent $OTHER", "/run/variable"), ("IdentityAgent ~/agent", "HOME/agent")],
)  # fmt: skip
def test_the_agent_that_is_named_is_asked(ssh: Path, monkeypatch: pytest.MonkeyPatch, line: str, socket: str | None) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/mine")
    monkeypatch.setenv("OTHER", "/run/variable")
    (ssh / "config").write_text(f"{line}\n")
    assert target("node1").agent == (socket and socket.replace("HOME", str(ssh.parent)))


def test_an_include_of_itself_ends(ssh: Path) -> None:
    (ssh / "config").write_text("Include config\n")
    with pytest.raises(RefusedError, match="deeper"):
        target("node1")


@pytest.mark.parametrize("line", ["ProxyJump bastion", "ProxyCommand nc %h %p", "proxycommand = ssh -W %h:%p b"])
def test_a_proxy_is_refused_with_a_pointer(ssh: Path, line: str) -> None:
    (ssh / "config").write_text(f"Host node1\n {line}\n")
    with pytest.raises(RefusedError, match="transport to openssh"):
        target("node1")


def test_no_proxy_is_no_proxy(ssh: Path) -> None:
    (ssh / "config").write_text("Host node1\n ProxyJump none\nHost *\n ProxyJump bastion\n")
    assert target("node1").hostname == "node1"


@pytest.mark.parametrize("address", ["", "-oProxyCommand=touch", "a@", "@b"])
def test_what_is_no_address_is_refused(ssh: Path, address: str) -> None:
    with pytest.raises(RefusedError, match="cluster.tab"):
        target(address)


def test_a_port_that_is_no_number_is_refused(ssh: Path) -> None:
    (ssh / "config").write_text("Port ssh\n")
    with pytest.raises(RefusedError, match="port"):
        target("node1")
