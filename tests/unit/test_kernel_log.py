"""Logs, timers, and who may send what."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from hq.errors import InputError
from hq.kernel.identity import may_send
from hq.kernel.log import open_log
from hq.kernel.timers import Timers
from hq.model.selection import Selection
from hq.model.user import Role
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import JobQuery
from hq.protocol.peers import KeyEnrol, PeerAsk, PeerHeartbeat, PeerShutdown


def test_lines_have_time_level_and_category_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    log = open_log("hq-server", str(tmp_path))
    log.category("jobs").info("job %d accepted", 7)
    log.category("jobs").debug("not at this level")
    path = tmp_path / "hq-server.log"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} INFO jobs: job 7 accepted\n", path.read_text())
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_no_text_makes_a_line_of_its_own(tmp_path: Path) -> None:
    log = open_log("d", str(tmp_path))
    log.category("a").warning("name %s", "x\n2026-01-01 INFO a: forged\r\x1b[2J\x85\u2028end")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.category("a").exception("failed")
    lines = (tmp_path / "d.log").read_text().splitlines()
    assert lines[0].endswith("name x\\n2026-01-01 INFO a: forged\\x0d\\x1b[2J\\x85\\x2028end")
    assert lines[1].endswith("ERROR a: failed") and len(lines) > 3
    assert all(line.startswith("    ") for line in lines[2:])


def test_categories_are_switched_one_by_one(tmp_path: Path) -> None:
    log = open_log("d", str(tmp_path))
    jobs, hosts = log.category("jobs"), log.category("hosts")
    log.set_category("jobs", False)
    assert log.categories() == {"hosts": True, "jobs": False}
    jobs.error("silent")
    hosts.info("heard")
    log.set_category("jobs", True)
    jobs.info("again")
    assert [line.split(": ")[1] for line in (tmp_path / "d.log").read_text().splitlines()] == ["heard", "again"]
    with pytest.raises(InputError, match="did you mean 'jobs'"):
        log.set_category("job", True)


def test_the_file_rotates_and_is_begun_anew_when_it_was_moved(tmp_path: Path) -> None:
    log = open_log("d", str(tmp_path), max_bytes=1000, files=2)
    for number in range(100):
        log.category("a").info("line %d", number)
    assert sorted(os.listdir(tmp_path)) == ["d.log", "d.log.1", "d.log.2"]
    assert all(each.stat().st_size <= 1000 and each.stat().st_mode & 0o077 == 0 for each in tmp_path.iterdir())
    (tmp_path / "d.log").rename(tmp_path / "moved")
    log.reopen()
    log.category("a").info("fresh")
    assert "fresh" in (tmp_path / "d.log").read_text() and "fresh" not in (tmp_path / "moved").read_text()
    log.close()


def test_without_a_directory_it_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log = open_log("d", None, "DEBUG")
    log.category("a").debug("hello")
    log.set_level("ERROR")
    log.category("a").info("no more")
    log.category("b").info("nor here")
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unwritable_place_and_a_bad_level_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        open_log("d", str(tmp_path / "none"))
    with pytest.raises(InputError, match="LOUD"):
        open_log("d", str(tmp_path), "LOUD")


def test_timers_are_due_at_their_interval_and_missed_turns_are_not_made_up() -> None:
    timers = Timers()
    assert timers.next() is None and timers.due(0) == []
    timers.add("heartbeat", 5, 100)
    timers.add("probe", 60, 130)
    assert timers.due(99.9) == [] and timers.next() == 100
    assert timers.due(100) == ["heartbeat"] and timers.next() == 105
    assert timers.due(200) == ["heartbeat", "probe"]
    assert timers.due(200) == [] and timers.next() == 205


def test_an_interval_can_be_changed() -> None:
    timers = Timers()
    timers.add("probe", 60, 100)
    timers.due(100)
    timers.set_interval("probe", 10)
    assert timers.next() == 110 and timers.intervals() == {"probe": 10}
    with pytest.raises(InputError, match="did you mean 'probe'"):
        timers.set_interval("prob", 1)
    for bad in (0, -1, 1e9, float("nan")):
        with pytest.raises(InputError, match="out of range"):
            timers.set_interval("probe", bad)


def test_a_stranger_may_ask_to_be_enrolled_and_nothing_else() -> None:
    assert may_send(KeyEnrol(public="k", role=Role.USER_SERVER), Role.STRANGER)
    for message in (Problem(text="x"), PeerAsk(), PeerHeartbeat(), PeerShutdown(), JobQuery(selection=Selection())):
        assert not may_send(message, Role.STRANGER)


def test_rights_follow_the_declaration() -> None:
    ask = PeerAsk(what="ping")
    assert [role for role in Role if may_send(ask, role)] == [Role.USER_SERVER, Role.CLIENT, Role.ADMIN]
    assert may_send(Problem(text="x"), Role.EXEC_SERVER)
    assert not any(may_send(Message(), role) for role in Role)
