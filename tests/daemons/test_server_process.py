"""hq-server as a process: starting, refusing to start, answering hq-admin, stopping."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.wait import until

ROOT = Path(__file__).parents[2]


class Site:
    """An instance in a temporary directory, and its commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.etc = directory / "inst" / "etc"
        self.lock = directory / "inst" / "var" / "run" / "hq-server.lock"
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(ROOT), "HQ_HOME": str(directory / "home"),
            "HQ_ETC": str(self.etc), "LANG": "C.UTF-8",
        }  # fmt: skip

    def run(self, program: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, str(ROOT / "bin" / program), *words]
        return subprocess.run(argv, env=self.environment | environment, capture_output=True, text=True, timeout=120, check=False)

    def pid(self) -> int:
        return int(self.lock.read_text())

    def is_up(self) -> bool:
        """Whether one holds its lock, be it at its end."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def stop(self) -> None:
        if self.is_up():
            with suppress(ProcessLookupError):  # one that was refused ends by itself
                os.kill(self.pid(), signal.SIGTERM)
            until(lambda: not self.is_up(), 60, "hq-server stops on SIGTERM")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("server"))
    done = made.run("hq-admin", "init", str(made.directory / "inst"), "--host", "localhost:2:local")
    assert done.returncode == 0, done.stderr
    yield made
    made.stop()


@pytest.fixture
def up(site: Site) -> Iterator[Site]:
    if not site.is_up():
        done = site.run("hq-server", "-d")
        assert done.returncode == 0, done.stderr
    yield site


def test_it_answers_once_detaching_returns(up: Site) -> None:
    done = up.run("hq-admin", "ping")
    assert (done.returncode, done.stdout, done.stderr) == (0, "pong\n", "")
    assert up.run("hq-admin", "frobnicate").returncode == 2


def test_it_may_have_more_connections_than_a_login_shell_allows_files(up: Site) -> None:
    soft, hard = resource.prlimit(up.pid(), resource.RLIMIT_NOFILE)
    assert soft == hard or soft >= 65536


def test_a_standby_needs_a_database_that_two_machines_reach(tmp_path: Path) -> None:
    made = Site(tmp_path)
    assert made.run("hq-admin", "init", str(made.directory / "inst"), "--host", "localhost:2:local").returncode == 0
    done = made.run("hq-server", "-d", "--standby")
    assert done.returncode == 1
    until(lambda: not made.is_up(), what="its end")
    assert "a standby needs a database that both machines reach" in done.stderr and "SQLite" in done.stderr


def test_a_second_one_says_who_is_there(up: Site) -> None:
    done = up.run("hq-server", "-d")
    assert done.returncode == 1 and f"process {up.pid()}" in done.stderr and len(done.stderr.splitlines()) == 1
    assert up.run("hq-admin", "ping").returncode == 0


def test_a_lost_admin_key_is_made_and_registered_anew_on_the_servers_machine(up: Site, tmp_path: Path) -> None:
    done = up.run("hq-admin", "lskeys", HQ_HOME=str(tmp_path))
    assert done.returncode == 0 and "peercred" in done.stdout


def test_the_socket_is_for_everybody_and_the_keys_for_nobody_else(up: Site) -> None:
    var = up.directory / "inst" / "var"
    assert (var / "run" / "enrol.sock").stat().st_mode & 0o777 == 0o666
    assert (var / "keys").stat().st_mode & 0o077 == 0
    assert (var / "log" / "hq-server.log").stat().st_mode & 0o077 == 0


def test_hup_reads_the_files_again(up: Site) -> None:
    tab = up.etc / "cluster.tab"
    text = tab.read_text()
    tab.write_text(text.replace("localhost\tlocalhost\t2\t2", "localhost\tlocalhost\t3\t3"))
    os.kill(up.pid(), signal.SIGHUP)
    until(lambda: re.search(r"localhost.* 3 +3 ", up.run("hq-admin", "lscluster").stdout), 30)
    tab.write_text(text)


def test_another_process_at_the_database_takes_nothing_away_under_it(up: Site) -> None:
    """Who looks at the SQLite file and leaves must not take the log of writes along, for hq-server would go on writing into nothing."""

    def users() -> str:
        (line,) = [line for line in up.run("hq-dbadmin", "--check").stdout.splitlines() if line.startswith("user ")]
        return line

    before = users()
    assert up.run("hq-admin", "adduser", "somebody").returncode == 0
    assert users() != before
    assert up.run("hq-admin", "disableuser", "somebody").returncode == 0
    os.kill(up.pid(), signal.SIGKILL)
    until(lambda: not up.is_up(), 30)
    assert up.run("hq-server", "-d").returncode == 0
    assert re.search(r"somebody +user +no", up.run("hq-admin", "lsusers").stdout), "what was acknowledged is there after a kill"


def test_term_ends_it_and_its_state_is_kept(up: Site) -> None:
    assert up.run("hq-admin", "deactivatehost:localhost").returncode == 0
    up.stop()
    assert "hq-server -d --etc" in up.run("hq-admin", "ping").stderr
    assert up.run("hq-server", "-d").returncode == 0
    assert "inactive" in up.run("hq-admin", "lscluster").stdout
    up.run("hq-admin", "activatehost", "localhost")
    assert up.run("hq-admin", "shutdown").returncode == 0
    until(lambda: not up.is_up(), 30)


def test_another_port_is_written_to_client_yaml(site: Site) -> None:
    site.stop()
    before = (site.etc / "client.yaml").read_text()
    assert site.run("hq-server", "-d", "-p", "0").returncode == 0
    after = (site.etc / "client.yaml").read_text()
    assert before != after and site.run("hq-admin", "ping").stdout == "pong\n"
    site.stop()


def test_a_port_in_use_is_named(site: Site) -> None:
    site.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = site.run("hq-server", "-d", "-p", str(port))
    assert done.returncode == 1 and f":{port}" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("cluster.tab", "localhost\tlocalhost\t2", "localhost\tlocalhost\tmany", "line"),
        ("hq.yaml", "instance:", "heartbeet: 3\ninstance:", "heartbeet"),
        ("users", "root", "ro ot;", "users"),
        ("hq-db.cfg", "sqlite", "oracle", "oracle"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(site: Site, name: str, old: str, new: str, words: str) -> None:
    site.stop()
    path = site.etc / name
    text = path.read_text()
    mode = path.stat().st_mode & 0o777
    assert old in text or name == "users"
    path.write_text(text.replace(old, new) if old in text else "bad name; here\n")
    done = site.run("hq-server", "-d")
    path.write_text(text)
    path.chmod(mode)
    assert done.returncode in (1, 2) and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    until(lambda: not site.is_up())


def test_a_password_file_that_others_read_is_refused(site: Site) -> None:
    site.stop()
    path = site.etc / "hq-db.cfg"
    path.chmod(0o644)
    done = site.run("hq-server", "-d")
    path.chmod(0o600)
    assert done.returncode == 1 and "chmod 600" in done.stderr


def test_a_database_of_another_revision_is_refused_with_the_command(site: Site) -> None:
    site.stop()
    with sqlite3.connect(site.directory / "inst" / "var" / "state.db") as connection:
        [(revision,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        connection.execute("UPDATE alembic_version SET version_num = 'from the future'")
    done = site.run("hq-server", "-d")
    with sqlite3.connect(site.directory / "inst" / "var" / "state.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.close()
    assert done.returncode == 1 and "newer hq" in done.stderr
