"""The pure parts of the user-server: links and their back-off, orders that wait, the link to hq-server, the idle rule."""

from __future__ import annotations

from math import inf

import pytest

from hq.core.agent import Links, pause_after
from hq.core.agent_orders import LiveRuns, WaitingOrders, never_started, stopped_here
from hq.core.agent_upstream import ANSWER_PATIENCE, PATIENCE, Act, IdleRule, Phase, Requests, Upstream
from hq.model.ids import AttemptKey, TaskKey
from hq.model.job import SignedSpec
from hq.model.runs import RunReport, StartOrder
from hq.model.states import LinkState, Outcome, RunKind

SPEC = SignedSpec(b"b", b"s")


def order(job: int, attempt: int = 1) -> StartOrder:
    return StartOrder(job, -1, attempt, (0,))


def key(job: int, attempt: int = 1) -> AttemptKey:
    return AttemptKey(job, -1, attempt)


def report(job: int, kind: RunKind, attempt: int = 1) -> RunReport:
    return RunReport(job=job, index=-1, attempt=attempt, kind=kind, at=1.0)


def links(**options: float) -> Links:
    return Links(1, heartbeat=5.0, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("failures", "pause"), [(1, 5), (2, 10), (3, 20), (7, 320), (8, 600), (100, 600)])
def test_the_pause_doubles_up_to_ten_minutes(failures: int, pause: float) -> None:
    assert pause_after(failures) == pause


def test_starts_are_granted_a_few_at_a_time() -> None:
    made = links(at_once=3)
    for number in range(7):
        made.want(f"n{number}", 0.0, is_near=True)
    first = made.due(0.0)
    assert first == ["n0", "n1", "n2"]
    assert made.due(0.1) == []
    made.failed("n1", "no", 0.2)
    made.started("n0", 0.2)
    assert made.due(0.2) == ["n3", "n4"]


def test_logins_are_spread_and_repeatable() -> None:
    def times(seed: int) -> list[float]:
        made = Links(seed, heartbeat=5.0, spread=1.0)
        for name in "abc":
            made.want(name, 0.0)
        return [made.of(name).try_at for name in "abc"]

    assert len(set(times(1))) == 3 and all(0 <= each <= 1 for each in times(1))
    assert times(1) == times(1) != times(2)


def test_a_link_that_nobody_wants_is_not_tried() -> None:
    made = links()
    assert made.due(0.0) == [] and made.wake() is None and made.of("n1").state is LinkState.UNKNOWN


def test_news_are_told_once_and_the_last_word_counts() -> None:
    made = links()
    made.want("n1", 0.0, is_near=True)
    made.due(0.0)
    made.failed("n1", "no route", 1.0)
    assert [(each.state, each.reason) for each in made.news()] == [(LinkState.FAILED, "no route")]
    assert made.news() == []
    assert [each.host for each in made.all_news()] == ["n1"]


def test_a_failed_link_stays_failed_while_it_is_tried_again() -> None:
    made = links()
    made.want("n1", 0.0, is_near=True)
    made.due(0.0)
    made.failed("n1", "no", 0.0)
    wake = made.wake()
    assert wake is not None
    made.due(wake)
    again = made.of("n1").try_at
    assert 3.75 <= again <= 6.25
    assert made.due(again) == ["n1"]
    assert made.of("n1").state is LinkState.FAILED
    made.came("n1", again + 1)
    assert made.of("n1").state is LinkState.ALIVE and made.of("n1").failures == 0


def test_a_nudge_tries_again_at_once_but_not_in_a_rush() -> None:
    made = links()
    made.want("n1", 0.0, is_near=True)
    for _ in range(8):
        moment = made.of("n1").try_at
        made.due(moment)
        made.failed("n1", "no", moment)
    made.due(moment)
    assert made.of("n1").try_at > moment + 400
    made.nudge(moment + 30)
    assert made.due(moment + 30) == []
    made.nudge(moment + 61)
    assert made.due(moment + 61) == ["n1"]


def test_silence_makes_suspect_never_failed_and_starts_it_again() -> None:
    made = links()
    made.came("n1", 0.0)
    made.due(0.0)
    made.heard("n1", 10.0)
    assert made.due(15.0) == [] and made.is_alive("n1")
    assert made.wake() == 25.0
    assert made.due(25.0) == ["n1"]
    assert made.of("n1").state is LinkState.SUSPECT
    made.failed("n1", "No route to host", 26.0)
    assert made.of("n1").state is LinkState.SUSPECT and made.of("n1").reason == "No route to host"
    assert not made.heard("n1", 27.0), "it has to be welcomed first"
    made.came("n1", 27.0)
    assert made.heard("n1", 28.0)


def test_a_hello_may_come_before_the_start_is_known_to_have_worked() -> None:
    made = links(hello_patience=10.0)
    made.want("n1", 0.0, is_near=True)
    made.due(0.0)
    made.came("n1", 1.0)
    made.started("n1", 2.0)
    made.due(12.5)
    assert made.is_alive("n1")
    made.want("n2", 20.0, is_near=True)
    made.due(20.0)
    made.started("n2", 21.0, note="no reverse forward: denied")
    assert made.of("n2").state is LinkState.STARTING
    made.due(31.0)
    assert made.of("n2").state is LinkState.FAILED and "way back" in made.of("n2").reason
    assert made.of("n2").reason.endswith("no reverse forward: denied"), "what the start noted is a reason, too"


def test_goodbye_forgets_the_wish() -> None:
    made = links()
    made.came("n1", 0.0)
    made.left("n1", "idle")
    assert made.due(100.0) == [] and made.of("n1").state is LinkState.UNKNOWN


def test_orders_wait_once_in_order_and_can_be_taken_back() -> None:
    waiting = WaitingOrders()
    waiting.add("n1", {1: SPEC, 2: SPEC}, [order(1), order(2)])
    waiting.add("n1", {1: SPEC}, [order(1)])
    assert waiting.keys("n1") == (key(1), key(2)) and len(waiting) == 2
    assert waiting.remove("n1", [key(1), key(9)]) == [key(1)]
    assert waiting.take("n1") == ({2: SPEC}, (order(2),))
    assert waiting.take("n1") == ({}, ()) and waiting.hosts() == []
    waiting.add("n1", {}, [])
    assert waiting.hosts() == []


def test_live_runs_follow_orders_reports_and_rolls() -> None:
    live = LiveRuns()
    assert live.send("n1", [order(1), order(2)]) == []
    assert live.report("n1", [report(1, RunKind.STARTED), report(2, RunKind.ENDED)]) == [TaskKey(2)]
    assert (len(live), live.count("n1"), live.hosts()) == (1, 1, ["n1"])
    live.roll("n1", [key(7)])
    assert live.count("n1") == 1
    live.report("n1", [report(7, RunKind.NEVER_STARTED)])
    assert len(live) == 0 and live.hosts() == []


def test_a_newer_attempt_replaces_a_live_older_one() -> None:
    live = LiveRuns()
    live.send("n1", [order(1)])
    assert live.send("n2", [order(1, 2)]) == [("n1", key(1))]
    assert live.is_overtaken(key(1)) and not live.is_overtaken(key(1, 2))
    assert live.send("n1", [order(1)]) == [], "what came late replaces nothing"
    live.report("n1", [report(1, RunKind.ENDED)])
    assert live.is_overtaken(key(1)), "the end of the old one is not the end of the new one"


def test_own_reports_say_that_no_process_was_made() -> None:
    (one,) = never_started([key(1)], 5.0, "no route")
    assert (one.key, one.kind, one.outcome, one.reason, one.at) == (key(1), RunKind.NEVER_STARTED, None, "no route", 5.0)
    (two,) = stopped_here([key(2)], 5.0, Outcome.CANCELLED, "by alice")
    assert (two.kind, two.outcome, two.reason) == (RunKind.NEVER_STARTED, Outcome.CANCELLED, "by alice")


def test_hellos_get_rarer_until_the_welcome_then_heartbeats() -> None:
    link = Upstream(0.0)
    moments, now = [], 0.0
    while len(moments) < 7:
        if link.due(now) is Act.HELLO:
            moments.append(now)
        wake = link.wake()
        assert wake is not None
        now = wake
    assert [after - before for before, after in zip(moments, moments[1:], strict=False)] == [1, 2, 4, 8, 16, 30]
    link.welcomed(now, 5.0, 3)
    assert link.is_up and link.epoch == 3
    assert link.due(now + 4.9) is None
    assert link.due(now + 5.0) is Act.BEAT
    assert link.due(now + 5.0) is None
    link.heard(now + 6)
    assert link.due(now + 21) is Act.HELLO, "three heartbeats of silence"
    assert link.phase is Phase.AWAY and link.since == now + 6


def test_a_nudge_shortens_a_long_pause_but_keeps_a_second() -> None:
    link = Upstream(0.0)
    for moment in (0, 1, 3, 7, 15, 31):
        assert link.due(moment) is Act.HELLO
    link.nudge(31.2)
    assert link.due(31.5) is None
    assert link.due(32.0) is Act.HELLO


def test_requests_wait_a_little_for_a_server_that_is_away() -> None:
    link, requests = Upstream(0.0), Requests[str]()
    requests.add("early", 0.0)
    assert requests.take_overdue(PATIENCE - 0.1, link) == []
    late = requests.add("late", 4.0)
    assert [pending.content for pending in requests.take_overdue(PATIENCE, link)] == ["early"]
    assert requests.wake(link) == 4.0 + PATIENCE
    link.welcomed(6.0, 5.0, 1)
    assert requests.take_overdue(100.0, link) == []
    stream = requests.add("stream", 6.0, is_stream=True)
    assert requests.take_overdue(1e6, link) == [late]
    assert requests.answered(stream.id, is_last=False) is stream and requests.answered(stream.id) is stream
    assert requests.answered(stream.id) is None and requests.wake(link) is None
    assert ANSWER_PATIENCE > PATIENCE


def test_what_waits_for_ever_hides_no_request_that_does_not() -> None:
    link, requests = Upstream(0.0), Requests[str]()
    requests.add("hello", inf)
    link.welcomed(0.0, 5.0, 1)
    requests.add("stream", 1.0, is_stream=True)
    first, second = requests.add("first", 2.0), requests.add("second", 3.0)
    assert requests.wake(link) == 2.0 + ANSWER_PATIENCE
    assert requests.take_overdue(2.5 + ANSWER_PATIENCE, link) == [first]
    link.lost(500.0)
    assert [pending.content for pending in requests.take_overdue(500.0 + PATIENCE, link)] == ["stream", second.content]
    link.refused(600.0)
    assert requests.take_overdue(1e9, link) == [] and len(requests) == 1


def test_a_refusal_ends_waiting_at_once() -> None:
    link, requests = Upstream(0.0), Requests[str]()
    requests.add("a", 0.0)
    link.refused(1.0)
    assert len(requests.take_overdue(1.0, link)) == 1 and link.due(100.0) is None and link.wake() is None


def test_the_idle_rule() -> None:
    rule = IdleRule(600.0, 0.0)
    assert not rule.is_over(599.0) and rule.is_over(600.0)
    rule.busy(500.0)
    assert not rule.is_over(600.0) and rule.wake() == 1100.0
    assert not IdleRule(None, 0.0).is_over(1e9) and IdleRule(None, 0.0).wake() is None
