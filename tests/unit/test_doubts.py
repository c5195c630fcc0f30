"""Whether an attempt that the ledger does not let start is refused, or its end is only on its way."""

from __future__ import annotations

from hq.model.ids import PLAIN, AttemptKey
from hq.userserver.doubts import Doubts

ONE, TWO = AttemptKey(1, PLAIN, 1), AttemptKey(2, PLAIN, 1)
WHY = {ONE: "it has ended", TWO: "it has ended"}


def test_what_is_told_and_not_recorded_is_not_refused() -> None:
    doubts = Doubts()
    doubts.reported("a", 5, [ONE])
    assert doubts.sift("a", WHY, is_ready=True) == {TWO: "it has ended"}
    doubts.recorded("a", 4)
    assert ONE not in doubts.sift("a", WHY, is_ready=True)
    doubts.recorded("a", 5)
    assert doubts.sift("a", WHY, is_ready=True) == WHY


def test_before_the_roll_of_the_host_nothing_is_refused() -> None:
    doubts = Doubts()
    assert doubts.sift("a", WHY, is_ready=False) == {}
    assert doubts.is_waiting("a")
    assert doubts.rolled("b", []) == {}
    assert doubts.rolled("a", [ONE]) == {TWO: "it has ended"}
    assert not doubts.is_waiting("a")


def test_what_the_roll_names_is_told() -> None:
    doubts = Doubts()
    doubts.rolled("a", [ONE])
    assert doubts.sift("a", WHY, is_ready=True) == {TWO: "it has ended"}
    doubts.reported("a", 7, [ONE])
    doubts.recorded("a", 7)
    assert doubts.sift("a", WHY, is_ready=True) == WHY


def test_an_order_that_came_before_may_be_there_until_the_roll() -> None:
    doubts = Doubts()
    doubts.sent_before("a", [ONE])
    assert doubts.may_be_there("a", ONE) and not doubts.may_be_there("a", TWO) and not doubts.may_be_there("b", ONE)
    doubts.rolled("a", [])
    assert not doubts.may_be_there("a", ONE)
