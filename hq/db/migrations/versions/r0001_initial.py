"""The first tables.

Revision: 0001, after none.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hq.db.types import TABLE_OPTIONS, Moment, long_bytes, long_text

revision = "0001"
down_revision = None


def _serial() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "audit",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("actor", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("detail", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
        **TABLE_OPTIONS,
    )
    op.create_index(op.f("ix_audit_owner_id"), "audit", ["owner", "id"])
    op.create_table(
        "blob",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("body", long_bytes(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "user", name=op.f("pk_blob")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "host",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("info", sa.Text(), nullable=False),
        sa.Column("transport", sa.String(length=64), nullable=False),
        sa.Column("backend", sa.String(length=64), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("resources", sa.Text(), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=True),
        sa.Column("is_active_at_first", sa.Boolean(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("drain_reason", sa.Text(), nullable=True),
        sa.Column("is_listed", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_host")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "host_load",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("load1", sa.Double(), nullable=False),
        sa.Column("load5", sa.Double(), nullable=False),
        sa.Column("load15", sa.Double(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory_total", sa.BigInteger(), nullable=False),
        sa.Column("memory_free", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_host_load")),
        **TABLE_OPTIONS,
    )
    op.create_index(op.f("ix_host_load_host_id"), "host_load", ["host", "id"])
    op.create_table(
        "job",
        sa.Column("id", _serial(), autoincrement=False, nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("submission", sa.String(length=1024), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("group_name", sa.String(length=1024), nullable=False),
        sa.Column("info", sa.String(length=1024), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("is_array", sa.Boolean(), nullable=False),
        sa.Column("indices", long_text(), nullable=False),
        sa.Column("task_count", sa.Integer(), nullable=False),
        sa.Column("submitted", Moment(), nullable=False),
        sa.Column("body", long_bytes(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("wishes", long_text(), nullable=False),
        sa.Column("cancelled_rest", sa.Integer(), nullable=False),
        sa.Column("ended", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "job_history",
        sa.Column("id", _serial(), autoincrement=False, nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("submission", sa.String(length=1024), nullable=False),
        sa.Column("name", sa.String(length=1024), nullable=False),
        sa.Column("group_name", sa.String(length=1024), nullable=False),
        sa.Column("info", sa.String(length=1024), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=255), nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("is_array", sa.Boolean(), nullable=False),
        sa.Column("indices", long_text(), nullable=False),
        sa.Column("task_count", sa.Integer(), nullable=False),
        sa.Column("submitted", Moment(), nullable=False),
        sa.Column("body", long_bytes(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("wishes", long_text(), nullable=False),
        sa.Column("cancelled_rest", sa.Integer(), nullable=False),
        sa.Column("ended", Moment(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal_number", sa.SmallInteger(), nullable=True),
        sa.Column("max_rss", sa.BigInteger(), nullable=True),
        sa.Column("cpu_seconds", sa.Double(), nullable=True),
        sa.Column("reason", long_text(), nullable=False),
        sa.Column("started", Moment(), nullable=True),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcomes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_history")),
        **TABLE_OPTIONS,
    )
    op.create_index(op.f("ix_job_history_ended"), "job_history", ["ended"])
    op.create_index(op.f("ix_job_history_user_ended"), "job_history", ["user", "ended"])
    op.create_index(op.f("ix_job_history_user_id"), "job_history", ["user", "id"])
    op.create_table(
        "lease",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("batch", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lease")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "setting",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_setting")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "task_event",
        sa.Column("id", _serial(), autoincrement=True, nullable=False),
        sa.Column("job", sa.BigInteger(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("at", Moment(), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("reason", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_event")),
        **TABLE_OPTIONS,
    )
    op.create_index(op.f("ix_task_event_job_idx"), "task_event", ["job", "idx"])
    op.create_table(
        "task_history",
        sa.Column("job", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("idx", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("started", Moment(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("ended", Moment(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal_number", sa.SmallInteger(), nullable=True),
        sa.Column("max_rss", sa.BigInteger(), nullable=True),
        sa.Column("cpu_seconds", sa.Double(), nullable=True),
        sa.Column("reason", long_text(), nullable=False),
        sa.PrimaryKeyConstraint("job", "idx", name=op.f("pk_task_history")),
        **TABLE_OPTIONS,
    )
    op.create_index(op.f("ix_task_history_ended"), "task_history", ["ended"])
    op.create_index(op.f("ix_task_history_user_ended"), "task_history", ["user", "ended"])
    op.create_table(
        "user",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("roles", sa.String(length=255), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_user")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "user_key",
        sa.Column("public", sa.String(length=64), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("sign_public", sa.String(length=128), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("created", Moment(), nullable=False),
        sa.Column("proof", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("public", name=op.f("pk_user_key")),
        **TABLE_OPTIONS,
    )
    op.create_index(op.f("ix_user_key_user"), "user_key", ["user"])
    op.create_table(
        "view_info",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_view_info")),
        **TABLE_OPTIONS,
    )
    op.create_table(
        "task",
        sa.Column("job", _serial(), nullable=False),
        sa.Column("idx", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("user", sa.String(length=64), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("since", Moment(), nullable=False),
        sa.Column("started", Moment(), nullable=True),
        sa.Column("pid", sa.BigInteger(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("ended", Moment(), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("signal_number", sa.SmallInteger(), nullable=True),
        sa.Column("max_rss", sa.BigInteger(), nullable=True),
        sa.Column("cpu_seconds", sa.Double(), nullable=True),
        sa.Column("reason", long_text(), nullable=False),
        sa.ForeignKeyConstraint(["job"], ["job.id"], name=op.f("fk_task_job")),
        sa.PrimaryKeyConstraint("job", "idx", name=op.f("pk_task")),
        **TABLE_OPTIONS,
    )
    op.execute(sa.text("INSERT INTO lease (id, epoch, batch) VALUES (1, 0, '')"))
