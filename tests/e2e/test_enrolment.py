"""How users of real daemons get their keys registered: hq-server is olga's, the users are others, and their homes are open or closed to her."""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.kernel.keys import make_curve_pair, public_in_hex
from tests.support.hosts import Hosts
from tests.support.logins import LoginMachine, ServerSshd, line_with, typed
from tests.support.site import Site

USERS = ("alice", "bob", "carol")


@pytest.fixture(scope="module")
def login(install: Path, hosts: Hosts) -> Iterator[LoginMachine]:
    """A login machine from which hq-server's enrolment socket cannot be seen."""
    with Site(install, rows=["node2:2:ssh"], hosts=hosts, users=USERS) as site, LoginMachine(hosts, "node1", site) as made:
        yield made


@pytest.fixture(autouse=True)
def homes(hosts: Hosts) -> Iterator[None]:
    """What a test does to the modes of the homes is undone."""
    modes = {home: home.stat().st_mode & 0o7777 for home in (Path(pwd.getpwnam(user).pw_dir) for user in USERS)}
    yield
    for home, mode in modes.items():
        home.chmod(mode)


def home_of(user: str) -> Path:
    return Path(pwd.getpwnam(user).pw_dir)


def proof_of(site: Site, user: str) -> str:
    """How his user-server's key was proved; empty if none is registered."""
    rows = site.admin("lskeys", "--json").ok().json["rows"]
    return "".join(row["proof"] for row in rows if (row["user"], row["role"]) == (user, "user-server"))


@pytest.mark.parametrize(("user", "mode"), [("alice", 0o755), ("bob", 0o711)])
def test_a_file_in_an_open_home_proves_the_key_to_another_account(login: LoginMachine, user: str, mode: int) -> None:
    home_of(user).chmod(mode)
    login.run(user, "hq-submit", "--wait", "true").ok()
    assert proof_of(login.site, user).startswith("nonce file")
    assert not list(home_of(user).glob(".hq-enrol-*"))
    assert (home_of(user) / ".hq").stat().st_mode & 0o777 == 0o700


def test_a_closed_home_is_refused_with_advice_and_a_token_works_once(login: LoginMachine) -> None:
    home_of("carol").chmod(0o700)
    refused = login.run("carol", "hq-submit", "--wait", "true")
    assert refused.rc == 1
    assert f"{home_of('carol')} is closed to the account of hq-server (olga), so no file in it can prove the key" in refused.err
    assert "hq-admin adduser carol" in refused.err
    word = line_with(refused.err, "hq-client enrol --token").split()
    wrong = login.run("carol", *word[:-1], "guessed")
    assert (wrong.rc, "the token is not good" in wrong.err, proof_of(login.site, "carol")) == (1, True, "")
    token = login.site.admin("adduser", "carol").ok().out.split()[-1]
    assert login.run("carol", *word[:-1], token).ok().out == "hq-server knows your key\n"
    assert proof_of(login.site, "carol") == "token"
    login.run("carol", "hq-submit", "--wait", "true").ok()
    assert token not in "".join(path.read_text() for path in (home_of("carol") / ".hq").rglob("token"))


def test_the_command_that_is_advised_proves_the_key_over_ssh(login: LoginMachine, hosts: Hosts) -> None:
    home_of("alice").chmod(0o700)
    private = {"HQ_HOME": str(login.folder / "alice" / "elsewhere")}
    login.run("alice", "hq-client", "shutdown")
    refused = login.run("alice", "hq-submit", "--wait", "true", env=private)
    assert refused.rc == 1
    before = len(login.site.admin("lskeys").ok().out.splitlines())
    with ServerSshd(hosts):
        done = login.run("alice", *typed(line_with(refused.err, f"ssh {hosts.gateway}")))
    assert done.ok().out == "the key is registered for alice\n"
    assert "peercred" in proof_of(login.site, "alice")
    assert len(login.site.admin("lskeys").ok().out.splitlines()) == before + 1
    login.run("alice", "hq-submit", "--wait", "true", env=private).ok()


def test_over_ssh_a_key_is_his_who_logged_in_and_hers_stays_hers(login: LoginMachine, hosts: Hosts) -> None:
    home_of("alice").chmod(0o755)
    login.run("alice", "hq-submit", "--wait", "true").ok()
    keys = login.site.admin("lskeys", "--json").ok().json["rows"]
    hers = next(row["key"] for row in keys if (row["user"], row["role"]) == ("alice", "user-server"))
    fresh = make_curve_pair()[0]
    with ServerSshd(hosts):
        command = ["ssh", hosts.gateway, str(login.site.bin / "hq-client"), "enrol", "--etc", str(login.site.etc), "--public"]
        taken = login.run("bob", *command, public_in_hex(hers))
        own = login.run("bob", *command, public_in_hex(fresh))
        wrong = login.run("bob", *command, "abc")
    assert (taken.rc, "registered already, for another user" in taken.err) == (1, True), taken
    assert own.ok().out == "the key is registered for bob\n"
    assert (wrong.rc, "64 hexadecimal digits" in wrong.err) == (2, True), wrong
    owners = {row["key"]: row["user"] for row in login.site.admin("lskeys", "--json").ok().json["rows"]}
    assert (owners[hers], owners[fresh]) == ("alice", "bob")
