"""Standard output that takes no more: full, closed, or read by somebody who has had enough. Real processes, for the streams are theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hq.model.rows import JobCounts, Row
from hq.protocol.base import Message
from hq.protocol.jobs import JobProgress, JobRows, JobWatch, LogData
from tests.support.fakeuserserver import Stage, accept_all, stage

ROW = Row(id=4, task="4", name="n", group="", user="alice", command="c", state="finished", outcome="ok")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        yield made


def run(here: Stage, module: str, words: list[str], redirection: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command under a shell that redirects its streams."""
    program = f"from hq.client.{module} import main; raise SystemExit(main())"
    return subprocess.run(
        ["/bin/sh", "-c", f'"$0" -c "$@" {redirection}', sys.executable, program, *words],
        env={**os.environ, **here.environment, **environment}, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def run_unread(here: Stage, module: str, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output is a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    program = f"from hq.client.{module} import main; raise SystemExit(main())"
    try:
        return subprocess.run(
            [sys.executable, "-c", program, *words], env={**os.environ, **here.environment}, stdout=writer, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)


def much(message: Message) -> list[Message | None]:
    return [LogData(data=b"x" * 100_000, offset=number * 100_000, size=10**9, is_end=False) for number in range(20)]


@pytest.mark.parametrize("words", [["log", "4"], ["log", "-f", "4"]])
def test_a_reader_of_output_that_has_had_enough_is_no_lost_connection(here: Stage, words: list[str]) -> None:
    with here.serve(much):
        done = run(here, "commands", words, "| head -c 3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "xxx", "")


def test_a_full_disk_is_a_line_and_no_traceback(here: Stage) -> None:
    for answer, words in ((lambda message: [JobRows(rows=(ROW,))], ["jobs"]), (much, ["log", "4"]), (much, ["--help"])):
        with here.serve(answer):
            done = run(here, "commands", words, "> /dev/full")
        assert (done.returncode, done.stderr) == (1, "hq-client: standard output cannot be written: No space left on device\n"), words


def test_the_exit_code_of_what_was_waited_for_counts_when_nobody_reads(here: Stage) -> None:
    def answer(message: Message) -> list[Message | None]:
        if isinstance(message, JobWatch):
            return [JobProgress(jobs=(JobCounts(1, {"finished:failed": 1}, True, 3),), is_done=True)]
        return accept_all(message)

    for module, words in (("submit", ["-w", "false"]), ("commands", ["wait", "1"]), ("commands", ["wait", "1", "--json"])):
        with here.serve(answer):
            done = run_unread(here, module, words)
        assert (done.returncode, done.stderr) == (3, "")


def test_what_was_submitted_is_said_elsewhere_when_stdout_is_full(here: Stage) -> None:
    with here.serve(accept_all) as server:
        done = run(here, "submit", ["-q", "true"], "> /dev/full")
    assert len(server.heard) == 1 and done.returncode == 1
    assert done.stderr.splitlines() == ["hq-submit: submitted: 1", "hq-submit: standard output cannot be written: No space left on device"]


def test_what_a_character_set_does_not_have_is_escaped(here: Stage) -> None:
    with here.serve(lambda message: [JobRows(rows=(replace(ROW, name="\u20ac"),))]):
        done = run(here, "commands", ["jobs"], PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].split()[:2] == ["4", r"\u20ac"]


def test_closed_streams(here: Stage) -> None:
    with here.serve(lambda message: [JobRows(rows=(ROW,))]):
        done = run(here, "commands", ["jobs"], ">&-")
    assert (done.returncode, done.stderr) == (0, "")
    with here.serve(accept_all):
        done = run(here, "submit", ["-q", "true"], "<&- 2>&-")
    assert (done.returncode, done.stdout) == (0, "1\n")
