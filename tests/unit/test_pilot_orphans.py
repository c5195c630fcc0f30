"""What a pilot had, seen by an exec-server of the login node that has just come back: claimed, never given, or not to be known."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hq.execserver.backends.base import NotBegun
from hq.execserver.backends.dialect import NativeJob, NativeState
from hq.execserver.batchcentre import Listed
from hq.execserver.bootstrap import Bootstrap
from hq.execserver.pilotfleet import PilotFleet
from hq.execserver.pilotrelay import Link
from hq.execserver.pilots import PilotBackend
from hq.kernel.bus import Peer
from hq.model.batch import BatchSettings
from hq.model.ids import PLAIN, AttemptKey
from hq.model.states import Outcome

KEY = AttemptKey(1, PLAIN, 1)


class Nothing:
    """Everything else that a PilotBackend has: it does nothing, and tells what it was given to tell."""

    where = "slurm:centre"

    def __init__(self) -> None:
        self.tells: list[Any] = []
        self.links: dict[str, Link] = {}
        self.tags: dict[str, tuple[str, int]] = {}
        self.rolled: list[Link] = []

    def knows(self, key: AttemptKey) -> bool:
        return False

    def take(self, boot: float) -> list[Any]:
        told, self.tells = self.tells, []
        return told

    def receive(self, boot: float) -> tuple[list[Any], list[Any], list[Link]]:
        rolled, self.rolled = self.rolled, []
        return [], [], rolled

    def poll(self, boot: float) -> tuple[list[Any], list[Any]]:
        return [], []

    def take_news(self) -> list[Any]:
        return []

    def is_silent(self, link: Link, boot: float) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None


def came_back(folder: Path, *, has_spoken: bool) -> tuple[PilotBackend, Nothing, Nothing]:
    """An exec-server that knows one attempt and one pilot, from its files; with its centre and its relay."""
    directory = folder / "pilots" / "hq-pilot-a"
    directory.mkdir(parents=True)
    (folder / "pilots").chmod(0o700)
    (directory / "job.json").write_text(json.dumps({"key": "k", "id": "7", "is_marked": True}))
    if has_spoken:
        (directory / "spoken").touch()
    told = Bootstrap(instance="i", host="centre", user="alice", upstreams=(), upstream_key="", public="", secret="", sign_public="", seal_key="")
    settings, log, centre, relay = BatchSettings(mode="pilot", exit_grace=1.0), logging.getLogger("test"), Nothing(), Nothing()
    fleet = PilotFleet(centre, settings, str(folder / "pilots"), told, (), "", log)  # type: ignore[arg-type]
    made = PilotBackend(Nothing(), fleet, relay, settings, log)  # type: ignore[arg-type]
    made.adopt(KEY, "tag", 0, 0)
    return made, centre, relay


def roll(relay: Nothing, *keys: AttemptKey) -> None:
    link = relay.links["hq-pilot-a"] = Link("hq-pilot-a", Peer(b"a", "k"), 2, 0.0, runs=dict.fromkeys(keys, ()), has_rolled=True)
    relay.rolled.append(link)


def never_begun(made: PilotBackend) -> list[AttemptKey]:
    return [news.key for news in made.take_news() if isinstance(news, NotBegun) and news.is_again]


def test_a_pilot_that_never_spoke_was_given_nothing(tmp_path: Path) -> None:
    made, _, _ = came_back(tmp_path, has_spoken=False)
    assert made.poll(1.0) == ([], []) and never_begun(made) == [KEY]


def test_what_its_roll_has_is_its_own_and_what_it_has_not_was_never_given(tmp_path: Path) -> None:
    made, _, relay = came_back(tmp_path, has_spoken=True)
    made.poll(1.0)
    roll(relay, KEY)
    assert made.poll(2.0) == ([], []) and never_begun(made) == []
    made, _, relay = came_back(tmp_path / "other", has_spoken=True)
    made.poll(1.0)
    assert never_begun(made) == []
    roll(relay)
    assert made.poll(2.0) == ([], []) and never_begun(made) == [KEY]


def test_of_one_that_died_before_it_told_its_roll_nothing_is_known(tmp_path: Path) -> None:
    made, centre, _ = came_back(tmp_path, has_spoken=True)
    made.poll(1.0)
    centre.tells.append(Listed({"7": NativeJob(id="7", state=NativeState.ENDED, word="NODE_FAIL")}, 2.0))
    ended = [each for boot in (2.0, 4.0, 6.0, 70.0) for each in made.poll(boot)[0]]
    assert never_begun(made) == []
    assert [each.cause and each.cause[0] for each in ended] == [Outcome.LOST]
    assert not list((tmp_path / "pilots").glob("hq-pilot-*"))
