"""Clocks of other machines: a message that came late does not move what it tells."""

from __future__ import annotations

from hq.core.clocks import LATEST, MAX_CLOCKS, Clocks

ONE = ("alice", "n1")


def test_a_late_message_changes_nothing() -> None:
    clocks = Clocks()
    assert clocks.difference(ONE, 2.3) == 2.3
    assert clocks.difference(ONE, 2.1) == 2.1
    assert clocks.difference(ONE, 3600.0) == 2.1, "it lay somewhere for an hour"
    assert clocks.difference(ONE, -5.0) == -5.0, "nothing arrives before it was sent"
    assert clocks.difference(("bob", "n1"), 7.0) == 7.0


def test_a_clock_that_was_set_back_is_believed_after_a_while() -> None:
    clocks = Clocks()
    clocks.difference(ONE, 0.1)
    found = [clocks.difference(ONE, 60.0 + number / 100) for number in range(LATEST)]
    assert found[0] == 0.1 and found[-1] == 60.0


def test_the_memory_is_bounded() -> None:
    clocks = Clocks()
    for number in range(MAX_CLOCKS + 10):
        clocks.difference((f"user{number}", "n1"), 1.0)
    assert len(clocks._seen) == MAX_CLOCKS
