"""hq-dbadmin: each of its orders, and each way in which it says no."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect

from hq.db.engine import open_engine
from hq.db.main import main
from hq.db.store import Store
from hq.kernel.files import lock_file
from hq.model.changes import Changes
from hq.model.user import Role
from tests.support.dbrecords import make_job
from tests.support.mariadb import MariaDB

PUBLIC = "a" * 39 + "%"


class Instance:
    """An etc directory and its database."""

    def __init__(self, directory: Path, url: str) -> None:
        self.etc = directory / "etc"
        self.etc.mkdir()
        self.url = url
        self.write("client.yaml", f'instance: demo-0badcafe\nserver: tcp://127.0.0.1:1\nserver_key: "{PUBLIC}"\nenrol_socket: /x\n')
        self.write("users", "root\tuser,admin\nalice\tuser\n")
        self.write(
            "cluster.tab",
            "short_name\tfull_name\ttotal_number_slots\tmax_number_occupied_slots\tadditional_info\tallow_info_server\tinfo_server_port\tactive\n"
            "node1\tnode1.example.org\t8\t6\tbig one\tFalse\t0\tTrue\nnode2\tnode2.example.org\t4\t4\t\tFalse\t0\tFalse\n",
        )
        self.write("hq-db.cfg", f"[DATABASE]\nurl = {url}\n").chmod(0o600)

    def write(self, name: str, text: str) -> Path:
        path = self.etc / name
        path.write_text(text)
        return path

    def run(self, *words: str) -> int:
        return main(["--etc", str(self.etc), *words])

    def engine(self) -> Engine:
        return open_engine(self.url)


@pytest.fixture(params=["sqlite", "mariadb"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Instance:
    """An instance on a database without tables."""
    if request.param == "sqlite":
        return Instance(tmp_path, f"sqlite:///{tmp_path}/state.db")
    server: MariaDB = request.getfixturevalue("mariadb")
    server.execute(
        "DROP DATABASE IF EXISTS hq_admin", "CREATE DATABASE hq_admin", "CREATE OR REPLACE USER hq_admin@'%' IDENTIFIED BY 'top-secret'",
        "GRANT ALL ON hq_admin.* TO hq_admin@'%'",
    )  # fmt: skip
    return Instance(tmp_path, server.url("hq_admin", user="hq_admin", password="top-secret"))


def test_tables_and_entries_are_made(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    assert instance.run("--create-tables", "--add-standard-entries") == 0
    assert "2 host(s), 2 user(s), instance demo-0badcafe" in capsys.readouterr().out
    found = Store(instance.engine()).load()
    assert {host.name: (host.spec.slots, host.is_active) for host in found.hosts} == {"node1": (6, True), "node2": (4, False)}
    assert {user.name: user.is_admin for user in found.users} == {"alice": False, "root": True}
    assert found.settings["instance"] == "demo-0badcafe"


def test_entries_made_twice_keep_what_was_decided(instance: Instance) -> None:
    assert instance.run("--create-tables", "--add-standard-entries") == 0
    store = Store(instance.engine())
    found = store.load()
    hosts = {host.name: host.__class__(spec=host.spec, is_active=not host.is_active, drain_reason="broken") for host in found.hosts}
    users = {user.name: user.__class__(name=user.name, roles=user.roles, is_enabled=False) for user in found.users}
    store.write(Changes(hosts=hosts, users=users, jobs={1: make_job(1)}))
    assert instance.run("--create-tables", "--add-standard-entries") == 0
    again = store.load()
    assert {host.name: host for host in again.hosts} == hosts and {user.name: user for user in again.users} == users
    assert again.jobs == [make_job(1)]


def test_a_database_of_another_instance_is_refused(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    assert instance.run("--create-tables", "--add-standard-entries") == 0
    path = instance.etc / "client.yaml"
    path.write_text(path.read_text().replace("demo-0badcafe", "other-11111111"))
    assert instance.run("--add-standard-entries") == 1
    assert "belongs to the instance demo-0badcafe" in capsys.readouterr().err


def test_check_names_the_command_to_run(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    assert instance.run("--check") == 1
    assert "hq-dbadmin --create-tables" in capsys.readouterr().err
    assert instance.run("--upgrade") == 1
    assert instance.run("--create-tables", "--check") == 0
    assert "can be used" in capsys.readouterr().out
    assert instance.run("--upgrade") == 0
    assert "already" in capsys.readouterr().out


def test_the_password_is_never_shown(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--show-database-configuration"], ["--check"], ["--create-tables"], ["--check"], ["--drop-tables", "--yes"]):
        instance.run(*words)
    seen = "".join(capsys.readouterr())
    assert "top-secret" not in seen and "database:" in seen


def test_dropping_asks(instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert instance.run("--create-tables") == 0
    for answer in ("", "no\n", "y\n", "\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert instance.run("--drop-tables") == 1
        assert "nothing was deleted" in capsys.readouterr().err
    assert "job" in inspect(instance.engine()).get_table_names()
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    assert instance.run("--drop-tables") == 0
    assert inspect(instance.engine()).get_table_names() == []
    assert instance.run("--create-tables") == 0 and instance.run("--drop-tables", "--yes") == 0


@pytest.mark.parametrize("words", [["--drop-tables", "--yes"], ["--restored"], ["--restore", "nothing"]])
def test_a_running_hq_server_keeps_its_tables(instance: Instance, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    instance.write("hq.yaml", f"instance: demo-0badcafe\nvar: {tmp_path}/var\n")
    (tmp_path / "var" / "run").mkdir(parents=True)
    assert instance.run("--create-tables", "--add-standard-entries") == 0
    with lock_file(str(tmp_path / "var" / "run" / "hq-server.lock")):
        assert instance.run(*words) == 1
        told = capsys.readouterr().err
        assert f"process {os.getpid()}" in told and "hq-admin shutdown" in told
        assert instance.run("--check") == 0 and instance.run("--upgrade") == 0
    assert instance.run("--drop-tables", "--yes") == 0


def test_an_administrators_key_is_registered(instance: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert instance.run("--create-tables", "--add-standard-entries") == 0
    for _ in range(2):
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"public": PUBLIC, "user": "alice"})))
        assert instance.run("--enrol-admin") == 0
    found = Store(instance.engine()).load()
    (key,) = found.keys
    assert (key.public, key.user, key.role, key.proof) == (PUBLIC, "alice", Role.ADMIN, "init") and key.created > 0
    assert {user.name: user.roles for user in found.users}["alice"] == {"user", "admin"}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps({"public": PUBLIC, "user": "mallory"})))
    assert instance.run("--enrol-admin") == 1
    assert "registered already, for alice" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"public": 5, "user": "a"}', '{"public": "short", "user": "a"}', json.dumps({"public": PUBLIC, "user": "A B"})])
def test_nonsense_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str) -> None:
    instance = Instance(tmp_path, f"sqlite:///{tmp_path}/state.db")
    assert instance.run("--create-tables") == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert instance.run("--enrol-admin") == 2
    assert Store(instance.engine()).load().keys == []


@pytest.mark.parametrize("words", [[], ["--nonsense"], ["--drop-tables", "--create-tables"], ["extra"], ["--create"]])
def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert Instance(tmp_path, f"sqlite:///{tmp_path}/state.db").run(*words) == 2
    err = capsys.readouterr().err
    assert err.startswith("hq-dbadmin: ") and err.count("\n") == 1


def test_bad_files_leave_the_database_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instance = Instance(tmp_path, f"sqlite:///{tmp_path}/state.db")
    assert instance.run("--create-tables") == 0
    (instance.etc / "users").write_text("alice user\nalice user\n")
    assert instance.run("--add-standard-entries") == 2
    assert "line 2" in capsys.readouterr().err
    assert Store(instance.engine()).load().hosts == []
    (instance.etc / "hq-db.cfg").chmod(0o644)
    assert instance.run("--check") == 1
    assert "hq-db.cfg" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([word])
    assert caught.value.code == 0 and "hq-dbadmin" in capsys.readouterr().out
