"""Each daemon is killed at each message, each write and each process that it makes: nothing is lost, nothing runs twice, each end is recorded as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine

from hq.protocol.jobs import JobSubmitted
from tests.support.house import DAEMONS, House, history, house_at


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What the daemons say about hundreds of crashes is of no use."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def live_through(house: House) -> str:
    """Two jobs of one file, an array and one with a retry, from submission to their ends. Returns what is wrong, empty if nothing is."""
    pair = house.submit(("1", "0"), ("2", "3"), key="k")
    array = house.submit(("1", "0"), key="l", indices="1-2")
    retried = house.submit(("1", "7/0"), key="m", retries=1)
    asks = (pair, array, retried)
    try:
        house.until(lambda: all(ask.answers for ask in asks), "answers")
        house.until(lambda: len(history(house)) == 5, "five tasks to end")
        for _ in range(4):
            house.round()
    except AssertionError as error:
        live = [(str(task.key), task.state.value, task.reason) for job in house.room.server.cluster.jobs.values() for task in job.tasks.values()]
        return f"{error}: {live} {house.machine.starts} {[type(ask.answers[-1]).__name__ if ask.answers else None for ask in asks]}"
    wrong = []
    told = [item.id for ask in asks for answer in ask.answers if isinstance(answer, JobSubmitted) for item in answer.items if item.id]
    ended = history(house)
    if len({key.job for key in ended}) != 4 or not set(told) <= {key.job for key in ended}:
        wrong.append(f"acknowledged {told}, in the database {sorted(ended)}")
    for key, (outcome, code, attempt) in ended.items():
        true = house.machine.ends(key)
        # one that was given back unstarted has a number, too
        if attempt != max((each.attempt for each in house.machine.starts if each.task == key), default=0) or code != true[-1] or outcome != ("failed" if code else "ok"):
            wrong.append(f"{key}: {outcome} {code} at attempt {attempt}, its processes ended with {true}")
    if len(house.machine.starts) != 6:
        wrong.append(f"starts: {house.machine.starts}")
    return "; ".join(wrong)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_killed_at_each_point(tmp_path: Path, engine: Engine, daemon: str) -> None:
    with house_at(tmp_path / "first", engine) as house:
        assert live_through(house) == ""
        count = house.points[daemon]
    assert count > 20
    wrong = {}
    for k in range(1, count + 1):
        with house_at(tmp_path / str(k), engine) as house:
            house.crash = (daemon, k)
            if found := live_through(house):
                wrong[k] = found
            assert house.crashes == 1
    assert not wrong, "\n".join(f"{daemon} killed at point {k}: {found}" for k, found in wrong.items())


def test_killed_again_and_again(tmp_path: Path, engine: Engine) -> None:
    """Several deaths in one life, also of daemons that are just coming back."""
    with house_at(tmp_path / "first", engine) as house:
        assert live_through(house) == ""
        most = {daemon: int(1.5 * count) for daemon, count in house.points.items()}
    for seed in range(40):
        random = Random(seed)
        with house_at(tmp_path / str(seed), engine) as house:
            house.more_crashes = frozenset((daemon, random.randint(1, most[daemon])) for daemon in random.choices(DAEMONS, k=random.randint(2, 5)))
            assert live_through(house) == "", f"seed {seed}: {sorted(house.more_crashes)}"
