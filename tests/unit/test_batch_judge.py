"""How a run at a batch system ended: the runner's words, the batch system's, and neither."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from hq.execserver.backends.base import Launch
from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.batchfiles import Group, launch_words, read_launch
from hq.execserver.batchjudge import judge_exit, judge_native
from hq.execserver.noderun import ALREADY
from hq.model.ids import AttemptKey
from hq.model.states import Outcome, OutputAction


def native(outcome: Outcome | None = None, **more: object) -> NativeJob:
    return NativeJob(**{"id": "7", "state": NativeState.ENDED, "word": "WORD", "outcome": outcome, **more})  # type: ignore[arg-type]


def test_the_runners_own_words_count() -> None:
    words = {"outcome": "failed", "exit_code": 7, "signal": None, "reason": "exit code 7", "max_rss": 9, "cpu": 0.5, "at": 3.0}
    verdict = judge_exit(words, native(Outcome.TIMEOUT), "slurm:c")
    assert (verdict.cause, verdict.exit_code, verdict.max_rss, verdict.at) == ((Outcome.FAILED, "exit code 7"), 7, 9, 3.0)
    assert judge_exit({"outcome": "ok", "exit_code": 0}, None, "slurm:c").cause is None


@pytest.mark.parametrize("own", ["cancelled", "failed"])
@pytest.mark.parametrize("outcome", [Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.LOST, Outcome.MEMORY])
def test_a_runner_that_was_told_to_end_leaves_the_reason_to_the_batch_system(outcome: Outcome, own: str) -> None:
    verdict = judge_exit({"outcome": own, "signal": 15, "told": True, "reason": "x"}, native(outcome), "slurm:c")
    assert verdict.cause is not None and verdict.cause[0] is outcome and "slurm:c" in verdict.cause[1]


def test_told_to_end_and_nobody_says_why() -> None:
    assert judge_exit({"outcome": "cancelled", "told": True}, None, "slurm:c").cause == (Outcome.CANCELLED, "it was ended at slurm:c")
    assert judge_exit({"outcome": "failed", "told": True, "reason": "exit code 143"}, None, "slurm:c").cause == (Outcome.FAILED, "exit code 143")


@pytest.mark.parametrize("said", [
    "slurmstepd: error: Detected 1 oom_kill event in StepId=9.batch. Some of the step tasks have been OOM Killed.",
    "slurmstepd: error: StepId=1.batch exceeded memory limit (307200 > 40960), being killed", "=>> PBS: job killed: mem 307200kb exceeded limit 40960kb",
])  # fmt: skip
def test_a_kill_for_memory_is_told_from_any_other(said: str, tmp_path: Path) -> None:
    words = {"outcome": "failed", "signal": 9, "killed": True, "reason": "killed by signal 9 (SIGKILL)"}
    for verdict in (judge_exit(words, native(), "slurm:c", said), judge_exit(words, native(Outcome.MEMORY), "slurm:c")):
        assert verdict.cause is not None and verdict.cause[0] is Outcome.MEMORY and "memory limit at slurm:c" in verdict.cause[1]
    (tmp_path / "other").mkdir()
    cause = judge_native(native(signal=9), True, "slurm:c", group(tmp_path, said)).cause
    assert cause is not None and cause[0] is Outcome.MEMORY
    assert judge_native(native(signal=9), True, "slurm:c", group(tmp_path / "other", "hello")).cause is None
    assert judge_exit(words, native(), "slurm:c", "hello").cause == (Outcome.FAILED, "killed by signal 9 (SIGKILL)")
    assert judge_exit({**words, "killed": False}, native(), "slurm:c", said).cause == (Outcome.FAILED, "killed by signal 9 (SIGKILL)")


def group(folder: Path, said: str = "") -> Group:
    (folder / "native.out").write_text(said)
    return Group("tag", str(folder), [])


def test_without_the_runner_the_batch_system_decides(tmp_path: Path) -> None:
    where = group(tmp_path)
    assert judge_native(native(Outcome.MEMORY), True, "slurm:c", where).cause == (Outcome.MEMORY, "ran into its memory limit at slurm:c")
    assert judge_native(native(exit_code=7), True, "slurm:c", where).exit_code == 7
    lost = judge_native(native(), True, "slurm:c", where).cause
    assert lost is not None and lost[0] is Outcome.LOST


def test_a_job_that_was_started_once_more_is_not_said_to_have_failed(tmp_path: Path) -> None:
    cause = judge_native(native(exit_code=ALREADY), True, "slurm:c", group(tmp_path)).cause
    assert cause is not None and cause[0] is Outcome.LOST and "once more" in cause[1]


def test_a_runner_that_never_began_is_no_run(tmp_path: Path) -> None:
    assert "python: not found" in judge_native(native(exit_code=127), False, "slurm:c", group(tmp_path, "sh: python: not found")).never
    assert "file system" in judge_native(native(exit_code=0), False, "slurm:c", group(tmp_path)).never
    assert judge_native(native(Outcome.CANCELLED), False, "slurm:c", group(tmp_path)).cause == (Outcome.CANCELLED, "was cancelled at slurm:c")


def test_a_launch_comes_back_from_its_file_whatever_it_holds() -> None:
    values: dict[str, Any] = {"bytes": b"/\xff", "tuple[bytes, ...]": (b"a", b"\xff"), "dict[bytes, bytes]": {b"A": b"\xfe"}, "AttemptKey": AttemptKey(1, 2, 3),
                              "OutputAction": OutputAction.STOP}  # fmt: skip
    launch = Launch(**{each.name: values[str(each.type)] for each in fields(Launch) if str(each.type) in values}, tag="t", umask=0o77)
    assert read_launch(json.loads(json.dumps(launch_words(launch)))) == launch
