"""Fixtures of the end-to-end tests: real processes, users alice and bob, hosts as network namespaces, SQLite and MariaDB.

`install`: a bin directory that every user can read. `hosts`: the test hosts node1, node2 and far (reached by ssh only, no way
back), once a session. `database`: the URL of a fresh database, None for the instance's own SQLite; parametrised.
`site`: an instance over all three hosts, once a database kind. `local_site`: an instance whose only host is this machine, fresh for each module.
`slurm`: a real Slurm of two nodes of 16 cores, fresh for each module. `make`: makes exec-servers over the module's Slurm.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.batchsite import MakeSite, slurm_sites
from tests.support.hosts import Hosts, missing_for_hosts
from tests.support.mariadb import MariaDB
from tests.support.proc import readable_install
from tests.support.site import Site
from tests.support.slurm import SlurmCluster

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say by name what cannot run for want of rights. As root nothing is skipped."""
    reason = missing_for_hosts()
    for item in items:
        if reason and "e2e" in item.path.parts:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def install() -> Path:
    """The bin directory of an installation that every user can read."""
    return readable_install()


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    """Three test hosts and the users."""
    with Hosts("node1", "node2", "far", users=("alice", "bob", "carol", "olga"), no_way_back=("far",)) as made:
        yield made


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A private MariaDB."""
    server = MariaDB()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def _fresh_database(request: pytest.FixtureRequest) -> str | None:
    if request.param == "sqlite":
        return None
    server: MariaDB = request.getfixturevalue("mariadb")
    name = f"hq{next(_numbers)}"
    server.execute(
        f"create database {name} character set utf8mb4",
        f"create user {name}@'%' identified by 'se cret{name}'",
        f"grant all on {name}.* to {name}@'%'",
    )
    return server.url(name, user=name, password=f"se%20cret{name}")


@pytest.fixture(params=["sqlite", "mariadb"])
def database(request: pytest.FixtureRequest) -> str | None:
    """A database that nobody else uses."""
    return _fresh_database(request)


@pytest.fixture(scope="session", params=["sqlite", "mariadb"])
def site(request: pytest.FixtureRequest, install: Path, hosts: Hosts) -> Iterator[Site]:
    """An instance over the three hosts, on SQLite and on MariaDB."""
    database = _fresh_database(request)
    with Site(install, rows=["node1:2:ssh", "node2:2:openssh", "far:2:ssh"], hosts=hosts, database=database) as made:
        yield made


@pytest.fixture(scope="module")
def local_site(install: Path, hosts: Hosts) -> Iterator[Site]:
    """An instance whose only host is this machine."""
    with Site(install, rows=["here:4:local"]) as made:
        yield made


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    """Two nodes of 16 cores."""
    with SlurmCluster() as made:
        yield made


@pytest.fixture
def make(slurm: SlurmCluster, tmp_path: Path) -> Iterator[MakeSite]:
    """As slurm_sites."""
    with slurm_sites(slurm, tmp_path) as made:
        yield made
