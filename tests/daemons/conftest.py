"""A database for tests that live through many houses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, event

from hq.db.engine import create_tables, open_engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """SQLite with all tables; who uses it empties it first."""
    made = open_engine(f"sqlite:///{tmp_path_factory.mktemp('database')}/state.db")
    # daemons are killed here, never the machine
    event.listen(made, "connect", lambda connection, record: connection.execute("PRAGMA synchronous=OFF"))
    create_tables(made)
    yield made
    made.dispose()
