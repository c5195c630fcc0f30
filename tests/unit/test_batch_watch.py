"""What is seen of attempts at a batch system: a listing says how things stood when it was asked for, the accounting how they stood before that."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from hq.execserver.backends.base import Begun, Waits
from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.backends.slurm import Slurm
from hq.execserver.batch import BatchBackend
from hq.execserver.batchcentre import Accounted, Listed
from hq.execserver.batchfiles import Group
from hq.execserver.batchmembers import Member
from hq.model.batch import BatchSettings
from hq.model.ids import PLAIN, AttemptKey
from hq.model.states import Outcome

KEY = AttemptKey(1, PLAIN, 1)


class Desk:
    """The commands of a batch system: it keeps the orders, and tells what it was given to tell."""

    def __init__(self) -> None:
        self.tells: list[Any] = []
        self.orders: list[tuple[str, list[str]]] = []
        self.is_free = True

    def take(self, boot: float) -> list[Any]:
        told, self.tells = self.tells, []
        return told

    def order(self, what: str, ids: list[str], number: int = 0) -> None:
        self.orders += [(what, ids)] if ids else []

    def tend(self, ids: list[str], absent: list[str], boot: float) -> None:
        pass


class Watched:
    """One attempt that was submitted as job 7, and how it fares."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk()
        self.backend = BatchBackend(Slurm(), BatchSettings(look_interval=1.0), "centre", str(folder / "base"), "alice", None, logging.getLogger("test"))  # type: ignore[arg-type]
        self.backend.centre = self.desk  # type: ignore[assignment]
        group = Group("hq-1", str(folder), [KEY], native="7")
        self.backend._members[KEY] = Member(KEY, group, 0, id="7", submitted=1.0)
        self._mark = folder / "0.start"

    def begin(self) -> None:
        """Its runner makes the mark."""
        self._mark.write_text(json.dumps({"native": "7", "node": "n1", "pid": 5, "at": 2.0}))

    def poll(self, boot: float, *tells: Any) -> tuple[list[Outcome | None], list[Any]]:
        """Outcomes of what ended, and news."""
        self.desk.tells += tells
        ended, _ = self.backend.poll(boot)
        return [each.cause and each.cause[0] for each in ended], self.backend.take_news()


def listed(state: NativeState, word: str, asked: float) -> Listed:
    return Listed({"7": NativeJob(id="7", state=state, word=word, tag="hq-1")}, asked)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_listing_that_was_asked_for_before_a_run_began_does_not_say_that_it_was_queued_again(watched: Watched) -> None:
    watched.begin()
    ended, news = watched.poll(10.0)
    assert not ended and [type(each) for each in news] == [Begun]
    assert watched.poll(11.0, listed(NativeState.PENDING, "PENDING", asked=9.5)) == ([], []) and not watched.desk.orders
    ended, _ = watched.poll(12.0, listed(NativeState.PENDING, "PENDING", asked=11.5))
    assert ended == [Outcome.LOST] and watched.desk.orders == [("cancel", ["7"])]


def test_accounting_that_is_behind_says_nothing_of_a_run_that_began(watched: Watched) -> None:
    watched.begin()
    watched.poll(10.0)
    ended, news = watched.poll(12.0, Listed({}, 11.0))
    assert not ended and [type(each) for each in news] == [Waits], "nobody knows yet how it ended"
    for state, word in ((NativeState.PENDING, "PENDING"), (NativeState.RUNNING, "RUNNING")):
        assert watched.poll(13.0, Accounted({"7": NativeJob(id="7", state=state, word=word)})) == ([], []) and not watched.desk.orders
    watched.poll(14.0, Accounted({"7": NativeJob(id="7", state=NativeState.ENDED, word="NODE_FAIL", outcome=Outcome.LOST)}))
    ended, _ = watched.poll(100.0)
    assert ended == [Outcome.LOST]
