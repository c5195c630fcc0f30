"""When pilots are asked for: how many, how soon after one that failed, and that a pre-empted one is no failure."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hq.execserver.backends.dialect import NativeJob, NativeState, Submission
from hq.execserver.batchcentre import Accepted, Accounted, Declined, Listed
from hq.execserver.bootstrap import Bootstrap
from hq.execserver.pilotfleet import PilotFleet
from hq.model.batch import BatchSettings

COOL_DOWN = 300.0


class Desk:
    """The commands of a batch system, as far as a fleet uses them: it keeps what is asked, and tells what it was given to tell."""

    def __init__(self) -> None:
        self.submitted: list[Submission] = []
        self.tells: list[object] = []
        self.absent: list[str] = []
        self.doubtful: list[bool] = []

    def take(self, boot: float) -> list[object]:
        told, self.tells = self.tells, []
        return told

    def submit(self, submission: Submission, is_doubtful: bool) -> None:
        self.submitted.append(submission)
        self.doubtful.append(is_doubtful)

    def tend(self, ids: list[str], absent: list[str], boot: float) -> None:
        self.absent = absent

    def hurry(self) -> None:
        pass


def fleet_of(folder: Path, **settings: Any) -> tuple[PilotFleet, Desk]:
    """A fleet of nobody, and the desk it asks at."""
    told = Bootstrap(instance="i", host="centre", user="alice", upstreams=(), upstream_key="", public="", secret="", sign_public="", seal_key="")
    desk = Desk()
    wanted = BatchSettings(pilot_cooldown=COOL_DOWN, **settings)
    return PilotFleet(desk, wanted, str(folder / "pilots"), told, (), "", logging.getLogger("test")), desk  # type: ignore[arg-type]


def accept(fleet: PilotFleet, desk: Desk, id: str, boot: float) -> None:
    desk.tells.append(Accepted(desk.submitted[-1].tag, id, False))
    fleet.tend(1, boot)


def end(fleet: PilotFleet, desk: Desk, id: str, word: str, boot: float) -> None:
    desk.tells.append(Listed({id: NativeJob(id=id, state=NativeState.ENDED, word=word)}, boot))
    fleet.tend(1, boot)


def test_a_pilot_that_was_pre_empted_before_it_spoke_is_asked_for_again_at_once(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path)
    fleet.tend(1, 0.0)
    accept(fleet, desk, "7", 1.0)
    end(fleet, desk, "7", "PREEMPTED", 2.0)
    assert len(desk.submitted) == 2 and not fleet.trouble


def test_a_pilot_that_ended_before_it_spoke_would_do_so_again(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path)
    fleet.tend(1, 0.0)
    accept(fleet, desk, "7", 1.0)
    end(fleet, desk, "7", "FAILED", 2.0)
    assert len(desk.submitted) == 1 and "7 ended before it came: FAILED" in fleet.summary()
    fleet.tend(1, 1.0 + COOL_DOWN)
    assert len(desk.submitted) == 1
    fleet.tend(1, 2.0 + COOL_DOWN)
    assert len(desk.submitted) == 2


def test_a_pilot_that_served_is_followed_by_another_at_once(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path)
    fleet.tend(1, 0.0)
    accept(fleet, desk, "7", 1.0)
    fleet.live[0].began = 5.0
    end(fleet, desk, "7", "TIMEOUT", 3600.0)
    assert len(desk.submitted) == 2


def test_what_the_batch_system_refuses_is_said_and_not_asked_again_soon(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path)
    fleet.tend(1, 0.0)
    desk.tells.append(Declined(desk.submitted[-1].tag, "sbatch: error: invalid account", False))
    fleet.tend(1, 1.0)
    assert not fleet.pilots and "invalid account" in fleet.summary() and fleet.pause(1.0) == COOL_DOWN
    assert not any((tmp_path / "pilots").iterdir())


def test_there_are_never_more_than_the_limit(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path, pilot_limit=2)
    for number in range(5):
        fleet.tend(100, float(number))
        if fleet._submitting:
            desk.tells.append(Accepted(desk.submitted[-1].tag, str(number), False))
    fleet.tend(100, 9.0)
    assert len(desk.submitted) == 2


def test_a_pilot_that_is_not_listed_is_over_only_when_it_was_not_heard_for_long(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path, exit_grace=30.0, unknown_after=3600.0)
    fleet.tend(1, 0.0)
    accept(fleet, desk, "7", 1.0)
    (pilot,) = fleet.live
    desk.tells.append(Listed({}, 10.0))
    fleet.tend(1, 10.0)
    assert fleet.live == [pilot] and desk.absent == ["7"], "the accounting is asked"
    pilot.began = 5.0
    fleet.miss(pilot, 10.0 + 3599.0)
    assert fleet.live == [pilot]
    fleet.miss(pilot, 10.0 + 3601.0)
    assert fleet.live == [] and not fleet.trouble


def test_a_pilot_that_never_spoke_and_is_not_listed_is_a_failure_and_accounting_says_which(tmp_path: Path) -> None:
    for is_accounted in (False, True):
        fleet, desk = fleet_of(tmp_path / str(is_accounted), exit_grace=30.0)
        fleet.tend(1, 0.0)
        accept(fleet, desk, "7", 1.0)
        (pilot,) = fleet.live
        desk.tells.append(Listed({}, 10.0))
        fleet.tend(1, 10.0)
        if is_accounted:
            desk.tells.append(Accounted({"7": NativeJob(id="7", state=NativeState.ENDED, word="FAILED")}))
            fleet.tend(1, 11.0)
        else:
            fleet.miss(pilot, 41.0)
        assert fleet.live == [] and f"7 ended before it came: {'FAILED' if is_accounted else 'it is neither heard nor listed'}" in fleet.trouble


def test_one_whose_answer_was_not_heard_is_looked_for_by_its_tag_also_by_who_comes_after(tmp_path: Path) -> None:
    fleet, desk = fleet_of(tmp_path, retry_delays=(5.0,))
    fleet.tend(1, 0.0)
    (first,) = desk.submitted
    desk.tells.append(Declined(first.tag, "it did not answer in time", True))
    fleet.tend(1, 1.0)
    fleet.tend(1, 6.0)
    assert [each.tag for each in desk.submitted] == [first.tag] * 2 and desk.doubtful == [False, True]
    half = tmp_path / "pilots" / "hq-pilot-half"
    half.mkdir()
    (half / "bootstrap.json").write_text("{}")
    fleet, desk = fleet_of(tmp_path)
    assert not half.exists()
    fleet.tend(1, 0.0)
    assert [each.tag for each in desk.submitted] == [first.tag] and desk.doubtful == [True]
    accept(fleet, desk, "7", 1.0)
    fleet, desk = fleet_of(tmp_path)
    fleet.tend(1, 2.0)
    assert [pilot.id for pilot in fleet.live] == ["7"] and not desk.submitted
