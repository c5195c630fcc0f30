"""The connection that is kept for writing: an error leaves nothing behind, a connection that died is replaced, one that rested is looked at."""

from __future__ import annotations

from contextlib import suppress

import pytest
from pymysql.err import OperationalError
from sqlalchemy import Engine

from hq.db import pen, tables
from hq.db.bulk import put
from hq.db.pen import Pen
from hq.db.store import Store
from hq.errors import DatabaseError, UnavailableError
from hq.model.changes import Changes
from tests.support.dbrecords import make_task
from tests.support.mariadb import MariaDB


def _connections(engine: Engine) -> int:
    return engine.pool.checkedout()  # type: ignore[attr-defined,no-any-return]


def test_one_connection_serves_all_transactions_until_it_is_closed(engine: Engine) -> None:
    before = _connections(engine)
    store = Store(engine, is_writer=True)
    for number in range(3):
        store.write(Changes(settings={"a": str(number)}))
        assert _connections(engine) == before + 1
    assert store.load().settings == {"a": "2"}
    store.close()
    assert _connections(engine) == before


def test_without_keeping_nothing_is_kept(engine: Engine) -> None:
    before = _connections(engine)
    Store(engine).write(Changes(settings={"a": "1"}))
    assert _connections(engine) == before


def test_after_an_error_nothing_of_the_transaction_is_there_and_the_next_one_goes_on(store: Store) -> None:
    orphan = make_task(404)
    store.write(Changes(settings={"a": "1"}))
    for _ in range(2):
        with pytest.raises(DatabaseError):
            store.write(Changes(settings={"a": "2"}, tasks={orphan.key: orphan}))
    store.write(Changes(settings={"b": "3"}))
    assert store.load().settings == {"a": "1", "b": "3"}


def test_what_is_not_the_databases_fault_is_rolled_back_too(engine: Engine) -> None:
    kept = Pen(engine, is_kept=True)
    with pytest.raises(ZeroDivisionError), kept.transaction() as connection:
        put(connection, tables.setting, [{"name": "a", "value": "1"}])
        raise ZeroDivisionError
    assert Store(engine).load().settings == {}
    with kept.transaction() as connection:
        put(connection, tables.setting, [{"name": "a", "value": "2"}])
    assert Store(engine).load().settings == {"a": "2"}
    kept.close()


@pytest.mark.parametrize("engine", ["mariadb"], indirect=True)
def test_a_connection_that_the_server_dropped_is_replaced(store: Store, engine: Engine, mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop() -> None:
        with engine.connect() as connection:
            own = connection.exec_driver_sql("SELECT connection_id()").scalar_one()
            others = connection.exec_driver_sql("SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> %s", (own,)).scalars().all()
        for each in others:
            with suppress(OperationalError):  # one that was at its end is gone
                mariadb.execute(f"KILL {each}")

    store.write(Changes(settings={"a": "1"}))
    drop()
    with pytest.raises(UnavailableError):
        store.write(Changes(settings={"a": "2"}))
    store.write(Changes(settings={"a": "3"}))
    drop()
    monkeypatch.setattr(pen, "UNSEEN", -1.0)  # as after a rest
    store.write(Changes(settings={"a": "4"}))
    assert store.load().settings == {"a": "4"}
