"""The fixtures of tests/db on MySQL 8: in Docker, or on the server that HQ_TEST_MYSQL_URL names (an empty database, its tables are dropped)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from hq.db.engine import create_tables, drop_tables, open_engine
from hq.db.store import Store
from tests.support.dbrecords import clean


@pytest.fixture(scope="session")
def mysql_url() -> Iterator[str]:
    """The URL of an empty database."""
    given = os.environ.get("HQ_TEST_MYSQL_URL")
    if given:
        yield given
        return
    mysql = pytest.importorskip("testcontainers.mysql", reason="testcontainers is not installed: make test-mysql does it")
    container = mysql.MySqlContainer("mysql:8.4", username="hq", password="hq-test", dbname="hq", dialect="pymysql")
    with container.with_command("--max-allowed-packet=16M") as running:
        yield running.get_connection_url().replace("localhost", "127.0.0.1")


@pytest.fixture(scope="session")
def _made(mysql_url: str) -> Iterator[Engine]:
    engine = open_engine(mysql_url)
    drop_tables(engine)
    create_tables(engine)
    yield engine
    drop_tables(engine)
    engine.dispose()


@pytest.fixture
def engine(_made: Engine) -> Engine:
    """An engine with all tables, empty."""
    clean(_made)
    return _made


@pytest.fixture
def store(engine: Engine) -> Store:
    """A store on `engine`."""
    return Store(engine)


@pytest.fixture
def mariadb() -> None:
    """Nothing: the server is not ours to stop."""
