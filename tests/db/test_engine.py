"""Opening a database, its revisions, and the sentences for all that can be wrong with it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

import hq.db
from hq.db import convert, tables
from hq.db.engine import (
    advice,
    check_revision,
    create_tables,
    drop_tables,
    expected_revision,
    open_engine,
    refuse_network_filesystem,
    revision,
    upgrade,
)
from hq.db.store import Store
from hq.db.tables import metadata
from hq.errors import DatabaseError, HqError
from hq.model.changes import Changes
from hq.model.states import TaskState
from tests.support.dbrecords import make_job
from tests.support.mariadb import MariaDB

both = pytest.mark.parametrize("blank", ["sqlite", "mariadb"], indirect=True)


@both
def test_an_empty_database_is_brought_up_by_its_migrations(blank: Engine) -> None:
    upgrade(blank)
    check_revision(blank)
    assert revision(blank) == expected_revision()
    upgrade(blank)  # harmless
    with blank.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
    Store(blank).write(Changes(settings={"a": "b"}), batch="x")
    create_tables(blank)  # harmless too, and nothing is lost
    assert Store(blank).load().settings == {"a": "b"}


@both
def test_dropping_leaves_nothing(blank: Engine) -> None:
    create_tables(blank)
    drop_tables(blank)
    assert inspect(blank).get_table_names() == [] and inspect(blank).get_view_names() == []
    drop_tables(blank)
    create_tables(blank)
    check_revision(blank)


@both
def test_a_database_without_tables_names_the_command(blank: Engine) -> None:
    with pytest.raises(DatabaseError, match="hq-dbadmin --create-tables --add-standard-entries"):
        check_revision(blank)


@both
def test_a_newer_database_is_left_alone(blank: Engine) -> None:
    create_tables(blank)
    with blank.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for act in (check_revision, create_tables, upgrade):
        with pytest.raises(DatabaseError, match="9999.*newer hq"):
            act(blank)
    assert revision(blank) == "9999"


def at_revision(engine: Engine, name: str) -> None:
    """The tables as the hq of that revision made them."""
    config = Config()
    config.set_main_option("script_location", str(Path(hq.db.__file__).parent / "migrations"))
    with engine.connect().execution_options(is_writer=True) as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, name)


@both
def test_an_older_database_names_the_upgrade_which_keeps_what_is_there(blank: Engine) -> None:
    at_revision(blank, "0001")
    columns = [column.name for column in tables.job.columns]
    row = convert.job_row(make_job(1))
    with blank.connect().execution_options(is_writer=True) as connection, connection.begin():
        connection.execute(tables.job.insert().values({name: row[name] for name in columns}))
        old = text("INSERT INTO task (job, idx, attempt, {q}user{q}, slots, host, since, state, reason) "
                   "VALUES (1, -1, 1, 'alice', 1, 'node1', '2026-01-01 00:00:00.000000', 'running', '')".replace("{q}", "`"))  # fmt: skip
        connection.execute(old)
    with pytest.raises(DatabaseError, match=f"older revision 0001, this hq needs {expected_revision()}.*hq-dbadmin --upgrade"):
        check_revision(blank)
    upgrade(blank)
    check_revision(blank)
    with blank.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
        assert connection.execute(text("SELECT native_id, native_wait_seconds FROM v_task")).one() == (None, None)
    (task,) = Store(blank).load().tasks
    assert (task.state, task.native_id, task.native_since, task.is_held) == (TaskState.RUNNING, "", None, False)


@both
def test_tables_of_somebody_else_are_not_touched(blank: Engine) -> None:
    with blank.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE job (x INTEGER)")
    with pytest.raises(DatabaseError, match=r"\(job\).*empty database"):
        create_tables(blank)


def test_connections_are_set_up(engine: Engine) -> None:
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            settings = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "foreign_keys")}
            assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
            assert engine.url.database is not None
            for suffix in ("", "-wal", "-shm"):
                assert stat.S_IMODE(os.stat(engine.url.database + suffix).st_mode) == 0o600
        else:
            row = connection.exec_driver_sql("SELECT @@time_zone, @@tx_isolation, @@character_set_client, @@sql_mode").one()
            assert row[:3] == ("+00:00", "READ-COMMITTED", "utf8mb4") and "STRICT_ALL_TABLES" in row[3] and "NO_BACKSLASH" not in row[3]
            assert {each for (each,) in connection.exec_driver_sql(
                "SELECT DISTINCT CONCAT(engine, ' ', table_collation) FROM information_schema.tables WHERE table_schema = DATABASE() AND engine IS NOT NULL "
                "AND table_name <> 'alembic_version'"
            )} == {"InnoDB utf8mb4_bin"}  # fmt: skip


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "cannot be read"),
        ("", "cannot be read"),
        ("postgresql://u:secret@h/d", "postgresql.*hq knows"),
        ("oracle://u:secret@h/d", "oracle.*hq knows"),
        ("sqlite://", "full path"),
        ("sqlite:///relative.db", "full path"),
        ("sqlite:////no/such/directory/x.db", "/no/such/directory/x.db cannot be opened: No such file"),
        ("mysql+asyncmy://u:secret@h/d", "driver must be pymysql"),
        ("mysql+pymysql://u:secret@h", "names no database"),
        ("mysql+pymysql://u:secret@h:port/d", "cannot be read"),
    ],
)
def test_urls_that_cannot_be_used(url: str, words: str) -> None:
    with pytest.raises(DatabaseError, match=words) as caught:
        open_engine(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("this is text, and quite a lot of it\n" * 50)
    with pytest.raises(DatabaseError, match="is no SQLite file"):
        check_revision(open_engine(f"sqlite:///{tmp_path}/x.db"))


def test_a_second_engine_leaves_the_locks_of_the_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    first = open_engine(url)
    create_tables(first)
    with first.connect():
        open_engine(url).dispose()
        look = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('select count(*) from user').fetchall(); c.close()"
        subprocess.run([sys.executable, "-c", look, f"{tmp_path}/state.db"], check=True)
        assert (tmp_path / "state.db-wal").exists(), "the last one out takes the log along, and that was not he"
    first.dispose()


def test_servers_that_do_not_let_us_in(mariadb: MariaDB) -> None:
    mariadb.execute("CREATE OR REPLACE USER 'hq'@'%' IDENTIFIED BY 'right-secret'")
    cases = {
        mariadb.url("hq_tests", user="hq", password="wrong-secret"): "user name or password",
        mariadb.url("hq_nowhere", user="hq", password="right-secret"): "no rights on this database",
        mariadb.url("hq_nowhere"): "no such database",
        "mysql+pymysql://root:right-secret@127.0.0.1:1/hq": "does not answer",
        "mysql+pymysql://root:right-secret@host.invalid/hq": "does not answer",
    }
    for url, words in cases.items():
        engine = open_engine(url)
        with pytest.raises(HqError, match=words) as caught:
            check_revision(engine)
        assert "-secret" not in str(caught.value) and "\n" not in str(caught.value), url
        engine.dispose()


def test_advice_about_tls() -> None:
    assert advice(open_engine("mysql+pymysql://u:p@127.0.0.1/d")) is None
    assert advice(open_engine("mysql+pymysql://u:p@db.example.org/d?ssl_ca=/etc/ca.pem")) is None
    text = advice(open_engine("mysql+pymysql://u:p-secret@db.example.org/d"))
    assert text is not None and "TLS" in text and "p-secret" not in text


def test_network_file_systems_are_refused(tmp_path: Path) -> None:
    shared = tmp_path / "my shared"
    shared.mkdir()
    escaped = str(shared).replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\ntmpfs {escaped}/local tmpfs rw 0 0\n")
    with pytest.raises(DatabaseError, match="network file system .nfs4.*MariaDB"):
        refuse_network_filesystem(str(shared / "state.db"), str(mounts))
    refuse_network_filesystem(str(tmp_path / "state.db"), str(mounts))
    refuse_network_filesystem(str(shared / "local" / "state.db"), str(mounts))
    refuse_network_filesystem(str(tmp_path / "my shared one" / "state.db"), str(mounts))
