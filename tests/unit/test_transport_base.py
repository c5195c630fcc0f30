"""The dialogue with an exec-server, deadlines, checks and ssh's command lines, without any ssh."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hq import VERSION
from hq.errors import RefusedError, RemoteError, UnavailableError
from hq.model.host import HostSpec
from hq.userserver.transports.base import Bootstrap, Started, Transports, TransportSettings, read_started, transport_for
from hq.userserver.transports.check import steps_of
from hq.userserver.transports.deadline import Deadline, bounded
from hq.userserver.transports.openssh import PATH_LIMIT, command_argv, control_path, master_argv, parse_allocated
from hq.userserver.transports.processes import run_process
from hq.userserver.transports.sessions import AnswerReader

BOOTSTRAP = Bootstrap(
    instance="i-00000000", host="h", user="u", upstreams=("tcp://a:1",), upstream_key="k", public="p", secret="CURVE-SECRET",
    sign_public="s", seal_key="SEAL-SECRET", slots=2, heartbeat=2.0, version="1", protocol=1, local_port=5,
)  # fmt: skip


def spec(transport: str = "local") -> HostSpec:
    return HostSpec(name="h", address="localhost", total=1, slots=1, transport=transport)


def test_bootstrap_is_one_line_and_keeps_the_local_port_to_itself() -> None:
    line = BOOTSTRAP.with_upstream("tcp://127.0.0.1:9").to_line()
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert set(json.loads(line)) == {
        "instance", "host", "user", "upstreams", "upstream_key", "public", "secret", "sign_public", "seal_key", "slots", "heartbeat",
        "version", "protocol", "allow_root", "idle", "home", "server", "standbys", "server_key", "backend", "batch",
    }  # fmt: skip
    assert json.loads(line)["upstreams"] == ["tcp://a:1", "tcp://127.0.0.1:9"]


def test_secrets_do_not_show_in_a_log_of_the_object() -> None:
    assert "SECRET" not in repr(BOOTSTRAP)


def test_a_good_answer() -> None:
    assert read_started(b'{"ok": true, "pid": 7, "machine": "m", "adopted": true}', "host h") == Started(pid=7, machine="m", is_adopted=True)


def test_a_refusal_carries_the_reason() -> None:
    with pytest.raises(RefusedError, match="host h: .*no room"):
        read_started(b'{"ok": false, "reason": "no room"}', "host h")


@pytest.mark.parametrize("line", [b"", b"hello", b"[]", b"7", b'{"ok": true}', b'{"ok": true, "pid": "7"}', b'{"ok": true, "pid": true}'])
def test_nonsense_is_told_and_no_crash(line: bytes) -> None:
    with pytest.raises(RemoteError):
        read_started(line, "host h")


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_answer_is_found_between_noise_in_any_pieces(size: int) -> None:
    reader = AnswerReader()
    text = b'Welcome\n\n{"half\n[1]\n{"ok": true}\n{"ok": false}\n'
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    assert reader.answer == b'{"ok": true}'
    assert reader.noise == 'Welcome\n{"half\n[1]'


def test_an_answer_without_newline_counts_at_the_end() -> None:
    reader = AnswerReader()
    assert not reader.feed(b'{"ok": true}')
    reader.end()
    assert reader.answer == b'{"ok": true}'


def test_an_endless_line_is_not_kept() -> None:
    reader = AnswerReader()
    for _ in range(40):
        reader.feed(b"x" * 100_000)
    assert len(reader.noise) < 100_000


def test_bounded_gives_the_value_or_the_error() -> None:
    assert bounded(lambda: 3, Deadline(5), "three") == 3
    with pytest.raises(ValueError, match="no"):
        bounded(lambda: int("no"), Deadline(5), "three")


def test_bounded_leaves_a_call_behind_and_discards_its_value() -> None:
    go, gone = threading.Event(), threading.Event()
    with pytest.raises(UnavailableError, match="the agent: no answer within"):
        bounded(lambda: go.wait(10) and "late", Deadline(0.05), "the agent", lambda value: gone.set())
    go.set()
    assert gone.wait(5)


def test_a_cancel_ends_a_wait() -> None:
    cancel, go = threading.Event(), threading.Event()
    cancel.set()
    with pytest.raises(UnavailableError, match="cancelled"):
        bounded(lambda: go.wait(10), Deadline(60, cancel), "waiting")
    go.set()


def test_an_unknown_kind_of_transport_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="carrier-pigeon.*ssh, openssh and local"):
        transport_for(spec("carrier-pigeon"), TransportSettings(run_dir=str(tmp_path)))


def test_one_transport_a_kind(tmp_path: Path) -> None:
    transports = Transports(TransportSettings(run_dir=str(tmp_path)))
    assert transports.transport_for(spec()) is transports.transport_for(spec())
    transports.close()


def local(tmp_path: Path, script: str) -> Transports:
    return Transports(TransportSettings(run_dir=str(tmp_path), local_exec_server=(sys.executable, "-c", script)))


def test_local_start(tmp_path: Path) -> None:
    script = "import sys,json; told=json.loads(sys.stdin.read()); print(json.dumps({'ok': True, 'pid': 9, 'machine': [told['secret'], sys.argv]}))"
    started = local(tmp_path, script).start(spec(), BOOTSTRAP)
    assert started.machine == ["CURVE-SECRET", ["-c", "--bootstrap"]]


def test_local_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="exit status 3.*out of cheese"):
        local(tmp_path, "import sys; print('out of cheese', file=sys.stderr); sys.exit(3)").start(spec(), BOOTSTRAP)


def test_local_start_of_a_missing_command_says_so(tmp_path: Path) -> None:
    transports = Transports(TransportSettings(run_dir=str(tmp_path), local_exec_server=("/no/such/command",)))
    with pytest.raises(RefusedError, match="/no/such/command.*No such file"):
        transports.start(spec(), BOOTSTRAP)
    assert [step.is_ok for step in transports.check(spec())] == [True, False]


def test_local_start_ends_by_its_deadline(tmp_path: Path) -> None:
    # a shell is quick to say it, before the deadline
    command = ("/bin/sh", "-c", "echo half way >&2; exec sleep 60")
    transports = Transports(TransportSettings(run_dir=str(tmp_path), local_exec_server=command, start_timeout=2.0))
    with pytest.raises(UnavailableError, match="no answer within.*half way"):
        transports.start(spec(), BOOTSTRAP)


def test_a_child_that_does_not_read_is_no_broken_pipe() -> None:
    ran = run_process([sys.executable, "-c", "print('{}')"], b"x" * 1_000_000, Deadline(20), "host h")
    assert (ran.answer, ran.status) == (b"{}", 0)


FACTS: dict[str, Any] = {"python": "3.11.2", "version": VERSION, "ulimits": {"nofile": 1024, "nproc": None}, "lingering": True}


def steps(**facts: Any) -> dict[str, tuple[bool, str]]:
    return {step.name: (step.is_ok, step.text) for step in steps_of(json.dumps(FACTS | facts).encode())}


def test_a_good_host_passes_every_step() -> None:
    found = steps(way_back={"tcp://a:1": "refused", "tcp://b:2": None})
    assert list(found) == ["login", "python", "version", "way back", "limits", "lingering"]
    assert all(is_ok for is_ok, _ in found.values())
    assert "reaches tcp://b:2" in found["way back"][1] and "tcp://a:1: refused" in found["way back"][1]


@pytest.mark.parametrize(
    ("name", "facts", "words"),
    [
        ("python", {"python": "3.9.1"}, "3.11 or newer"),
        ("python", {"python": None}, "3.11 or newer"),
        ("version", {"version": None}, VERSION),
        ("way back", {"way_back": {"tcp://a:1": "timed out"}}, "tcp://a:1: timed out"),
        ("limits", {"ulimits": {"nofile": 64}}, "only 64 open files"),
    ],
)
def test_what_is_wrong_fails_its_step(name: str, facts: dict[str, Any], words: str) -> None:
    found = steps(**facts)
    assert not found[name][0]
    assert words in found[name][1]


@pytest.mark.parametrize("answer", [b"hello", b"[]", b"null"])
def test_facts_that_are_nonsense_fail(answer: bytes) -> None:
    assert [step.is_ok for step in steps_of(answer)] == [True, False]


def test_ssh_is_told_nothing_that_could_be_an_option() -> None:
    for argv in (master_argv("h", "/c", 3, 5), command_argv("h", "/c", "'/opt/hq server' --bootstrap")):
        assert argv[argv.index("--") + 1] == "h"
    assert command_argv("h", "/c", "x y")[-1] == "x y"
    assert "BatchMode=yes" in master_argv("h", "/c", 3, 5)


def test_an_address_that_looks_like_an_option_is_refused(tmp_path: Path) -> None:
    host = HostSpec(name="h", address="-oProxyCommand=touch /tmp/x", total=1, slots=1, transport="openssh")
    with pytest.raises(RefusedError, match="not an address"):
        transport_for(host, TransportSettings(run_dir=str(tmp_path))).start(host, BOOTSTRAP)


@pytest.mark.parametrize(
    ("output", "port"),
    [
        ("40123", 40123),
        ("Allocated port 40123 for remote forward to 127.0.0.1:5", 40123),
        ("Warning: something 99 odd\n40123\n", 40123),
        ("remote port forwarding failed for listen port 0", None),
        ("", None),
    ],
)
def test_the_allocated_port_is_found(output: str, port: int | None) -> None:
    assert parse_allocated(output) == port


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    assert len(control_path("/var/tmp/hq-1000/lab-0a1b2c3d", "h")) < PATH_LIMIT
    with pytest.raises(RefusedError, match="too long"):
        control_path("/var/tmp/" + "x" * 80, "h")
