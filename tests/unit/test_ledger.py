"""The ledger: what a signature permits, whatever hq-server asks for, and that KILL or a full disk does not make it forget."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hq.client.takeover import keep_lines
from hq.core.ledger import Ledger, Numbers, Slot, Terms, slot_of
from hq.kernel.clock import Now
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.job import JobSpec, SignedSpec
from hq.model.restored import Cancel
from hq.model.runs import RunReport, StartOrder
from hq.model.selection import Selection
from hq.model.states import Outcome, RunKind
from hq.protocol.specs import encode_spec
from hq.userserver.ends import MAX_ENDS, End, refused_or_ended
from hq.userserver.ledger import LedgerFile, Verdict

LOG = logging.getLogger("ledger-test")


def signed(key: str = "k-0", **fields: object) -> SignedSpec:
    spec = JobSpec(instance="i", user="alice", key=key, name="n", argv=(b"true",), **fields)  # type: ignore[arg-type]
    return SignedSpec(encode_spec(spec), key.encode())


def report(job: int, attempt: int, outcome: Outcome | None, index: int = PLAIN) -> RunReport:
    kind = RunKind.NEVER_STARTED if outcome is None else RunKind.ENDED
    return RunReport(job=job, index=index, attempt=attempt, kind=kind, at=1.0, outcome=outcome)


def ask(ledger: LedgerFile, spec: SignedSpec, job: int, attempt: int, index: int = PLAIN) -> Verdict:
    return ledger.admit({job: spec}, [StartOrder(job, index, attempt, (0,))])


def may(ledger: LedgerFile, spec: SignedSpec, job: int, attempt: int, index: int = PLAIN) -> bool:
    return bool(ask(ledger, spec, job, attempt, index).orders)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


def opened(path: str, at: float = 1000.0) -> LedgerFile:
    return LedgerFile(path, LOG, Now(wall=at, boot=at))


def test_one_start_and_the_same_attempt_again(path: str) -> None:
    ledger = opened(path)
    assert may(ledger, signed(), 1, 1)
    assert may(ledger, signed(), 1, 1), "a repeated order is the same start"
    verdict = ask(ledger, signed(), 1, 2)
    assert not verdict.orders
    assert verdict.refused[AttemptKey(1, PLAIN, 2)] == "it was started 1 time already, and is signed for 1 (it is not rerunnable)"


def test_the_same_submission_under_another_id_is_the_same_job(path: str) -> None:
    ledger = opened(path)
    assert may(ledger, signed(), 1, 1)
    ledger.reported([report(1, 1, Outcome.OK)])
    assert not may(ledger, signed(), 99, 1), "a restored database that gives a new id repeats nothing"
    assert may(ledger, signed("k-1"), 100, 1), "another line of the same submission is another job"


def test_what_never_started_does_not_count(path: str) -> None:
    ledger = opened(path)
    for attempt in range(1, 5):
        assert may(ledger, signed(), 1, attempt)
        ledger.reported([report(1, attempt, None)])
    assert may(ledger, signed(), 1, 5)


def test_retries_as_signed(path: str) -> None:
    ledger = opened(path)
    spec = signed(retries=2)
    for attempt in (1, 2, 3):
        assert may(ledger, spec, 1, attempt)
        ledger.reported([report(1, attempt, Outcome.FAILED)])
    assert not may(ledger, spec, 1, 4)


def test_a_rerunnable_task_starts_again_until_it_has_ended_by_itself(path: str) -> None:
    ledger = opened(path)
    spec = signed(is_rerunnable=True, indices="0-9")
    assert may(ledger, spec, 1, 1, 3)
    ledger.reported([report(1, 1, Outcome.LOST, 3)])
    assert may(ledger, spec, 1, 2, 3)
    ledger.stopped([AttemptKey(1, 3, 2)])
    ledger.reported([report(1, 2, Outcome.FAILED, 3)])
    assert may(ledger, spec, 1, 3, 3), "it was told to stop, so its end is not its own"
    ledger.reported([report(1, 3, Outcome.OK, 3)])
    assert not may(ledger, spec, 1, 4, 3)
    assert may(ledger, spec, 1, 1, 4)


def test_its_owner_may_grant_one_more(path: str) -> None:
    ledger = opened(path)
    assert may(ledger, signed(), 7, 1)
    ledger.granted(Selection(tasks=(TaskKey(8),)), ["7"])
    assert not may(ledger, signed(), 7, 2), "hq-server names a job that its owner has not asked for"
    ledger.granted(Selection(tasks=(TaskKey(7),)), ["7"])
    assert may(ledger, signed(), 7, 2)
    assert not may(ledger, signed(), 7, 3)


def test_kill_forgets_nothing(path: str) -> None:
    spec, array = signed(), signed("b-0", indices="0-99", is_rerunnable=True)
    ledger = opened(path)
    assert may(ledger, spec, 1, 1)
    for index in range(100):
        assert may(ledger, array, 2, 1, index)
    ledger.reported([report(2, 1, Outcome.OK, index) for index in range(50)])
    ledger.granted(Selection(is_all=True), ["1"])
    ledger.flush()
    for _ in range(3):  # never closed; each opening writes the file anew
        ledger = opened(path)
    assert not may(ledger, array, 2, 2, 49)
    assert may(ledger, array, 2, 2, 50)
    assert may(ledger, spec, 1, 2)
    assert not may(ledger, spec, 1, 3)
    ledger.reported([report(2, 2, Outcome.OK, 50)])
    ledger.flush()
    assert not may(opened(path), array, 2, 3, 50), "an end is noted of a job that was started by an earlier process"


def test_it_stays_small(path: str) -> None:
    ledger = opened(path)
    spec = signed(indices="0-9999", is_rerunnable=True)
    ledger.admit({1: spec}, [StartOrder(1, index, 1, (0,)) for index in range(10_000)])
    ledger.reported([report(1, 1, Outcome.OK, index) for index in range(10_000)])
    ledger.close()
    opened(path).close()
    assert os.path.getsize(path) < 200 + 20 * MAX_ENDS, "two lines for all, and how the last ones ended"


def test_old_accounts_go_when_nothing_of_them_is_open(path: str) -> None:
    ledger = opened(path)
    assert may(ledger, signed("old-0"), 1, 1)
    assert may(ledger, signed("open-0"), 2, 1)
    ledger.reported([report(1, 1, Outcome.OK)])
    ledger.close()
    later = opened(path, 1000.0 + 500 * 86400)
    assert list(later.rules.accounts) == ["p:open"]


def test_a_line_cut_by_a_crash_is_passed_over(path: str) -> None:
    ledger = opened(path)
    assert may(ledger, signed(), 1, 1)
    with open(path, "a", encoding="utf-8") as file:
        file.write("s 0")
    ledger = opened(path)
    assert not may(ledger, signed(), 1, 2)


def test_while_nothing_can_be_written_nothing_is_relayed(path: str) -> None:
    ledger = opened(path)
    kept = ledger._fd
    full = os.open("/dev/full", os.O_WRONLY)
    ledger._fd = full
    verdict = ask(ledger, signed(), 1, 1)
    assert not verdict.is_kept
    assert not verdict.orders
    assert "No space left" in ledger.trouble
    assert not ask(ledger, signed(), 1, 1).is_kept, "not even at the second time"
    ledger._fd = kept
    os.close(full)
    assert may(ledger, signed(), 1, 1)
    assert not ledger.trouble
    assert not may(opened(path), signed(), 1, 2)


def test_keys_that_are_no_text_for_a_line(path: str) -> None:
    ledger = opened(path)
    assert may(ledger, signed("a\nb"), 1, 1)
    assert not may(opened(path), signed("a\nb"), 1, 2)


def test_places() -> None:
    plain = Terms("k-12", 0, False, False)
    assert slot_of(plain, PLAIN) == Slot("p:k", 12)
    assert slot_of(plain._replace(key="k-012"), PLAIN) == Slot("k:k-012", 0)
    assert slot_of(plain._replace(is_array=True), 5) == Slot("a:k-12", 5)


@given(st.sets(st.integers(0, 2**31 - 1), max_size=50), st.sets(st.integers(0, 300), max_size=200))
def test_numbers(far: set[int], near: set[int]) -> None:
    numbers = Numbers()
    for each in far | near:
        numbers.add(each)
    assert far | near == {each for first, last in numbers.ranges() for each in range(first, last + 1)}
    assert all(each in numbers for each in far | near)
    assert all((each in numbers) == (each in near | far) for each in range(310))


@given(st.lists(st.tuples(st.sampled_from(["start", "never", "lost", "fail", "ok"]), st.integers(1, 6)), max_size=40), st.integers(0, 2))
def test_never_more_processes_than_signed(moves: list[tuple[str, int]], retries: int) -> None:
    """Whatever is asked for in whatever order: a task that is not rerunnable comes to 1 + retries processes at most."""
    ledger, terms = Ledger(), Terms("k-0", retries, False, False)
    slot = slot_of(terms, PLAIN)
    live: set[int] = set()
    processes: set[int] = set()
    for what, attempt in moves:
        if what == "start" and ledger.refusal(terms, PLAIN, attempt) is None:
            ledger.started(slot, attempt, 0.0)
            live.add(attempt)
            processes.add(attempt)
        elif what == "never" and attempt in live:
            ledger.never_started(slot, attempt)
            live.discard(attempt)
            processes.discard(attempt)
        elif attempt in live:
            live.discard(attempt)
            ledger.ended(slot, attempt, {"lost": Outcome.LOST, "fail": Outcome.FAILED, "ok": Outcome.OK}.get(what, Outcome.LOST), retries)
    assert len(processes) <= 1 + retries


def test_a_report_that_comes_again_counts_once(path: str) -> None:
    """An exec-server repeats its reports until hq-server has recorded them: found by `make chaos`, as retries that were not granted."""
    spec = signed(retries=2)
    ledger = opened(path)
    for attempt in (1, 2):
        assert may(ledger, spec, 1, attempt)
        ledger.reported([report(1, attempt, Outcome.FAILED)] * 3)
        ledger.close()
        ledger = opened(path)
        ledger.reported([report(1, attempt, Outcome.FAILED)])
    assert may(ledger, spec, 1, 3)
    ledger.reported([report(1, 3, Outcome.FAILED)])
    assert not may(ledger, spec, 1, 4)


def test_what_others_cancelled_does_not_start_and_is_noted_once(path: str) -> None:
    """Also of jobs that it has never seen: their submission keys say which. What has ended before stays ended."""
    ledger = opened(path)
    array = signed("b-0", indices="0-9", is_rerunnable=True)
    assert may(ledger, signed("k-7"), 7, 1)
    ledger.reported([report(7, 1, Outcome.OK)])
    cancels = [Cancel("k-0", None, False), Cancel("b-0", 3, True), Cancel("c-0", None, True), Cancel("k-7", None, False), Cancel("a\nb", None, False)]
    ledger.cancelled_by_others(cancels, (0, 5))
    size = os.path.getsize(path)
    ledger.cancelled_by_others(cancels, (0, 5))
    assert os.path.getsize(path) == size
    for _ in range(3):  # each opening writes the file anew
        assert ask(ledger, signed(), 1, 1).refused == {AttemptKey(1, PLAIN, 1): "it was cancelled"}
        assert not may(ledger, array, 2, 1, 3) and may(ledger, array, 2, 1, 4)
        assert not may(ledger, signed("c-0", indices="0-9"), 3, 1, 0)
        assert not may(ledger, signed("a\nb"), 4, 1)
        assert 7 not in ledger.rules.accounts["p:k"].cancelled and may(ledger, signed("k-1"), 5, 1)
        assert ledger.told == (0, 5)
        ledger = opened(path)


def test_two_ledgers_together_know_what_either_was_told(path: str) -> None:
    ledger = opened(path)
    ledger.cancelled_by_others([Cancel("k-0", None, False)], (7, 9))
    moved = opened(path + "-moved")
    moved.cancelled_by_others([Cancel("k-1", None, False)], (7, 4))
    keep_lines(path, [moved.read()])
    both = opened(path)
    assert both.told == (7, 9) and not may(both, signed("k-0"), 1, 1) and not may(both, signed("k-1"), 2, 1)


def test_of_what_ended_long_ago_it_still_knows_whether_it_ended_well(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hq.userserver.ends.MAX_ENDS", 1)
    ledger = opened(path)
    array = signed("b-0", indices="0-9", is_rerunnable=True)
    for index, outcome in ((0, Outcome.OK), (1, Outcome.FAILED), (2, Outcome.TIMEOUT), (3, Outcome.LOST), (4, Outcome.OK)):
        assert may(ledger, array, 2, 1, index)
        ledger.reported([report(2, 1, outcome, index)])
    for _ in range(2):  # as noted, and as the file that is written anew says
        ends = [ledger.end_of(AttemptKey(2, index, 2)) for index in range(5)]
        assert ends[:4] == [End(0, Outcome.OK, 0), End(0, Outcome.FAILED), End(0, Outcome.FAILED), None]
        assert ends[4] is not None and ends[4].attempt == 1, "the last one is known"
        (told,) = refused_or_ended(ledger, {AttemptKey(2, 1, 2): "it has ended before"}, 1.0)
        assert (told.kind, told.outcome, told.exit_code, told.attempt) == (RunKind.ENDED, Outcome.FAILED, None, 2)
        assert told.reason.endswith("attempt 2 was not begun; with which exit code it failed is not known any more")
        ledger.flush()
        ledger = opened(path)
        assert may(ledger, array, 2, 2, 3)
        ledger.reported([report(2, 2, None, 3)])


def test_a_file_of_an_earlier_version_does_not_say_how_things_ended(path: str) -> None:
    Path(path).write_text("A 0 1000 a:b-0\nd 0 0 9\nJ 2 0,ra b-0\ns 0 11 1\n")
    ledger = opened(path)
    assert ledger.end_of(AttemptKey(2, 5, 1)) is None and not may(ledger, signed("b-0", indices="0-11", is_rerunnable=True), 2, 1, 5)


def test_without_room_for_a_new_file_it_goes_on_in_the_old_one(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = opened(path)
    assert may(before, signed("other"), 1, 1) and may(before, signed(), 2, 1)
    with monkeypatch.context() as patch:
        patch.setattr("hq.userserver.ledger.write_anew", no_room)
        ledger = opened(path)
    assert "No space left" in ledger.trouble
    assert not may(ledger, signed(), 2, 2)
    assert may(ledger, signed("third"), 3, 1) and not ledger.trouble
    again = opened(path)
    assert not may(again, signed("other"), 1, 2) and not may(again, signed(), 2, 2) and not may(again, signed("third"), 3, 2)


def no_room(*arguments: object) -> int:
    raise OSError(28, "No space left on device")
