"""Keys are registered against proofs: the kernel's word on a Unix socket, a nonce in the user's own home, a token of the owner."""

from __future__ import annotations

import os
import pwd
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hq.errors import RefusedError
from hq.kernel.bus import Peer
from hq.kernel.proofs import nonce_file_text
from hq.model.user import Role
from hq.protocol.base import Message, Problem
from hq.protocol.codec import decode_line, encode_line
from hq.protocol.peers import KeyChallenged, KeyEnrol, KeyEnrolled, PeerAsk
from hq.server import enrolment
from hq.server.enrolsocket import EnrolSocket
from tests.support.serverroom import Room

KEY = "fresh-key".ljust(40, "0")
#: Whose files prove a key: root's prove nothing, so as root it is somebody else.
OWNER = os.getuid() or 4711


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes alice's account: a home and a user id, to which `write` gives what it makes."""

    def make(uid: int | None = None) -> Path:
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        os.chown(home, OWNER, -1)
        entry = pwd.struct_passwd(("alice", "x", OWNER if uid is None else uid, 0, "", str(home), "/bin/sh"))

        def by_name(name: str) -> Any:
            if name != "alice":
                raise KeyError(name)
            return entry

        monkeypatch.setattr(pwd, "getpwnam", by_name)
        return home

    return make


def enrol(user: str = "alice", role: Role = Role.USER_SERVER, **more: Any) -> KeyEnrol:
    return KeyEnrol(public=KEY, role=role, user=user, **more)


def answer_challenge(room: Room, make: Callable[[Path, str], None]) -> Message:
    """Ask, let `make(path, nonce)` answer, and ask again."""
    client = room.client("fresh-key")
    asked = client.ask(enrol(), KeyChallenged)
    make(Path(asked.path), nonce_file_text(room.server.instance, client.key, asked.nonce))
    return client.answers(enrol())[0]


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
    os.chown(path, OWNER, -1)


def test_a_nonce_in_the_users_own_home_proves_the_key(room: Room, account: Callable[..., Path]) -> None:
    home = account()
    answer = answer_challenge(room, write)
    assert isinstance(answer, KeyEnrolled) and answer.user == "alice" and answer.proof.startswith("nonce file")
    assert Path(enrolment.Enrolment("x").challenge(Peer(KEY), "alice", 0.0).path).parent == home
    record = room.store.load().keys
    assert [(key.user, key.role) for key in record if key.public == KEY] == [("alice", Role.USER_SERVER)]
    assert any(KEY in str(cells[5]) for cells in room.admin("audit", "alice").rows)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("link", "does not prove"), ("several names", "several names"), ("wrong", "does not hold"), ("open", "others may write it"), ("missing", "No such file"), ("pipe", "no plain file"),
     ("open home", "others may write into it"), ("another key", "does not hold"), ("another instance", "does not hold")],
)
def test_a_file_that_is_not_plainly_the_users_proves_nothing(room: Room, account: Callable[..., Path], name: str, reason: str) -> None:
    home = account()

    def make(path: Path, text: str) -> None:
        other = path.with_name("other")
        if name == "missing":
            return
        if name == "pipe":
            os.mkfifo(path)
            return
        vouched = {
            "wrong": "0" * 64, "another key": text.replace(room.client("fresh-key").key, "k" * 40), "another instance": text.replace(room.server.instance, "b-0"),
        }.get(name, text)  # fmt: skip
        assert vouched != text or name not in ("another key", "another instance")
        write(other if name == "link" else path, vouched)
        if name == "link":
            path.symlink_to(other)
        elif name == "several names":
            os.link(path, other)
        elif name == "open":
            path.chmod(0o666)
        elif name == "open home":
            home.chmod(0o777)

    answer = answer_challenge(room, make)
    assert isinstance(answer, Problem) and reason in answer.text
    assert room.server.cluster.key(KEY) is None


def test_a_file_of_somebody_else_proves_nothing(tmp_path: Path) -> None:
    os.chown(tmp_path, 0 if os.getuid() == 0 else OWNER, -1)
    write(tmp_path / "nonce", "n")
    assert enrolment.read_nonce_file(str(tmp_path), "nonce", OWNER) == "n"
    with pytest.raises(RefusedError, match="belongs to user id"):
        enrolment.read_nonce_file(str(tmp_path), "nonce", OWNER + 1)


@pytest.mark.parametrize("uid", [0, 65534])
def test_for_accounts_that_file_systems_map_others_to_a_file_proves_nothing(room: Room, account: Callable[..., Path], uid: int) -> None:
    account(uid)
    assert "own machine, or by a token" in room.client("fresh-key").refused(enrol())


def test_a_challenge_counts_once_and_not_for_ever(room: Room, account: Callable[..., Path]) -> None:
    account()
    client = room.client("fresh-key")
    first = client.ask(enrol(), KeyChallenged)
    assert isinstance(client.answers(enrol())[0], Problem)  # the file is not there
    second = client.ask(enrol(), KeyChallenged)
    assert second.nonce != first.nonce
    room.tick(120.0)
    assert client.ask(enrol(), KeyChallenged).nonce != second.nonce


def test_two_machines_of_one_home_may_enrol_its_key_at_the_same_time(room: Room, account: Callable[..., Path]) -> None:
    account()
    clients = [room.client("fresh-key") for _ in range(2)]
    asked = [client.ask(enrol(), KeyChallenged) for client in clients]
    assert asked[0].nonce != asked[1].nonce
    for client, challenge in zip(clients, asked, strict=True):
        write(Path(challenge.path), nonce_file_text(room.server.instance, client.key, challenge.nonce))
    assert all(isinstance(client.answers(enrol())[0], KeyEnrolled) for client in clients)


def test_only_the_own_key_and_only_a_user_of_the_instance(room: Room, account: Callable[..., Path]) -> None:
    account()
    client = room.client("fresh-key")
    assert "own key" in client.refused(KeyEnrol(public="x" * 40, role=Role.USER_SERVER, user="alice"))
    assert "not a user of this instance" in client.refused(enrol("mallory"))
    assert "no account" in client.refused(enrol("bob"))
    assert "not an administrator" in client.refused(enrol(role=Role.ADMIN))
    for role in (Role.SERVER, Role.EXEC_SERVER, Role.CLIENT, Role.STANDBY, Role.WEB, Role.STRANGER):
        assert "not registered" in client.refused(enrol(role=role))
    # a key that is registered cannot change hands
    bob = room.client("bob-key")
    assert "another user" in bob.refused(KeyEnrol(public=bob.key, role=Role.USER_SERVER, user="alice"))


def test_a_token_of_the_owner_proves_the_key_once_within_a_day(room: Room) -> None:
    def token() -> str:
        found = re.search(r"day: (\S+)", room.admin("adduser", "dora", "user").text)
        assert found is not None
        return found[1]

    client = room.client("fresh-key")
    given = token()
    assert given not in repr(room.store.load().settings), "a token must not stand in the database"
    assert "not good" in client.refused(enrol("alice", token=given))
    assert "not good" in client.refused(enrol("dora", token="guess"))
    assert client.ask(enrol("dora", token=given), KeyEnrolled).proof == "token"
    other = room.client("other-key")
    again = KeyEnrol(public=other.key, role=Role.USER_SERVER, user="dora", token=given)
    assert "not good" in other.refused(again)
    late = token()
    room.tick(90_000.0)
    assert "not good" in other.refused(KeyEnrol(public=other.key, role=Role.USER_SERVER, user="dora", token=late))
    assert "dora\tuser" in (room.etc / "users").read_text()


@pytest.fixture
def door(room: Room, tmp_path: Path) -> Iterator[Callable[[bytes], Message]]:
    """Sends a line to the Unix socket of the server."""
    room.server.enrol_socket = EnrolSocket(str(tmp_path / "enrol.sock"))

    def talk(line: bytes) -> Message:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.connect(str(tmp_path / "enrol.sock"))
            client.settimeout(10)
            client.sendall(line)
            room.tick()
            return decode_line(client.recv(1 << 16))

    yield talk
    room.server.enrol_socket.close()
    assert not (tmp_path / "enrol.sock").exists()


def test_on_the_servers_machine_the_kernel_says_who_it_is(room: Room, door: Callable[[bytes], Message], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("alice", "x", os.getuid(), 0, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    # whatever the message claims: it is alice who speaks
    answer = door(encode_line(enrol("carol")))
    assert answer == KeyEnrolled(user="alice", role=Role.USER_SERVER, proof="peercred")
    client = room.client("fresh-key")
    assert client.answers(PeerAsk(what="ping"))
    refused = door(encode_line(KeyEnrol(public="y" * 40, role=Role.ADMIN)))
    assert isinstance(refused, Problem) and "not an administrator" in refused.text


def test_the_socket_is_for_enrolment_only(door: Callable[[bytes], Message]) -> None:
    for line in (b"nonsense\n", encode_line(PeerAsk(what="info")), b'{"type":"key.enrol"}\n'):
        assert isinstance(door(line), Problem)
