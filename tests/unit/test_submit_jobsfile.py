"""Jobs files: hQ's lines and JSON lines, all or nothing, every bad line by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq.client.jobsfile import MAX_COMPLAINTS, parse_line, read_jobs_file
from hq.client.request import Here
from hq.errors import HqError, InputError
from hq.protocol.codec import decode_line
from hq.protocol.jobs import JobAsk, JobRequest

HERE = Here(b"/data", 0o022, {b"A": b"1"})


def jobs(path: Path, content: str | bytes, **defaults: Any) -> tuple[JobRequest, ...]:
    path = path / "jobs"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    built = read_jobs_file(str(path), defaults, HERE)
    message = decode_line(json.dumps({"type": "job.ask", "key": "k", "jobs": built}).encode())
    assert isinstance(message, JobAsk)
    return message.jobs


def test_all_properties_of_the_older_format(tmp_path: Path) -> None:
    line = "\t".join(
        [
            "command::echo a::b; ls", "slots::2", "group::G", "infoText::a note", "logfile::l", "stdout::o", "stderr::e", "shell::sh",
            "priority::7", "estimatedTime::60", "estimatedMemory::10", "excludedHosts::n1,n2",
        ]
    )  # fmt: skip
    (job,) = jobs(tmp_path, line + "\n")
    assert (job.argv, job.is_shell, job.slots, job.shell, job.line) == ((b"echo a::b; ls",), True, 2, b"/bin/sh", 1)
    assert (job.logfile, job.stdout, job.stderr) == (b"/data/l", b"/data/o", b"/data/e")
    wishes = job.wishes
    assert (wishes.group, wishes.info, wishes.priority, wishes.exclude) == ("G", "a note", 7, ("n1", "n2"))
    # estimates stay estimates
    assert (wishes.estimated_time, wishes.estimated_memory, job.time_limit, job.memory) == (60.0, 10 << 20, None, None)


def test_comments_and_empty_lines_count_as_lines(tmp_path: Path) -> None:
    found = jobs(tmp_path, "# a comment\n\ncommand::echo {idx}\r\n  \ncommand::echo ${idx} {idx} {} {x}\n")
    assert [job.argv[0] for job in found] == [b"echo 2", b"echo ${idx} 4 {} {x}"]
    assert [job.line for job in found] == [3, 5]


def test_the_index_reaches_all_properties(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, "command::x\tstdout::out.{idx}.{job}\tgroup::g{idx}")
    assert (job.stdout, job.wishes.group) == (b"/data/out.0.{job}", "g0")


def test_the_mark_that_other_editors_put_in_front_is_no_property(tmp_path: Path) -> None:
    path = tmp_path / "jobs"
    path.write_bytes(b"\xef\xbb\xbfcommand::echo one\r\ncommand::echo two\r\n")
    assert len(read_jobs_file(str(path), {}, HERE)) == 2


def test_options_are_defaults(tmp_path: Path) -> None:
    one, two = jobs(tmp_path, "command::a\ncommand::b\tslots::5\tgroup::mine\n", slots=3, group="theirs")
    assert (one.slots, one.wishes.group, two.slots, two.wishes.group) == (3, "theirs", 5, "mine")


def test_json_lines(tmp_path: Path) -> None:
    found = jobs(
        tmp_path,
        '{"command": "echo {idx} | wc", "slots": 2, "hold": true, "exclude-hosts": ["a", "b"], "memory": "1G", "array": "1-3%2"}\n'
        '{"command": ["echo", "a b", "{idx}"], "env": {"X": "1", "Y": 2}, "rerunnable": false, "resource": {"gpu": 1}, "export": "none"}\n'
        '{"command": ["true"], "name": null}\n',
    )
    assert (found[0].argv, found[0].is_shell, found[0].slots, found[0].memory) == ((b"echo 0 | wc",), True, 2, 1 << 30)
    assert (found[0].wishes.is_held, found[0].wishes.exclude, found[0].indices, found[0].wishes.throttle) == (True, ("a", "b"), "1-3", 2)
    assert (found[1].argv, found[1].is_shell, found[1].env) == ((b"echo", b"a b", b"1"), False, (b"X=1", b"Y=2"))
    assert (found[1].is_rerunnable, found[1].resources) == (False, {"gpu": 1})
    assert (found[2].argv, found[2].is_shell) == ((b"true",), False)


def test_bytes_that_are_no_utf8_survive_in_commands(tmp_path: Path) -> None:
    (job,) = jobs(tmp_path, b"command::cat \xff\xfe\n")
    assert job.argv == (b"cat \xff\xfe",)


@pytest.mark.parametrize(
    "line, said",
    [
        ("command:echo", "is not of the form property::value"),
        ("command::echo\tslosts::2", "there is no property 'slosts'; did you mean 'slots'?"),
        ("command::echo\tslots::two", "'two' is not a whole number"),
        ("command::echo\tpriority::abc", "'abc' is not a whole number"),
        ("slots::2", "there is no command"),
        ("command::", "the command is empty"),
        ("command::a\tcommand::b", "stands here twice"),
        ("command::a\tinfoText::b\tinfo-text::c", "stands here twice"),
        ("command::-", "standard input"),
        ("command::a\tgroup::\udcff", "is not UTF-8"),
        ("command::a\0b", "NUL"),
        ("command::a\tstdout::{nme}", "did you mean 'name'"),
        ("command::a\tquiet::true", "there is no property 'quiet'"),
        ('{"command": "a", ', "this is not JSON"),
        ('{"command": 5}', "neither a text nor a list"),
        ('{"command": []}', "neither a text nor a list"),
        ('{"command": "a", "slots": [1]}', "expects one value"),
        ('{"command": "a", "slots": true}', "expects N"),
        ('{"command": "a", "hold": "perhaps"}', "true or false"),
        ('{"command": "\\ud800"}', "surrogates"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, said: str) -> None:
    content = f"command::fine\n{line}\n".encode("utf-8", "surrogateescape")
    with pytest.raises(InputError) as caught:
        jobs(tmp_path, content)
    first, last = str(caught.value).splitlines()
    assert said in first
    assert f"{tmp_path}/jobs, line 2: " in first
    assert last == "nothing was submitted"


def test_every_bad_line_is_named_up_to_a_limit(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        jobs(tmp_path, "x\n" * 3 + "command::ok\n" + "y\n" * 30)
    lines = str(caught.value).splitlines()
    assert [line.partition("line ")[2].partition(":")[0] for line in lines[:4]] == ["1", "2", "3", "5"]
    assert lines[MAX_COMPLAINTS:] == [f"… and {33 - MAX_COMPLAINTS} more bad lines", "nothing was submitted"]


@pytest.mark.parametrize("content", ["", "# nothing\n\n"])
def test_no_job(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="no job in the file"):
        jobs(tmp_path, content)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_jobs_file(str(tmp_path / "none"), {}, HERE)


@given(st.text(max_size=60))
def test_a_line_never_raises_anything_else(text: str) -> None:
    try:
        parse_line(text, 0)
    except HqError:
        pass


@given(st.dictionaries(st.sampled_from(["command", "slots", "env", "hold", "hosts", "array", "stdout"]), st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=4)))  # fmt: skip
def test_a_json_line_never_raises_anything_else(line: dict[str, Any]) -> None:
    try:
        parse_line(json.dumps(line), 0)
    except HqError:
        pass
