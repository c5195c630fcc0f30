"""The state database fails at each commit, in each way: what was acknowledged is there, nothing runs twice, each end is recorded once and as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine

from hq.errors import DatabaseError
from hq.model.runs import RunReport
from hq.model.states import LinkState, Outcome, RunKind
from hq.protocol.peers import PeerBye
from hq.protocol.runs import RunRecorded, RunReported
from tests.daemons.test_crash_everywhere import live_through
from tests.daemons.test_restored import live_through as live_through_a_restore
from tests.support.house import DAEMONS
from tests.support.housedb import FAULTS, faulty_house_at
from tests.support.serverroom import Room


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_commit_fails(tmp_path: Path, engine: Engine, kind: str) -> None:
    with faulty_house_at(tmp_path / "first", engine) as house:
        assert live_through(house) == ""
        count = house.database.commits
    assert count >= 8
    wrong = {}
    for k in range(1, count + 1):
        with faulty_house_at(tmp_path / str(k), engine) as house:
            house.database.faults = {k: kind}
            if found := live_through(house):
                wrong[k] = found
            assert house.database.met == 1
    assert not wrong, "\n".join(f"commit {k} {kind}: {found}" for k, found in wrong.items())


def test_daemons_die_while_it_fails(tmp_path: Path, engine: Engine) -> None:
    with faulty_house_at(tmp_path / "first", engine) as house:
        assert live_through(house) == ""
        points, count = dict(house.points), house.database.commits
    for seed in range(25):
        random = Random(seed)
        with faulty_house_at(tmp_path / str(seed), engine) as house:
            house.database.faults = {random.randint(1, count + 2): random.choice(FAULTS) for _ in range(2)}
            house.more_crashes = frozenset((daemon, random.randint(1, points[daemon])) for daemon in random.choices(DAEMONS, k=2))
            found = live_through(house)
            assert found == "", f"seed {seed}: {house.database.faults} {sorted(house.more_crashes)}: {found}"


def test_it_fails_around_a_restore(tmp_path: Path, engine: Engine) -> None:
    for seed in range(8):
        random = Random(seed)
        with faulty_house_at(tmp_path / str(seed), engine) as house:
            house.database.faults = {random.randint(1, 25): random.choice(FAULTS) for _ in range(3)}
            found = live_through_a_restore(house, random.randint(0, 8), random.randint(9, 14))
            assert not found, f"seed {seed}: {house.database.faults}: {found}"


def test_a_later_acknowledgement_does_not_speak_for_reports_of_a_refused_commit(tmp_path: Path) -> None:
    """`run.recorded` counts for all reports up to its number."""
    room = Room(tmp_path)
    alice = room.user("alice")
    jobs = [alice.submit("true"), alice.submit("true")]
    alice.link("one", LinkState.ALIVE)
    room.tick(1.0)

    def report(sequence: int, job: int) -> None:
        ended = RunReport(job=job, index=-1, attempt=1, kind=RunKind.ENDED, at=room.clock.now().wall, outcome=Outcome.OK, exit_code=0)
        alice.send(RunReported(host="one", sequence=sequence, sent=room.clock.now().wall, reports=(ended,)))
        room.tick(0.1)

    room.writer.is_held = True
    report(1, jobs[0])
    report(2, jobs[1])
    room.writer.error, room.writer.is_held = DatabaseError("a value does not fit"), False
    room.writer.let_go()
    room.writer.error = None
    room.tick(0.1, times=10)
    assert alice.all_of(RunRecorded) == [] and alice.all_of(PeerBye)
    room.close()
