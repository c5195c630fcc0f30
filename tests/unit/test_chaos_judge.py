"""The judge of `make chaos` sees each kind of fault, and none where there is none."""

from __future__ import annotations

import pytest

from tests.chaos.judge import Findings, Harm, Job, Record, judge, read_ledger

PLAIN = Job(1, "u", (-1,), 0, False)
RERUN = Job(1, "u", (4,), 0, True)


def found(text: str, record: Record | None, job: Job = PLAIN, *, harms: tuple[Harm, ...] = (), live: bool = False) -> Findings:
    records = [record] if record is not None else []
    return judge([job], records, frozenset([1] if live else []), frozenset([1]), read_ledger(text), harms)


def ended(outcome: str = "ok", code: int | None = 0, *, attempt: int = 1, index: int = -1) -> Record:
    return Record(1, index, attempt, "finished", outcome, code, "h")


@pytest.mark.parametrize(
    ("text", "record", "line"),
    [
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 0\n", ended(), "lost=0 double=0 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 3\n", ended("failed", 3), "lost=0 double=0 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 3\n", ended(), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\n", ended(), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("", ended(), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\n", None, "lost=1 double=0 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\n", ended("lost", None), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nS 1 -1 1 h 6 10.5\nE 1 -1 1 h 5 11.0 0\n", ended(), "lost=0 double=1 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 0\nS 1 -1 2 h 6 12.0\nE 1 -1 2 h 6 12.5 0\n", ended(attempt=2),
         "lost=0 double=1 wrong=0 stuck=0 unknown=0"),
    ],
)  # fmt: skip
def test_a_plain_job(text: str, record: Record | None, line: str) -> None:
    assert found(text, record).line == line


def test_what_has_not_ended_is_stuck() -> None:
    assert found("", None, live=True).line == "lost=0 double=0 wrong=0 stuck=1 unknown=0"


def test_a_witness_that_was_killed_excuses_an_unknown_end_only_where_and_when_it_stood() -> None:
    killed = Harm(10.5, 10.5, "h", "u", kills_witness=True)
    assert found("S 1 -1 1 h 5 10.0\n", ended("lost", None), harms=(killed,)).line.endswith("wrong=0 stuck=0 unknown=1")
    for harm in (Harm(10.5, 10.5, "g", "u", True), Harm(10.5, 10.5, "h", "v", True), Harm(1.0, 2.0, "h", "u", True), Harm(10.5, 12.0, "h", "u", False)):
        assert found("S 1 -1 1 h 5 10.0\n", ended("lost", None), harms=(harm,)).line.endswith("wrong=1 stuck=0 unknown=0")


def test_a_rerunnable_task_may_run_again_only_for_a_reason() -> None:
    text = "S 1 4 1 h 5 10.0\nE 1 4 1 h 5 11.0 0\nS 1 4 2 g 6 30.0\nE 1 4 2 g 6 31.0 0\n"
    record = ended(attempt=2, index=4)
    assert found(text, record, RERUN).line == "lost=0 double=1 wrong=0 stuck=0 unknown=0"
    cut = Harm(9.0, 28.0, "h", None, kills_witness=False)
    assert found(text, record, RERUN, harms=(cut,)).is_good


def test_a_job_that_was_acknowledged_and_is_not_there_is_lost() -> None:
    assert judge([PLAIN], [], frozenset(), frozenset(), [], []).line.startswith("lost=1")
    with pytest.raises(ValueError, match="line 1"):
        read_ledger("S 1 2\n")
