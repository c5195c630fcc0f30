"""Backups of the state database: a consistent copy of all tables in one SQLite file, whatever the database is, and the way back.

A restored database knows less than the world does: jobs have ended since, others were submitted. So after a restore a new
incarnation begins (`begin_anew`): a higher epoch than any before, job ids that nobody has seen, and nothing of a user starts until
the ledger of his user-server was compared with the database (`hq.core.restored`).
"""

from __future__ import annotations

import os
import time

from sqlalchemy import Engine, delete, exc, func, insert, select, update

from hq.db import tables
from hq.db.engine import check_revision, create_tables, open_engine
from hq.db.faults import explain
from hq.db.store import Store
from hq.errors import DatabaseError, InputError, RefusedError
from hq.model.changes import AuditRecord, Changes
from hq.model.restored import AWAITS, anew

#: The setting of a copy that says when it was made (Unix time).
BACKED_UP = "backed_up_at"
_CHUNK = 2000


def back_up(engine: Engine, path: str) -> int:
    """Copy everything, as it is at one moment, into a new file (mode 0600). hq-server may be running. Returns the number of rows.

    Raises InputError if the file is there or cannot be made, DatabaseError if the database cannot be read.
    """
    path = os.path.abspath(path)
    if os.path.exists(path):
        raise InputError("there is a file of this name: choose another one", file=path)
    part = path + ".part"
    try:
        for name in (part, part + "-wal", part + "-shm"):
            if os.path.exists(name):
                os.unlink(name)
        target = open_engine(f"sqlite:///{part}")
        try:
            create_tables(target)
            # before: a ledger that begins while the copy is made vouches for less than all
            moment = time.time()
            count = _copy(engine, target)
            Store(target).write(Changes(settings={BACKED_UP: repr(moment)}))
        finally:
            target.dispose()
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"the backup cannot be written: {error.strerror}", file=path) from None
    return count


def restore(engine: Engine, path: str) -> tuple[int, list[str]]:
    """Fill the empty tables of a database from a backup, and begin anew. hq-server must not be running.

    Returns the number of rows, and the users whose ledgers are awaited now.

    Raises InputError if there is no such file, RefusedError if the tables are not empty.
    """
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise InputError("there is no such backup", file=path)
    with engine.connect() as connection:
        for table in (tables.job, tables.job_history):
            if connection.execute(select(func.count()).select_from(table)).scalar_one():
                raise RefusedError("there are jobs in the database: a backup is restored into empty tables (hq-dbadmin --drop-tables, then --create-tables)")
    source = open_engine(f"sqlite:///{path}")
    try:
        check_revision(source)
        count = _copy(source, engine)
    finally:
        source.dispose()
    return count, begin_anew(engine, float(Store(engine).load().settings.get(BACKED_UP, "0")))


def begin_anew(engine: Engine, moment: float = 0.0) -> list[str]:
    """The database was restored, by whatever means: a new incarnation. Returns the users whose ledgers are awaited now. Harmless to repeat.

    `moment`: when the backup was made, if that is known; else the database's own last moment counts.
    """
    store = Store(engine)
    snapshot = store.load()
    now = time.time()
    lease = tables.lease.c
    try:
        with engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            last = max(float(connection.execute(select(func.max(table.c.at))).scalar() or 0.0) for table in (tables.task_event, tables.host_load))
            found = int(connection.execute(select(lease.epoch).where(lease.id == 1)).scalar_one())
            # epochs count starts of hq-server: the seconds of today are above whatever a user-server has seen
            epoch = max(found + 1, int(now))
            connection.execute(update(tables.lease).where(lease.id == 1).values(epoch=epoch, batch=""))
    except (exc.SQLAlchemyError, OSError) as error:
        raise DatabaseError(explain(error, engine.url)) from error
    changes = Changes(settings=anew(snapshot, epoch, max(moment, last)))
    awaited = [name.removeprefix(AWAITS) for name in changes.settings if name.startswith(AWAITS)]
    detail = f"ledgers awaited: {', '.join(awaited) or 'none'}"[:1000]
    changes.audit.append(AuditRecord(at=now, actor="hq-dbadmin", role="admin", action="restored", owner="", target="database", detail=detail))
    store.write(changes)
    return awaited


def _copy(source: Engine, target: Engine) -> int:
    count = 0
    try:
        with source.connect() as reading, target.connect().execution_options(is_writer=True) as writing:
            if source.dialect.name != "sqlite":
                reading = reading.execution_options(isolation_level="REPEATABLE READ")
            with reading.begin(), writing.begin():
                for table in tables.metadata.sorted_tables:
                    writing.execute(delete(table))
                    found = reading.execution_options(stream_results=True).execute(select(table))
                    for rows in found.mappings().partitions(_CHUNK):
                        writing.execute(insert(table), [dict(row) for row in rows])
                        count += len(rows)
    except (exc.SQLAlchemyError, OSError) as error:
        raise DatabaseError(explain(error, source.url)) from error
    return count
