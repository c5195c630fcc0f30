"""Backups of the state database: a consistent copy of all tables in one SQLite file, whatever the database is, and the way back.

A restored database knows less than the world does: jobs have ended since, others were submitted. So after a restore a new
incarnation begins (`begin_anew`): a higher epoch than any before, job ids that nobody has seen, and every live job held until its
owner releases it; what has ended meanwhile is then refused by the ledger of his user-server, and does not run again.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

from sqlalchemy import Engine, delete, exc, func, insert, select, update

from hq.db import tables
from hq.db.engine import check_revision, create_tables, open_engine
from hq.db.faults import explain
from hq.db.store import Store
from hq.errors import DatabaseError, InputError, RefusedError
from hq.model.changes import AuditRecord, Changes
from hq.model.states import TaskState

#: Ids that are left out after a restore: more than were given since the backup.
ID_GAP = 1_000_000
#: The setting that job ids go on above.
LAST_ID = "last_job_id"
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
            count = _copy(engine, target)
        finally:
            target.dispose()
        os.replace(part, path)
    except OSError as error:
        raise InputError(f"the backup cannot be written: {error.strerror}", file=path) from None
    return count


def restore(engine: Engine, path: str) -> int:
    """Fill the empty tables of a database from a backup, and begin anew. hq-server must not be running. Returns the number of rows.

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
    begin_anew(engine)
    return count


def begin_anew(engine: Engine) -> int:
    """The database was restored, by whatever means: a new incarnation. Returns the number of jobs that are held now. Harmless to repeat."""
    store = Store(engine)
    snapshot = store.load()
    now = time.time()
    changes = Changes()
    for job in snapshot.jobs:
        if not job.wishes.is_held:
            changes.jobs[job.id] = replace(job, wishes=replace(job.wishes, is_held=True))
    for task in snapshot.tasks:
        if task.state is TaskState.WAITING:
            changes.tasks[task.key] = replace(task, state=TaskState.HELD, since=now, reason="held: the state database was restored from a backup")
    last = max(snapshot.last_job, int(snapshot.settings.get(LAST_ID, "0")))
    changes.settings[LAST_ID] = str(last + ID_GAP)
    changes.audit.append(AuditRecord(at=now, actor="hq-dbadmin", role="admin", action="restored", owner="", target="database", detail=f"{len(changes.jobs)} jobs held"))
    store.write(changes)
    try:
        with engine.connect().execution_options(is_writer=True) as connection, connection.begin():
            epoch = tables.lease.c.epoch
            found = int(connection.execute(select(epoch).where(tables.lease.c.id == 1)).scalar_one())
            # epochs count starts of hq-server: the seconds of today are above whatever a user-server has seen
            connection.execute(update(tables.lease).where(tables.lease.c.id == 1).values(epoch=max(found + 1, int(now)), batch=""))
    except (exc.SQLAlchemyError, OSError) as error:
        raise DatabaseError(explain(error, engine.url)) from error
    return len(changes.jobs)


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
