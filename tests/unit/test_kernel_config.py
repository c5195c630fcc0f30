"""hq.yaml, users, hq-db.cfg, and the samples in etc/."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from hq.client.samples import samples
from hq.errors import HqError, InputError, SecurityError
from hq.kernel import config
from hq.kernel.clustertab import parse_cluster_tab
from hq.model.user import UserRecord

ROOT = Path(__file__).parents[2]


def parse(text: str) -> config.ServerConfig:
    return config.parse_server_config(text, "hq.yaml", "/srv/hq/etc")


def test_the_table_of_options_and_the_fields_agree() -> None:
    assert [each.name for each in dataclasses.fields(config.ServerConfig)] == [option.name for option in config.OPTIONS] + ["etc"]
    assert all(option.doc.endswith(".") for option in config.OPTIONS)


def test_the_samples_in_etc_are_those_of_the_code() -> None:
    written = {path.name: path.read_text() for path in (ROOT / "etc").glob("*.sample")}
    assert written == samples()


def test_the_sample_with_every_option_uncommented_says_the_defaults() -> None:
    text = samples()["hq.yaml.sample"]
    everything = "\n".join(line.removeprefix("#") if line.startswith("#") and not line.startswith("# ") else line for line in text.splitlines())
    assert set(yaml.safe_load(everything)) == {option.name for option in config.OPTIONS}
    assert parse(everything) == parse("instance: site-0123abcd") == parse(text)


def test_every_option_is_used_by_somebody() -> None:
    code = "".join(path.read_text() for path in (ROOT / "hq").rglob("*.py") if path.name != "config.py")
    assert [option.name for option in config.OPTIONS if not re.search(rf"\b(?:config|read)\.{option.name}\b", code)] == []


def test_values_are_read() -> None:
    got = parse("instance: a-1\nport: 0\nlease: 5m\nprobe_interval: 1-00:00:00\nheartbeat: 0.25\nlog_size: 2M\nlog_level: debug\nvar: /var/lib/hq\n")
    assert (got.port, got.lease, got.probe_interval, got.heartbeat, got.log_size) == (0, 300.0, 86400.0, 0.25, 2 << 20)
    assert (got.log_level, got.var, got.etc) == ("DEBUG", "/var/lib/hq", "/srv/hq/etc")
    assert parse("instance: a-1").var == "/srv/hq/var"


@pytest.mark.parametrize(
    ("line", "what"),
    [("hartbeat: 3", "did you mean 'heartbeat'"), ("port: 70000", "port"), ("port: ten", "port"), ("heartbeat: -1", "heartbeat"), ("heartbeat: nan", "heartbeat"),
     ("lease: never", "lease"), ("log_level: LOUD", "DEBUG"), ("log_files: -2", "number"),
     ("port: [1]", "one value"), ("instance: again", "twice"), ("log_size: big", "size"), ("port: ''", "port"), ("lease: 3", "three heartbeats")],
)  # fmt: skip
def test_a_bad_option_is_named_with_its_line(line: str, what: str) -> None:
    with pytest.raises(InputError, match=what) as caught:
        parse(f"instance: a-1\n\n{line}\n")
    assert caught.value.file == "hq.yaml" and (caught.value.line == 3 or line == "lease: 3")


@pytest.mark.parametrize("text", ["", "port: 1", "- a", "just words", "a: b: c", "instance: ../x", "instance: 'open", "\t"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)


def test_configuration_that_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hq.yaml").write_text("instance: a-1\n")
    assert config.read_server_config(str(tmp_path)).instance == "a-1"
    (tmp_path / "hq.yaml").chmod(0o666)
    with pytest.raises(SecurityError):
        config.read_server_config(str(tmp_path))


def test_users_are_read_with_tabs_or_spaces() -> None:
    got = config.parse_users("# who\nalice\tuser,admin\nbob   user # a remark\n\ncarol\ndave user, admin\n", "users")
    both = frozenset({"user", "admin"})
    assert got == (UserRecord(name="alice", roles=both), UserRecord(name="bob"), UserRecord(name="carol"), UserRecord(name="dave", roles=both))


@pytest.mark.parametrize("line", ["alice usr", "alice user,root", "Alice! user", "../x user", "bob user"])
def test_a_bad_user_is_named_with_its_line(line: str) -> None:
    with pytest.raises(InputError) as caught:
        config.parse_users(f"bob\tuser\n{line}\n", "users")
    assert caught.value.line == 2


def database(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    (tmp_path / "hq-db.cfg").write_text(text)
    (tmp_path / "hq-db.cfg").chmod(mode)
    return config.read_database_url(str(tmp_path))


def test_the_database_as_url_and_as_in_hq_of_old(tmp_path: Path) -> None:
    assert database(tmp_path, "[DATABASE]\nurl = mysql+pymysql://u:p%40s@h/hq\n") == "mysql+pymysql://u:p%40s@h/hq"
    old = "[DATABASE]\ndatabase_dialect: mysql\ndatabase_host: db\ndatabase_port: 2114\ndatabase_name: hq\ndatabase_username: u\ndatabase_password: p@ss/w:%d\n"
    assert database(tmp_path, old) == "mysql+pymysql://u:p%40ss%2Fw%3A%25d@db:2114/hq"
    assert database(tmp_path, "[DATABASE]\ndatabase_dialect = sqlite\ndatabase_name = /srv/x.db\n") == "sqlite:////srv/x.db"


@pytest.mark.parametrize("text", ["", "url = x\n", "[OTHER]\nurl = x\n", "[DATABASE]\n", "[DATABASE]\nurl x\n", "[DATABASE]\nurl=a\nurl=b\n", "[DATABASE]\npassward = hush\n"])
def test_a_bad_database_file_is_refused_without_its_secrets(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="hq-db.cfg") as caught:
        database(tmp_path, text)
    assert "hush" not in str(caught.value)


def test_a_database_file_that_others_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="chmod 600"):
        database(tmp_path, "[DATABASE]\nurl = sqlite:///x\n", 0o644)


def test_the_sample_cluster_and_users_can_be_read() -> None:
    hosts = parse_cluster_tab(samples()["cluster.tab.sample"], "x")
    assert [(host.name, host.address, host.slots, host.total, host.is_active, host.transport) for host in hosts] == [
        ("node1", "node1.example.org", 16, 16, True, "ssh"), ("node2", "192.0.2.17", 6, 8, False, "openssh"), ("here", "localhost", 2, 4, True, "local"),
    ]  # fmt: skip
    assert [user.is_admin for user in config.parse_users(samples()["users.sample"], "x")] == [True, False]


def test_every_error_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(HqError):
        config.read_users(str(tmp_path / "none"))
    (tmp_path / "users").write_bytes(b"\xff\xfe")
    with pytest.raises(HqError):
        config.read_users(str(tmp_path / "users"))
