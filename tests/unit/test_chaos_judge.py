"""The judge of `make chaos` sees each kind of fault, and none where there is none; what excuses one, excuses no other."""

from __future__ import annotations

import pytest

from tests.chaos.judge import Decision, Findings, Job, Record, judge, read_ledger
from tests.chaos.troubles import FOR_EVER, Trouble, Troubles

PLAIN = Job(1, "u", (-1,), 0, False)
RERUN = Job(1, "u", (4,), 0, True)
LEASE = 15.0
ONE = "S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 0\n"
TWO = "S 1 4 1 h 5 10.0\nE 1 4 1 h 5 11.0 0\nS 1 4 2 g 6 30.0\nE 1 4 2 g 6 31.0 0\n"


def found(text: str, record: Record | None, job: Job = PLAIN, *, troubles: tuple[Trouble, ...] = (), live: bool = False,
          decision: Decision | None = None) -> Findings:  # fmt: skip
    records = [record] if record is not None else []
    decisions = {(job.id, job.indices[0]): decision} if decision is not None else {}
    return judge([job], records, frozenset([1] if live else []), frozenset([1]), read_ledger(text), Troubles(troubles, LEASE), decisions)


def ended(outcome: str = "ok", code: int | None = 0, *, attempt: int = 1, index: int = -1, reason: str = "") -> Record:
    return Record(1, index, attempt, "finished", outcome, code, "h", reason, 40.0)


def death(what: str, at: float, **more: bool | str) -> Trouble:
    return Trouble(what, at, at + 1.0, is_death=True, **{"host": "h", "user": "u", **more})  # type: ignore[arg-type]


HOST = Trouble("host", 10.5, 12.0, "h", is_death=True)
CUT = Trouble("cut", 9.0, 28.0, "h")


@pytest.mark.parametrize(
    ("text", "record", "line"),
    [
        (ONE, ended(), "lost=0 double=0 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 3\n", ended("failed", 3), "lost=0 double=0 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 3\n", ended(), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 3\n", ended("failed", 4), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\n", ended(), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("", ended(), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\n", None, "lost=1 double=0 wrong=0 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\n", ended("lost", None), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        (ONE, ended("cancelled", None), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        (ONE, ended("refused", None), "lost=0 double=0 wrong=1 stuck=0 unknown=0"),
        ("S 1 -1 1 h 5 10.0\nS 1 -1 1 h 6 10.5\nE 1 -1 1 h 5 11.0 0\n", ended(), "lost=0 double=1 wrong=0 stuck=0 unknown=0"),
        (ONE + "S 1 -1 2 h 6 12.0\nE 1 -1 2 h 6 12.5 0\n", ended(attempt=2), "lost=0 double=1 wrong=0 stuck=0 unknown=0"),
        (ONE + "S 1 -1 2 h 6 12.0\nE 1 -1 2 h 6 12.5 0\n", ended(attempt=1), "lost=0 double=2 wrong=0 stuck=0 unknown=0"),
    ],
)  # fmt: skip
def test_a_plain_job(text: str, record: Record | None, line: str) -> None:
    assert found(text, record).line == line


def test_what_has_not_ended_is_stuck_also_where_its_host_is_lost() -> None:
    assert found("", None, live=True).line == "lost=0 double=0 wrong=0 stuck=1 unknown=0"
    waits = Record(1, -1, 1, "host_lost", None, None, "h", "h has not been heard")
    assert found("", waits, live=True, troubles=(CUT,)).line == "lost=0 double=0 wrong=0 stuck=1 unknown=0"


@pytest.mark.parametrize(
    ("troubles", "is_excused"),
    [
        ((HOST,), True),
        ((death("worker", 10.5), death("supervisor", 10.5)), True),
        ((death("worker", 10.3), death("supervisor", 10.9)), True),
        ((death("worker", 10.5, is_last=True),), True),
        # the end was not written down while its witness stood still, and then all were killed
        ((Trouble("worker", 10.5, 70.5, "h", "u"), Trouble("host", 60.0, 61.0, "h", is_death=True)), True),
        ((death("worker", 10.5),), False),
        ((death("supervisor", 10.5),), False),
        ((death("supervisor", 10.3), death("worker", 10.2)), True),
        ((death("worker", 2.0), death("supervisor", 10.5)), False),
        ((death("worker", 10.5), death("supervisor", 30.0)), False),
        ((Trouble("host", 10.5, 12.0, "g", is_death=True),), False),
        ((Trouble("host", 30.0, 32.0, "h", is_death=True),), False),
        ((death("worker", 10.5, user="v"), death("supervisor", 10.5, user="v")), False),
        ((Trouble("worker", 10.5, 70.5, "h", "u"),), False),
        ((CUT,), False),
        ((death("server", 10.5, host="", user=""), death("user-server", 10.5, host=""), death("database", 10.5, host="", user="")), False),
    ],
)  # fmt: skip
def test_an_end_is_unknown_only_where_every_witness_of_the_run_was_killed(troubles: tuple[Trouble, ...], is_excused: bool) -> None:
    line = found(ONE, ended("lost", None), troubles=troubles).line
    assert line == f"lost=0 double=0 wrong={1 - is_excused} stuck=0 unknown={int(is_excused)}"


def test_a_disk_that_went_with_its_host_excuses_what_was_not_yet_recorded_and_no_more() -> None:
    wiped = Trouble("host", 20.0, 22.0, "h", is_death=True, is_wiped=True)
    assert found(ONE, ended("lost", None), troubles=(wiped,)).line.endswith("wrong=1 stuck=0 unknown=0"), "there was time enough to tell"
    away = Trouble("server", 11.5, 25.0, is_death=True)
    assert found(ONE, ended("lost", None), troubles=(wiped, away)).line.endswith("wrong=0 stuck=0 unknown=1")
    kept = Trouble("host", 20.0, 22.0, "h", is_death=True)
    assert found(ONE, ended("lost", None), troubles=(kept, away)).line.endswith("wrong=1 stuck=0 unknown=0"), "the disk is a witness"


def test_an_attempt_that_never_began_is_lost_only_where_its_host_died_after_it_was_asked_for() -> None:
    record = ended("lost", None)
    asked = Job(1, "u", (-1,), 0, False, True, 8.0)
    wiped = Trouble("host", 20.0, 22.0, "h", is_death=True, is_wiped=True)
    assert found("", record, asked, troubles=(wiped,)).line.endswith("wrong=0 stuck=0 unknown=1")
    for other in (Trouble("host", 2.0, 3.0, "h", is_death=True, is_wiped=True), Trouble("host", 20.0, 22.0, "g", is_death=True), CUT, death("worker", 9.0)):
        assert found("", record, asked, troubles=(other,)).line.endswith("wrong=1 stuck=0 unknown=0")


def test_an_attempt_that_was_not_begun_is_recorded_as_the_one_before_it_ended() -> None:
    once = "S 1 4 1 h 5 10.0\nE 1 4 1 h 5 11.0 3\n"
    reason = "…: attempt 1 ended so, attempt 2 was not begun"
    assert found(once, ended("failed", 3, attempt=2, index=4, reason=reason), RERUN).is_good
    for outcome, code in (("ok", 0), ("failed", 4), ("refused", None)):
        assert not found(once, ended(outcome, code, attempt=2, index=4, reason=reason), RERUN).is_good
    assert not found("", ended("failed", 3, attempt=2, index=4, reason=reason), RERUN).is_good


@pytest.mark.parametrize(
    ("troubles", "is_excused"),
    [
        ((), False),
        ((CUT,), True),
        ((Trouble("cut", 9.0, 12.0, "h"),), False),
        ((Trouble("cut", 9.0, 28.0, "g"),), False),
        ((Trouble("cut", 40.0, 80.0, "h"),), False),
        ((Trouble("worker", 9.0, 28.0, "h", "u"),), True),
        ((Trouble("worker", 9.0, 28.0, "h", "v"),), False),
        ((Trouble("server", 9.0, 28.0),), False),
        ((Trouble("user-server", 9.0, 28.0, "", "u"),), False),
        ((Trouble("server", 9.0, 28.0), Trouble("user-server", 9.0, 28.0, "", "u")), True),
        ((Trouble("server", 9.0, 28.0), Trouble("user-server", 9.0, 28.0, "", "v")), False),
        ((Trouble("database", 9.0, 28.0), Trouble("user-server", 9.0, 28.0, "", "u")), False),
        ((HOST,), True),
        ((death("worker", 10.5),), False),
        ((death("worker", 10.5), death("supervisor", 10.6)), True),
    ],
)  # fmt: skip
def test_a_task_that_may_run_again_does_so_only_if_its_end_was_unseen_or_nobody_was_heard_for_the_lease(
    troubles: tuple[Trouble, ...], is_excused: bool
) -> None:
    record = ended(attempt=2, index=4)
    findings = found(TWO, record, RERUN, troubles=troubles)
    assert findings.line == f"lost=0 double={1 - is_excused} wrong=0 stuck=0 unknown=0" and findings.rerun == is_excused
    killed = TWO.replace("E 1 4 1 h 5 11.0 0\n", "")
    assert found(killed, record, RERUN, troubles=troubles).is_good is is_excused, "nobody ends a run for nothing"
    assert not found(TWO, record, Job(1, "u", (4,), 0, False), troubles=troubles).is_good, "what must not run twice does not, whatever happened"


def test_two_at_once_are_never_excused() -> None:
    beside = "S 1 4 1 h 5 10.0\nS 1 4 2 g 6 10.5\nE 1 4 1 h 5 11.0 0\nE 1 4 2 g 6 12.5 0\n"
    assert found(beside, ended(attempt=2, index=4), RERUN, troubles=(CUT, HOST)).line.startswith("lost=0 double=1")


def test_retries_are_for_failures_and_no_more_than_asked_for() -> None:
    once = Job(1, "u", (-1,), 1, False)
    failed = "S 1 -1 1 h 5 10.0\nE 1 -1 1 h 5 11.0 9\nS 1 -1 2 h 5 12.0\nE 1 -1 2 h 5 13.0 9\n"
    assert found(failed, ended("failed", 9, attempt=2), once).is_good
    assert not found(failed + "S 1 -1 3 h 5 14.0\nE 1 -1 3 h 5 15.0 9\n", ended("failed", 9, attempt=3), once).is_good
    assert not found(failed.replace("11.0 9", "11.0 0"), ended("failed", 9, attempt=2), once).is_good


def test_an_owner_decides_only_of_a_host_that_was_cut_off_for_ever() -> None:
    gone = Trouble("cut", 9.0, FOR_EVER, "h")
    for verdict in ("ok", "failed", "lost"):
        assert found(ONE, ended(verdict, None), troubles=(gone,), decision=Decision(1, verdict)).is_good
    assert not found(ONE, ended("ok", None), troubles=(gone,), decision=Decision(1, "failed")).is_good
    assert not found(ONE, ended("lost", None), troubles=(CUT,), decision=Decision(1, "lost")).is_good
    again = TWO.replace(" 4 ", " -1 ")
    assert found(again, ended(attempt=2), troubles=(gone,), decision=Decision(1, "requeue")).is_good
    assert not found(again, ended(attempt=2), troubles=(gone,)).is_good, "nobody asked for that"
    assert not found(again, ended(attempt=2), decision=Decision(1, "requeue")).is_good
    assert not found(ONE, ended("failed", 3, attempt=2), troubles=(gone,), decision=Decision(1, "lost")).is_good, "it is of another attempt"


def test_a_task_without_room_for_its_output_has_not_begun() -> None:
    full = Trouble("output", 12.0, 20.0, "", "u")
    assert found("", ended("failed", 125), troubles=(full,)).line.endswith("wrong=0 stuck=0 unknown=0")
    assert not found("", ended("failed", 125)).is_good
    assert not found("", ended("failed", 1), troubles=(full,)).is_good
    assert not found("S 1 -1 1 h 5 10.0\n", ended("failed", 125), troubles=(full,)).is_good


def test_a_job_that_was_acknowledged_and_is_not_there_is_lost() -> None:
    assert judge([PLAIN], [], frozenset(), frozenset(), [], Troubles((), LEASE)).line.startswith("lost=1")
    assert found(ONE + "S 2 -1 1 h 7 10.0\n", ended()).line.startswith("lost=0 double=0 wrong=1"), "nobody asked for that one"
    with pytest.raises(ValueError, match="line 1"):
        read_ledger("S 1 2\n")
