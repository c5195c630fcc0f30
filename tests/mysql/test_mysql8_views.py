"""The views on MySQL 8."""

from tests.db.test_views import *  # noqa: F403 - the same tests, another server
