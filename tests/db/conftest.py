"""Every test with the fixture `engine` runs on SQLite and on a private MariaDB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from hq.db.engine import create_tables, open_engine
from hq.db.store import Store
from tests.support.dbrecords import clean
from tests.support.mariadb import MariaDB, is_available


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A private server, one a session. A test that stops it starts it again."""
    if not is_available():
        if os.geteuid() == 0:
            pytest.fail("mariadb-server is not installed: make test-tools")
        pytest.skip("mariadb-server is not installed")
    server = MariaDB()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def _engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    engines: dict[str, Engine] = {}
    yield engines
    for engine in engines.values():
        engine.dispose()


@pytest.fixture(params=["sqlite", "mariadb"])
def engine(request: pytest.FixtureRequest, _engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine with all tables, empty."""
    kind = str(request.param)
    if kind not in _engines:
        if kind == "sqlite":
            made = open_engine(f"sqlite:///{tmp_path_factory.mktemp('db')}/state.db")
        else:
            server: MariaDB = request.getfixturevalue("mariadb")
            server.execute("CREATE DATABASE hq_tests")
            made = open_engine(server.url("hq_tests"))
        create_tables(made)
        _engines[kind] = made
    clean(_engines[kind])
    return _engines[kind]


@pytest.fixture
def store(engine: Engine) -> Iterator[Store]:
    """A store on `engine`, with the connection that it keeps for writing."""
    made = Store(engine, is_writer=True)
    yield made
    made.close()


@pytest.fixture
def blank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine on a database without any table. Parametrised indirectly by 'sqlite' or 'mariadb'."""
    if request.param == "sqlite":
        made = open_engine(f"sqlite:///{tmp_path}/blank.db")
    else:
        server: MariaDB = request.getfixturevalue("mariadb")
        server.execute("DROP DATABASE IF EXISTS hq_blank", "CREATE DATABASE hq_blank")
        made = open_engine(server.url("hq_blank"))
    yield made
    made.dispose()
