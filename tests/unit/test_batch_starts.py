"""How an attempt at a batch system began: as which native job, and when by our own clock."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.batchfiles import Group
from hq.execserver.batchmembers import Member
from hq.execserver.batchstarts import begun_as, measure_lag, note_start, read_start, strays
from hq.model.ids import PLAIN, AttemptKey


def marked(folder: Path, native: str, at: float, mtime: float) -> Group:
    """A submission whose runner made its mark, by the node's clock and by the file system's."""
    path = folder / "0.start"
    path.write_text(json.dumps({"native": native, "node": "n1", "pid": 5, "at": at}))
    os.utime(path, (mtime, mtime))
    return Group("hq-1", str(folder), [AttemptKey(1, PLAIN, 1)], native="8")


@pytest.mark.parametrize(("id", "native", "wanted"), [
    ("8", "8", "8"), ("8", "7", "7"), ("8_2", "7_2", "7_2"), ("8_2", "8_2", "8_2"), ("", "7_2", "7_2"), ("8[2].trq", "7[2].trq.example.org", "7[2].trq"),
    ("8.trq", "8.trq.example.org", "8.trq"), ("", "7", "7"), ("8", "", "8"),
])  # fmt: skip
def test_it_is_the_job_whose_runner_made_the_mark(id: str, native: str, wanted: str) -> None:
    assert begun_as(id, native) == wanted


def test_moments_are_the_file_systems_moved_to_our_clock_and_never_before_the_submission_or_to_come(tmp_path: Path) -> None:
    now = time.time()
    group = marked(tmp_path, "8", now + 7200, now - 130)
    start = read_start(group, 0, "8", now - 60, 100.0)
    assert start is not None and start.at == pytest.approx(now - 30, abs=0.1) and start.skew == pytest.approx(-7230, abs=0.1)
    start = read_start(group, 0, "8", now - 20, 100.0)
    assert start is not None and start.at == now - 20
    start = read_start(group, 0, "8", now - 20, 500.0)
    assert start is not None and now <= start.at <= time.time()


def test_of_two_that_were_accepted_the_other_is_named_once(tmp_path: Path) -> None:
    group = marked(tmp_path, "7", time.time(), time.time())
    member = Member(group.keys[0], group, 0, id="8", final=5.0, absent=5.0)
    found = note_start(member, 0.0)
    assert found is not None and found[1] == "8" and (member.id, member.final, member.absent) == ("7", None, None)
    again = note_start(member, 0.0)
    assert again is not None and again[1] == ""
    assert note_start(Member(group.keys[0], group, 1), 0.0) is None


def test_a_second_acceptance_is_a_stray_once_its_like_has_begun() -> None:
    group = Group("hq-1", "/nowhere", [AttemptKey(1, index, 1) for index in range(3)], native="8")
    members = [Member(key, group, index, id=f"8_{index}") for index, key in enumerate(group.keys)]
    jobs = {
        id: NativeJob(id=id, state=state, tag=tag)
        for id, state, tag in (("8_0", NativeState.PENDING, "hq-1"), ("7_0", NativeState.PENDING, "hq-1"), ("7_1", NativeState.RUNNING, "hq-1"),
                               ("7_2", NativeState.PENDING, "hq-1"), ("9_0", NativeState.PENDING, "hq-2"), ("6", NativeState.PENDING, ""))  # fmt: skip
    }
    assert strays(jobs, members) == [], "nobody knows yet which one begins"
    members[0].has_begun = members[1].has_begun = True
    assert strays(jobs, members) == ["7_0"]
    members[0].id = "7_0"
    assert strays(jobs, members) == ["8_0"]


def test_the_lag_of_a_file_system_is_measured_and_leaves_nothing(tmp_path: Path) -> None:
    assert abs(measure_lag(str(tmp_path))) < 5 and not list(tmp_path.iterdir())
    assert measure_lag(str(tmp_path / "gone")) == 0.0
