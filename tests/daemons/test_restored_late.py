"""A backup from so long ago that the run book has forgotten what came after it: the ledger still knows what ended well and what failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hq.db.backup import back_up, restore
from hq.model.ids import TaskKey
from tests.support.dbrecords import clean
from tests.support.house import House, history, house_at


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def forget_the_book(house: House) -> None:
    """As if it had gone on to its third file."""
    for path in (house.directory / "user").glob("ledger-book*"):
        path.unlink()


@pytest.mark.parametrize("is_job_named", [True, False])
def test_ends_are_told_as_well_or_failed(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, is_job_named: bool) -> None:
    """If the ledger has dropped what it knew of the job itself, too, its tasks are ordered again, and told instead of started."""
    monkeypatch.setattr("hq.userserver.ends.MAX_ENDS", 0)
    with house_at(tmp_path / "house", engine) as house:
        array = house.submit(("0.5", "0"), key="array", indices="1-6", is_rerunnable=True)
        plain = house.submit(("0.5", "0"), ("0.5", "7"), key="plain")
        house.room.admin("deactivatehost:one")
        house.until(lambda: bool(array.answers and plain.answers), "the ids")
        back_up(engine, str(tmp_path / "backup"))
        house.room.admin("activatehost:one")
        keys = [*(TaskKey(house.ids(array)[0], index) for index in range(1, 7)), *map(TaskKey, house.ids(plain))]
        house.until(lambda: not house.room.server.cluster.jobs, "the ends")
        assert [history(house)[key][0] for key in keys] == ["ok"] * 7 + ["failed"]
        starts = list(house.machine.starts)
        forget_the_book(house)
        if not is_job_named:
            for _ in range(2):  # with nothing of it open, the file that is written anew does not name the job
                house._drop_user()
                house.until(lambda: house.user is not None and house.user.upstream.is_up, "its user-server")
            assert house.user is not None and not list(house.user.execs.ledger.known_jobs())
        house.restart_server()
        clean(engine)
        restore(engine, str(tmp_path / "backup"))
        house.until(lambda: house.is_server_up and "alice" not in house.room.server.cluster.restored.awaited, "the comparison")
        house.room.admin("activatehost:one")
        house.until(lambda: not house.room.server.cluster.jobs, "everything to end")
        assert house.machine.starts == starts
        told = history(house)
        assert [told[key][:2] for key in keys] == [("ok", 0)] * 7 + [("failed", None)]
