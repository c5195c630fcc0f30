"""Names of settings have room for a host's name behind a prefix.

Revision: 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Forward."""
    with op.batch_alter_table("setting") as batch:
        batch.alter_column("name", existing_type=sa.String(64), type_=sa.String(320), existing_nullable=False)
