"""Writing, loading and revisions on MySQL 8. Only `make test-mysql` collects this directory."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine

from hq.db.engine import check_revision, upgrade
from hq.db.tables import metadata
from tests.db.test_store import *  # noqa: F403 - the same tests, another server


def test_the_migrations_make_what_the_tables_say(engine: Engine) -> None:
    check_revision(engine)
    upgrade(engine)
    with engine.connect() as connection:
        assert "mysql" in str(engine.url)
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata) == []
