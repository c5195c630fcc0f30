"""A small `make chaos`: a dozen faults while two users' tasks run, and every task is accounted for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.chaos.plan import KINDS, ONCE, make_plan
from tests.chaos.stage import tracebacks
from tests.support.install import REPOSITORY


@pytest.mark.timeout(330)  # one that waits until everything is at rest says what is not
def test_nothing_is_lost_and_nothing_runs_twice() -> None:
    argv = [sys.executable, "-m", "tests.chaos.run", "--seed", "7", "--faults", "8", "--tasks", "120"]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("lost=0 double=0 wrong=0 stuck=0 unknown=")


def test_a_seed_is_a_plan() -> None:
    one, two, other = (make_plan(seed, 20, 500, ("a", "b"), ("u", "v")) for seed in (1, 1, 2))
    assert one == two != other
    assert len(one.faults) == 20 and sum(each.tasks for each in one.submissions) == 500


def test_an_error_of_hq_itself_is_seen_in_a_log() -> None:
    log = "INFO fine\nCRITICAL it dies\n    Traceback (most recent call last):\n      File x\n        y()\n    KeyError: 'z'\nINFO on\n"
    assert tracebacks(log + "Traceback (most recent call last):\n  File x\nOSError: no\n") == ["KeyError: 'z'", "OSError: no"]
    assert tracebacks("INFO fine\n") == []


def test_many_faults_are_of_every_kind() -> None:
    kinds = [fault.kind for fault in make_plan(3, 100, 100, ("a",), ("u",)).faults]
    assert len(kinds) == 100 and set(kinds) == set(KINDS)
    assert all(kinds.count(kind) == 1 for kind in ONCE)
    assert ONCE.isdisjoint(fault.kind for fault in make_plan(3, 8, 100, ("a",), ("u",)).faults), "a few faults are done with soon"
    assert {fault.kind for fault in make_plan(3, 8, 100, ("a",), ("u",), ("kill both",)).faults} == {"kill both"}
