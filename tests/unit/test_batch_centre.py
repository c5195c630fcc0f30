"""The commands of one batch system: one listing for all jobs and not too often, orders gathered, the later one counts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from hq.execserver import batchcentre
from hq.execserver.backends.dialect import CommandResult
from hq.execserver.backends.slurm import Slurm
from hq.execserver.batchcentre import AT_ONCE, Balked, Centre, Listed, Silent
from hq.model.batch import BatchSettings

SETTINGS = BatchSettings(poll_interval=10.0, poll_longest=60.0, retry_delays=(5.0,))


class Desk:
    """A background that runs nothing before `take`; commands answer what `answers` says of their first word."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, shared: Centre | None = None) -> None:
        self.calls: list[list[str]] = []
        self.answers: Callable[[list[str]], CommandResult] = lambda argv: CommandResult(0, "", "")
        self._waiting: list[tuple[Any, Callable[[], Any]]] = []
        monkeypatch.setattr(batchcentre, "run_command", self._run)
        self.centre = Centre(Slurm(), SETTINGS, "alice", self, logging.getLogger("test"), shared)

    def run(self, token: Hashable, work: Callable[[], Any]) -> None:
        self._waiting.append((token, work))

    def finished(self) -> list[tuple[Any, Any, BaseException | None]]:
        done, self._waiting = [(token, work(), None) for token, work in self._waiting], []
        return done

    def _run(self, argv: list[str], environment: object, timeout: float) -> CommandResult:
        self.calls.append(argv)
        return self.answers(argv)

    def turn(self, boot: float, *ids: str) -> list[Any]:
        """What a tick does."""
        told = self.centre.take(boot)
        self.centre.tend(list(ids), [], boot)
        return told


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


def listings(desk: Desk, until: int, *ids: str) -> list[int]:
    """The seconds at which squeue was called, with a tick each second."""
    found = []
    for second in range(until):
        desk.turn(float(second), *ids)
        before = len(desk.calls)
        desk.turn(float(second), *ids)
        found += [second] if len(desk.calls) > before else []
    return found


def test_one_listing_for_all_jobs_and_less_often_while_nothing_changes(desk: Desk) -> None:
    moments = listings(desk, 300, *(str(number) for number in range(500)))
    assert {tuple(argv) for argv in desk.calls} == {tuple(Slurm().query_argv([], "alice"))}
    gaps = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
    assert min(gaps) >= SETTINGS.poll_interval and gaps == sorted(gaps) and gaps[-1] == SETTINGS.poll_longest, gaps


def test_a_change_makes_it_ask_at_the_short_interval_again(desk: Desk) -> None:
    listings(desk, 200, "1")
    line = "".join(text.ljust(width) for text, width in zip(("1", "RUNNING", "None", "0", "n1", "hq-1"), (48, 24, 80, 16, 120, 80), strict=True))
    desk.answers = lambda argv: CommandResult(0, line + "\n", "")
    desk.turn(300.0, "1")
    (told,) = desk.turn(301.0, "1")
    assert isinstance(told, Listed) and told.jobs["1"].word == "RUNNING"
    assert desk.centre.wake(True) == 300.0 + SETTINGS.poll_interval


def test_two_that_share_ask_once_for_both(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Desk(monkeypatch, desk.centre)
    other.turn(0.0, "7")
    assert other.centre.wake(True) is None and desk.centre.wake(False) is not None
    desk.turn(0.0)
    (told,) = desk.turn(1.0)
    assert isinstance(told, Listed) and other.turn(1.0) == [told]
    assert len(desk.calls) + len(other.calls) == 1


def test_without_jobs_nothing_is_asked(desk: Desk) -> None:
    assert listings(desk, 100) == [] and desk.centre.wake(False) is None


def test_a_controller_that_does_not_answer_is_asked_less_often(desk: Desk) -> None:
    desk.answers = lambda argv: CommandResult(1, "", "slurm_load_jobs error: Unable to contact slurm controller")
    assert len(listings(desk, 300, "1")) < 10
    desk.turn(500.0, "1")
    (told,) = desk.turn(501.0, "1")
    assert isinstance(told, Silent) and "Unable to contact" in told.words and desk.centre.silence == told.words


def test_orders_are_gathered_into_few_commands(desk: Desk) -> None:
    desk.centre.order("cancel", [str(number) for number in range(AT_ONCE + 50)])
    for second in range(4):
        desk.turn(float(second))
    assert [len(argv) - 1 for argv in desk.calls] == [AT_ONCE, 50]


def test_of_hold_and_release_the_later_counts(desk: Desk) -> None:
    desk.centre.order("hold", ["1", "2"])
    desk.centre.order("release", ["1"])
    for second in range(4):
        desk.turn(float(second))
    assert desk.calls == [["scontrol", "hold", "2"], ["scontrol", "release", "1"]]


def test_of_several_refused_holds_it_is_learnt_which_and_why(desk: Desk) -> None:
    desk.answers = lambda argv: CommandResult(1, "", f"not {argv[-1]}") if "2" in argv else CommandResult(0, "", "")
    desk.centre.order("hold", ["1", "2", "3"])
    told = [each for second in range(8) for each in desk.turn(float(second))]
    assert told == [Balked("hold", "2", "not 2")]
    assert desk.calls[0] == ["scontrol", "hold", "1", "2", "3"] and [argv[2:] for argv in desk.calls[1:]] == [["1"], ["2"], ["3"]]


def test_an_order_that_the_controller_did_not_hear_is_given_again(desk: Desk) -> None:
    desk.answers = lambda argv: CommandResult(1, "", "Unable to contact slurm controller (connect failure)")
    desk.centre.order("hold", ["1"])
    desk.turn(0.0)
    assert desk.turn(1.0) == [] and len(desk.calls) == 1
    desk.answers = lambda argv: CommandResult(0, "", "")
    for second in (2.0, 6.0, 7.0):
        desk.turn(second)
    assert desk.calls == [["scontrol", "hold", "1"]] * 2 and desk.centre.wake(False) is None
