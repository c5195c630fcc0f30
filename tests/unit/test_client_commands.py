"""The verbs of `hq-client` as they are typed, against a user-server that is told what to say."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from hq.client import commands
from hq.client.verbs import BY_NAME, VERBS
from hq.model.changes import AuditRecord
from hq.model.ids import TaskKey
from hq.model.rows import GroupRow, JobCounts, Moment
from hq.model.selection import Selection
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import (
    ActResult,
    AuditQuery,
    AuditRows,
    GroupQuery,
    GroupRows,
    JobAct,
    JobActed,
    JobExplain,
    JobExplained,
    JobProgress,
    JobQuery,
    JobRows,
    JobShow,
    JobShown,
    JobWatch,
    LogData,
    LogRead,
)  # fmt: skip
from hq.protocol.peers import CheckStep, HostCheck, HostChecked, HostQuery, HostRows, PeerAsk, PeerBye, PeerFacts, PeerShutdown
from tests.support.fakeuserserver import FakeUserServer, Stage, host, row, stage

ROWS = (row(), row(id=13, task="13", name="a\x1b[31m\nb", group="g", state="running", outcome=None, exit_code=None, ended=None))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        yield made


def answers(message: Message) -> list[Message | None]:
    """What a user-server with two jobs says."""
    match message:
        case JobQuery():
            return [JobRows(rows=ROWS[-1:] if message.selection.is_last else ROWS)]
        case JobAct():
            return [JobActed(results=(ActResult(id="12", is_done=True, text="cancelled"),))]
        case JobShow():
            history = (Moment(at=1_700_000_001.0, task="12", attempt=1, state="running", host="node1", reason=""),)
            return [JobShown(row=row(), facts={"directory": "/home/alice", "stdout": "/home/alice/o\x07"}, history=history)]
        case JobExplain():
            return [JobExplained(task=message.task, sentences=("It waits for a slot.", "node1: full."))]
        case JobWatch():
            return [JobProgress(jobs=(JobCounts(id=12, tasks={"finished:ok": 1}, is_finished=True, exit_code=0),), is_done=True)]
        case GroupQuery():
            return [GroupRows(rows=(GroupRow(group="g", jobs=2, tasks={"finished:ok": 3, "running": 1}),))]
        case AuditQuery():
            record = AuditRecord(at=1_700_000_001.0, actor="olga", role="admin", action="cancel", owner="alice", target="12")
            return [AuditRows(rows=(record,) * message.limit)]
        case HostQuery():
            return [HostRows(rows=(host(), host(name="node2", reachable=None, load1=None, memory=None, memory_free=None)))]
        case PeerAsk():
            return [PeerFacts(facts={"what": message.what})]
        case PeerShutdown():
            return [PeerBye(reason="asked to"), None]
        case LogRead():
            return [LogData(data=b"out\xff", offset=0, size=8, is_end=False, path="/o"), LogData(data=b"put\n", offset=4, size=8, is_end=True, path="/o")]
        case HostCheck():
            return [HostChecked(host=message.host, steps=(CheckStep("login", True, "0.3 s"), CheckStep("python", False, "3.9 is too old")))]
    return [Problem(text=f"unexpected {message}")]


def call(server: FakeUserServer, *argv: str, code: int = 0) -> Message:
    """Run a command; the last message that it sent."""
    assert commands.main(argv) == code
    assert server.nonsense == []
    return server.heard[-1]


@pytest.mark.parametrize(
    "argv, wanted",
    [
        (["jobs"], JobQuery(selection=Selection())),
        (["jobs", "12", "14-20,31_4"], JobQuery(selection=Selection(tasks=(TaskKey(12), TaskKey(31, 4)), ranges=((14, 20),)), by_task=True)),
        (["jobs:12"], JobQuery(selection=Selection(tasks=(TaskKey(12),)))),
        (["jobs", "all", "--state", "failed,pending", "-g", "G"], JobQuery(selection=Selection(states=("failed", "starting"), group="G"))),
        (["jobs", "-t", "-n", "5", "last"], JobQuery(selection=Selection(is_last=True), by_task=True, limit=5)),
        (["jobs", "--since", "@1700000000", "--limit=all"], JobQuery(selection=Selection(since=1.7e9), limit=None)),
        (["jobs", "all"], JobQuery(selection=Selection())),
        (["lswjobs"], JobQuery(selection=Selection(states=("waiting", "held")))),
        (["lspjobs"], JobQuery(selection=Selection(states=("starting",)))),
        (["lsrjobs"], JobQuery(selection=Selection(states=("running", "suspended", "host_lost")))),
        (["lsfjobs"], JobQuery(selection=Selection(states=("finished",)), limit=10)),
        (["lsfjobs:5"], JobQuery(selection=Selection(states=("finished",)), limit=5)),
        (["lsfjobs:all"], JobQuery(selection=Selection(states=("finished",)), limit=None)),
        (["find", "two", "words"], JobQuery(selection=Selection(text="two words"))),
        (["findjobs:x"], JobQuery(selection=Selection(text="x"))),
        (["job", "12"], JobShow(task="12")),
        (["lajob:12_3"], JobShow(task="12_3")),
        (["details", "12"], JobShow(task="12")),
        (["job"], JobShow(task="13")),
        (["why", "last_7"], JobExplain(task="13_7")),
        (["info"], PeerAsk(what="info")),
        (["details"], PeerAsk(what="info")),
        (["status"], PeerAsk(what="status")),
        (["ping"], PeerAsk(what="ping")),
        (["groups"], GroupQuery()),
        (["group", "g"], GroupQuery(group="g")),
        (["lagroup:g"], GroupQuery(group="g")),
        (["hosts"], HostQuery()),
        (["cancel", "12", "--reason", "wrong"], JobAct(action="cancel", selection=Selection(tasks=(TaskKey(12),)), reason="wrong")),
        (["hold", "all"], JobAct(action="hold", selection=Selection(is_all=True))),
        (["release", "--group", "g"], JobAct(action="release", selection=Selection(is_all=True, group="g"))),
        (["requeue", "last_2"], JobAct(action="requeue", selection=Selection(tasks=(TaskKey(13, 2),)))),
        (["signal", "12", "USR1"], JobAct(action="signal", selection=Selection(tasks=(TaskKey(12),)), signal=int(signal.SIGUSR1))),
        (["signal", "sigterm", "last"], JobAct(action="signal", selection=Selection(is_last=True), signal=15)),
        (["signal", "-s", "10", "12"], JobAct(action="signal", selection=Selection(tasks=(TaskKey(12),)), signal=10)),
        (["modify", "12", "-p", "5", "--estimated-time", "1m", "--estimated-memory", "2M", "-E", "a,b", "--begin", "@1700000000"],
         JobAct(action="modify", selection=Selection(tasks=(TaskKey(12),)), changes={
             "priority": "5", "estimated_time": "60", "estimated_memory": "2097152B", "exclude": "a,b", "begin": "1700000000.0"})),
        (["wait", "12", "-q"], JobWatch(selection=Selection(tasks=(TaskKey(12),)))),
        (["wait"], JobWatch(selection=Selection(is_all=True))),
        (["log", "12"], LogRead(task="12")),
        (["log", "-f", "--stderr", "--tail", "4B", "12_1"], LogRead(task="12_1", stream="stderr", offset=-4, is_following=True)),
        (["shutdown"], PeerShutdown()),
        (["shutdown", "--hosts"], PeerShutdown(and_hosts=True)),
    ],
)  # fmt: skip
def test_what_a_verb_asks(here: Stage, argv: list[str], wanted: Message) -> None:
    with here.serve(answers) as server:
        assert call(server, *argv) == wanted


@pytest.mark.parametrize(
    "argv, said",
    [
        (["jbos"], "unknown verb 'jbos'; did you mean 'jobs'?"),
        (["jobs", "--jsno"], "did you mean '--json'?"),
        (["jobs", "x"], "'x' is not a job id"),
        (["jobs", "9-3"], "the range '9-3' is empty"),
        (["jobs", "--state", "runing"], "did you mean 'running'?"),
        (["cancel"], "which jobs?"),
        (["modify", "12"], "what should change?"),
        (["modify", "12", "-p", "abc"], "'abc' is not a whole number"),
        (["signal", "12"], "which signal?"),
        (["signal", "12", "USR9"], "there is no signal 'USR9'"),
        (["job", "1", "2"], "'2' is one word too many"),
        (["group"], "usage: hq-client group GROUP"),
        (["lsfjobs:x"], "lsfjobs: how many?"),
        (["keepalive", "perhaps"], "on, off or status"),
        (["completion", "tcsh"], "not for 'tcsh'"),
        (["help", "jbos"], "did you mean 'jobs'?"),
        (["--jsno", "jobs"], "options stand behind the verb"),
    ],
)
def test_wrong_words_are_one_line_and_nothing_is_sent(here: Stage, capsys: pytest.CaptureFixture[str], argv: list[str], said: str) -> None:
    with here.serve(answers) as server:
        assert commands.main(argv) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("hq-client: ") and err.count("\n") == 1
    assert server.heard == []


def test_no_verb_shows_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main([]) == 2
    err = capsys.readouterr().err
    assert all(verb.name in err for verb in VERBS)


def test_every_verb_has_help_and_a_function(capsys: pytest.CaptureFixture[str]) -> None:
    for name, verb in BY_NAME.items():
        assert commands.main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert f"hq-client {verb.name}" in text and "--help" in text
        assert callable(commands.function_of(verb))
        assert commands.main(["help", name]) == 0
        assert capsys.readouterr().out == text
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hq-client ")


def test_rows_as_json_have_the_documented_schema(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(answers) as server:
        for verb in ("jobs", "lswjobs", "lspjobs", "lsrjobs", "lsfjobs", "find:x"):
            call(server, verb, "--json")
            found: dict[str, Any] = json.loads(capsys.readouterr().out)
            assert found == {"schema": "hq.rows.1", "rows": [asdict(each) for each in ROWS], "is_cut": False}
    documented = (Path(__file__).parents[2] / "docs" / "json.rst").read_text()
    for path in (Path(__file__).parents[2] / "hq" / "client").glob("*.py"):
        for schema in re.findall(r'"(hq\.[a-z]+\.1)"', path.read_text()):
            assert f"``{schema}``" in documented or f'"{schema}"' in documented, (path.name, schema)
    promised = "id task name group user command state outcome exit_code signal host attempt slots submitted started ended max_rss cpu_seconds reason"
    for field in {*asdict(ROWS[0]), *promised.split()}:
        assert field in asdict(ROWS[0])
        assert f"``{field}``" in documented


@pytest.mark.parametrize(
    "argv, schema, key",
    [
        (["groups"], "hq.groups.1", "rows"), (["hosts"], "hq.hosts.1", "rows"), (["audit", "3"], "hq.audit.1", "rows"), (["job", "12"], "hq.job.1", "history"),
        (["why", "12"], "hq.why.1", "sentences"), (["info"], "hq.facts.1", "facts"), (["status"], "hq.facts.1", "facts"),
        (["cancel", "12"], "hq.acted.1", "results"), (["wait", "12"], "hq.wait.1", "exit_code"), (["ping"], "hq.ping.1", "milliseconds"),
    ],
)  # fmt: skip
def test_everything_has_json(here: Stage, capsys: pytest.CaptureFixture[str], argv: list[str], schema: str, key: str) -> None:
    with here.serve(answers) as server:
        call(server, *argv, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == schema
    assert key in found


@pytest.mark.parametrize("argv, out", [(["jobs"], "12\n13\n"), (["groups"], "g\n"), (["hosts"], "node1\nnode2\n"), (["cancel", "12"], "12\n"), (["job", "12"], "12\n")])
def test_quiet_is_ids_only(here: Stage, capsys: pytest.CaptureFixture[str], argv: list[str], out: str) -> None:
    with here.serve(answers) as server:
        call(server, *argv, "-q")
    assert capsys.readouterr() == (out, "")


def test_a_table_cannot_steer_a_terminal(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(answers) as server:
        call(server, "jobs")
        out = capsys.readouterr().out
        assert len(out.splitlines()) == 3
        assert "a\\x1b[31m\\nb" in out
        call(server, "job", "12")
        assert "/home/alice/o\\x07" in capsys.readouterr().out


def test_a_cut_listing_says_so(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(lambda message: [JobRows(rows=ROWS, is_cut=True)]) as server:
        call(server, "jobs")
        assert "only the newest 2 are shown (--limit all" in capsys.readouterr().err
        call(server, "jobs", "-n", "all")
        assert "only the newest 2 are shown (one listing holds no more" in capsys.readouterr().err
        call(server, "lsfjobs:2")
        assert capsys.readouterr().err == ""


def test_what_was_not_done_is_exit_code_1(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    results = (ActResult(id="12", is_done=True, text="cancelled"), ActResult(id="13", is_done=False, text="it has finished already"))
    with here.serve(lambda message: [JobActed(results=results)]) as server:
        call(server, "cancel", "12-13", code=1)
    assert capsys.readouterr() == ("12: cancelled\n", "13: it has finished already\n")


def test_a_refusal_is_exit_code_1(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(lambda message: [Problem(text="there is no job 99 of yours")]) as server:
        call(server, "job", "99", code=1)
    assert capsys.readouterr().err == "hq-client: there is no job 99 of yours\n"


def test_output_is_written_byte_for_byte(here: Stage, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with here.serve(answers) as server:
        call(server, "log", "12")
        assert capfdbinary.readouterr().out == b"out\xffput\n"
        call(server, "log", "--path", "12")
        assert capfdbinary.readouterr().out == b"/o\n"


def test_following_goes_on_where_it_was(here: Stage, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hq.client.showing.PAUSES", (0.0, 0.0))

    def answer(message: Message) -> list[Message | None]:
        assert isinstance(message, LogRead)
        if message.offset == 0:
            return [LogData(data=b"one ", offset=0, size=4, is_end=False), None]
        return [LogData(data=b"two\n", offset=message.offset, size=8, is_end=True)]

    with here.serve(answer) as server:
        assert call(server, "log", "-f", "12") == LogRead(task="12", offset=4, is_following=True)
    assert capfdbinary.readouterr().out == b"one two\n"


def test_checkhost_shows_each_step(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(answers) as server:
        call(server, "checkhost:node1", code=1)
    assert capsys.readouterr().out == "ok    login   0.3 s\nFAIL  python  3.9 is too old\n"


def test_nothing_is_started_to_be_asked_whether_it_is_there(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["ping"]) == 1
    assert "not running" in capsys.readouterr().err
    assert commands.main(["shutdown"]) == 0
    assert "not running" in capsys.readouterr().out


def test_no_job_yet(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(lambda message: [JobRows(rows=())]) as server:
        call(server, "why", code=1)
        call(server, "jobs")
    out, err = capsys.readouterr()
    assert (out, err) == ("no jobs\n", "hq-client: you have submitted no job yet\n")
