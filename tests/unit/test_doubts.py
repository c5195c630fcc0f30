"""Whether an attempt that the ledger does not let start is refused, or its end is only on its way."""

from __future__ import annotations

import logging

from hq.model.ids import PLAIN, AttemptKey
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from hq.userserver.doubts import Doubts, lost_here

LOG = logging.getLogger("doubts")
ONE, TWO = AttemptKey(1, PLAIN, 1), AttemptKey(2, PLAIN, 1)
WHY = {ONE: "it has ended", TWO: "it has ended"}


def ended(key: AttemptKey, kind: RunKind = RunKind.ENDED) -> RunReport:
    return RunReport(job=key.job, index=key.index, attempt=key.attempt, kind=kind, at=1.0, outcome=Outcome.OK, exit_code=0)


def test_what_is_told_and_not_recorded_is_not_refused() -> None:
    doubts = Doubts(LOG)
    doubts.reported("a", 5, [ended(ONE)])
    assert doubts.sift("a", WHY, is_ready=True) == {TWO: "it has ended"}
    doubts.recorded("a", 4)
    assert ONE not in doubts.sift("a", WHY, is_ready=True)
    doubts.recorded("a", 5)
    assert doubts.sift("a", WHY, is_ready=True) == WHY


def test_before_the_roll_of_the_host_nothing_is_refused() -> None:
    doubts = Doubts(LOG)
    assert doubts.sift("a", WHY, is_ready=False) == {}
    assert doubts.is_waiting("a")
    assert doubts.rolled("b", []) == {}
    assert doubts.rolled("a", [ONE]) == {TWO: "it has ended"}
    assert not doubts.is_waiting("a")


def test_what_the_roll_names_is_told() -> None:
    doubts = Doubts(LOG)
    doubts.rolled("a", [ONE])
    assert doubts.sift("a", WHY, is_ready=True) == {TWO: "it has ended"}
    doubts.reported("a", 7, [ended(ONE)])
    doubts.recorded("a", 7)
    assert doubts.sift("a", WHY, is_ready=True) == WHY


def test_an_order_that_came_before_may_be_there_until_the_roll() -> None:
    doubts = Doubts(LOG)
    doubts.sent_before("a", [ONE])
    assert doubts.may_be_there("a", ONE) and not doubts.may_be_there("a", TWO) and not doubts.may_be_there("b", ONE)
    doubts.rolled("a", [])
    assert not doubts.may_be_there("a", ONE)


def test_ends_that_passed_by_are_told_by_us_when_their_host_has_forgotten_them() -> None:
    doubts = Doubts(LOG)
    doubts.reported("a", 5, [ended(ONE), ended(TWO, RunKind.STARTED)])
    assert doubts.forgotten_ends("a", [ONE, TWO]) == (), "it has them itself"
    assert doubts.forgotten_ends("b", []) == ()
    assert doubts.forgotten_ends("a", []) == (ended(ONE),), "who has only begun has no end"
    doubts.recorded("a", 5)
    assert doubts.forgotten_ends("a", []) == ()


def test_a_memory_is_known_when_something_that_it_told_is_recorded() -> None:
    doubts = Doubts(LOG)
    doubts.reported("a", 5, [ended(ONE)])
    doubts.lost_memory("a", "second")
    assert doubts.recorded("a", 5) == "", "that is of the first"
    doubts.reported("a", 1005, [ended(TWO)])
    doubts.lost_memory("a", "second")
    assert (doubts.recorded("a", 1004), doubts.recorded("a", 1005), doubts.recorded("a", 1006)) == ("", "second", "")


def test_after_a_host_has_lost_its_memory_only_what_came_later_may_be_ordered_again() -> None:
    doubts = Doubts(LOG)
    doubts.ordered("a", [ONE])
    assert not doubts.is_forgotten("a", ONE)
    doubts.lost_memory("a", "second")
    doubts.ordered("a", [TWO])
    doubts.lost_memory("a", "second")
    assert doubts.is_forgotten("a", ONE) and not doubts.is_forgotten("b", ONE)
    assert not doubts.is_forgotten("a", TWO), "that one came after it had forgotten"
    doubts.sent_before("a", [ONE, TWO])
    assert doubts.is_doubtful("a", ONE, []) and not doubts.is_doubtful("a", ONE, [ONE]) and not doubts.is_doubtful("a", TWO, [])
    (report,) = lost_here("a", [ONE], 1.0)
    assert (report.key, report.kind, report.outcome) == (ONE, RunKind.ENDED, Outcome.LOST) and "forgotten" in report.reason
