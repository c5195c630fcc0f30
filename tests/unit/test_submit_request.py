"""What a command line becomes: words survive exactly, paths and environment are the submitter's, bad values are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq.client.options import parse
from hq.client.request import MAX_SCRIPT, Here, build_request, default_name
from hq.client.submit_options import OPTIONS
from hq.errors import HqError, InputError, UsageError
from hq.model.job import Wishes, check_wishes
from hq.model.states import OutputAction
from hq.protocol.codec import decode_line
from hq.protocol.jobs import JobAsk, JobRequest

HERE = Here(b"/home/alice/project", 0o027, {b"PATH": b"/bin", b"LANG": b"C", b"ODD": b"\xff\n"})


def request(*argv: str, here: Here = HERE) -> JobRequest:
    """The job request of a command line, through JSON and the real codec."""
    values, words = parse(OPTIONS, list(argv), "hq-submit", is_ending_at_word=True)
    built = build_request(values, words, here)
    message = decode_line(json.dumps({"type": "job.ask", "key": "k", "jobs": [built]}).encode())
    assert isinstance(message, JobAsk)
    return message.jobs[0]


def test_one_word_is_a_shell_line() -> None:
    job = request("echo 'a  b' | wc")
    assert (job.argv, job.is_shell, job.shell) == ((b"echo 'a  b' | wc",), True, b"/bin/sh")


def test_several_words_are_an_argument_list() -> None:
    job = request("echo", "a b", "", "'\"$x\n", "\udcff\udc80")
    assert (job.argv, job.is_shell) == ((b"echo", b"a b", b"", b"'\"$x\n", b"\xff\x80"), False)


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"")), min_size=2, max_size=5))
def test_any_bytes_survive(words: list[bytes]) -> None:
    words[0] = b"cmd" + words[0]
    assert request(*map(os.fsdecode, words)).argv == tuple(words)


def test_directory_umask_and_environment_are_the_submitters() -> None:
    job = request("true")
    assert job.cwd == b"/home/alice/project"
    assert job.umask == 0o027
    assert set(job.env) == {b"PATH=/bin", b"LANG=C", b"ODD=\xff\n"}


@pytest.mark.parametrize(
    "argv, env",
    [
        (["--export", "none"], set()),
        (["--export", "LANG,NOT_THERE"], {b"LANG=C"}),
        (["--export", "none", "--env", "A=1=2"], {b"A=1=2"}),
        (["--export", "LANG", "--env", "LANG=de", "--env", "B=\udcff"], {b"LANG=de", b"B=\xff"}),
    ],
)
def test_environment_as_told(argv: list[str], env: set[bytes]) -> None:
    assert set(request(*argv, "true").env) == env


@pytest.mark.parametrize("which", ["", ",", "A=1"])
def test_wrong_export(which: str) -> None:
    with pytest.raises(UsageError, match="--export"):
        request("--export", which, "true")


@pytest.mark.parametrize(
    "argv, cwd, stdout",
    [
        ([], b"/home/alice/project", b"/home/alice/project/out.{job}"),
        (["-C", "sub"], b"/home/alice/project/sub", b"/home/alice/project/sub/out.{job}"),
        (["--chdir", "/tmp"], b"/tmp", b"/tmp/out.{job}"),
        (["--chdir", ".."], b"/home/alice", b"/home/alice/out.{job}"),
    ],
)
def test_paths_are_taken_from_the_jobs_directory(argv: list[str], cwd: bytes, stdout: bytes) -> None:
    job = request(*argv, "-o", "out.{job}", "true")
    assert (job.cwd, job.stdout) == (cwd, stdout)


def test_absolute_and_undecodable_paths() -> None:
    job = request("-o", "/x/\udcff", "-e", "/dev/null", "--stdin", "in", "-l", "log.{name}_{index}", "true")
    assert (job.stdout, job.stderr, job.stdin) == (b"/x/\xff", b"/dev/null", b"/home/alice/project/in")
    assert job.logfile == b"/home/alice/project/log.{name}_{index}"


@pytest.mark.parametrize("path, said", [("", "is empty"), ("{jbo}.out", "did you mean 'job'"), ("a{job}{nonsense}", "no placeholder {nonsense}")])
def test_wrong_paths(path: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        request("-o", path, "true")


def test_everything_else_arrives() -> None:
    job = request(
        "-c", "3", "-n", "nam\ne;'", "-g", "G", "-i", "note", "-p", "5", "-E", "a,b,a", "-H", "c", "-Q", "long", "-a", "1-4%2",
        "-m", "1G", "-t", "1:30:00", "--grace", "3", "--estimated-time", "1m", "--estimated-memory", "5M", "-r", "gpu=1", "-r", "tape=2",
        "--hold", "--begin", "@1800000000", "--rerunnable", "--retries", "2", "--nice", "7", "--output-limit", "1M",
        "--output-limit-action", "stop", "x", "y",
    )  # fmt: skip
    assert (job.slots, job.name, job.indices, job.memory, job.time_limit, job.grace) == (3, "nam\ne;'", "1-4", 1 << 30, 5400.0, 3.0)
    assert (job.resources, job.is_rerunnable, job.retries, job.nice) == ({"gpu": 1, "tape": 2}, True, 2, 7)
    assert (job.output_limit, job.output_action) == (1 << 20, OutputAction.STOP)
    assert job.wishes == Wishes(
        priority=5, group="G", info="note", hosts=("c",), exclude=("a", "b"), queue="long", throttle=2, begin=1.8e9, is_held=True,
        estimated_time=60.0, estimated_memory=5 << 20,
    )  # fmt: skip
    check_wishes(job.wishes)


def test_what_is_not_said_is_left_to_the_defaults() -> None:
    job = request("true")
    assert job.wishes == Wishes()
    assert job.is_rerunnable is None
    assert (job.slots, job.memory, job.time_limit, job.indices) == (1, None, None, "")


@pytest.mark.parametrize("argv", [[], [""], ["  "]])
def test_no_command(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="command"):
        request(*argv)


def test_a_script_is_kept_byte_for_byte(tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_bytes(b"#!/bin/sh\necho \xff\n")
    job = request("--script", str(script), "one", "-q", "two words")
    assert job.script == b"#!/bin/sh\necho \xff\n"
    assert (job.argv, job.is_shell, job.name) == ((b"one", b"-q", b"two words"), False, "run.sh")


def test_wrong_scripts(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text(" \n")
    for path, said in ((empty, "is empty"), (tmp_path / "none", "cannot be read"), (tmp_path, "cannot be read")):
        with pytest.raises(InputError, match=said):
            request("--script", str(path))
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.write(b"x")
        file.truncate(MAX_SCRIPT + 1)
    with pytest.raises(InputError, match="larger than"):
        request("--script", str(big))


def test_a_command_that_no_kernel_takes() -> None:
    with pytest.raises(InputError, match="--script"):
        request("x" * (1 << 20))
    with pytest.raises(InputError, match="--script"):
        request("echo", *["y" * 100_000] * 20)
    assert request("echo", "x" * 120_000).argv[1] == b"x" * 120_000


def test_shells() -> None:
    assert request("-S", "sh", "true").shell == b"/bin/sh"
    assert request("-S", "/opt/odd/zsh", "true").shell == b"/opt/odd/zsh"
    for shell in ("no-such-shell", "", "a/b"):
        with pytest.raises(InputError, match="no shell"):
            request("-S", shell, "true")


@pytest.mark.parametrize(
    "values, words, name",
    [({}, ["/usr/bin/sort -u"], "sort"), ({}, ["sort", "x"], "sort"), ({}, ["-"], "script"), ({"script": "a/b.sh"}, [], "b.sh"), ({}, ["\udcff"], "\\xff")],
)
def test_default_names(values: dict[str, Any], words: list[str], name: str) -> None:
    assert default_name(values, words) == name


def test_here_prefers_the_shown_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "shown").symlink_to("real")
    monkeypatch.chdir(tmp_path / "real")
    monkeypatch.setenv("PWD", str(tmp_path / "shown"))
    assert Here.of_process().cwd == bytes(tmp_path / "shown")
    monkeypatch.setenv("PWD", str(tmp_path))
    assert Here.of_process().cwd == bytes(tmp_path / "real")


def test_a_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(InputError, match="does not exist any more"):
        Here.of_process()
    monkeypatch.chdir("/")


@given(st.lists(st.sampled_from(["-c", "2", "-a", "1-3", "--hold", "x", "-o", "{job}", "--env", "A=b", "-", "--export", "none", "-m", "1G"]), max_size=8))
def test_nothing_but_our_errors(argv: list[str]) -> None:
    if "-" in argv:
        argv = [word for word in argv if word != "-"]  # would read standard input
    try:
        request(*argv)
    except HqError as error:
        assert error.exit_code == 2
