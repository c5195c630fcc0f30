"""Ids, index sets, quantities, selections, texts: what is written can be read, whatever is read never breaks."""

from __future__ import annotations

import math
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hq.errors import InputError
from hq.model.ids import PLAIN, TaskKey, parse_task_key
from hq.model.indexset import IndexSet, parse_array
from hq.model.job import exit_code_of
from hq.model.quantities import MAX_BYTES, format_bytes, format_seconds, parse_bytes, parse_seconds
from hq.model.selection import parse_selection
from hq.model.states import MOVES, Outcome, TaskState
from hq.model.text import printable
from hq.model.user import parse_user_name

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 9)), min_size=1, max_size=5)


def _words(parts: list[tuple[int, int, int]]) -> str:
    return ",".join(f"{first}-{first + length}:{step}" for first, length, step in parts)


def _by_hand(parts: list[tuple[int, int, int]]) -> list[int]:
    return [index for first, length, step in parts for index in range(first, first + length + 1, step)]


@given(ranges)
def test_an_index_set_is_what_its_ranges_spell_and_repeats_nothing(parts: list[tuple[int, int, int]]) -> None:
    expected = _by_hand(parts)
    if len(set(expected)) != len(expected):
        with pytest.raises(InputError, match="repeats"):
            parse_array(_words(parts))
        return
    found, throttle = parse_array(_words(parts))
    assert list(found) == expected and len(found) == len(expected) and throttle is None
    assert [found.at(position) for position in range(len(found))] == expected
    assert [found.position(index) for index in expected] == list(range(len(expected)))
    assert {index for index in range(-2, 120) if index in found} == set(expected)
    assert list(parse_array(str(found))[0]) == expected
    for outside in (-1, len(expected)):
        with pytest.raises(IndexError):
            found.at(outside)
    absent = next(index for index in range(200) if index not in found)
    with pytest.raises(ValueError, match="not in"):
        found.position(absent)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 12)), min_size=9, max_size=14))
def test_many_ranges_within_each_other(parts: list[tuple[int, int, int]]) -> None:
    # more than are looked at one by one
    kept: list[tuple[int, int, int]] = []
    taken: set[int] = set()
    for part in parts:
        if taken.isdisjoint(_by_hand([part])):
            kept.append(part)
            taken.update(_by_hand([part]))
    expected = _by_hand(kept)
    found, _ = parse_array(_words(kept))
    assert list(found) == expected and {index for index in range(-2, 120) if index in found} == set(expected)
    assert [found.position(index) for index in expected] == list(range(len(expected)))
    if len(kept) < len(parts):
        with pytest.raises(InputError, match="repeats"):
            parse_array(_words(parts))


def test_an_array_of_many_single_indices_costs_little_and_too_many_are_refused() -> None:
    # steps are counted, not seconds: how often a range is looked at
    looked = 0

    class Counted(tuple):  # type: ignore[type-arg]
        def __getitem__(self, at: object) -> object:
            nonlocal looked
            looked += 1
            return super().__getitem__(at)  # type: ignore[index]

    text = ",".join(str(index * 3 % 20_011) for index in range(1, 20_001))
    found, _ = parse_array(text)
    assert len(found) == 20_000
    object.__setattr__(found, "ranges", Counted(found.ranges))
    assert [found.position(index) for index in found][::5000] == [0, 5000, 10_000, 15_000] and looked < 100_000
    with pytest.raises(InputError, match="20,001 single indices"):
        parse_array(text + ",99999")
    with pytest.raises(InputError, match="repeats an index") as caught:
        parse_array(text.rpartition(",")[0] + ",3")
    assert len(str(caught.value)) < 200
    with pytest.raises(InputError, match="within others"):
        parse_array(",".join(f"{first}-{9_000_000 + first}:1000000" for first in range(1, 1000)))


@given(st.integers(1, 10_000_000), st.none() | st.integers(1, 10**6))
def test_a_long_range_costs_nothing(count: int, throttle: int | None) -> None:
    found, limit = parse_array(f"1-{count}" + (f"%{throttle}" if throttle else ""))
    assert len(found) == count and found.at(count - 1) == count and limit == throttle
    assert len(found.ranges) == 1


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "1-", "-1", "5-1", "1-5:0", "1%0", "1%", "1%x", "1,1", "1-1000000000", "0-9999999999", "_", "1 2", "１", "²"]
)
def test_arrays_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_array(text)


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (parse_array, parse_bytes, parse_seconds, parse_task_key, parse_user_name, lambda word: parse_selection([word])):
        try:
            parse(text)
        except InputError as error:
            assert str(error)


@given(st.text("0123456789.-:,%_ KMGTBidhms", max_size=20))
def test_no_number_like_text_breaks_a_parser(text: str) -> None:
    test_no_text_breaks_a_parser.hypothesis.inner_test(text)  # type: ignore[attr-defined]


@given(st.integers(1, 10**18 - 1), st.just(PLAIN) | st.integers(0, 2**31 - 1))
def test_a_task_key_reads_back(job: int, index: int) -> None:
    key = TaskKey(job, index)
    assert parse_task_key(str(key)) == key


@given(st.integers(1, MAX_BYTES))
def test_a_size_reads_back_within_its_rounding(size: int) -> None:
    text = format_bytes(size)
    assert abs(parse_bytes(text) - size) <= 0.06 * size
    assert parse_bytes(f"{size}B") == size, "a number of bytes is exact"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512 << 20),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1.5g", 3 << 29),
        ("100K", 100 << 10),
        ("4096B", 4096),
        ("2GiB", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0", "-1", "1e9", "inf", "nan", "G", "9" * 400, "9999999T", "1 000M", "0.0000001K", "5i"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_bytes(text)


@given(st.integers(60, 86400 * 3000))
def test_a_duration_reads_back(seconds: int) -> None:
    assert parse_seconds(format_seconds(seconds)) == seconds
    assert parse_seconds(str(seconds)) == seconds


@given(st.floats(0, 59.94))
def test_a_short_duration_is_shown_in_seconds(seconds: float) -> None:
    assert format_seconds(seconds).endswith("s") and "e" not in format_seconds(seconds)
    assert math.isclose(float(format_seconds(seconds)[:-1]), seconds, rel_tol=0.01, abs_tol=0.001)


@given(st.floats(59.9, 60.1))
def test_a_duration_about_a_minute_never_shows_sixty_seconds(seconds: float) -> None:
    assert format_seconds(seconds) not in ("60s", "60.0s")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("5m", 300), ("1h30m", 5400), ("1:30:00", 5400), ("2-00:00:00", 172800), ("30:00", 1800), ("1-12:00", 129600)],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5", "1:2:3:4", "1:99", "1:99:00", "5x", "9" * 30, "9" * 5000])
def test_durations_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_seconds(text)


@given(
    st.lists(
        st.one_of(
            st.just("all"),
            st.just("last"),
            st.integers(1, 99).map(str),
            st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda each: f"{each[0]}-{each[0] + each[1]}"),
            st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda each: f"{each[0]}_{each[1]}"),
        ),
        min_size=1,
    ),
    st.booleans(),
)
def test_a_selection_means_its_words(words: list[str], is_joined: bool) -> None:
    found = parse_selection([",".join(words)] if is_joined else words)
    assert found.is_all == ("all" in words) and found.is_last == ("last" in words) and not found.is_empty
    assert len(found.tasks) + len(found.ranges) + words.count("all") + words.count("last") == len(words)
    assert [str(key) for key in found.tasks] == [word for word in words if word.replace("_", "").isdigit()]


@given(st.text() | st.binary())
def test_printable_text_is_one_line_and_steers_nothing(text: str | bytes) -> None:
    shown = printable(text)
    assert shown == printable(shown), "what is safe stays as it is"
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in shown)
    shown.encode()
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assume(text)
    assert printable(text) == text and printable(text.encode()) == text


@given(st.sampled_from(Outcome), st.none() | st.integers(0, 255), st.none() | st.integers(1, 127))
def test_an_exit_code_is_zero_for_success_only(outcome: Outcome, code: int | None, signal: int | None) -> None:
    found = exit_code_of(outcome, None if signal else code, signal)
    assert 0 <= found <= 255 and (found == 0) == (outcome is Outcome.OK)
    if outcome is Outcome.FAILED and signal:
        assert found == 128 + signal
    elif outcome is Outcome.FAILED and code:
        assert found == code


def test_every_state_can_finish_and_nothing_follows_that() -> None:
    assert MOVES.keys() == set(TaskState)
    assert all(TaskState.FINISHED in after for state, after in MOVES.items() if state is not TaskState.FINISHED)
    assert not MOVES[TaskState.FINISHED]
    assert len(IndexSet(())) == 0
