"""Users take turns: nobody gets under half of his share, nobody starves, whatever others ask for and how long their tasks last."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hq.core.events import ConfigurationRead, JobsSubmitted, RunsReported
from hq.core.fairshare import FairShare
from hq.model.ids import AttemptKey
from hq.model.job import Wishes
from hq.model.runs import RunReport
from hq.model.states import Outcome, RunKind
from tests.support.coreworld import World, host, submission
from tests.support.shorttasks import ShortTasks


class Crowd:
    """Users with work without end on a few hosts; each one's tasks last as long as he likes. Counts whose slots were used for how long."""

    def __init__(self, slots: list[int], users: dict[str, tuple[int, int]], half_life: float = 86400.0) -> None:
        self.world = World([host(f"n{number}", count) for number, count in enumerate(slots)], list(users))
        self.world.step(ConfigurationRead(half_life=half_life))
        self.users = users  # seconds and slots of a task
        self.used = dict.fromkeys(users, 0.0)
        self.ends: dict[AttemptKey, tuple[float, str, str]] = {}

    def submit(self, user: str, priority: int = 0, tasks: int = 100_000) -> None:
        """Work for a user."""
        job = submission(user, f"{user}-{len(self.used)}-{tasks}", wishes=Wishes(priority=priority), indices=f"1-{tasks}", slots=self.users[user][1])
        self.world.step(JobsSubmitted(token=None, user=user, jobs=(job,)))
        self.note()

    def note(self) -> None:
        """Take in what was started."""
        for name, order in self.world.starts:
            if order.key not in self.ends and not order.is_ahead:
                owner = self.world.cluster.jobs[order.job].record.user
                self.ends[order.key] = (self.world.now + self.users[owner][0], name, owner)

    def run(self, seconds: int) -> None:
        """Let time pass, a second a step."""
        for _ in range(seconds):
            for user in self.used:
                self.used[user] += self.world.cluster.share.held(user)
            now = self.world.now + 1.0
            over = [(key, name, owner) for key, (end, name, owner) in self.ends.items() if end <= now]
            reports = []
            for key, name, owner in over:
                del self.ends[key]
                ended = RunReport(job=key.job, index=key.index, attempt=key.attempt, kind=RunKind.ENDED, at=now, started=now - self.users[owner][0],
                                  outcome=Outcome.OK, exit_code=0)  # fmt: skip
                reports.append(RunsReported(user=owner, host=name, reports=(ended,)))
            self.world.step(*reports, after=1.0)
            self.note()


crowds = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 127)), min_size=2, max_size=6)


@settings(max_examples=30)
@given(st.lists(st.integers(2, 4), min_size=1, max_size=3), crowds, st.integers(1, 2), st.sampled_from([60.0, 86400.0]))
def test_nobody_gets_under_half_of_his_share(slots: list[int], people: list[tuple[int, int]], each: int, half_life: float) -> None:
    # tasks of one size: a large one that waits for slots beside each other is another matter than whose turn it is
    users = {f"u{number}": (seconds, each) for number, (seconds, _) in enumerate(people)}
    crowd = Crowd(slots, users, half_life)
    for number, (_, priority) in enumerate(people):
        crowd.submit(f"u{number}", priority)
    crowd.run(300)
    total = sum(crowd.used.values())
    assert min(crowd.used.values()) >= 0.5 * total / len(users), crowd.used


def test_long_tasks_get_no_more_than_short_ones_even_one_after_the_other() -> None:
    crowd = Crowd([1], {"quick": (5, 1), "slow": (300, 1)})
    crowd.submit("slow")
    crowd.submit("quick")
    crowd.run(3600)
    assert crowd.used["quick"] >= 0.7 * 1800, crowd.used


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(2, 5))
def test_who_had_everything_waits_but_does_not_starve(slots: int, others: int) -> None:
    users = {"heavy": (10, 1)} | {f"u{number}": (10, 1) for number in range(others)}
    crowd = Crowd([slots], users, half_life=100.0)
    crowd.submit("heavy")
    crowd.run(300)
    for number in range(others):
        crowd.submit(f"u{number}")
    before = crowd.used["heavy"]
    crowd.run(30)
    newcomers = sum(crowd.used[f"u{number}"] for number in range(others))
    assert newcomers >= 0.5 * 20 * slots, "those who had nothing come first"
    crowd.run(670)
    assert crowd.used["heavy"] - before >= 0.3 * 700 * slots / len(users), "and then everybody has his turn"


def test_averages_outlive_a_restart() -> None:
    crowd = Crowd([2], {"alice": (10, 1), "bob": (10, 1)})
    crowd.submit("alice", tasks=12)
    crowd.run(120)
    average = crowd.world.cluster.share.average("alice", crowd.world.now)
    crowd.world.restart()
    again = crowd.world.cluster.share.average("alice", crowd.world.now)
    assert average > 0 and 0.5 * average < again <= average
    assert crowd.world.cluster.share.average("bob", crowd.world.now) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 50)), max_size=20), st.floats(1.0, 1e6))
def test_an_average_lies_between_what_was_held(moves: list[tuple[float, int]], half_life: float) -> None:
    share = FairShare(half_life)
    now, most = 0.0, 0
    for pause, count in moves:
        now += pause
        held = share.held("u")
        (share.took if count >= held else share.gave)("u", abs(count - held), now)
        most = max(most, count)
        assert -1e-6 <= share.average("u", now) <= most + 1e-6
    other = FairShare(half_life)
    other.restore(share.saved(now))
    average = share.average("u", now)
    assert abs(other.average("u", now) - (average if average > 1e-9 else 0.0)) < 1e-6
    for nonsense in ("", "null", "{}", '{"at": 1, "averages": {"u": "x"}}', '{"at": 1, "averages": 3}'):
        other.restore(nonsense)


def _least(ends: list[str], users: list[str], share: float) -> float:
    """What the user who had least had of a fair part, when so much of all had ended."""
    some = ends[: int(share * len(ends))]
    return min(map(some.count, users)) / (len(some) / len(users))


def test_users_with_short_tasks_take_turns_until_all_is_done() -> None:
    users = [f"u{number}" for number in range(10)]
    crowd = ShortTasks(users, seconds=0.004)
    for user in users:
        crowd.submit(user, 300)
    crowd.run_out()
    assert len(crowd.ends) == 3000 and _least(crowd.ends, users, 0.5) >= 0.5


def test_who_had_the_last_seconds_to_himself_has_his_first_turn_with_all_others() -> None:
    users = [f"u{number:02}" for number in range(20)]
    crowd = ShortTasks(users, seconds=0.004)
    for user in users[:3]:  # one after the other, alone
        crowd.submit(user, 1000)
        crowd.run_out()
    before = len(crowd.ends)
    for user in users:
        crowd.submit(user, 400)
    crowd.run_out()
    assert _least(crowd.ends[before:], users, 0.25) >= 0.5


def test_whoever_begins_to_wait_stands_between_the_head_and_the_middle_of_the_line() -> None:
    share = FairShare(half_life=1e12)  # the memory of hours tells nothing here
    share.line_up(["a", "b", "c"], 0.0)
    held = {"a": 1, "b": 8, "c": 3, "heavy": 9, "light": 0, "between": 2}
    for user, slots in held.items():
        share.took(user, slots, 0.0)
    for user, slots in held.items():
        share.gave(user, slots, 60.0)
    a, b, c, between = (share.score(user, 60.0) for user in ("a", "b", "c", "between"))
    assert a < between < c < b
    share.line_up([*held, "new"], 60.0)
    assert [share.score(user, 60.0) for user in "abc"] == pytest.approx([a, b, c]), "who waited before stays where he is"
    assert share.score("heavy", 60.0) == pytest.approx((a + b + c) / 3), "what he had when he did not wait does not put him behind them all"
    assert share.score("light", 60.0) == share.score("new", 60.0) == pytest.approx(a), "nor does what he had not put him before them all for long"
    assert share.score("between", 60.0) == pytest.approx(between)
