"""When a user-server gives up one address of hq-server and tries the next."""

from __future__ import annotations

from hq.core.agent_turns import ANSWER, BREAK, CONNECT, CONNECT_LATER, EAGER, Turns


def test_no_connection_is_given_up_soon_and_no_answer_later() -> None:
    turns = Turns(100.0)
    assert not turns.is_over(100.0 + CONNECT - 0.1, is_connected=False)
    assert turns.is_over(100.0 + CONNECT + 0.01, is_connected=False)
    assert not turns.is_over(100.5, is_connected=True)
    assert not turns.is_over(100.5 + ANSWER - 0.1, is_connected=True)
    assert turns.is_over(100.5 + ANSWER + 0.01, is_connected=True), "it is stopped, perhaps"


def test_after_many_rounds_it_is_tried_less_often() -> None:
    turns = Turns(0.0)
    for _ in range(EAGER):
        turns.turned(10.0)
    assert not turns.is_over(10.0 + CONNECT + 0.01, is_connected=False)
    assert turns.is_over(10.0 + CONNECT_LATER + 0.01, is_connected=False)
    turns.welcomed(20.0)
    turns.turned(30.0)
    assert turns.is_over(30.0 + CONNECT + 0.01, is_connected=False)


def test_a_link_that_is_up_may_break_for_a_moment_only() -> None:
    turns = Turns(0.0)
    turns.welcomed(10.0)
    beat = {"heard": 20.0, "heartbeat": 5.0}
    assert not turns.is_broken(20.0, is_connected=True, **beat)
    assert not turns.is_broken(20.0 + BREAK - 0.1, is_connected=False, **beat)
    assert turns.is_broken(20.0 + BREAK + 0.01, is_connected=False, **beat)


def test_silence_ends_a_link_before_it_would_with_one_address() -> None:
    turns = Turns(0.0)
    turns.welcomed(10.0)
    assert not turns.is_broken(18.4, is_connected=True, heard=10.0, heartbeat=5.0)
    assert turns.is_broken(18.6, is_connected=True, heard=10.0, heartbeat=5.0)
