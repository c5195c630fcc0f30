"""Listings of ended jobs on MySQL 8."""

from tests.db.test_queries import *  # noqa: F403 - the same tests, another server
