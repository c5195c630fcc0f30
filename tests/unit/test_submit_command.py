"""`hq-submit` as it is typed, against a user-server that is told what to say."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.client import submit
from hq.client.submit import batches, ids_text
from hq.model.rows import JobCounts
from hq.protocol.base import Message, Problem
from hq.protocol.jobs import JobAsk, JobProgress, JobSubmitted, JobWatch, SubmittedItem
from hq.protocol.peers import PeerAsk, PeerFacts
from tests.support.fakeuserserver import Answer, FakeUserServer, Stage, accept_all, stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield made


def asked(server: FakeUserServer) -> list[JobAsk]:
    assert server.nonsense == []
    return [message for message in server.heard if isinstance(message, JobAsk)]


def submitted(*items: SubmittedItem) -> Answer:
    return lambda message: [JobSubmitted(items=items)]


def test_a_job(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve() as server:
        assert submit.main(["echo", "a b", "\udcff\n'"]) == 0
    (message,) = asked(server)
    (job,) = message.jobs
    assert job.argv == (b"echo", b"a b", b"\xff\n'")
    assert job.cwd == os.fsencode(os.getcwd())
    assert (message.is_dry_run, message.allow_root, len(message.key) >= 32) == (False, False, True)
    assert capsys.readouterr().out == "job 1 submitted\n"


def test_quiet_and_json(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve():
        assert submit.main(["-q", "true"]) == 0
        assert capsys.readouterr().out == "1\n"
        assert submit.main(["--json", "--allow-root", "true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"schema": "hq.submitted.1", "is_dry_run": False, "jobs": [{"id": 1, "tasks": 1, "note": ""}]}


def test_notes_go_to_stderr(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(submitted(SubmittedItem(key="k", id=7, tasks=200, note="it will not survive your logout"))):
        assert submit.main(["-a", "1-200", "true"]) == 0
    out, err = capsys.readouterr()
    assert out == "job 7 submitted: 200 tasks\n"
    assert err == "hq-submit: it will not survive your logout\n"


def test_dry_run(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with here.serve(submitted(SubmittedItem(key="k", id=0, tasks=1, note="it would start now on node1"))) as server:
        assert submit.main(["--dry-run", "--wait", "true"]) == 0
    assert [message.is_dry_run for message in asked(server)] == [True]
    assert capsys.readouterr().out == "1 job(s) would be accepted; nothing was submitted\nit would start now on node1\n"


@pytest.mark.parametrize(
    "argv",
    [["--grop", "x", "true"], ["-p", "abc", "true"], [], ["-a", "0-999999999", "true"], ["-f", "none"], ["-o", "", "x"], ["-f", "x", "true"], ["x" * (1 << 20)]],
)
def test_bad_input_is_one_line_and_nothing_is_sent(here: Stage, capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with here.serve() as server:
        assert submit.main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("hq-submit: ") and err.count("\n") == 1
    assert server.heard == []


@pytest.mark.parametrize("exit_code, is_transient", [(1, False), (2, False), (1, True)])
def test_a_refusal_is_passed_on(here: Stage, capsys: pytest.CaptureFixture[str], exit_code: int, is_transient: bool) -> None:
    with here.serve(lambda message: [Problem(text="no host has 9 slots, at most 4", exit_code=exit_code, is_transient=is_transient)]):
        assert submit.main(["-c", "9", "true"]) == exit_code
    assert capsys.readouterr().err == "hq-submit: no host has 9 slots, at most 4\n"


def test_a_broken_connection_is_made_again_with_the_same_key(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Message] = []

    def answer(message: Message) -> list[Message | None]:
        seen.append(message)
        return [None] if len(seen) == 1 else accept_all(message)

    with here.serve(answer) as server:
        assert submit.main(["-q", "true"]) == 0
    first, second = asked(server)
    assert first.key == second.key
    with here.serve(lambda message: [None]):
        assert submit.main(["-q", "true"]) == 1
    assert "broke twice" in capsys.readouterr().err


def test_a_jobs_file(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    Path("jobs.tab").write_text("# pairs\ncommand::echo {idx}\tgroup::pairs\ncommand::echo two\n")
    with here.serve() as server:
        assert submit.main(["-c", "2", "--jobs-file", "jobs.tab"]) == 0
    (message,) = asked(server)
    assert [(job.argv, job.slots, job.wishes.group, job.line) for job in message.jobs] == [
        ((b"echo 1",), 2, "pairs", 2),
        ((b"echo two",), 2, "", 3),
    ]
    assert capsys.readouterr().out == "2 jobs submitted: 1-2\n"


def test_a_bad_line_submits_nothing(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    Path("jobs.tab").write_text("command::echo fine\ncommand::x\tslots::none\nslots::1\n")
    with here.serve() as server:
        assert submit.main(["-f", "jobs.tab"]) == 2
    err = capsys.readouterr().err.splitlines()
    assert [line[:29] for line in err] == ["hq-submit: jobs.tab, line 2: ", "hq-submit: jobs.tab, line 3: ", "hq-submit: nothing was submit"]
    assert server.heard == []


def test_a_refused_line_is_named_and_a_large_file_is_rehearsed(here: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "BATCH_BYTES", 10_000)
    Path("jobs").write_text("".join(f"command::echo {n} {'x' * 2000}\texport::none\n" for n in range(9)))
    with here.serve() as server:
        assert submit.main(["-f", "jobs"]) == 0
    messages = asked(server)
    half = len(messages) // 2
    assert [message.is_dry_run for message in messages] == [True] * half + [False] * half
    assert half > 1
    assert [message.key for message in messages[:half]] == [message.key for message in messages[half:]]
    assert sum(len(message.jobs) for message in messages[half:]) == 9
    capsys.readouterr()

    def refuse_much(message: Message) -> list[Message | None]:
        assert isinstance(message, JobAsk)
        return [Problem(text="9 slots are too many")] if any(job.slots == 9 for job in message.jobs) else accept_all(message)

    Path("some").write_text("".join(f"command::echo\tslots::{9 if n in (3, 5) else 1}\n" for n in range(8)))
    with here.serve(refuse_much) as server:
        assert submit.main(["-f", "some"]) == 1
    assert capsys.readouterr().err == "hq-submit: some, line 4: 9 slots are too many\n"
    assert all(message.is_dry_run for message in asked(server))

    def refuse_late(message: Message) -> list[Message | None]:
        assert isinstance(message, JobAsk)
        return [Problem(text="there is no host 'x'")] if message.key.endswith(".1") and message.is_dry_run else accept_all(message)

    with here.serve(refuse_late) as server:
        assert submit.main(["-f", "jobs"]) == 1
    assert all(message.is_dry_run for message in asked(server))
    assert capsys.readouterr().err.endswith(": there is no host 'x'\n")


def test_waiting_returns_the_jobs_exit_code(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(message: Message) -> list[Message | None]:
        if isinstance(message, JobWatch):
            assert [tuple(task) for task in message.selection.tasks] == [(1, -1)]
            return [
                JobProgress(jobs=(JobCounts(id=1, tasks={"running": 1}, is_finished=False),), is_done=False),
                JobProgress(jobs=(JobCounts(id=1, tasks={"finished:failed": 1}, is_finished=True, exit_code=3),), is_done=True),
            ]
        return accept_all(message)

    with here.serve(answer):
        assert submit.main(["--wait", "exit 3"]) == 3
        assert capsys.readouterr().out == "job 1 submitted\njob 1: failed, exit code 3\n"
        assert submit.main(["-wq", "exit 3"]) == 3
        assert capsys.readouterr().out == "1\n"


def test_a_script_from_standard_input(here: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"#!/bin/sh\necho $1 \xff\n")))
    with here.serve() as server:
        assert submit.main(["-q", "-", "word"]) == 0
    job = asked(server)[0].jobs[0]
    assert (job.script, job.argv) == (b"#!/bin/sh\necho $1 \xff\n", (b"word",))


def test_status_as_the_older_hq_had_it(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(message: Message) -> list[Message | None]:
        assert message == PeerAsk(what="status")
        return [PeerFacts(facts={"server": "up", "jobs running": 2})]

    with here.serve(answer):
        assert submit.main(["-s"]) == 0
    assert capsys.readouterr().out == "server:       up\njobs running: 2\n"
    assert submit.main(["--status"]) == 1
    assert "not running" in capsys.readouterr().err


def test_help_and_version(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert submit.main(["--help"]) == 0
    assert "--output-limit-action" in capsys.readouterr().out
    assert submit.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hq-submit ")


def test_ids_are_folded_and_batches_keep_their_order() -> None:
    assert ids_text([{"id": id} for id in (5, 1, 2, 3, 9)]) == "1-3, 5, 9"
    requests = [{"env": ["x" * 3_000_000], "argv": [], "n": n} for n in range(5)]
    parts = batches(requests)
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [request["n"] for part in parts for request in part] == list(range(5))


def test_the_fast_path_imports_the_standard_library_only(here: Stage) -> None:
    code = (
        "import sys; from hq.client.submit import main; code = main(['-q', '-c', '2', 'true']);"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'}));"
        "import json; print(json.dumps([name for name in sys.modules if name.startswith('hq.')]));"
        "print(sorted({'argparse', 'dataclasses', 'subprocess', 'typing', 'datetime', 'inspect'} & set(sys.modules))); sys.exit(code)"
    )
    with here.serve():
        # -S: what a site puts into every interpreter is not ours
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    ids, foreign, ours, heavy = done.stdout.splitlines()
    assert (ids, foreign, heavy) == ("1", "['hq']", "[]"), done.stderr
    assert not [name for name in json.loads(ours) if name.startswith(("hq.protocol", "hq.core", "hq.db", "hq.server", "hq.userserver"))]


def test_words_that_are_no_utf8_come_through_a_real_process(here: Stage) -> None:
    code = "from hq.client.submit import main; raise SystemExit(main())"
    with here.serve() as server:
        argv: list[str | bytes] = [sys.executable, "-c", code, "-q", "--env", b"X=\xfe", "printf", b"\xff'\"\n$x", ""]
        done = subprocess.run(argv, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C"}, check=False)
    assert (done.returncode, done.stdout) == (0, b"1\n"), done.stderr
    job = asked(server)[0].jobs[0]
    assert job.argv == (b"printf", b"\xff'\"\n$x", b"")
    assert b"X=\xfe" in job.env
