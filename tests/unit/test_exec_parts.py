"""Parts of the exec-server that need no process: paths, environment, journal, dialler, statuses, control groups, root."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hq.errors import InputError, RefusedError
from hq.execserver.backends.cgroup import CgroupManager, delegated, own_group, prepare
from hq.execserver.backends.procs import parse_stat, read_proc
from hq.execserver.backends.statuses import Status, StatusReader, status_line
from hq.execserver.bootstrap import parse_bootstrap, with_ssh_route
from hq.execserver.dial import Dialer
from hq.execserver.environment import parse_environment, run_environment, shared_environment
from hq.execserver.journal import Journal, Line, read_journal
from hq.execserver.outputs import read_piece, trim
from hq.execserver.paths import run_paths
from hq.execserver.rootpolicy import is_container, root_refusal
from hq.kernel.bus import MemoryBus
from hq.kernel.clock import ManualClock
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import JobSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import Outcome, RunKind
from hq.protocol.codec import envelope
from hq.protocol.peers import PeerHeartbeat
from hq.protocol.runs import ExecHello


def spec(**fields: Any) -> JobSpec:
    """A job of alice's."""
    return JobSpec(**{"instance": "i", "user": "alice", "key": "k", "name": "n", "argv": (b"true",), "cwd": b"/data", **fields})


# --- paths ----------------------------------------------------------------------------------------------------------


def test_placeholders_and_values_that_would_leave_the_directory() -> None:
    job = spec(stdout=b"{name}/{job}-{index}-{task}-{host}-{user}-{what}.out", name="a/../b\n\x07\u2028c")
    paths = run_paths(job, TaskKey(12, 7), "alpha", "/home/.hq")
    assert paths.stdout == b"/data/a..bc/12-7-12_7-alpha-alice-{what}.out"
    assert run_paths(spec(stdout=b"{name}/x", name=".."), TaskKey(1), "a", "/h").stdout == b"/data/_/x"


def test_defaults_logfile_and_absolute_paths() -> None:
    paths = run_paths(spec(), TaskKey(12, 7), "alpha", "/home/.hq")
    assert (paths.stdout, paths.stderr) == (b"/home/.hq/i/output/12/12_7.out", b"/home/.hq/i/output/12/12_7.err")
    assert paths.is_default and paths.of_stream("log") == b""
    log = run_paths(spec(logfile=b"l.log", stdout=b"/abs/o"), TaskKey(12), "alpha", "/h")
    assert (log.stdout, log.stderr, log.logfile) == (b"/abs/o", b"/data/l.log", b"/data/l.log")
    assert not log.is_default


# --- environment ----------------------------------------------------------------------------------------------------


def test_a_job_submitted_from_within_a_job_inherits_nothing_of_it() -> None:
    base = parse_environment(b"A=1\0HQ_ARRAY_INDEX=3\0HQ_RUN=old\0nonsense\0=x\0B=\xff=2\0HQ_HOME=/h")
    found = run_environment(shared_environment(base, spec(), "alpha"), spec(), StartOrder(5, PLAIN, 2, (3, 4)), "new")
    assert found[b"A"] == b"1" and found[b"B"] == b"\xff=2" and found[b"HQ_HOME"] == b"/h"
    assert b"HQ_ARRAY_INDEX" not in found and found[b"HQ_RUN"] == b"new"
    assert (found[b"HQ_ATTEMPT"], found[b"HQ_SLOTS"], found[b"HQ_SLOT_IDS"]) == (b"2", b"2", b"3,4")


# --- journal --------------------------------------------------------------------------------------------------------


def test_a_journal_cut_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.note(t="order", key=(1, PLAIN, 1), slots=(0,))
    journal.note(t="starting", key=(1, PLAIN, 1), tag="t", at=5.0)
    journal.flush(is_synced=True)
    journal.close()
    with open(path, "ab") as file:
        file.write(b'{"t":"started","key":[1,-1')
    journal = Journal(path)
    journal.note(t="order", key=(2, 3, 1), slots=(1,))
    journal.flush()
    journal.close()
    found = read_journal(path)
    assert found.bad_lines == 1
    assert found.runs[AttemptKey(1, PLAIN, 1)].tag == "t" and found.runs[AttemptKey(1, PLAIN, 1)].pid == 0
    assert found.runs[AttemptKey(2, 3, 1)].order.slots == (1,)


def test_what_is_over_is_remembered_as_seen_and_its_report_until_recorded(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal(path)
    report = RunReport(job=1, index=PLAIN, attempt=1, kind=RunKind.ENDED, at=1.0, outcome=Outcome.OK, exit_code=0)
    journal.note(t="order", key=(1, PLAIN, 1))
    journal.note(t="batch", sequence=41, reports=(report,))
    journal.flush()
    assert read_journal(path).batches == {41: (report,)}
    journal.note(t="recorded", sequence=41)
    journal.note(t="order", key=(1, PLAIN, 1))
    journal.flush()
    found = read_journal(path)
    assert (found.runs, found.batches, found.last) == ({}, {}, 41)
    assert AttemptKey(1, PLAIN, 1) in found.seen


def test_a_full_disk_keeps_the_records_for_later() -> None:
    journal = Journal("/dev/full")
    journal.note(t="order", key=(1, PLAIN, 1))
    with pytest.raises(OSError, match="No space"):
        journal.flush()
    assert journal.is_behind
    journal.close()


def test_rewriting_replaces_the_journal(tmp_path: Path) -> None:
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal.note(t="order", key=(1, PLAIN, 1))
    journal.flush()
    journal.rewrite([Line(t="boot", boot="b", sequence=9), Line(t="seen", key=(1, PLAIN, 1))])
    journal.note(t="order", key=(2, PLAIN, 1))
    journal.flush()
    found = read_journal(path)
    assert (found.boot, found.last, list(found.runs), list(found.seen)) == ("b", 9, [AttemptKey(2, PLAIN, 1)], [AttemptKey(1, PLAIN, 1)])


def test_statuses_are_read_as_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "statuses"
    reader = StatusReader(str(path))
    assert reader.read() == {}
    path.write_bytes(status_line(10, 555, 3 << 8, 2048, 1.5) + b"rubbish\n" + status_line(11, 556, 9, 1, 0.0)[:-4])
    assert reader.read() == {(10, 555): Status(3, None, 2048 * 1024, 1.5)}
    with path.open("ab") as file:
        file.write(status_line(11, 556, 9, 1, 0.0)[-4:])
    assert reader.read()[11, 556] == Status(None, 9, 1024, 0.0)


# --- start line -----------------------------------------------------------------------------------------------------


def line(**changes: Any) -> str:
    """A start line."""
    return json.dumps({
        "instance": "i-12345678", "host": "alpha", "user": "alice", "upstreams": ["tcp://10.0.0.1:5000"], "upstream_key": "u" * 40,
        "public": "p" * 40, "secret": "s" * 40, "sign_public": "00", "seal_key": "11", **changes,
    })  # fmt: skip


def test_the_client_address_of_sshd_is_the_second_way() -> None:
    told = ("tcp://10.0.0.1:5000", "tcp://127.0.0.1:77")
    assert with_ssh_route(told, "192.0.2.7 5123 192.0.2.1 22") == ("tcp://10.0.0.1:5000", "tcp://192.0.2.7:5000", "tcp://127.0.0.1:77")
    assert with_ssh_route(told, "fe80::1 5123 fe80::2 22")[1] == "tcp://[fe80::1]:5000"
    assert with_ssh_route(told, "10.0.0.1 1 2 3") == told
    assert with_ssh_route(told, None) == told


@pytest.mark.parametrize("text", ["", "{", line(instance="../x"), line(upstreams=[]), line(secret="short"), line(heartbeat=0), "[" * 5000])
def test_a_bad_start_line_is_refused_and_never_quoted(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_bootstrap(text)
    assert "s" * 40 not in str(caught.value)


def test_secrets_do_not_stand_in_a_repr() -> None:
    assert "s" * 40 not in repr(parse_bootstrap(line())) and "11" not in repr(parse_bootstrap(line()))


# --- dialler --------------------------------------------------------------------------------------------------------


def hello(route: str) -> ExecHello:
    """The first word."""
    return ExecHello(version="0", protocol=1, boot="b", host="alpha", machine="m", pid=1, route=route)


def test_addresses_are_tried_in_order_and_the_route_says_which_failed() -> None:
    bus, clock = MemoryBus(), ManualClock()
    server = bus.listen("tcp://second", "key")
    dialer = Dialer(("tcp://first", "tcp://second"), 10.0, lambda address: bus.dial(address, "me"), hello)
    dialer.keep_up(clock.now())
    clock.move(3)
    dialer.keep_up(clock.now())
    (got,) = server.receive()
    assert got.letter is not None
    assert got.letter.messages[0].route == "tcp://second (tcp://first: no connection within 3 s)"
    dialer.welcomed(2.0, clock.now())
    assert dialer.is_linked


def test_silence_is_redialled_and_a_word_keeps_the_link() -> None:
    bus, clock = MemoryBus(), ManualClock()
    server = bus.listen("tcp://a", "key")
    dialer = Dialer(("tcp://a",), 10.0, lambda address: bus.dial(address, "me"), hello)
    dialer.keep_up(clock.now())
    (got,) = server.receive()
    dialer.welcomed(2.0, clock.now())
    clock.move(5)
    server.send(envelope(PeerHeartbeat()), got.peer)
    assert dialer.receive(clock.now())
    clock.move(5)
    dialer.keep_up(clock.now())
    assert dialer.is_linked
    clock.move(1.5)
    dialer.keep_up(clock.now())
    assert not dialer.is_linked
    (again,) = server.receive()
    assert again.letter is not None and "silent" in again.letter.messages[0].route


def test_a_round_of_failures_is_followed_by_a_longer_and_longer_pause() -> None:
    bus, clock = MemoryBus(), ManualClock()
    dialled: list[float] = []

    def dial(address: str) -> Any:
        dialled.append(clock.now().boot)
        return bus.dial(address, "me")

    dialer = Dialer(("tcp://nobody",), 10.0, dial, hello)
    while len(dialled) < 7:
        wake = dialer.keep_up(clock.now())
        clock.move(max(0.0, wake - clock.now().boot))
    assert [round(b - a) for a, b in zip(dialled, dialled[1:], strict=False)] == [4, 5, 8, 13, 33, 33]


# --- output files ---------------------------------------------------------------------------------------------------


def test_reading_passes_over_what_was_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"a" * 100_000 + b"b" * 2_000_000 + b"c" * 100_000)
    found = os.stat(path)
    before = path.stat().st_size
    assert trim(os.fsencode(path), 1 << 20, (found.st_dev, found.st_ino)) > 1_000_000
    assert path.stat().st_size == before
    offset, data = 0, b""
    while offset < before:
        piece = read_piece(os.fsencode(path), offset, 1 << 16)
        offset = piece.offset + len(piece.data)
        data += piece.data
    assert data.startswith(b"a" * 100_000) and data.endswith(b"c" * 100_000) and b"cut out here" in data
    assert len(data) < 1 << 20


def test_another_file_under_the_same_name_is_never_trimmed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"x" * 2_000_000)
    assert trim(os.fsencode(path), 1 << 20, (1, 2)) == 0
    assert path.read_bytes() == b"x" * 2_000_000


def test_pieces_from_the_end_and_beyond_it(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"0123456789")
    name = os.fsencode(path)
    assert read_piece(name, -3, 100).data == b"789"
    assert read_piece(name, -300, 4).data == b"0123"
    assert (read_piece(name, 50, 4).data, read_piece(name, 50, 4).offset) == (b"", 10)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(RefusedError, match="no regular file"):
        read_piece(os.fsencode(tmp_path / "fifo"), 0, 1)


# --- processes and control groups -----------------------------------------------------------------------------------


def test_a_process_name_with_parentheses_and_spaces() -> None:
    text = b"77 (a) R 1 (b c) S 5 6 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 3 18446744073709551615"
    proc = parse_stat(text)
    assert (proc.pid, proc.ppid, proc.group, proc.session, proc.state, proc.starttime) == (77, 5, 6, 7, "S", 12345)
    assert proc.rss == 3 * os.sysconf("SC_PAGE_SIZE")
    own = read_proc(os.getpid())
    assert own is not None and own.ppid == os.getppid() and own.is_alive


def make_group(root: Path, **files: str) -> Path:
    """A directory that looks like a delegated control group."""
    root.mkdir(parents=True)
    for name, text in {"cgroup.controllers": "cpu memory pids", "cgroup.procs": "", "cgroup.subtree_control": "", **files}.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def test_delegation_is_found_by_files_and_rights(tmp_path: Path) -> None:
    assert own_group("1:name=systemd:/x\n0::/user.slice/a.service\n") == "/user.slice/a.service"
    assert own_group("4:memory:/x\n") is None
    group = make_group(tmp_path / "user.slice" / "a.service")
    assert delegated("/user.slice/a.service", str(tmp_path)) == str(group)
    (group / "cgroup.controllers").write_text("cpu pids")
    assert delegated("/user.slice/a.service", str(tmp_path)) is None
    make_group(tmp_path / "root")
    assert delegated("/", str(tmp_path / "root")) is None


def test_daemons_go_into_a_leaf_unless_others_are_there(tmp_path: Path) -> None:
    group = make_group(tmp_path / "a")
    (group / "cgroup.procs").write_text("10\n11\n99\n")
    assert prepare(str(group), [10, 11]) is None
    (group / "cgroup.procs").write_text("10\n11\n")
    assert prepare(str(group), [10, 11]) is not None
    assert (group / "hq-daemons" / "cgroup.procs").read_text() == "11"
    assert (group / "cgroup.subtree_control").read_text() == "+memory"


def test_a_run_has_its_group_its_limit_and_its_peak(tmp_path: Path) -> None:
    groups = CgroupManager(str(make_group(tmp_path / "a")))
    assert groups.enter("tag", 1234, 1 << 20)
    place = tmp_path / "a" / "hq-run-tag"
    assert (place / "memory.max").read_text() == "1048576" and (place / "cgroup.procs").read_text() == "1234"
    (place / "memory.peak").write_text("1000000\n")
    (place / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    (place / "memory.stat").write_text("anon 4096\nfile 999999\n")
    assert groups.current("tag") == 4096
    usage = groups.leave("tag")
    assert usage is not None and (usage.peak, usage.oom_kills) == (1_000_000, 2)
    assert groups.leave("unknown") is None


def test_root_only_in_containers_or_when_allowed(tmp_path: Path) -> None:
    assert root_refusal(1000, False, False) is None
    assert root_refusal(0, True, False) is None
    assert root_refusal(0, False, True) is None
    refusal = root_refusal(0, False, False)
    assert refusal is not None and "--allow-root" in refusal
    assert not is_container(str(tmp_path))
    (tmp_path / "proc" / "1").mkdir(parents=True)
    (tmp_path / "proc" / "1" / "environ").write_bytes(b"A=b\0container=lxc\0")
    assert is_container(str(tmp_path))
