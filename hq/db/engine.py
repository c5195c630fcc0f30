"""Opening the state database, and its revision: create, check, upgrade, drop.

One engine a process. Connections come ready: SQLite with WAL, foreign keys and full sync, MySQL and MariaDB in UTC, strict,
READ COMMITTED. Migrations live in `hq/db/migrations`; views are made anew after each of them.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, exc, inspect
from sqlalchemy.engine import URL, make_url

from hq.db.faults import explain, is_transient, place_of
from hq.db.tables import metadata
from hq.db.views import create_views, drop_views
from hq.errors import DatabaseError, UnavailableError

#: Execution option of a connection whose transactions are begun by whoever uses it.
ALREADY_BEGUN = "is_already_begun"
#: Seconds that a statement waits for another writer of an SQLite file before it counts as locked.
BUSY_TIMEOUT = 2.0
#: Seconds in a transaction without a statement after which MariaDB ends it: a writer that was stopped or cut off must not keep its locks
#: from the hq-server that takes its place.
IDLE_WRITER = 3

_NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p", "ceph", "lustre", "gpfs", "beegfs", "fuse.sshfs", "fuse.glusterfs", "ncpfs", "pvfs2"}
)


def open_engine(url: str, silence: float | None = 60.0) -> Engine:
    """An engine for `sqlite:////path/state.db` or `mysql+pymysql://user:password@host:port/name`.

    Nothing is connected yet, but for SQLite the file is made (mode 0600). After `silence` seconds without a word a server counts as
    gone; None: never, for migrations of long tables. Raises DatabaseError for a URL that cannot be used.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (exc.SQLAlchemyError, ValueError, AttributeError):
        raise DatabaseError("the database URL cannot be read: write sqlite:////path/state.db or mysql+pymysql://user:password@host/name") from None
    if backend == "sqlite":
        return _open_sqlite(parsed)
    if backend in ("mysql", "mariadb"):
        return _open_mysql(parsed, silence)
    raise DatabaseError(f"the database URL begins with '{parsed.drivername}': hq knows sqlite, mysql+pymysql and mariadb+pymysql")


def _open_sqlite(url: URL) -> Engine:
    path = url.database or ""
    if not os.path.isabs(path):
        raise DatabaseError(f"the database URL names the file '{path}': write its full path, as in sqlite:////home/hq/var/state.db")
    refuse_network_filesystem(path)
    try:
        _make_file(path)
    except OSError as error:
        raise DatabaseError(f"the state database {path} cannot be opened: {error.strerror}") from None
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        # lower() of SQLite knows only ASCII
        connection.create_function("hq_fold", 1, lambda text: None if text is None else str(text).casefold(), deterministic=True)
        try:
            for pragma in ("foreign_keys=ON", "journal_mode=WAL", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}").close()
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
                raise DatabaseError(f"the state database {path} is no SQLite file: correct hq-db.cfg, or restore the file") from None
            raise

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # a writer takes its lock at once: a reader that becomes a writer half-way could only fail
        options = connection.get_execution_options()
        if not options.get(ALREADY_BEGUN):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("is_writer") else "BEGIN")

    return engine


def _make_file(path: str) -> None:
    """Make the file if it is not there; one that is there is looked at and never opened. Raises OSError if it cannot be used.

    The locks of SQLite belong to the process and the file: closing any descriptor of it drops those of every connection that this
    process has, and then another process, at its end, would take the log of writes away under us.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


def _open_mysql(url: URL, silence: float | None) -> Engine:
    if url.get_driver_name() not in ("pymysql", "mysqldb"):
        raise DatabaseError(f"the database URL begins with '{url.drivername}': the driver must be pymysql, as in mysql+pymysql://")
    # hq speaks UTF-8 whatever the URL says; "mysql://" alone means a driver that is not installed with hq
    url = url.set(drivername=f"{url.get_backend_name()}+pymysql").update_query_dict({"charset": "utf8mb4"})
    if not url.database:
        raise DatabaseError("the database URL names no database: write mysql+pymysql://user:password@host/NAME")
    modes = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
    arguments = {
        "connect_timeout": 10 if silence is None else min(10, max(1, int(silence))),
        "read_timeout": silence,
        "write_timeout": silence,
        "init_command": f"SET time_zone='+00:00', sql_mode='{modes}', innodb_lock_wait_timeout=10",
    }
    try:
        engine = create_engine(
            url, isolation_level="READ COMMITTED", pool_pre_ping=True, pool_recycle=1800, pool_timeout=30, connect_args=arguments
        )
    except (exc.SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        raise DatabaseError(f"the database URL cannot be used: {error}") from None
    if silence is not None:
        event.listen(engine, "connect", _limit_idle_writers)
    return engine


def _limit_idle_writers(connection: Any, record: object) -> None:
    with connection.cursor() as cursor:
        # MySQL has no such limit
        if cursor.execute("SHOW VARIABLES LIKE 'idle_write_transaction_timeout'"):
            cursor.execute(f"SET SESSION idle_write_transaction_timeout={IDLE_WRITER}")


def advice(engine: Engine) -> str | None:
    """A warning about how the database is reached, or None."""
    url = engine.url
    if url.get_backend_name() == "sqlite" or (url.host or "localhost") in ("localhost", "127.0.0.1", "::1"):
        return None
    if any(name.startswith("ssl") for name in url.query):
        return None
    return f"{place_of(url)} is on another machine and TLS is not demanded: add ?ssl_ca=FILE to the URL in hq-db.cfg"


def refuse_network_filesystem(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Raises DatabaseError if `path` lies on a network file system, where SQLite's locks do not hold."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return  # no Linux: nothing can be known
    real, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
        inside = point == "/" or real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    if kind in _NETWORK_FILESYSTEMS:
        raise DatabaseError(
            f"the state database {path} lies on a network file system ({kind}), where SQLite may lose data: "
            "put it on a local disk, or use MariaDB (hq-db.cfg)"
        )


def _script() -> tuple[Config, ScriptDirectory]:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config, ScriptDirectory.from_config(config)


def expected_revision() -> str:
    """The revision that this version of hq works with."""
    head = _script()[1].get_current_head()
    assert head is not None
    return head


def revision(engine: Engine) -> str | None:
    """The revision of the database, None if it has no tables of hq. Raises UnavailableError or DatabaseError."""
    with reached(engine), engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


class reached:
    """Context: whatever the database says against a statement comes out as one line: UnavailableError where trying again may help, else
    DatabaseError."""

    def __init__(self, engine: Engine) -> None:
        self._url = engine.url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, exc.SQLAlchemyError | OSError):
            text = explain(error, self._url)
            raise (UnavailableError(text) if is_transient(error) else DatabaseError(text)) from None


def check_revision(engine: Engine) -> None:
    """Raises DatabaseError, with the command to run, unless the database is of the revision that this version works with."""
    found, wanted = revision(engine), expected_revision()
    place = place_of(engine.url)
    if found == wanted:
        return
    if found is None:
        raise DatabaseError(f"{place} has no tables of hq: run hq-dbadmin --create-tables --add-standard-entries")
    if any(each.revision == found for each in _script()[1].walk_revisions()):
        raise DatabaseError(f"{place} is of the older revision {found}, this hq needs {wanted}: stop hq-server and run hq-dbadmin --upgrade")
    raise DatabaseError(f"{place} is of revision {found}, which this hq does not know (it needs {wanted}): it was made by a newer hq; install that one")


def upgrade(engine: Engine) -> None:
    """Bring the database from whatever older revision (or from nothing) to the present one, views included. Harmless if repeated."""
    config, script = _script()
    found = revision(engine)
    if found is not None and not any(each.revision == found for each in script.walk_revisions()):
        check_revision(engine)
    with reached(engine), engine.connect().execution_options(is_writer=True) as connection:
        with connection.begin():
            drop_views(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            create_views(connection)


def create_tables(engine: Engine) -> None:
    """Make all tables and views. Raises DatabaseError if an older or newer revision is there; harmless if all is there."""
    if revision(engine) is not None:
        check_revision(engine)
        return
    foreign = sorted(set(_tables(engine)) & set(metadata.tables))
    if foreign:
        raise DatabaseError(
            f"{place_of(engine.url)} has tables that are not of this hq, or were left by an upgrade that broke off ({', '.join(foreign)}): "
            "use an empty database, or run hq-dbadmin --drop-tables"
        )
    upgrade(engine)


def drop_tables(engine: Engine) -> None:
    """Delete every table and view of hq, with all that is in them."""
    with reached(engine), engine.connect().execution_options(is_writer=True) as connection, connection.begin():
        drop_views(connection)
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")


def _tables(engine: Engine) -> list[str]:
    with reached(engine), engine.connect() as connection:
        return inspect(connection).get_table_names()
