"""What batch systems have of tasks: native id, since when, state and reason there; and holds of tasks that are placed.

Revision: 0002, after 0001.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from hq.db.types import Moment

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Forward."""
    for table in ("task", "task_history", "job_history"):
        op.add_column(table, sa.Column("native_id", sa.String(length=128), nullable=True))
        op.add_column(table, sa.Column("native_since", Moment(), nullable=True))
    op.add_column("task", sa.Column("native_state", sa.String(length=64), nullable=True))
    op.add_column("task", sa.Column("native_reason", sa.Text(), nullable=True))
    op.add_column("task", sa.Column("is_held", sa.Boolean(), nullable=True))
