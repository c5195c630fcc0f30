"""Waiting: which exit code stands for which end, what is shown, and that a lost connection is no end."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hq.client import commands, progress, waiting
from hq.client.connect import Session
from hq.client.waiting import exit_code_of, wait_for
from hq.model.ids import TaskKey
from hq.model.rows import JobCounts
from hq.model.selection import Selection
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import JobProgress, JobWatch, LogData, LogRead
from tests.support.fakeuserserver import Stage, stage


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def counts(id: int, exit_code: int | None = 0, *, is_finished: bool = True, reason: str = "", **tasks: int) -> JobCounts:
    return JobCounts(id=id, tasks={name.replace("__", ":"): n for name, n in tasks.items()}, is_finished=is_finished, exit_code=exit_code, reason=reason)


@pytest.mark.parametrize(
    "tasks, exit_code, wanted",
    [
        ({"finished:ok": 1}, 0, 0),
        ({"finished:failed": 1}, 3, 3),
        ({"finished:failed": 1}, 137, 137),
        ({"finished:failed": 1}, None, 1),
        ({"finished:timeout": 1}, 143, 124),
        ({"finished:memory": 1}, None, 137),
        ({"finished:refused": 1}, None, 126),
        ({"finished:cancelled": 1}, 143, 1),
        ({"finished:lost": 1}, None, 1),
        ({"finished:ok": 9, "finished:failed": 1}, 2, 2),
        ({"finished:timeout": 1, "finished:failed": 1}, 7, 124),
        ({"finished:ok": 9, "finished:failed": 0}, 0, 0),
        ({"finished": 1}, 4, 4),
        ({}, None, 0),
    ],
)
def test_exit_codes(tasks: dict[str, int], exit_code: int | None, wanted: int) -> None:
    assert exit_code_of({"tasks": tasks, "exit_code": exit_code}) == wanted


def test_the_worst_of_several(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = (counts(1, finished__ok=1), counts(2, 5, finished__failed=1, reason="exit\x07ed"), counts(3, 1, finished__failed=2, finished__ok=1))
    with here.serve(lambda message: [JobProgress(jobs=jobs, is_done=True)]):
        assert commands.main(["wait", "1-3"]) == 5
    assert capsys.readouterr().out.splitlines() == [
        "job 1: ok",
        "job 2: failed, exit code 5 (exit\\x07ed)",
        "job 3: 2 failed, 1 ok, exit code 1",
    ]


def test_a_finished_task_is_counted_once(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = (counts(1, 3, finished=4, finished__ok=3, finished__failed=1, reason="exit code 3"),)
    with here.serve(lambda message: [JobProgress(jobs=jobs, is_done=True)]):
        assert commands.main(["wait", "1"]) == 3
    assert capsys.readouterr().out == "job 1: 3 ok, 1 failed, exit code 3\n"
    assert progress.done_of(jobs[0].tasks) == 4


def test_many_jobs_are_summed_up(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = tuple(counts(id, 1, finished__failed=1) if id == 7 else counts(id, finished__ok=1) for id in range(1, 101))
    with here.serve(lambda message: [JobProgress(jobs=jobs, is_done=True)]):
        assert commands.main(["wait", "all"]) == 1
    assert capsys.readouterr().out.splitlines() == ["job 7: failed, exit code 1", "100 jobs: 99 ok, 1 failed"]


def test_nothing_to_wait_for(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(lambda message: [JobProgress(jobs=(), is_done=True)]):
        assert commands.main(["wait"]) == 0
    assert capsys.readouterr().out == "there is nothing to wait for\n"


def test_a_lost_connection_is_made_again_for_the_same_jobs(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    seen: list[Selection] = []

    def answer(message: Message) -> list[Message | None]:
        assert isinstance(message, JobWatch)
        seen.append(message.selection)
        if len(seen) == 1:
            return [JobProgress(jobs=(counts(4, None, is_finished=False, running=1),), is_done=False), None]
        return [JobProgress(jobs=(counts(4, finished__ok=1),), is_done=True)]

    with here.serve(answer):
        assert commands.main(["wait", "last", "-q"]) == 0
    assert seen[0].is_last
    assert seen[1].ranges == ((4, 4),) and not seen[1].tasks and not seen[1].is_last
    assert len(pauses) == 1


def test_single_tasks_are_named_and_asked_for_again_as_such(
    here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    seen: list[Selection] = []

    def answer(message: Message) -> list[Message | None]:
        assert isinstance(message, JobWatch)
        seen.append(message.selection)
        if len(seen) == 1:
            return [JobProgress(jobs=(replace(counts(4, None, is_finished=False, running=2), only=(7, 2)),), is_done=False), None]
        return [JobProgress(jobs=(replace(counts(4, 3, finished__failed=1, finished__ok=1), only=(7, 2)),), is_done=True)]

    with here.serve(answer):
        assert commands.main(["wait", "4_7,4_2"]) == 3
    assert seen[1].tasks == (TaskKey(4, 7), TaskKey(4, 2)) and not seen[1].ranges
    assert capsys.readouterr().out == "job 4_2,7: 1 failed, 1 ok, exit code 3\n"


def test_a_word_of_the_user_server_is_shown(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    words = [JobProgress(jobs=(), is_done=False, note="nothing starts"), JobProgress(jobs=(counts(4, finished__ok=1),), is_done=True)]
    with here.serve(lambda message: list(words)):
        assert commands.main(["wait", "4"]) == 0
    told = capsys.readouterr()
    assert told.err == "nothing starts\n" and told.out == "job 4: ok\n"


def test_a_user_server_that_stays_away_is_said(here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with here.serve(lambda message: [None]):
        assert commands.main(["wait", "all"]) == 1
    said = capsys.readouterr().err
    assert "your jobs run on without it" in said and said.count("still trying") == 1


def test_an_interrupt_leaves_the_jobs(here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(waiting, "watch", interrupt)
    assert wait_for(Session.open(), {"is_all": True}, "hq-client") == 130
    assert "the jobs run on" in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(here: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stream = [
        JobProgress(jobs=(counts(1, None, is_finished=False, running=2, waiting=5, finished__ok=3),), is_done=False),
        JobProgress(jobs=(counts(1, finished__ok=10),), is_done=True),
    ]
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    with here.serve(lambda message: list(stream)):
        monkeypatch.setattr("sys.stderr", terminal)
        assert commands.main(["wait", "1"]) == 0
        monkeypatch.undo()
        assert "10/10" in terminal.getvalue()
        for name, value in here.environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        assert commands.main(["wait", "1"]) == 0
    assert capsys.readouterr() == ("job 1: 10 ok\n", "")


def test_lines_are_sparse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    lines = progress.Lines()
    for second in range(100):
        clock[0] = float(second)
        lines.show({"running": 1, "finished:ok": second // 10})
    shown = capsys.readouterr().err.splitlines()
    assert shown == ["1 running, 3 ok", "1 running, 6 ok", "1 running, 9 ok"]


def test_the_total_follows_each_job(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, int]] = []

    class Recorder(progress.Silent):
        def show(self, total: dict[str, int]) -> None:
            shown.append({state: count for state, count in total.items() if count})

    monkeypatch.setattr(waiting, "make_display", lambda is_quiet: Recorder())
    stream = [
        JobProgress(jobs=(counts(1, None, is_finished=False, waiting=3), counts(2, None, is_finished=False, running=1)), is_done=False),
        JobProgress(jobs=(counts(1, None, is_finished=False, waiting=1, running=2),), is_done=False),
        JobProgress(jobs=(counts(2, 0, finished=1, finished__ok=1),), is_done=False),
        JobProgress(jobs=(counts(1, 0, finished=3, finished__ok=3),), is_done=True),
    ]
    with here.serve(lambda message: list(stream)):
        assert commands.main(["wait", "1-2"]) == 0
    assert shown == [{"waiting": 3, "running": 1}, {"waiting": 1, "running": 3}, {"waiting": 1, "running": 2, "finished:ok": 1}, {"finished:ok": 4}]


def test_who_follows_what_has_not_started_waits_for_it(here: Stage, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    heard: list[Message] = []

    def answer(message: Message) -> list[Message | None]:
        heard.append(message)
        if isinstance(message, JobWatch):
            return [JobProgress(jobs=(counts(4, None, is_finished=False, **{state: 1}),), is_done=False) for state in ("waiting", "starting", "running")]
        if len(heard) == 1 or not message.is_following:  # type: ignore[attr-defined]
            return [Problem(text="4 has not started yet", is_transient=True)]
        return [LogData(data=b"begun\n", offset=0, size=6, is_end=True)]

    with here.serve(answer):
        assert commands.main(["log", "-f", "4"]) == 0
        told = capfdbinary.readouterr()
        assert told.out == b"begun\n" and told.err == b"hq-client: 4 has not started yet; waiting (hq-client why 4)\n"
        assert commands.main(["log", "4"]) == 1
    assert [type(message) for message in heard] == [LogRead, JobWatch, LogRead, LogRead]
    assert heard[1].selection.tasks == (TaskKey(4),)  # type: ignore[attr-defined]
