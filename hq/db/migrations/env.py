"""Alembic's entry: runs on the connection that `hq.db.engine.upgrade` hands over. There is no alembic.ini: hq-dbadmin is the command."""

from __future__ import annotations

from alembic import context

from hq.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
