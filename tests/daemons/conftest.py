"""A room of hq-server on the bus in memory, and a database for tests that live through many houses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from hq.db.engine import create_tables, open_engine
from tests.support.serverroom import Room


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """A real hq-server on SQLite; in the end it must not have failed over any message."""
    made = Room(tmp_path)
    yield made
    assert made.server.counts["faults"] == 0, "hq-server failed over a message: see its log"
    made.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """SQLite with all tables; who uses it empties it first."""
    made = open_engine(f"sqlite:///{tmp_path_factory.mktemp('database')}/state.db")
    # daemons are killed here, never the machine
    event.listen(made, "connect", lambda connection, record: connection.execute("PRAGMA synchronous=OFF"))
    create_tables(made)
    yield made
    made.dispose()
