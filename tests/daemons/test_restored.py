"""A backup of any moment, restored at any later one, while jobs of all kinds come, run, end and are cancelled: nothing runs again, each end is told as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hq.db.backup import back_up, restore
from hq.kernel.daemon import Done, InlineBackground
from hq.model.ids import PLAIN, AttemptKey, TaskKey
from hq.model.restored import ID_GAP
from hq.protocol.base import Problem
from tests.support.dbrecords import clean
from tests.support.house import DAEMONS, House, history, house_at
from tests.support.machine import Asker

#: Rounds of the story; each is half a second.
LAST = 14


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Story:
    """What one user does, round by round."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.asks: dict[str, Asker] = {}
        self.to_cancel: list[str] = []
        self.cancels: dict[str, Asker] = {}

    @property
    def is_told(self) -> bool:
        """Whether every command was answered."""
        return not self.to_cancel and all(ask.answers for ask in (*self.asks.values(), *self.cancels.values()))

    def cancel_some(self) -> None:
        """A job can be cancelled once its id is known, and while its ledger is not awaited."""
        self.to_cancel += [name for name, ask in self.cancels.items() if ask.answers and isinstance(ask.answers[-1], Problem)]
        for name in [name for name in self.to_cancel if self.asks[name].answers]:
            self.to_cancel.remove(name)
            self.cancels[name] = self.house.act("cancel", TaskKey(self.id(name)))

    def tell(self, number: int) -> None:
        """What happens in a round."""
        house = self.house
        if number == 1:
            self.asks["cancelled"] = house.submit(("300", "0"), key="cancelled", is_rerunnable=True)
            self.asks["once"] = house.submit(("1", "0"), ("1", "5"), key="once")
            self.asks["again"] = house.submit(("1.5", "0"), key="again", indices="1-6")
        if number == 5:
            self.to_cancel.append("cancelled")
        if number == 6:
            self.asks["waiting"] = house.submit(("300", "0"), key="waiting", indices="1-3")
        if number == 7:
            self.asks["late"] = house.submit(("0.5", "0"), ("0.5", "9"), key="late")
            self.to_cancel.append("waiting")
        if number == 10:
            self.asks["last"] = house.submit(("4", "0"), key="last")
        self.cancel_some()
        house.round()

    def id(self, name: str, which: int = 0) -> int:
        """A job's id."""
        return self.house.ids(self.asks[name])[which]


def live_through(house: House, backup_at: int, restore_at: int) -> list[str]:
    """Tell the story, with a backup and its restore. Returns what is wrong."""
    story, backup = Story(house), house.directory / "backup"
    for number in range(LAST):
        if number == backup_at:
            back_up(house.room.engine, str(backup))
        if number == restore_at:
            put_back(house, backup)
        story.tell(number)
    if restore_at == LAST:
        put_back(house, backup)

    def is_compared() -> bool:
        story.cancel_some()
        return story.is_told and house.is_server_up and "alice" not in house.room.server.cluster.restored.awaited

    house.until(is_compared, "the ledger to be compared")
    fresh = house.submit(("0", "0"), key="fresh")
    house.until(lambda: bool(fresh.answers) and not house.room.server.cluster.jobs, "everything to end", rounds=200)
    return judge(house, story, house.ids(fresh)[0])


def put_back(house: House, backup: Path) -> None:
    """hq-server stops, its database is the backup again."""
    house.restart_server()
    clean(house.room.engine)
    restore(house.room.engine, str(backup))


def judge(house: House, story: Story, fresh: int) -> list[str]:
    """What is not as it was."""
    wrong, ended = [], history(house)
    starts = house.machine.starts
    wrong += [f"{key} was started twice" for key in set(starts) if starts.count(key) > 1]
    expected: dict[TaskKey, str] = {TaskKey(fresh): "ok"}
    for name, outcomes in {"once": ("ok", "failed"), "cancelled": ("cancelled",), "late": ("ok", "failed"), "last": ("ok",)}.items():
        expected |= {TaskKey(story.id(name, which)): outcome for which, outcome in enumerate(outcomes)}
    expected |= {TaskKey(story.id("again"), index): "ok" for index in range(1, 7)}
    for key, outcome in expected.items():
        if key not in ended or ended[key][0] != outcome:
            wrong.append(f"{key} is {ended.get(key)}, not {outcome}")
        attempts = {each.attempt for each in starts if each.task == key}
        if len(attempts) != 1 and (attempts or outcome != "cancelled"):
            wrong.append(f"{key} was started at attempts {sorted(attempts)}")
        elif outcome != "cancelled" and ended.get(key, ("", None, 0))[1:] != (house.machine.ends(key)[0], attempts.pop()):
            wrong.append(f"{key} ended with {house.machine.ends(key)}, the database says {ended.get(key)}")
    waiting = [AttemptKey(*each) for each in starts if each.job == story.id("waiting")]
    wrong += [f"{key} was started {len([e for e in waiting if e.task == key])} times" for key in {e.task for e in waiting} if len([e for e in waiting if e.task == key]) > 1]
    wrong += [f"{key} is {value}" for key, value in ended.items() if key.job == story.id("waiting") and value[0] != "cancelled"]
    if set(ended) - set(expected) - {TaskKey(story.id("waiting"), index) for index in (1, 2, 3)}:
        wrong.append(f"more ended than was submitted: {sorted(ended)}")
    if fresh <= max(story.id(name) for name in story.asks) or fresh < ID_GAP:
        wrong.append(f"the new id is {fresh}")
    return wrong


@pytest.mark.parametrize("load", [0.0, 8.0], ids=["idle", "busy"])
@pytest.mark.parametrize("backup_at", [0, 2, 3, 5, 8])
def test_nothing_runs_again(tmp_path: Path, engine: Engine, backup_at: int, load: float) -> None:
    for restore_at in range(backup_at + 1, LAST + 1, 3):
        with house_at(tmp_path / str(restore_at), engine) as house:
            house.load = load
            assert live_through(house, backup_at, restore_at) == [], f"backup before round {backup_at}, restored before {restore_at}"


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_dies_meanwhile(tmp_path: Path, engine: Engine, daemon: str) -> None:
    """Ledger and book are on the disk, the journal too: killed before the backup, between it and the restore, and during the comparison."""
    with house_at(tmp_path / "first", engine) as house:
        assert live_through(house, 3, 12) == []
        count = house.points[daemon]
    for k in range(1, count, 7):
        with house_at(tmp_path / str(k), engine) as house:
            house.crash = (daemon, k)
            assert live_through(house, 3, 12) == [], f"killed at point {k}"


@pytest.mark.parametrize("rounds", range(6))
def test_runs_end_while_the_book_is_read(tmp_path: Path, engine: Engine, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it takes a while; book and ledger speak of one moment all the same."""
    waited = 0

    def finished(self: InlineBackground) -> list[Done]:
        nonlocal waited
        if waited < 2 * rounds and any(getattr(done.token, "__qualname__", "").startswith("tell.") for done in self._done):
            waited += 1
            return []
        done, self._done = self._done, []
        return done

    monkeypatch.setattr(InlineBackground, "finished", finished)
    for restore_at in (4, 7, 9):
        waited = 0
        with house_at(tmp_path / str(restore_at), engine) as house:
            assert live_through(house, 2, restore_at) == [], f"restored before {restore_at}"
        assert waited == 2 * rounds


def test_a_ledger_that_does_not_reach_back_holds_what_it_cannot_vouch_for(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with house_at(tmp_path / "house", engine) as house:
        monkeypatch.setattr("hq.db.backup.time.time", lambda: house.room.clock.now().wall)
        story, backup = Story(house), tmp_path / "backup"
        story.tell(0)
        story.tell(1)
        back_up(engine, str(backup))
        for _ in range(10):
            house.round()
        started = list(house.machine.starts)
        put_back(house, backup)
        house.lose_user_disk()
        house.room.clock.move(86400.0)
        house.until(lambda: house.is_server_up and house.user is not None and house.user.upstream.is_up
                    and "alice" not in house.room.server.cluster.restored.awaited, "the comparison")  # fmt: skip
        for _ in range(20):
            house.round()
        cluster = house.room.server.cluster
        assert {task.state.value for job in cluster.jobs.values() for task in job.tasks.values()} <= {"held", "running", "starting", "host_lost"}
        assert all(job.record.wishes.is_held or job.placed for job in cluster.jobs.values())
        assert house.machine.starts == started, "nothing was started that may have run"
        released = house.act("release", TaskKey(story.id("once"), PLAIN))
        house.until(lambda: bool(released.answers), "the release")
