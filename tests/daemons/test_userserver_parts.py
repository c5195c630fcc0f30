"""Parts of the user-server by themselves: keys, enrolment, what keeps it up, root, blobs, the command line."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from hq.errors import InputError, RefusedError, RemoteError, SecurityError, UnavailableError
from hq.kernel.proofs import forget_nonce_files, nonce_file_text, write_nonce_file
from hq.model.selection import Selection
from hq.model.user import Role
from hq.protocol.base import Problem
from hq.protocol.codec import decode_line, encode_line
from hq.protocol.jobs import JobQuery, JobRequest
from hq.protocol.peers import KeyChallenged, KeyEnrol, KeyEnrolled, PeerAsk, PeerFacts, PeerHello
from hq.userserver.app import main
from hq.userserver.blobs import BlobCache
from hq.userserver.enrol import enrol_by_socket, read_token
from hq.userserver.hosts import HostMemory, Routes, source_address
from hq.userserver.keepalive import Keepalive, Ran, Site, Way, carry_out, choose
from hq.userserver.keyring import ExecKeys, load_keyring
from hq.userserver.submit import default_name, is_in_container, root_refusal
from tests.support.userserver_rig import INSTANCE, Rig, mode_of

STRANGER = Problem(text="hq-server does not know this key")

# --- keys -----------------------------------------------------------------------------------------------------------


def test_keys_are_made_once_and_are_nobody_elses(tmp_path: Path) -> None:
    place = str(tmp_path / "keys")
    first = load_keyring(place)
    assert load_keyring(place) == first
    for path in Path(place).iterdir():
        assert mode_of(path) == 0o600
    assert mode_of(Path(place)) == 0o700
    assert first.secret not in repr(first) and first.seal_key not in repr(first) and first.sign_secret not in repr(first)
    os.chmod(f"{place}/seal.key", 0o640)
    with pytest.raises(SecurityError, match="chmod"):
        load_keyring(place)


def test_each_host_has_a_key_of_its_own_that_is_known_again(tmp_path: Path) -> None:
    load_keyring(str(tmp_path))
    keys = ExecKeys(str(tmp_path))
    one, two = keys.of("n1"), keys.of("n2")
    assert one != two and keys.of("n1") == one
    again = ExecKeys(str(tmp_path))
    assert again.host_of(one[0]) is None
    again.load()
    assert again.host_of(one[0]) == "n1" and again.host_of("x" * 40) is None
    with pytest.raises(RefusedError):
        keys.of("../evil")

NONCE = "0123456789abcdef" * 4


# --- enrolment ------------------------------------------------------------------------------------------------------


def test_a_stranger_enrols_by_a_nonce_file(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    rig.reply(rig.take_request(PeerHello)[0], STRANGER)
    rig.tick()
    request, enrol = rig.take_request(KeyEnrol)
    assert (enrol.user, enrol.public, enrol.role, enrol.sign_public) == ("alice", rig.keyring.public, Role.USER_SERVER, rig.keyring.sign_public)
    path = rig.home / f".hq-enrol-{NONCE[:8]}"
    rig.reply(request, KeyChallenged(path="/home/of/alice/over/there", nonce=NONCE))
    rig.tick()
    # its owner is the proof: hq-server's account must be able to read it
    assert path.read_text() == nonce_file_text(INSTANCE, rig.keyring.public, NONCE) and mode_of(path) == 0o644
    rig.reply(rig.take_request(KeyEnrol)[0], KeyEnrolled(user="alice", role=Role.USER_SERVER, proof="nonce file"))
    rig.tick()
    assert not path.exists()
    rig.welcome()
    rig.take_request(JobQuery)


def test_a_token_is_the_last_way_and_a_refusal_is_verbatim(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    token = rig.home / INSTANCE / "token"
    token.write_text("secret-token\n")
    token.chmod(0o600)
    rig.reply(rig.take_request(PeerHello)[0], STRANGER)
    rig.tick()
    rig.reply(rig.take_request(KeyEnrol)[0], Problem(text="hq-server's machine has no account alice"))
    rig.tick()
    request, enrol = rig.take_request(KeyEnrol)
    assert enrol.token == "secret-token"
    rig.reply(request, Problem(text="alice is not a user of this instance: ask its owner"))
    rig.tick()
    assert not token.exists(), "it counts once"
    (problem,) = client.answers()
    assert isinstance(problem, Problem)
    assert problem.text == "hq-server's machine has no account alice; alice is not a user of this instance: ask its owner"
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    rig.move(2)
    assert rig.server_got(PeerHello), "the user may have been added meanwhile: it is tried again for him"


@pytest.mark.parametrize("nonce", ["", "../../.ssh/rc", f"/{NONCE[1:]}", NONCE[:8], NONCE + "\n", f"{NONCE[:-1]}."])
def test_no_other_file_is_written_for_a_server(tmp_path: Path, nonce: str) -> None:
    with pytest.raises(RemoteError):
        write_nonce_file(str(tmp_path), INSTANCE, "key", nonce)
    assert list(tmp_path.iterdir()) == []


def test_what_a_nonce_file_says_holds_for_one_instance_and_one_key_only(tmp_path: Path) -> None:
    """A server that hands on the challenge of another server gets a file that is worth nothing there."""
    texts = {nonce_file_text(instance, key, NONCE) for instance in ("a-0", "b-0") for key in ("k" * 40, "l" * 40)}
    assert len(texts) == 4


def test_a_nonce_file_follows_no_link_and_overwrites_nothing(tmp_path: Path) -> None:
    first, second = "1" * 64, "2" * 64
    (tmp_path / ".hq-enrol-11111111").symlink_to(tmp_path / "other")
    (tmp_path / ".hq-enrol-22222222").write_text("mine")
    for nonce in (first, second):
        with pytest.raises(UnavailableError):
            write_nonce_file(str(tmp_path), INSTANCE, "key", nonce)
    assert not (tmp_path / "other").exists() and (tmp_path / ".hq-enrol-22222222").read_text() == "mine"


def test_only_old_nonce_files_of_our_own_are_cleared_away(tmp_path: Path) -> None:
    old, new = (Path(write_nonce_file(str(tmp_path), INSTANCE, "key", digit * 64)) for digit in "12")
    (tmp_path / ".hq-enrol-33333333").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_text("mine")
    os.utime(old, (0, 0))
    os.utime(tmp_path / "other", (0, 0))
    forget_nonce_files(str(tmp_path), 1000.0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, ".hq-enrol-33333333", "other"]


def test_where_no_file_can_prove_it_the_refusal_says_what_can(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    rig.reply(rig.take_request(PeerHello)[0], STRANGER)
    rig.tick()
    rig.reply(rig.take_request(KeyEnrol)[0], KeyChallenged(path="/home/alice/x", nonce=NONCE))
    rig.tick()
    rig.reply(rig.take_request(KeyEnrol)[0], Problem(text="/home/alice is closed to the account of hq-server (olga)"))
    rig.tick()
    (problem,) = client.answers()
    assert isinstance(problem, Problem)
    first, *rest = problem.text.splitlines()
    assert first == "/home/alice is closed to the account of hq-server (olga)"
    assert "ssh SERVER hq-client enrol" in rest and "hq-client enrol --token TOKEN" in rest and "hq-admin adduser alice" in problem.text
    assert not list(rig.home.glob(".hq-enrol-*"))


def test_tokens_of_open_files_are_not_used(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o644)
    with pytest.raises(SecurityError):
        read_token(("", str(token)))
    assert read_token(("", str(tmp_path / "none"))) is None
    token.chmod(0o600)
    assert read_token(("", str(token))) == (str(token), "t")


@pytest.mark.parametrize("answer", [KeyEnrolled(user="alice", role=Role.USER_SERVER, proof="peercred"), Problem(text="alice is not a user")])
def test_enrolment_at_the_servers_socket(tmp_path: Path, answer: KeyEnrolled | Problem) -> None:
    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    heard = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as lines:
            heard.append(decode_line(lines.readline()))
            connection.sendall(encode_line(answer))

    thread = threading.Thread(target=serve)
    thread.start()
    message = KeyEnrol(public="p", role=Role.USER_SERVER, sign_public="s")
    if isinstance(answer, Problem):
        with pytest.raises(RefusedError, match="^alice is not a user$"):
            enrol_by_socket(path, message)
    else:
        assert enrol_by_socket(path, message) == answer
    thread.join(10)
    listener.close()
    assert heard == [message]
    with pytest.raises(UnavailableError):
        enrol_by_socket(path, message)


# --- keepalive ------------------------------------------------------------------------------------------------------


class Machine:
    """Answers commands as a machine would that allows what `allowed` names."""

    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.ran: list[list[str]] = []
        self.crontab = "0 0 * * * mine\n"

    def __call__(self, argv: Sequence[str], text: str | None) -> Ran:
        self.ran.append(list(argv))
        if argv[0] == "systemctl":
            return Ran(0, "", "") if "systemd" in self.allowed else Ran(1, "", "Failed to connect to bus")
        if argv[0] == "loginctl":
            if argv[1] == "show-user":
                return Ran(0, "no\n", "")
            return Ran(0, "", "") if "linger" in self.allowed else Ran(1, "", "Access denied")
        assert argv[0] == "crontab"
        if "cron" not in self.allowed:
            return Ran(1, "", "You (alice) are not allowed to use this program (crontab)")
        if argv[1] == "-l":
            return Ran(0, self.crontab, "") if self.crontab else Ran(1, "", "no crontab for alice")
        assert text is not None
        self.crontab = text
        return Ran(0, "", "")


def keepalive(tmp_path: Path, machine: Machine) -> Keepalive:
    return Keepalive("i-1", "alice", ["/opt/hq x/hq-user-server", "--etc", "/e%tc"], str(tmp_path / "home" / "keepalive"), run=machine,
                     config_home=str(tmp_path / "config"))  # fmt: skip


def test_systemd_is_first_then_cron_then_the_truth() -> None:
    assert choose(Site(systemd="", cron="no")) is Way.SYSTEMD
    assert choose(Site(systemd="no bus", cron="")) is Way.CRON
    with pytest.raises(RefusedError, match="neither.*no bus.*not allowed"):
        choose(Site(systemd="no bus", cron="not allowed"))


def test_it_is_kept_up_by_systemd(tmp_path: Path) -> None:
    machine = Machine("systemd", "linger", "cron")
    keep = keepalive(tmp_path, machine)
    assert "not kept up" in keep.status()
    assert "by systemd" in keep.install()
    unit = tmp_path / "config/systemd/user/hq-user-server-i-1.service"
    assert 'ExecStart="/opt/hq x/hq-user-server" "--etc" "/e%%tc" "--keepalive"' in unit.read_text()
    assert ["loginctl", "enable-linger", "alice"] in machine.ran
    assert ["systemctl", "--user", "enable", "--now", "hq-user-server-i-1.service"] in machine.ran
    assert machine.crontab == "0 0 * * * mine\n"
    assert "not kept up" in keep.remove() and not unit.exists()


@pytest.mark.parametrize("before", ["0 0 * * * mine\n", ""])
def test_it_is_kept_up_by_cron_and_other_lines_stay(tmp_path: Path, before: str) -> None:
    machine = Machine("cron", "systemd")
    machine.crontab = before
    keep = keepalive(tmp_path, machine)
    keep.install()
    assert "by cron" in keep.install()
    lines = machine.crontab.splitlines()
    ours = [line for line in lines if line.endswith("# hq keepalive i-1")]
    assert len(ours) == 2 and len(lines) == 2 + bool(before)
    assert ours[0].startswith("@reboot '/opt/hq x/hq-user-server' --etc '/e\\%tc' -d --keepalive") or "\\%" in ours[0]
    keep.remove()
    assert machine.crontab == before


def test_a_site_that_allows_nothing_is_said_so(tmp_path: Path) -> None:
    text, code = carry_out(keepalive(tmp_path, Machine()), "install")
    assert code == 1 and "Failed to connect to bus" in text and "not allowed to use this program" in text


# --- small things ---------------------------------------------------------------------------------------------------


def test_root_is_refused_outside_containers(tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/1/environ").write_bytes(b"HOME=/\0")
    (tmp_path / "proc/1/cgroup").write_bytes(b"0::/init.scope\n")
    uid_map = tmp_path / "proc/self/uid_map"
    uid_map.write_text("         0          0 4294967295\n")
    assert not is_in_container(str(tmp_path))
    assert root_refusal(1000, False, str(tmp_path)) is None
    assert "--allow-root" in str(root_refusal(0, False, str(tmp_path)))
    assert root_refusal(0, True, str(tmp_path)) is None
    uid_map.write_text("         0     100000      65536\n")
    assert is_in_container(str(tmp_path))
    uid_map.write_text("0 0 4294967295\n")
    (tmp_path / ".dockerenv").touch()
    assert root_refusal(0, False, str(tmp_path)) is None


@pytest.mark.parametrize(("job", "name"), [
    (JobRequest(argv=(b"/usr/bin/sort", b"-n")), "sort"),
    (JobRequest(argv=(b"/usr/bin/sort -n | uniq",), is_shell=True), "sort"),
    (JobRequest(argv=(b"  ",), is_shell=True), "job"),
    (JobRequest(script=b"x"), "script"),
    (JobRequest(argv=(b"/x/\xff\xfe",)), "\ufffd\ufffd"),
])  # fmt: skip
def test_the_name_of_a_job_without_one(job: JobRequest, name: str) -> None:
    assert default_name(job) == name


def test_the_cache_keeps_the_lately_used() -> None:
    cache = BlobCache(10)
    cache.put([("a", b"12345"), ("b", b"12345")])
    assert cache.get("a") == b"12345"
    cache.put([("c", b"123"), ("huge", b"x" * 11)])
    assert cache.get("b") is None and cache.get("a") and cache.get("c") and cache.get("huge") is None


def test_hosts_with_exec_servers_are_remembered(tmp_path: Path) -> None:
    import logging

    path, log = str(tmp_path / "hosts.json"), logging.getLogger("t")
    memory = HostMemory(path, log)
    memory.add("n1")
    memory.add("n2")
    memory.remove("n1")
    memory.permit_root()
    again = HostMemory(path, log)
    assert again.hosts() == ["n2"] and again.allow_root
    Path(path).write_text("nonsense")
    assert HostMemory(path, log).hosts() == []


def test_routes() -> None:
    assert source_address("127.0.0.1") == "127.0.0.1"
    assert source_address("no such host.invalid") is None
    from tests.support.userserver_rig import host

    assert Routes(70).to(host("here")) == ("tcp://127.0.0.1:70",)
    far = Routes(70, "login1").to(host("far", address="127.0.0.1", transport="ssh"))
    assert far[:2] == ("tcp://login1:70", "tcp://127.0.0.1:70")


def test_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as version:
        main(["--version"])
    assert version.value.code == 0 and "hq-user-server" in capsys.readouterr().out
    with pytest.raises(SystemExit) as wrong:
        main(["--idle", "soon"])
    assert wrong.value.code == 2
    assert main(["--etc", str(tmp_path / "none")]) == InputError.exit_code
    assert "does not exist" in capsys.readouterr().err


def test_a_name_of_hq_server_that_means_nothing_here_is_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.us.upstream.looked_up(None, socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), rig.clock.now())
    client = rig.client()
    rig.ask(client, JobQuery(selection=Selection(is_all=True)))
    rig.move(6)
    (problem,) = client.answers()
    assert isinstance(problem, Problem) and "cannot be looked up on this machine (Temporary failure" in problem.text


def test_status_tells_how_the_cluster_stands_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.welcome()
    client = rig.client()
    rig.ask(client, PeerAsk(what="status"))
    rig.reply(rig.take_request(PeerAsk)[0], PeerFacts(facts={"daemon": "hq-server", "cluster": "active", "slots": 12}))
    rig.tick()
    (answer,) = client.answers()
    assert isinstance(answer, PeerFacts)
    assert answer.facts["daemon"] == "hq-user-server" and answer.facts["server_state"] == "up" and answer.facts["slots"] == 12
