"""The way to the user-server: whose socket is trusted, how it is started, what is said when it cannot be."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.client import commands, connect, links, spawn, submit
from hq.client.links import UnixLink, dial_unix, is_this_machine, read_access
from hq.client.remote import dial_remote
from hq.errors import RemoteError, SecurityError, UnavailableError
from hq.kernel.keys import make_curve_pair, public_in_hex
from hq.kernel.zmqbus import ZmqServer
from hq.model.user import Role
from hq.protocol.codec import decode_line, envelope
from hq.protocol.jobs import JobAsk, JobSubmitted, SubmittedItem
from hq.protocol.peers import KeyEnrol, KeyEnrolled, PeerAsk, PeerFacts, PeerHeartbeat
from tests.support.fakeuserserver import FakeUserServer, Stage, stage

#: A program in the place of hq-user-server. It serves in a child, and answers every job with id 41.
PROGRAM = """
import json, os, socket, sys
with open({count!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
if {refusal!r}:
    print({refusal!r}, file=sys.stderr)
    sys.exit(3)
listener = socket.socket(socket.AF_UNIX)
listener.bind({path!r})
listener.listen(16)
listener.settimeout(20)
if os.fork():
    os._exit(0)
os.setsid()
for _ in range({calls}):
    connection, _ = listener.accept()
    for line in connection.makefile("rb"):
        answer = {{"type": "job.submitted", "items": [{{"key": "k", "id": 41, "tasks": 1}}]}}
        connection.sendall(json.dumps(answer).encode() + b"\\n")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "bin").mkdir()
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "hq-submit")])
        yield made


def install(here: Stage, tmp_path: Path, *, refusal: str = "", calls: int = 1) -> Path:
    """Put a user-server beside the commands; returns the file that has a line a start."""
    count = tmp_path / "starts"
    text = PROGRAM.format(count=str(count), refusal=refusal, path=str(here.run_dir / "client.sock"), calls=calls)
    (tmp_path / "bin" / "hq-user-server").write_text(text)
    return count


def test_it_is_started_when_it_is_not_there(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = install(here, tmp_path)
    assert submit.main(["-q", "true"]) == 0
    assert capsys.readouterr().out == "41\n"
    assert [json.loads(line) for line in count.read_text().splitlines()] == [["-d", "--etc", str(here.etc)]]
    assert here.run_dir.stat().st_mode & 0o777 == 0o700


def test_commands_that_find_none_at_once_start_one(here: Stage, tmp_path: Path) -> None:
    count = install(here, tmp_path, calls=8)
    codes: list[int] = []
    threads = [threading.Thread(target=lambda: codes.append(submit.main(["-q", "true"]))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert codes == [0] * 8
    assert len(count.read_text().splitlines()) == 1


def test_its_own_words_are_passed_on(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(here, tmp_path, refusal="hq-user-server: hq-server does not know the user 'alice': ask for hq-admin adduser alice")
    assert submit.main(["true"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "hq-submit: your user-server cannot be started:",
        "hq-submit: hq-user-server: hq-server does not know the user 'alice': ask for hq-admin adduser alice",
    ]


def test_no_user_server_is_installed(here: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(spawn, "__file__", str(tmp_path / "hq" / "client" / "spawn.py"))
    with pytest.raises(UnavailableError, match="is the installation whole"):
        spawn.user_server_argv(str(here.etc))


def test_no_instance(here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HQ_ETC", "/nonexistent")
    assert submit.main(["true"]) == 2
    assert "/nonexistent" in capsys.readouterr().err
    assert submit.main(["--etc", "/nowhere", "true"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_a_directory_that_others_may_enter_is_not_trusted(here: Stage) -> None:
    with here.serve() as server:
        here.run_dir.chmod(0o755)
        with pytest.raises(SecurityError, match="0700"):
            dial_unix(server.path)
        here.run_dir.chmod(0o700)


def test_a_listener_of_another_user_is_not_trusted(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    with here.serve() as server:
        monkeypatch.setattr(links, "check_private", lambda directory: None)
        monkeypatch.setattr("os.geteuid", lambda: 12345)
        with pytest.raises(SecurityError, match="served by uid"):
            dial_unix(server.path)
    assert server.heard == []


def test_nobody_listens(here: Stage) -> None:
    assert dial_unix(str(here.run_dir / "client.sock")) is None
    here.run_dir.mkdir(parents=True, mode=0o700)
    assert dial_unix(str(here.run_dir / "client.sock")) is None


@pytest.mark.parametrize("line", [b"nonsense\n", b"[]\n", b"{}\n", b'{"type": 5}\n', b"\xff\n"])
def test_nonsense_is_a_remote_error(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(line)
        with pytest.raises(RemoteError, match="cannot be read"):
            UnixLink(ours).receive(5.0)


def test_lines_are_put_together_and_kept_apart() -> None:
    ours, theirs = socket.socketpair()
    link = UnixLink(ours)
    with ours, theirs:
        theirs.sendall(b'{"type": "a", "x": "' + b"y" * 5000)
        theirs.sendall(b'"}\n{"type": "b"}\n')
        assert link.receive(5.0)["type"] == "a"
        assert link.receive(5.0) == {"type": "b"}
        with pytest.raises(TimeoutError):
            link.receive(0.01)
        theirs.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionError):
            link.receive(5.0)


def test_no_answer_in_time(here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(lambda message: []):
        session = connect.Session.open()
        with pytest.raises(UnavailableError, match=r"not answered for .*user-server.log"):
            session.ask({"type": "peer.ask", "what": "ping"}, timeout=0.01)


def test_this_machine() -> None:
    here = os.uname().nodename
    assert is_this_machine(here) and is_this_machine("localhost") and is_this_machine(here.partition(".")[0] + ".example.org")
    assert not is_this_machine("elsewhere.example.org")


class Remote:
    """A user-server on another machine: a thread on a CURVE socket."""

    def __init__(self, allowed: str) -> None:
        self.public, secret = make_curve_pair()
        self.allowed = allowed
        self.heard: list[object] = []
        self._server = ZmqServer("tcp://127.0.0.1:0", self.public, secret)
        self.port = self._server.port
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._end.wait(0.002):
            for peer, letter, *_ in self._server.receive():
                if letter is None or peer.key != self.allowed:
                    continue
                for message in letter.messages:
                    self.heard.append(message)
                    self._server.send(envelope(PeerHeartbeat()), peer)
                    answer = PeerFacts(facts={}) if isinstance(message, PeerAsk) else JobSubmitted(items=(SubmittedItem("k", 77, 1),))
                    self._server.send(envelope(answer, re=letter.id), peer)

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._server.close()


def test_a_user_server_on_another_machine(here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    public, secret = make_curve_pair()
    remote = Remote(public)
    try:
        folder = here.home / here.instance
        folder.mkdir(mode=0o700)
        access = {"host": "127.0.0.1", "port": remote.port, "boot": "b", "public": remote.public, "client_public": public, "client_secret": secret}
        (folder / "access.json").write_text(json.dumps(access))
        (folder / "access.json").chmod(0o600)
        assert read_access(here.instance) == access
        monkeypatch.setattr(connect, "is_this_machine", lambda host: False)
        assert submit.main(["-q", "echo", "\udcff"]) == 0
        assert capsys.readouterr().out == "77\n"
        asked = remote.heard[-1]
        assert isinstance(asked, JobAsk) and asked.jobs[0].argv == (b"echo", b"\xff")
        (folder / "access.json").chmod(0o644)
        assert submit.main(["true"]) == 1
        assert "chmod" in capsys.readouterr().err
    finally:
        remote.close()


def test_an_access_file_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hq.client.remote.DIAL_TIMEOUT", 0.2)
    public, secret = make_curve_pair()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        access = {"host": "127.0.0.1", "port": unused.getsockname()[1], "public": public, "client_public": public, "client_secret": secret}
        assert dial_remote(access) is None
    with pytest.raises(SecurityError, match="not whole"):
        dial_remote({"host": "127.0.0.1"})


def named_machine(here: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ssh: str) -> None:
    """The site names login2 for user-servers; `ssh` is what its ssh does, in shell."""
    install(here, tmp_path)
    with (here.etc / "client.yaml").open("a") as file:
        file.write("userserver: login2\n")
    program = tmp_path / "bin" / "ssh"
    program.write_text(f"#!/bin/sh\n{ssh}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_starting_on_the_machine_that_the_site_names(here: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    named_machine(here, tmp_path, monkeypatch, 'echo "ssh: $*" >&2; exit 255')
    assert submit.main(["true"]) == 1
    err = capsys.readouterr().err
    assert "your user-server on login2 cannot be started:" in err
    assert f"-- login2 {tmp_path}/bin/hq-user-server -d --etc {here.etc}" in err


def test_the_one_on_the_machine_that_the_site_names_tells_where_it_is_only_after_its_start(
    here: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named_machine(here, tmp_path, monkeypatch, "exit 0")
    public, secret = make_curve_pair()
    remote = Remote(public)
    access = {"host": "127.0.0.1", "port": remote.port, "boot": "b", "public": remote.public, "client_public": public, "client_secret": secret}
    looks = iter([None, None])
    monkeypatch.setattr(spawn, "read_access", lambda instance: next(looks, access))
    try:
        assert submit.main(["-q", "true"]) == 0
        assert capsys.readouterr().out == "77\n"
        access["public"] = public
        monkeypatch.setattr(spawn, "TOLD_TIMEOUT", 0.0)
        monkeypatch.setattr("hq.client.remote.DIAL_TIMEOUT", 0.2)
        assert submit.main(["-q", "true"]) == 1
        assert "login2 was started, but its access file does not lead to it: the same command typed there says why" in capsys.readouterr().err
    finally:
        remote.close()


def test_enrolling_at_the_servers_socket(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    public, _ = make_curve_pair()
    argv = ["enrol", "--public", public, "--sign-public", "ab"]
    assert commands.main(argv) == 1
    said = capsys.readouterr().err
    assert "ssh 127.0.0.1 /" in said and f" enrol --etc {here.etc} --public {public_in_hex(public)} --sign-public ab\n" in said
    with FakeUserServer(str(tmp_path / "enrol.sock"), lambda message: [KeyEnrolled(user="alice", role=Role.USER_SERVER, proof="peercred")]) as server:
        assert commands.main(argv) == 0
    assert server.heard == [KeyEnrol(public=public, role=Role.USER_SERVER, sign_public="ab")]
    assert capsys.readouterr().out == "the key is registered for alice\n"


def test_what_is_sent_is_what_the_codec_reads() -> None:
    assert decode_line(b'{"type": "peer.ask", "what": "ping"}\n') == PeerAsk(what="ping")
