"""Who is the active hq-server: the one that has the seat never believes for longer than those that wait for it do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hq.core.seat import Hold, Seat, Vigil

PATIENCE = 5.0


def test_it_is_sure_for_the_patience_after_the_beat_was_sent() -> None:
    seat = Seat(PATIENCE, 100.0)
    assert seat.hold(104.9) is Hold.SURE
    seat.beaten(103.0, has_rival=True)
    assert seat.hold(107.9) is Hold.SURE
    assert seat.hold(108.0) is Hold.DOUBTFUL


def test_one_that_slept_does_nothing_until_the_database_has_spoken() -> None:
    seat = Seat(PATIENCE, 100.0)
    seat.beaten(101.0, has_rival=False)
    assert seat.hold(1000.0) is Hold.DOUBTFUL, "somebody may have come while it slept"
    seat.beaten(1000.0, has_rival=False)
    assert seat.hold(1000.1) is Hold.SURE


def test_one_that_slept_and_lost_its_seat_knows_it_for_good() -> None:
    seat = Seat(PATIENCE, 100.0)
    seat.lost("srv2:/var")
    assert seat.hold(100.1) is Hold.LOST
    seat.beaten(101.0, has_rival=False)
    assert seat.hold(101.1) is Hold.LOST and seat.lost_to == "srv2:/var"


def test_a_database_that_is_away_stops_nothing_where_nobody_waits() -> None:
    seat = Seat(PATIENCE, 100.0)
    seat.beaten(101.0, has_rival=False)
    seat.failed(105.0)
    assert seat.hold(106.5) is Hold.DOUBTFUL, "that one was sent while it was sure still"
    seat.failed(106.4)
    assert seat.hold(106.5) is Hold.SURE


def test_with_a_rival_it_holds_still_and_then_sends_its_users_away() -> None:
    seat = Seat(PATIENCE, 100.0)
    seat.beaten(101.0, has_rival=True)
    seat.failed(107.0)
    assert seat.hold(107.0) is Hold.DOUBTFUL
    seat.failed(111.0)
    assert seat.hold(111.0) is Hold.ASTRAY
    seat.beaten(112.0, has_rival=True)
    assert seat.hold(112.0) is Hold.SURE, "it was away alone: nobody took the seat"


def test_time_counts_only_while_the_row_was_seen_to_stand_still() -> None:
    vigil = Vigil()
    assert vigil.saw(1, 7, 100.0, 100.5) == 0.0
    assert vigil.saw(1, 7, 103.5, 103.6) == 3.0
    assert vigil.saw(1, 8, 104.0, 104.2) == 0.0
    assert vigil.saw(2, 8, 108.0, 108.1) == 0.0, "another one has it"
    vigil.blind()
    assert vigil.saw(2, 8, 200.0, 200.1) == 0.0, "the database was away for both"
    assert vigil.saw(2, 8, 203.0, 203.1) == 203.0 - 200.1


@given(
    st.floats(-1e6, 1e6), st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 3.0)), min_size=1, max_size=30),
    st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0)), min_size=1, max_size=60),
)  # fmt: skip
def test_nobody_takes_the_seat_of_one_that_is_sure(offset: float, beats: list[tuple[float, float]], looks: list[tuple[float, float]]) -> None:
    """Beats and looks of any slowness, clocks with any difference: whoever sees the row stand still for long enough is right about it."""
    seat, moment = Seat(PATIENCE, 0.0), 0.0
    in_row: list[tuple[float, int]] = [(0.0, 0)]  # when the row had which beat
    for pause, took in beats:
        asked = moment + pause
        moment = asked + took
        seat.beaten(asked, has_rival=True)
        in_row.append((moment, len(in_row)))
    vigil, now = Vigil(), 0.0
    for wait, length in looks:
        asked = now + wait
        now = asked + length
        read = (asked + now) / 2
        beat = max(number for at, number in in_row if at <= read)
        if vigil.saw(1, beat, asked + offset, now + offset) >= PATIENCE + 1e-3:
            # at `now` it may be taken: the beats that are in the row by then do not make the other one sure
            sure = Seat(PATIENCE, 0.0)
            for (_, took), (at, _) in zip(beats, in_row[1:], strict=True):
                if at <= read:
                    sure.beaten(at - took, has_rival=True)
            assert sure.hold(now) is not Hold.SURE
            return
