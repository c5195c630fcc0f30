"""A daemon is stopped for a minute, as by STOP and CONT, at any moment of a story, while the others and the runs go on: all is as if it had only been slow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.daemons.test_crash_everywhere import live_through
from tests.support.house import DAEMONS, ROUND
from tests.support.housedb import FaultyHouse

MINUTE = int(60 / ROUND)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class StillHouse(FaultyHouse):
    """`still = (daemon, first)`: it does nothing from that round on for a minute. What is sent to it waits."""

    still = ("", 0)
    rounds = 0
    missed = 0

    def round(self, seconds: float = ROUND) -> None:
        """As House.round."""
        self.rounds += 1
        super().round(seconds)

    def _work(self, daemon: str, tick: Callable[[], None]) -> None:
        name, first = self.still
        if daemon == name and first <= self.rounds < first + MINUTE:
            self.missed += 1
        else:
            super()._work(daemon, tick)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_stopped_at_each_moment(tmp_path: Path, engine: Engine, daemon: str) -> None:
    wrong = {}
    for first in range(1, 11):
        place = tmp_path / str(first)
        place.mkdir()
        with StillHouse(place, engine) as house:
            house.still = (daemon, first)
            if found := live_through(house):
                wrong[first] = found
            assert house.missed, "the story was over before"
            assert house.crashes == 0
    assert not wrong, "\n".join(f"{daemon} stopped in round {first}: {found}" for first, found in wrong.items())
