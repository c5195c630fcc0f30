"""The parser of options: where they end, what they mean, what is said about wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq.client.moments import format_moment, parse_moment
from hq.client.options import Option, help_text, nearest, parse, whole_number
from hq.client.submit_options import OPTIONS
from hq.client.verbs import BY_NAME, VERBS, states
from hq.errors import HqError, InputError, UsageError

NOW = 1_700_000_000.0


def submit(*argv: str) -> tuple[dict[str, object], list[str]]:
    return parse(OPTIONS, list(argv), "hq-submit", is_ending_at_word=True)


@pytest.mark.parametrize(
    "argv, values, words",
    [
        (["true"], {}, ["true"]),
        (["-c", "2", "true"], {"slots": 2}, ["true"]),
        (["-c2", "true"], {"slots": 2}, ["true"]),
        (["--slots=2", "true"], {"slots": 2}, ["true"]),
        (["-qw", "true"], {"quiet": True, "wait": True}, ["true"]),
        (["-qc2", "true"], {"quiet": True, "slots": 2}, ["true"]),
        (["ls", "-q", "--slots", "3"], {}, ["ls", "-q", "--slots", "3"]),
        (["--", "-x"], {}, ["-x"]),
        (["-q", "--", "--help"], {"quiet": True}, ["--help"]),
        (["-"], {}, ["-"]),
        (["-", "-q"], {}, ["-", "-q"]),
        (["--name=a=b", "x"], {"name": "a=b"}, ["x"]),
        (["--name", "", "x"], {"name": ""}, ["x"]),
        (["--env", "A=1", "--env", "B=x=y", "x"], {"env": ["A=1", "B=x=y"]}, ["x"]),
        (["-E", "a,b", "-E", "c", "x"], {"exclude_hosts": ["a", "b", "c"]}, ["x"]),
        (["-r", "gpu=2,tape=1", "x"], {"resource": [{"gpu": 2, "tape": 1}]}, ["x"]),
        (["-m", "512M", "-t", "5m", "x"], {"memory": 512 << 20, "time_limit": 300.0}, ["x"]),
        (["-a", "1-10:3,20%2", "x"], {"array": ("1-10:3,20", 2)}, ["x"]),
        (["--no-rerunnable", "x"], {"rerunnable": False}, ["x"]),
        (["--grace", "0", "x"], {"grace": 0.0}, ["x"]),
        # as the older hQ wrote them
        (["--excludeHosts", "a", "x"], {"exclude_hosts": ["a"]}, ["x"]),
        (["--jobsFile", "f"], {"jobs_file": "f"}, []),
        (["--stdout_file", "o", "--stderr_file", "e", "x"], {"stdout": "o", "stderr": "e"}, ["x"]),
        (["-O", "e", "x"], {"stderr": "e"}, ["x"]),
        (["--estimatedMemory", "10", "--estimatedTime", "1", "x"], {"estimated_memory": 10 << 20, "estimated_time": 1.0}, ["x"]),
    ],
)
def test_options_of_submit(argv: list[str], values: dict[str, object], words: list[str]) -> None:
    assert submit(*argv) == (values, words)


@pytest.mark.parametrize(
    "argv, said",
    [
        (["--grop", "x"], "did you mean '--group'?"),
        (["--exclude-host", "a", "x"], "did you mean '--exclude-hosts'?"),
        (["-Z", "x"], "unknown option '-Z'"),
        (["-p", "abc", "x"], "-p/--priority: 'abc' is not a whole number"),
        (["-p", "128", "x"], "-p/--priority: 128 is out of range"),
        (["-p", "-1", "x"], "-p/--priority: -1 is out of range"),
        (["-c", "0", "x"], "-c/--slots: 0 is too small"),
        (["-c", "1_0", "x"], "is not a whole number"),
        (["-c", "٣", "x"], "is not a whole number"),
        (["-c"], "-c/--slots needs a value"),
        (["--quiet=yes", "x"], "takes no value"),
        (["-m", "much", "x"], "-m/--memory: 'much' is not a size"),
        (["-t", "0", "x"], "-t/--time-limit"),
        (["-a", "", "x"], "-a/--array"),
        (["-a", "0-999999999", "x"], "at most 10,000,000"),
        (["-a", "5-1", "x"], "is empty"),
        (["-r", "gpu", "x"], "'gpu' is not NAME=N"),
        (["-r", "gpu=x", "x"], "'x' is not a whole number"),
        (["-E", "a,,b", "x"], "an empty place between commas"),
        (["--env", "=x", "x"], "is not NAME=VALUE"),
        (["--begin", "soon", "x"], "'soon' is not a moment"),
        (["--output-limit-action", "burn", "x"], "none of trim, stop, warn"),
        (["--name", "\udcff", "x"], r"b'\xff' is not UTF-8"),
    ],
)
def test_wrong_options_are_named(argv: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        submit(*argv)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.lists(st.text(max_size=6)))
def test_what_follows_the_first_word_is_never_touched(words: list[str]) -> None:
    assert submit("-q", "cmd", *words) == ({"quiet": True}, ["cmd", *words])


@given(st.lists(st.text(alphabet="-=abcqwE1 ,\udcff", max_size=8)))
def test_nothing_but_a_usage_error_is_raised(argv: list[str]) -> None:
    try:
        submit(*argv)
    except HqError as error:
        assert error.exit_code == 2


def test_options_stand_anywhere_when_words_are_no_command() -> None:
    assert parse(BY_NAME["jobs"].options, ["12", "--json", "14-20"], "hq-client jobs") == ({"json": True}, ["12", "14-20"])


def test_every_option_has_its_own_names() -> None:
    for options in (OPTIONS, *(verb.options for verb in VERBS)):
        names = [name for option in options for name in (*option.names, *option.hidden)]
        assert len(names) == len(set(names))
    assert len(BY_NAME) == sum(1 + len(verb.aliases) for verb in VERBS)


def test_help_names_every_option() -> None:
    text = help_text("hq-submit", "It submits.", OPTIONS)
    assert all(name in text for option in OPTIONS for name in option.names)
    assert max(map(len, text.splitlines())) <= 110


def test_help_and_version_need_nothing_else() -> None:
    assert submit("-c", "1", "--help", "--grop") == ({"help": True}, [])
    assert submit("--version") == ({"version": True}, [])


def test_nearest_says_nothing_about_far_words() -> None:
    assert nearest("xyzzy", ["cancel", "hold"]) == ""
    assert nearest("cancle", ["cancel", "hold"]) == "; did you mean 'cancel'?"


def test_a_flag_may_set_any_value() -> None:
    options = (Option("--stderr", "", key="stream", value="stderr"),)
    assert parse(options, ["--stderr"], "x") == ({"stream": "stderr"}, [])


@given(st.integers(-100, 100))
def test_whole_numbers_keep_their_limits(number: int) -> None:
    convert = whole_number(0, 19)
    if 0 <= number <= 19:
        assert convert(str(number)) == number
    else:
        with pytest.raises(ValueError):
            convert(str(number))


def test_states_know_the_older_names() -> None:
    assert states("pending,failed") == ["starting", "failed"]
    assert states("host-lost") == ["host_lost"]
    with pytest.raises(InputError, match="did you mean 'running'"):
        states("runing")


@pytest.mark.parametrize(
    "text, is_past, offset",
    [("now", False, 0), ("+1h", False, 3600), ("@1700000005", False, 5), ("2h", True, -7200), ("-5m", True, -300), ("+90", False, 90)],
)
def test_moments_from_now(text: str, is_past: bool, offset: float) -> None:
    assert parse_moment(text, NOW, is_past=is_past) == NOW + offset


def test_a_time_of_day_is_the_next_or_the_last_one() -> None:
    for minute in range(0, 24 * 60, 37):
        text = f"{minute // 60:02}:{minute % 60:02}"
        assert 0 < parse_moment(text, NOW) - NOW <= 25 * 3600
        assert 0 <= NOW - parse_moment(text, NOW, is_past=True) <= 25 * 3600


@pytest.mark.parametrize("text", ["", "soon", "+", "25:00", "12:60", "2026-13-01", "@x", "1h", "+1x", "18:00:99", "@99999999999999999999"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(InputError, match="is not a moment"):
        parse_moment(text, NOW)


@given(st.text(max_size=20))
def test_moments_never_raise_anything_else(text: str) -> None:
    for is_past in (False, True):
        try:
            parse_moment(text, NOW, is_past=is_past)
        except InputError:
            pass


def test_iso_moments_and_their_look() -> None:
    moment = parse_moment("2026-03-01T08:00", NOW)
    assert format_moment(moment, moment + 60) == "08:00:00"
    assert format_moment(moment, moment + 40 * 86400) == "03-01 08:00"
    assert format_moment(moment, moment + 400 * 86400) == "2026-03-01"
    assert format_moment(None, NOW) == "-"
