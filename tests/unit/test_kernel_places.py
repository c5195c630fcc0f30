"""Where things are, and client.yaml."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from hq.client.samples import client_yaml
from hq.errors import HqError, InputError, SecurityError
from hq.kernel import places

KEY = "a#b:c" + "0" * 35


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    path = tmp_path / "etc"
    path.mkdir(mode=0o755)
    (path / "client.yaml").write_text(client_yaml("site-01234567", "tcp://login:10101", KEY, "/srv/hq/var/run/enrol.sock"))
    (path / "client.yaml").chmod(0o644)
    return path


def test_client_yaml_is_read(etc: Path) -> None:
    config = places.read_client_config(str(etc))
    assert (config.instance, config.server, config.server_key) == ("site-01234567", "tcp://login:10101", KEY)
    assert (config.enrol_socket, config.userserver, config.exec_server, config.allow_root) == ("/srv/hq/var/run/enrol.sock", None, None, False)
    assert config.etc == str(etc)


def test_the_flat_reader_and_yaml_agree(etc: Path) -> None:
    text = (etc / "client.yaml").read_text() + 'userserver: login2   # a remark\nexec_server: "/opt/hq #1/bin/hq-exec-server"\nallow_root: true\n'
    (etc / "client.yaml").write_text(text)
    config = places.read_client_config(str(etc))
    for name, value in yaml.safe_load(text).items():
        assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("line", "what"),
    [("userserver login2", "name: value"), ("userservr: x", "no option 'userservr'"), ("instance: other", "twice"), ("allow_root: maybe", "true or false"),
     ("exec_server: 'open", "quotes"), ("exec_server: 'a' b", "quotes"), ("userserver:x", "name: value")],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_number(etc: Path, line: str, what: str) -> None:
    text = (etc / "client.yaml").read_text()
    (etc / "client.yaml").write_text(text + line + "\n")
    with pytest.raises(InputError, match=what) as caught:
        places.read_client_config(str(etc))
    assert caught.value.line == len(text.splitlines()) + 1 and caught.value.file == str(etc / "client.yaml")


@pytest.mark.parametrize(
    ("old", "new"),
    [("tcp://login:10101", "login:10101"), ("tcp://login:10101", "tcp://login:99999"), ("tcp://login:10101", "tcp://:5"), (KEY, "short"),
     ("site-01234567", "../../x"), ("site-01234567", ""), ("instance:", "#")],
)  # fmt: skip
def test_bad_values_are_refused(etc: Path, old: str, new: str) -> None:
    text = (etc / "client.yaml").read_text()
    (etc / "client.yaml").write_text(text.replace(old, new))
    with pytest.raises(InputError):
        places.read_client_config(str(etc))


@pytest.mark.parametrize("name", ["", "client.yaml"])
def test_an_etc_that_others_may_write_is_refused(etc: Path, name: str) -> None:
    (etc / name).chmod(0o777)
    with pytest.raises(SecurityError, match="go-w"):
        places.read_client_config(str(etc))


def test_which_etc_comes_first(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    own = tmp_path / "home" / ".config" / "hq"
    own.mkdir(parents=True)
    (own / "client.yaml").write_text("")
    option, named = tmp_path / "option", tmp_path / "named"
    option.mkdir()
    named.mkdir()
    assert places.find_etc() == str(own)
    monkeypatch.setenv("HQPATH", str(tmp_path))
    assert places.find_etc() == str(etc)
    monkeypatch.setenv("HQ_ETC", str(named))
    assert places.find_etc() == str(named)
    assert places.find_etc(str(option)) == str(option)
    monkeypatch.setenv("HQ_ETC", "/no/such/etc")
    with pytest.raises(InputError, match="HQ_ETC"):
        places.find_etc()


def test_samples_alone_are_no_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HQPATH", str(Path(__file__).parents[2]))
    if not os.path.exists("/etc/hq/client.yaml"):
        with pytest.raises(InputError, match="hq-admin init"):
            places.find_etc()


def test_the_users_own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places.hq_home() == f"{tmp_path}/.hq"
    monkeypatch.setenv("HQ_HOME", str(tmp_path / "own"))
    assert places.keys_dir("site-1") == f"{tmp_path}/own/site-1/keys"
    assert places.exec_run_dir("site-1", "node1") == f"/var/tmp/hq-{os.getuid()}/site-1/exec-node1"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "-x", "a b", "ä", "x" * 65, "a\n"])
def test_a_name_that_leads_elsewhere_makes_no_path(name: str) -> None:
    with pytest.raises(HqError):
        places.user_run_dir(name)
    with pytest.raises(HqError):
        places.exec_run_dir("site-1", name)
