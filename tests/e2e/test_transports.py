"""Transports against real sshds in namespaces, called by a process of alice: logins, refusals, deadlines, the way back."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from hq.kernel.keys import make_curve_pair, make_seal_key
from hq.model.host import HostSpec
from tests.support.driver import Driver
from tests.support.hosts import Hosts, missing_for_hosts
from tests.support.install import readable_install, readable_python
from tests.support.proc import end_process, is_running
from tests.support.users import run_as, start_as
from tests.support.wait import until

SUPPORT = Path(__file__).parents[1] / "support"
KINDS = pytest.mark.parametrize("kind", ["ssh", "openssh"])

pytestmark = [pytest.mark.skipif(bool(missing_for_hosts()), reason=missing_for_hosts())]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """hqa is an ordinary host; hqb answers ssh, and opens no connection of its own to anybody."""
    with Hosts("hqa", "hqb", no_way_back=["hqb"]) as made:
        stand_in = made.directory / "stand_in"
        shutil.copy(SUPPORT / "stand_in.py", stand_in)
        stand_in.chmod(0o755)
        yield made


@pytest.fixture
def alice(hosts: Hosts) -> Driver:
    return Driver(hosts)


@pytest.fixture
def known_hosts(alice: Driver) -> Iterator[Path]:
    """alice's file of host keys of the testbed, put back afterwards."""
    path = alice.home / ".ssh" / f"hq-{alice.hosts.tag}.known"
    text = path.read_text()
    yield path
    path.write_text(text)


@KINDS
def test_start_runs_the_command_there_as_the_user(alice: Driver, kind: str) -> None:
    value, _, text, _ = alice.one("start", alice.hosts.spec("hqa", transport=kind))
    assert value is not None, text
    assert value["machine"]["name"] == "hqa"
    assert value["machine"]["uid"] == pwd.getpwnam("alice").pw_uid
    assert value["pid"] > 1
    assert value["machine"]["told"]["host"] == "hqa"
    assert "local_port" not in value["machine"]["told"]


@KINDS
def test_secrets_travel_by_stdin_only(alice: Driver, kind: str) -> None:
    value, _, text, _ = alice.one("start", alice.hosts.spec("hqa", transport=kind))
    assert value is not None, text
    machine = value["machine"]
    assert machine["told"]["secret"] == "SECRET-CURVE"
    assert "SECRET" not in json.dumps([machine["argv"], machine["environ"]])


def test_local_start_is_a_child_process(alice: Driver) -> None:
    host = HostSpec(name="here", address="localhost", total=1, slots=1, transport="local")
    value, _, text, _ = alice.one("start", host)
    assert value is not None, text
    assert value["machine"]["uid"] == pwd.getpwnam("alice").pw_uid
    assert value["machine"]["name"] == os.uname().nodename


@KINDS
def test_unknown_host_key_is_refused_and_stays_unknown(alice: Driver, known_hosts: Path, kind: str) -> None:
    known_hosts.write_text("")
    value, error, text, _ = alice.one("start", alice.hosts.spec("hqa", transport=kind))
    assert (value, error) == (None, "RefusedError")
    assert known_hosts.read_text() == ""
    if kind == "openssh":
        assert "Host key verification failed." in text
        return
    line = alice.hosts.known_hosts_line("hqa").strip()
    assert f"echo '{line}' >> {known_hosts}" in text
    known_hosts.write_text(line + "\n")
    assert alice.one("start", alice.hosts.spec("hqa", transport=kind))[0] is not None


@KINDS
def test_changed_host_key_is_refused(alice: Driver, known_hosts: Path, kind: str) -> None:
    other = alice.hosts.known_hosts_line("hqb").replace(alice.hosts.address("hqb"), alice.hosts.address("hqa"))
    known_hosts.write_text(other)
    value, error, text, _ = alice.one("start", alice.hosts.spec("hqa", transport=kind))
    assert (value, error) == (None, "RefusedError")
    assert "HOST KEY CHANGED" in text or "REMOTE HOST IDENTIFICATION HAS CHANGED" in text
    assert f"ssh-keygen -R '{alice.hosts.address('hqa')}'" in text or kind == "openssh"


@KINDS
def test_revoked_host_key_is_refused(alice: Driver, known_hosts: Path, kind: str) -> None:
    line = alice.hosts.known_hosts_line("hqa")
    known_hosts.write_text(line + "@revoked " + line)
    value, error, text, _ = alice.one("start", alice.hosts.spec("hqa", transport=kind))
    assert (value, error) == (None, "RefusedError")
    assert "revoked" in text.lower()


@KINDS
def test_wrong_key_is_refused_with_the_words_of_ssh(alice: Driver, kind: str) -> None:
    ssh = alice.home / ".ssh"
    key, block = ssh / f"wrong-{alice.hosts.tag}", ssh / f"hq-{alice.hosts.tag}-wrong.conf"
    try:
        assert run_as("alice", ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]).returncode == 0
        block.write_text(f"Host wrong.{alice.hosts.tag}\n HostName {alice.hosts.address('hqa')}\n IdentityFile {key}\n IdentitiesOnly yes\n"
                         f" UserKnownHostsFile {ssh}/hq-{alice.hosts.tag}.known\n")  # fmt: skip
        os.chown(block, pwd.getpwnam("alice").pw_uid, pwd.getpwnam("alice").pw_gid)
        host = HostSpec(name="hqa", address=f"wrong.{alice.hosts.tag}", total=1, slots=1, transport=kind)
        value, error, text, _ = alice.one("start", host)
    finally:
        for path in (key, key.with_suffix(".pub"), block):
            path.unlink(missing_ok=True)
    assert (value, error) == (None, "RefusedError")
    if kind == "ssh":
        assert "login as alice refused: Authentication failed." in text
        assert str(key) in text
    else:
        assert "Permission denied (publickey)." in text


@KINDS
def test_unreachable_host_ends_by_the_deadline(alice: Driver, kind: str) -> None:
    alice.hosts.cut("hqa")
    try:
        value, error, text, seconds = alice.one(
            "start", alice.hosts.spec("hqa", transport=kind), settings={"connect_timeout": 60.0, "login_timeout": 1.5}
        )
    finally:
        alice.hosts.join("hqa")
    assert (value, error) == (None, "UnavailableError")
    assert "hqa" in text
    assert seconds < 60


@KINDS
def test_refused_connection_is_told(alice: Driver, kind: str) -> None:
    host = HostSpec(name="nobody", address=alice.hosts.gateway, total=1, slots=1, transport=kind)
    _, error, text, _ = alice.one("start", host)
    assert error == "UnavailableError"
    assert "Connection refused" in text


@KINDS
def test_unknown_name_is_told(alice: Driver, kind: str) -> None:
    host = HostSpec(name="nowhere", address="nowhere.invalid", total=1, slots=1, transport=kind)
    _, error, text, _ = alice.one("start", host)
    assert error == "UnavailableError"
    assert "nowhere.invalid" in text


@KINDS
def test_command_that_is_not_there_is_told_verbatim(alice: Driver, kind: str) -> None:
    _, error, text, _ = alice.one("start", alice.hosts.spec("hqa", transport=kind), settings={"exec_server": ["/no/such; touch /tmp/x"]})
    assert error == "RefusedError"
    assert "/no/such; touch /tmp/x: No such file or directory" in text
    assert "exec_server" in text


@KINDS
@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("refuse", "RefusedError", "the disk of /var/tmp is full"),
        ("broken", "RefusedError", "ImportError: no module named zmq"),
        ("mute", "UnavailableError", "I am stuck"),
    ],
)
def test_what_the_exec_server_says_is_passed_on(alice: Driver, kind: str, word: str, error: str, text: str) -> None:
    value, raised, said, seconds = alice.one("start", alice.hosts.spec("hqa", transport=kind), words=(word,), settings={"start_timeout": 4.0 if word == "mute" else 60.0})
    assert (value, raised) == (None, error)
    assert text in said
    assert seconds < 60, "it is stuck for so long"


@KINDS
@pytest.mark.parametrize("word", ["noise", "hold"])
def test_noise_of_a_login_and_open_pipes_do_not_matter(alice: Driver, kind: str, word: str) -> None:
    host = HostSpec(name="lasting", address=alice.hosts.address("hqa"), total=1, slots=1, transport=kind)
    value, _, text, seconds = alice.one("start", host, words=(word,))
    assert value is not None, text
    assert seconds < 30, "its daemon runs so long"


@KINDS
def test_reverse_forward_carries_bytes_where_there_is_no_other_way(alice: Driver, kind: str) -> None:
    told = alice(("start", alice.hosts.spec("hqb", transport=kind)), way_back=True, meet=1, wait=20, listen="127.0.0.1")
    value = told["outcomes"][0]["value"]
    assert value is not None, told
    port = value["forwarded_port"]
    assert value["machine"]["told"]["upstreams"] == [f"tcp://127.0.0.1:{port}"]
    assert told["met"] == {f"hqb tcp://127.0.0.1:{port}": True}


@KINDS
def test_one_connection_serves_forward_start_and_check(alice: Driver, kind: str) -> None:
    spec = alice.hosts.spec("hqb", transport=kind)
    log = alice.hosts.directory / "hqb" / "sshd.log"
    before = log.read_text().count("Accepted publickey")
    told = alice(("forward", spec), ("forward", spec), ("start", spec), ("check", spec), way_back=True, meet=1, wait=20)
    first, second, started, checked = told["outcomes"]
    assert first["value"] == second["value"] == started["value"]["forwarded_port"], told
    assert checked["value"][0][:2] == ["login", True]
    assert log.read_text().count("Accepted publickey") == before + 1


@KINDS
def test_a_lost_connection_is_made_again(alice: Driver, kind: str) -> None:
    spec = alice.hosts.spec("hqb", transport=kind)
    told = alice(("forward", spec), ("lose", spec), ("start", spec), way_back=True, meet=1, wait=20)
    assert [outcome["error"] for outcome in told["outcomes"]] == [None] * 3, told
    assert told["outcomes"][1]["value"] is True
    assert list(told["met"].values()) == [True]


@KINDS
def test_what_a_killed_user_server_left_is_replaced(alice: Driver, kind: str) -> None:
    spec = alice.hosts.spec("hqb", transport=kind)
    with pytest.raises(AssertionError):
        alice(("forward", spec), ("abandon", spec))
    told = alice(("start", spec), way_back=True, meet=1, wait=20)
    assert told["outcomes"][0]["error"] is None, told
    assert list(told["met"].values()) == [True]
    assert not [name for name in os.listdir(alice.run_dir) if name.startswith("ssh-")]


@KINDS
def test_check_tells_each_step_and_which_way_back_fails(alice: Driver, kind: str) -> None:
    upstreams = [f"tcp://{alice.hosts.gateway}:{{port}}"]
    open_host, closed_host = alice.hosts.spec("hqa", transport=kind), alice.hosts.spec("hqb", transport=kind)
    told = alice(("check", open_host), ("check", closed_host), upstreams=upstreams, listen="0.0.0.0")
    ways = []
    for outcome in told["outcomes"]:
        steps = {name: (is_ok, text) for name, is_ok, text in outcome["value"]}
        assert list(steps) == ["login", "python", "version", "way back", "limits", "lingering"]
        assert steps["login"][0] and steps["python"][0]
        ways.append(steps["way back"])
    assert ways[0][0]
    assert not ways[1][0]
    assert "timed out" in ways[1][1]


@KINDS
def test_check_of_a_host_without_login_has_one_failed_step(alice: Driver, kind: str) -> None:
    host = HostSpec(name="nobody", address=alice.hosts.gateway, total=1, slots=1, transport=kind)
    value, error, _, _ = alice.one("check", host)
    assert error == ""
    assert [step[:2] for step in value] == [["login", False]]
    assert "Connection refused" in value[0][2]


@KINDS
def test_the_real_exec_server_is_checked_started_and_found_again(alice: Driver, kind: str) -> None:
    spec = HostSpec(name=f"hqb-{kind}", address=alice.hosts.address("hqb"), total=2, slots=2, transport=kind)
    upstream_key, _ = make_curve_pair()
    public, secret = make_curve_pair()
    keys = {"upstream_key": upstream_key, "public": public, "secret": secret, "seal_key": make_seal_key()}
    told = alice(
        ("check", spec), ("start", spec), ("start", spec), way_back=True, upstreams=[f"tcp://{alice.hosts.gateway}:{{port}}"],
        settings={"exec_server": [str(readable_install() / "hq-exec-server")]}, bootstrap=keys,
    )  # fmt: skip
    assert [outcome["error"] for outcome in told["outcomes"]] == [None] * 3, told
    checked, first, second = [outcome["value"] for outcome in told["outcomes"]]
    steps = {name: (is_ok, text) for name, is_ok, text in checked}
    assert [name for name, (is_ok, _) in steps.items() if not is_ok] == ["way back"], steps
    assert f"tcp://{alice.hosts.gateway}:{told['port']}: " in steps["way back"][1]
    assert "nofile" in steps["limits"][1]
    assert (first["is_adopted"], second["is_adopted"]) == (False, True)
    assert first["pid"] == second["pid"] > 1
    assert first["machine"]["hostname"] == "hqb"
    listed = alice.hosts.exec("hqb", ["ps", "-o", "user=", "-p", str(first["pid"])])
    assert listed.stdout.strip() == b"alice"
    assert alice.hosts.exec("hqb", ["kill", str(first["pid"])]).returncode == 0


def test_a_proxy_is_refused_by_paramiko_with_a_pointer(alice: Driver) -> None:
    block = alice.home / ".ssh" / f"hq-{alice.hosts.tag}-jump.conf"
    block.write_text(f"Host jump.{alice.hosts.tag}\n ProxyJump bastion.invalid\n")
    os.chown(block, pwd.getpwnam("alice").pw_uid, pwd.getpwnam("alice").pw_gid)
    try:
        _, error, text, _ = alice.one("start", HostSpec(name="far", address=f"jump.{alice.hosts.tag}", total=1, slots=1, transport="ssh"))
    finally:
        block.unlink()
    assert error == "RefusedError"
    assert "proxyjump" in text and "openssh" in text


def test_openssh_uses_a_master_that_the_user_opened_and_leaves_it_up(alice: Driver) -> None:
    """As with a second factor: nobody but the user himself can log in, and he has."""
    name, ssh = f"own.{alice.hosts.tag}", alice.home / ".ssh"
    block, away = ssh / f"hq-{alice.hosts.tag}-own.conf", ssh / "id_ed25519.away"
    block.write_text(f"Host {name}\n HostName {alice.hosts.address('hqb')}\n ControlMaster auto\n ControlPath ~/.ssh/cm-%C\n"
                     f" UserKnownHostsFile {ssh}/hq-{alice.hosts.tag}.known\n")  # fmt: skip
    os.chown(block, pwd.getpwnam("alice").pw_uid, pwd.getpwnam("alice").pw_gid)
    master = start_as("alice", ["ssh", "-N", "-o", "ControlPersist=no", name])
    spec = HostSpec(name="hqb", address=name, total=1, slots=1, transport="openssh")
    try:
        until(lambda: run_as("alice", ["ssh", "-O", "check", name]).returncode == 0, 20, "the master")
        (ssh / "id_ed25519").rename(away)
        told = alice(("start", spec), ("check", spec), way_back=True, meet=1, wait=20)
        assert [outcome["error"] for outcome in told["outcomes"]] == [None, None], told
        assert list(told["met"].values()) == [True]
        port = told["outcomes"][0]["value"]["forwarded_port"]
        assert run_as("alice", ["ssh", "-O", "check", name]).returncode == 0
        # sshd is told, and not asked whether it is done
        until(lambda: alice.hosts.exec("hqb", ["ss", "-Hltn", f"sport = :{port}"]).stdout == b"", what="the forward to go")
    finally:
        if away.exists():
            away.rename(ssh / "id_ed25519")
        end_process(master)
        block.unlink()
    assert alice.one("start", spec)[1] == "UnavailableError"


@pytest.mark.parametrize("is_named", [False, True], ids=["environment", "IdentityAgent"])
def test_agent_is_used(alice: Driver, is_named: bool) -> None:
    """The only key that the host takes is in the agent; its file is away."""
    ssh = alice.home / ".ssh"
    socket_path = alice.hosts.directory / "agent.sock"
    socket_dir = Path(f"/var/tmp/hq-agent-{alice.hosts.tag}")
    socket_dir.mkdir()
    os.chown(socket_dir, pwd.getpwnam("alice").pw_uid, 0)
    socket_path = socket_dir / "sock"
    done = run_as("alice", ["ssh-agent", "-a", str(socket_path)])
    pid = int(done.stdout.decode().split("SSH_AGENT_PID=")[1].split(";")[0])
    away = ssh / "id_ed25519.away"
    try:
        env = {"SSH_AUTH_SOCK": str(socket_path)}
        assert run_as("alice", ["ssh-add", "-q", str(ssh / "id_ed25519")], env=env).returncode == 0
        (ssh / "id_ed25519").rename(away)
        if is_named:
            (ssh / "hq-agent.conf").write_text(f"IdentityAgent {socket_path}\n")
            env = {}
        source = (SUPPORT / "transport_driver.py").read_text()
        order = {
            "calls": [["start", asdict(alice.hosts.spec("hqa"))]],
            "settings": {"run_dir": alice.run_dir, "exec_server": [str(alice.hosts.directory / "stand_in")]},
        }
        ran = run_as("alice", [str(readable_python()), "-c", source], stdin=json.dumps(order).encode(), env=env)
        assert json.loads(ran.stdout)["outcomes"][0]["error"] is None, ran.stdout
    finally:
        (ssh / "hq-agent.conf").unlink(missing_ok=True)
        if away.exists():
            away.rename(ssh / "id_ed25519")
        os.kill(pid, 15)
        until(lambda: not is_running(pid), what="the agent to end")
        shutil.rmtree(socket_dir)
