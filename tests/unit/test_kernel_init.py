"""`hq-admin init`: a ready instance, or nothing at all."""

from __future__ import annotations

import os
import socket
import sqlite3
from pathlib import Path

import pytest

from hq.client import init
from hq.client.init import init_main
from hq.errors import HqError, InputError, RefusedError, UsageError
from hq.kernel.clustertab import read_cluster_tab
from hq.kernel.config import read_database_url, read_server_config, read_users
from hq.kernel.files import read_secret
from hq.kernel.places import keys_dir, read_client_config


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HQ_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def left(tmp_path: Path) -> list[str]:
    """Every file below, and directories other than the user's own."""
    return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.name != "home")


@pytest.fixture
def without_database(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Calls of hq-dbadmin that were made, and did nothing."""
    calls: list[list[str]] = []
    monkeypatch.setattr(init, "_dbadmin", lambda plan, words, given="": calls.append(words))
    return calls


def test_an_instance_is_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert init_main([str(tmp_path / "site"), "--host", "node1.example.org:8", "--host", "node2:4:openssh", "--host", "localhost:2", "--host", "192.0.2.7:1"]) == 0
    etc, var = tmp_path / "site" / "etc", tmp_path / "site" / "var"
    assert f"export HQ_ETC={etc}" in capsys.readouterr().out
    client, server = read_client_config(str(etc)), read_server_config(str(etc))
    assert client.instance == server.instance and client.instance.startswith("site-")
    assert client.server.endswith(f":{server.port}") and server.bind == "0.0.0.0" and server.var == str(var)
    assert client.server_key == read_secret(str(var / "keys" / "curve.public"))
    assert client.enrol_socket == str(var / "run" / "enrol.sock")
    hosts = [(host.name, host.address, host.slots, host.transport) for host in read_cluster_tab(str(etc / "cluster.tab"))]
    assert hosts == [("node1", "node1.example.org", 8, "ssh"), ("node2", "node2", 4, "openssh"), ("localhost", "localhost", 2, "local"), ("192.0.2.7", "192.0.2.7", 1, "ssh")]
    assert [user.is_admin for user in read_users(str(etc / "users"))] == [True]
    assert read_database_url(str(etc)) == f"sqlite:///{var}/state.db"
    for secret in (var / "keys" / "curve.secret", var / "state.db", etc / "hq-db.cfg", Path(keys_dir(client.instance), "admin.secret")):
        assert secret.stat().st_mode & 0o077 == 0
    with sqlite3.connect(var / "state.db") as database:
        text = "\n".join(database.iterdump())
    assert read_secret(os.path.join(keys_dir(client.instance), "admin.public")) in text and client.instance in text


def test_without_hosts_it_is_this_machine_for_itself(tmp_path: Path, without_database: list[list[str]]) -> None:
    init_main([str(tmp_path / "x"), "--port", "4711"])
    etc = str(tmp_path / "x" / "etc")
    host = read_cluster_tab(etc + "/cluster.tab")[0]
    assert (host.transport, host.slots) == ("local", len(os.sched_getaffinity(0)))
    assert read_server_config(etc).bind == "127.0.0.1" and read_client_config(etc).server == "tcp://127.0.0.1:4711"
    assert without_database == [["--create-tables", "--add-standard-entries"], ["--enrol-admin"]]


def test_the_database_may_be_another(tmp_path: Path, without_database: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"mysql://hq:p%40ss@db/hq\n")
    os.close(writer)
    with os.fdopen(reader) as given:
        monkeypatch.setattr("sys.stdin", given)
        init_main([str(tmp_path / "x"), "--db", "-"])
    assert read_database_url(str(tmp_path / "x" / "etc")) == "mysql+pymysql://hq:p%40ss@db/hq"


@pytest.mark.parametrize(
    "words",
    [["--host", "node1"], ["--host", "node1:x"], ["--host", "node1:0"], ["--host", "node1:4:telnet"], ["--host", "-x:4"], ["--host", "a:1", "--host", "a:2"],
     ["--db", "nonsense"], ["--db", "mysql://a\nb"], ["--port", "70000"], ["--port", "0"], ["--port", "x"], ["--ports", "1"]],
)  # fmt: skip
def test_bad_words_make_nothing(tmp_path: Path, words: list[str]) -> None:
    with pytest.raises((InputError, UsageError)):
        init_main([str(tmp_path / "x"), *words])
    assert left(tmp_path) == []


def test_an_existing_instance_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "x" / "etc").mkdir(parents=True)
    (tmp_path / "x" / "etc" / "hq.yaml").write_text("mine")
    with pytest.raises(RefusedError, match="exists"):
        init_main([str(tmp_path / "x")])
    assert left(tmp_path) == ["x", "x/etc", "x/etc/hq.yaml"]


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="107 bytes"):
        init_main([str(tmp_path / ("x" * 100))])


@pytest.mark.parametrize("failing", ["--create-tables", "--enrol-admin"])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(plan: object, words: list[str], given: str = "") -> None:
        if failing in words:
            raise RefusedError("the database is away")

    monkeypatch.setattr(init, "_dbadmin", fail)
    (tmp_path / "there").mkdir()
    for name in ("new/er", "there"):
        with pytest.raises(RefusedError, match="away"):
            init_main([str(tmp_path / name)])
    assert left(tmp_path) == ["there"]
    assert not list((tmp_path / "home").glob("*"))


def test_a_database_that_cannot_be_used_is_told_in_its_own_words_without_the_password(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"mysql+pymysql://hq:hush-hush@127.0.0.1:{nobody.getsockname()[1]}/hq"
        with pytest.raises(HqError) as caught:
            init_main([str(tmp_path / "x"), "--db", url])
    assert "127.0.0.1" in str(caught.value) and "hush" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert left(tmp_path) == []


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    place = "/proc/hq-nowhere"
    with pytest.raises(InputError, match=place):
        init_main([place])
