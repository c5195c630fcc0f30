"""The way into the state database: load what is live, write the changes of one step in one transaction, fetch blobs.

Every statement is an upsert, a delete, or an append that the batch's name protects, so that a transaction whose answer was lost
may be sent again. One multi-row statement a table. Retrying is the business of `hq.db.writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, delete, func, select, union_all

from hq.db import convert, tables
from hq.db.bulk import append, put, remove, take_turn
from hq.db.cleaning import clean
from hq.db.engine import reached
from hq.db.faults import DATABASE_ERRORS, explain, is_transient
from hq.db.loading import live_jobs
from hq.db.pen import Pen
from hq.db.results import Part, counts_of, ended_job_parts, result_row, worst_of
from hq.errors import DatabaseError, FencedError, UnavailableError
from hq.model.changes import Changes
from hq.model.job import JobRecord
from hq.model.snapshot import Snapshot

#: Names in one IN list.
CHUNK = 1000
#: Load samples kept a host.
LOADS_KEPT = 1000
#: Seconds before the newest end in which an ended job's submission key is still remembered at a start.
SUBMISSIONS_REMEMBERED = 7 * 86400.0

_JOB_MUTABLE = ("group_name", "info", "priority", "queue", "is_held", "wishes", "cancelled_rest", "ended")

T = TypeVar("T")


class Store:
    """The state database of one instance. Safe to use from several threads; only one of them may write."""

    def __init__(self, engine: Engine, *, is_writer: bool = False) -> None:
        """`is_writer`: many writes are to come, the connection for them is kept until `close`."""
        self.engine = engine
        self._pen = Pen(engine, is_kept=is_writer)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._largest_blob: int | None = None
        self._samples: dict[str, int] = {}
        self._known: dict[int, JobRecord] = {}

    def close(self) -> None:
        """Give up the connection that is kept for writing. Nothing may be being written."""
        self._pen.close()

    # --- writing ---

    def write(self, changes: Changes, epoch: int | None = None, *, batch: str = "") -> None:
        """Commit all changes in one transaction.

        `epoch`: refuse if another hq-server has taken the database over since. `batch`: a name, at most 32 characters; if the last
        transaction had the same name nothing is done, since it is this one. Raises UnavailableError when the same call may succeed
        later, DatabaseError when it never will.
        """
        try:
            self._check_blobs(changes)
            with self._pen.transaction() as connection:
                if self._take_turn(connection, epoch, batch):
                    self._write(connection, changes)
        except DATABASE_ERRORS as error:
            text = explain(error, self.engine.url)
            raise (UnavailableError(text) if is_transient(error) else DatabaseError(text)) from error
        except (UnicodeError, OverflowError) as error:
            raise DatabaseError(f"a value does not fit the state database: {error}") from error

    def _take_turn(self, connection: Connection, epoch: int | None, batch: str) -> bool:
        """Lock the lease row and look at it. False: this batch is in already."""
        if epoch is None and not batch:
            return True
        lease = tables.lease
        # written at once, not read and locked: a transaction that has written and then stands still is ended by the server
        if batch and take_turn(connection, batch, epoch):
            return True
        found = connection.execute(select(lease.c.epoch, lease.c.batch).where(lease.c.id == 1).with_for_update()).one_or_none()
        if found is None:
            raise DatabaseError("the table `lease` is empty: run hq-dbadmin --check")
        if epoch is not None and found.epoch != epoch:
            raise FencedError(f"another hq-server has taken the state database over (epoch {found.epoch}, ours was {epoch}): this one must stop")
        return not batch or found.batch != batch

    def _write(self, connection: Connection, changes: Changes) -> None:
        put(connection, tables.user, map(convert.user_row, changes.users.values()))
        remove(connection, tables.user, [(name,) for name in changes.users_removed])
        put(connection, tables.user_key, map(convert.key_row, changes.keys.values()))
        put(connection, tables.host, map(convert.host_row, changes.hosts.values()))
        remove(connection, tables.host, [(name,) for name in changes.hosts_removed])
        put(connection, tables.setting, ({"name": name, "value": value} for name, value in changes.settings.items()))
        put(
            connection,
            tables.blob,
            ({"digest": digest, "user": owner, "body": body} for digest, (owner, body) in changes.blobs.items()),
            mutable=(),
        )
        put(connection, tables.job, map(convert.job_row, changes.jobs.values()), mutable=_JOB_MUTABLE)
        put(connection, tables.task, map(convert.task_row, changes.tasks.values()))
        if changes.tasks_ended:
            put(connection, tables.task_history, map(convert.ended_task_row, changes.tasks_ended))
            remove(connection, tables.task, [task.key for task in changes.tasks_ended])
        if changes.jobs_ended:
            self._end_jobs(connection, changes)
        append(connection, tables.task_event, convert.event_rows(changes.events))
        append(connection, tables.audit, map(convert.audit_row, changes.audit))
        if changes.loads:
            append(connection, tables.host_load, map(convert.load_row, changes.loads))
            self._trim_loads(connection, changes)
        if changes.cleaning is not None:
            clean(connection, changes.cleaning)

    def _end_jobs(self, connection: Connection, changes: Changes) -> None:
        parts = ended_job_parts(connection, changes)
        reasons = {job: reason for _, job, _, _, _, _, reason in changes.events if job in changes.jobs_ended}
        rows = []
        for job, record in changes.jobs_ended.items():
            row = convert.job_row(record)
            row["ended"] = record.submitted if record.ended is None else record.ended
            rows.append(row | result_row(record, parts[job], convert.cut(reasons.get(job, ""), convert.MAX_REASON)))
        put(connection, tables.job_history, rows)
        remove(connection, tables.job, [(job,) for job in changes.jobs_ended])

    def _trim_loads(self, connection: Connection, changes: Changes) -> None:
        """Keep the last samples of each host; looked at once in a tenth of them."""
        c = tables.host_load.c
        for sample in changes.loads:
            self._samples[sample.host] = self._samples.get(sample.host, 0) + 1
            if self._samples[sample.host] < LOADS_KEPT // 10:
                continue
            self._samples[sample.host] = 0
            oldest = connection.execute(select(c.id).where(c.host == sample.host).order_by(c.id.desc()).limit(1).offset(LOADS_KEPT)).scalar()
            if oldest is not None:
                connection.execute(delete(tables.host_load).where(c.host == sample.host, c.id <= oldest))

    def _check_blobs(self, changes: Changes) -> None:
        """A packet beyond the server's limit would look like a lost connection, and be tried for ever."""
        if self._is_sqlite:
            return
        largest = max(
            max((len(body) for _, body in changes.blobs.values()), default=0),
            max((len(job.signed.body) for job in (*changes.jobs.values(), *changes.jobs_ended.values())), default=0),
        )
        if largest < 1 << 18:
            return
        if self._largest_blob is None:
            with self.engine.connect() as connection:
                packet = int(connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar_one())
            self._largest_blob = max((packet - (1 << 17)) // 2, 1 << 18)  # escaped bytes may double
        if largest > self._largest_blob:
            raise DatabaseError(
                f"an environment, script or command of {largest:,} bytes is larger than the database takes ({self._largest_blob:,}): "
                "raise max_allowed_packet on the database server to more than twice as much"
            )

    # --- reading ---

    def load(self) -> Snapshot:
        """Everything that is live. Raises UnavailableError or DatabaseError."""
        with reached(self.engine), self.engine.connect() as connection:
            return self._load(connection)

    def get_ready(self) -> int:
        """Read the jobs beforehand, so that a `load` that comes later need not read their bodies. Returns how many are known now."""
        with reached(self.engine), self.engine.connect() as connection:
            self._known = {job.id: job for job in live_jobs(connection, self._known)}
        return len(self._known)

    def setting(self, name: str) -> str | None:
        """A setting of the instance. Raises as `load`."""
        with reached(self.engine), self.engine.connect() as connection:
            value: str | None = connection.execute(select(tables.setting.c.value).where(tables.setting.c.name == name)).scalar()
        return value

    def _load(self, connection: Connection) -> Snapshot:
        def every(table: Table, make: Callable[[Any], T]) -> list[T]:
            return [make(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns))]

        jobs = live_jobs(connection, self._known)
        self._known = {}  # what has ended since must not be kept for ever
        left, parts = self._left(connection)
        job, job_history = tables.job.c, tables.job_history.c
        return Snapshot(
            users=every(tables.user, convert.user_record),
            keys=every(tables.user_key, convert.key_record),
            hosts=every(tables.host, convert.host_record),
            settings={row.name: row.value for row in connection.execute(select(tables.setting))},
            jobs=jobs,
            tasks=every(tables.task, convert.task_record),
            left=left,
            outcomes={each: counts_of(some) for each, some in parts.items()},
            worst={each: code for each, some in parts.items() if (code := worst_of(some)) is not None},
            last_job=max(connection.execute(select(func.max(column))).scalar() or 0 for column in (job.id, job_history.id)),
            submissions=self._submissions(connection),
        )

    def _left(self, connection: Connection) -> tuple[dict[int, int], dict[int, list[Part]]]:
        """Of each live job: how many tasks have ever left waiting, and those in history by how they ended."""
        t, h = tables.task.c, tables.task_history.c
        left = {row[0]: int(row[1]) for row in connection.execute(select(t.job, func.count()).group_by(t.job))}
        parts: dict[int, list[Part]] = {}
        query = (
            select(h.job, h.outcome, h.exit_code, h.signal_number, func.count())
            .select_from(tables.job.join(tables.task_history, tables.job.c.id == h.job))
            .group_by(h.job, h.outcome, h.exit_code, h.signal_number)
        )
        for job, outcome, exit_code, number, count in connection.execute(query):
            parts.setdefault(job, []).append(Part(job, outcome, exit_code, number, int(count), None, None, None, "", "", 0))
            left[job] = left.get(job, 0) + int(count)
        return left, parts

    def _submissions(self, connection: Connection) -> dict[tuple[str, str], int]:
        job, ended = tables.job.c, tables.job_history.c
        newest = connection.execute(select(func.max(ended.ended))).scalar()
        query = union_all(
            select(ended.user, ended.submission, ended.id).where(ended.ended >= (newest or 0.0) - SUBMISSIONS_REMEMBERED),
            select(job.user, job.submission, job.id),
        )
        return {(row[0], row[1]): row[2] for row in connection.execute(query)}

    def blobs(self, digests: Iterable[str], user: str | None = None) -> dict[str, bytes]:
        """Sealed bytes by digest, of `user` only (None: of anybody); what is not there is absent. Raises as `load`."""
        c, every = tables.blob.c, list(digests)
        found: dict[str, bytes] = {}
        with reached(self.engine), self.engine.connect() as connection:
            for start in range(0, len(every), CHUNK):
                some = every[start : start + CHUNK]
                query = select(c.digest, c.body).where(c.digest.in_(some), *([] if user is None else [c.user == user]))
                found.update({row.digest: bytes(row.body) for row in connection.execute(query)})
        return found
