"""The tables as hq knows them. What the database really has is made by `migrations`; a test holds the two together.

`job` and `task` are live and stay small: an ended task moves to `task_history`, an ended job to `job_history`. Beside the
signed body stand columns for people, filled from it. The columns of `*_history` after `ended` are summed up once, at the end.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeEngine

from hq.db.types import TABLE_OPTIONS, Moment, fingerprint, long_bytes, long_text, machine, person

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _serial() -> TypeEngine[int]:
    # SQLite numbers rows by itself only where the type is spelled INTEGER
    return BigInteger().with_variant(Integer(), "sqlite")


setting = Table(
    "setting",
    metadata,
    Column("name", String(320), primary_key=True),
    Column("value", long_text(), nullable=False),
    **TABLE_OPTIONS,
)

#: One row. `epoch` fences an older hq-server, `batch` names the last transaction, so that one whose answer was lost is not repeated.
lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("batch", String(32), nullable=False),
    **TABLE_OPTIONS,
)

#: One row: who is the active hq-server, see `hq.core.seat`. `beat` is raised by it for ever, `seconds` is the patience of those who wait.
seat = Table(
    "seat",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    **TABLE_OPTIONS,
)

#: The hq-servers that wait for the seat.
standby = Table(
    "standby",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("version", String(40), nullable=False),
    Column("beat", BigInteger, nullable=False),
    **TABLE_OPTIONS,
)

user = Table(
    "user",
    metadata,
    Column("name", person(), primary_key=True),
    Column("roles", String(255), nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    **TABLE_OPTIONS,
)

user_key = Table(
    "user_key",
    metadata,
    Column("public", fingerprint(), primary_key=True),
    Column("user", person(), nullable=False, index=True),
    Column("role", String(32), nullable=False),
    Column("host", machine(), nullable=False),
    Column("sign_public", String(128), nullable=False),
    Column("is_enabled", Boolean, nullable=False),
    Column("created", Moment, nullable=False),
    Column("proof", String(255), nullable=False),
    **TABLE_OPTIONS,
)

host = Table(
    "host",
    metadata,
    Column("name", machine(), primary_key=True),
    Column("address", String(255), nullable=False),
    Column("total", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("info", Text, nullable=False),
    Column("transport", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("queue", String(255), nullable=False),
    Column("resources", Text, nullable=False),  # JSON
    Column("memory", BigInteger),
    Column("is_active_at_first", Boolean, nullable=False),  # the column `active` of cluster.tab
    Column("is_active", Boolean, nullable=False),
    Column("drain_reason", Text),
    Column("is_listed", Boolean, nullable=False),
    **TABLE_OPTIONS,
)

blob = Table(
    "blob",
    metadata,
    Column("digest", fingerprint(), nullable=False),
    Column("user", person(), nullable=False),
    Column("body", long_bytes(), nullable=False),
    PrimaryKeyConstraint("digest", "user"),  # nobody can occupy another's digest
    **TABLE_OPTIONS,
)


def _job_columns() -> list[Column[object]]:
    return [
        Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=False),
        Column("user", person(), nullable=False),
        Column("submission", String(1024), nullable=False),
        Column("name", String(1024), nullable=False),
        Column("group_name", String(1024), nullable=False),
        Column("info", String(1024), nullable=False),
        Column("command", Text, nullable=False),  # printable, cut: for reading and finding, never for running
        Column("slots", Integer, nullable=False),
        Column("priority", Integer, nullable=False),
        Column("queue", String(255), nullable=False),
        Column("is_held", Boolean, nullable=False),
        Column("is_array", Boolean, nullable=False),
        Column("indices", long_text(), nullable=False),
        Column("task_count", Integer, nullable=False),
        Column("submitted", Moment, nullable=False),
        Column("body", long_bytes(), nullable=False),
        Column("signature", LargeBinary, nullable=False),
        Column("wishes", long_text(), nullable=False),  # JSON
        Column("cancelled_rest", Integer, nullable=False),  # tasks cancelled that never left waiting: they have no row
    ]


def _task_columns() -> list[Column[object]]:
    return [
        Column("idx", Integer, nullable=False, autoincrement=False),  # -1: the one task of a plain job
        Column("attempt", Integer, nullable=False),
        Column("user", person(), nullable=False),
        Column("slots", Integer, nullable=False),
        Column("host", machine(), nullable=False),
        Column("since", Moment, nullable=False),
        Column("started", Moment),
        Column("pid", BigInteger),
    ]


def _native_columns() -> list[Column[object]]:
    """What a batch system has of a task: its id there, and since when."""
    return [Column("native_id", String(128)), Column("native_since", Moment)]


def _result_columns(*, is_outcome_known: bool) -> list[Column[object]]:
    return [
        Column("outcome", String(16), nullable=not is_outcome_known),
        Column("exit_code", Integer),
        Column("signal_number", SmallInteger),
        Column("max_rss", BigInteger),
        Column("cpu_seconds", Double),
        Column("reason", long_text(), nullable=False),
    ]


job = Table("job", metadata, *_job_columns(), Column("ended", Moment), **TABLE_OPTIONS)

task = Table(
    "task",
    metadata,
    Column("job", ForeignKey("job.id"), nullable=False),
    *_task_columns(),
    Column("state", String(16), nullable=False),
    Column("ended", Moment),
    *_result_columns(is_outcome_known=False),
    *_native_columns(),
    Column("native_state", String(64)),
    Column("native_reason", Text),
    Column("is_held", Boolean),  # though it is placed; NULL: it is not
    PrimaryKeyConstraint("job", "idx"),
    **TABLE_OPTIONS,
)

job_history = Table(
    "job_history",
    metadata,
    *_job_columns(),
    Column("ended", Moment, nullable=False),
    *_result_columns(is_outcome_known=True),
    Column("started", Moment),
    Column("host", machine(), nullable=False),  # of a plain job
    Column("attempt", Integer, nullable=False),
    Column("outcomes", Text, nullable=False),  # JSON: tasks by outcome
    *_native_columns(),  # of a plain job
    Index(None, "user", "ended"),
    Index(None, "user", "id"),
    Index(None, "ended"),
    **TABLE_OPTIONS,
)

task_history = Table(
    "task_history",
    metadata,
    Column("job", BigInteger, nullable=False, autoincrement=False),
    *_task_columns(),
    Column("ended", Moment, nullable=False),
    *_result_columns(is_outcome_known=True),
    *_native_columns(),
    PrimaryKeyConstraint("job", "idx"),
    Index(None, "user", "ended"),
    Index(None, "ended"),
    **TABLE_OPTIONS,
)

task_event = Table(
    "task_event",
    metadata,
    Column("id", _serial(), primary_key=True, autoincrement=True),
    Column("job", BigInteger, nullable=False),
    Column("idx", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("state", String(32), nullable=False),
    Column("host", machine(), nullable=False),
    Column("reason", long_text(), nullable=False),
    Index(None, "job", "idx"),
    **TABLE_OPTIONS,
)

host_load = Table(
    "host_load",
    metadata,
    Column("id", _serial(), primary_key=True, autoincrement=True),
    Column("host", machine(), nullable=False),
    Column("user", person(), nullable=False),
    Column("at", Moment, nullable=False),
    Column("load1", Double, nullable=False),
    Column("load5", Double, nullable=False),
    Column("load15", Double, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory_total", BigInteger, nullable=False),
    Column("memory_free", BigInteger, nullable=False),
    Index(None, "host", "id"),
    **TABLE_OPTIONS,
)

audit = Table(
    "audit",
    metadata,
    Column("id", _serial(), primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False),
    Column("actor", person(), nullable=False),
    Column("role", String(32), nullable=False),
    Column("action", String(64), nullable=False),
    Column("owner", person(), nullable=False),
    Column("target", Text, nullable=False),
    Column("detail", long_text(), nullable=False),
    Index(None, "owner", "id"),
    **TABLE_OPTIONS,
)

view_info = Table(
    "view_info",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("version", Integer, nullable=False),
    Column("about", Text, nullable=False),
    **TABLE_OPTIONS,
)
