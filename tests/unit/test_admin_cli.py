"""hq-admin's own part: words, exit codes, output, and what it says when nobody answers."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from hq.client import admin
from hq.kernel.keys import make_curve_pair
from hq.server import admin_commands
from hq.server.daemon import UNKNOWN_KEY
from hq.server.handlers_admin import split_words


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An etc directory whose server does not run."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    (tmp_path / "etc").mkdir()
    public, _ = make_curve_pair()
    (tmp_path / "etc" / "client.yaml").write_text(
        f"instance: x-00000000\nserver: tcp://127.0.0.1:{port}\nserver_key: '{public}'\nenrol_socket: {tmp_path}/enrol.sock\n"
    )
    monkeypatch.setenv("HQ_ETC", str(tmp_path / "etc"))
    monkeypatch.setenv("HQ_HOME", str(tmp_path / "home"))
    return tmp_path / "etc"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main(["--help"]) == 0
    assert "--json" in capsys.readouterr().out
    assert admin.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("hq-admin ")


@pytest.mark.parametrize("words", [[], ["--nonsense", "status"], ["init:x"]])
def test_wrong_usage_is_2_with_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_server_that_is_not_running_is_named_with_the_command_that_starts_it(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.main(["status"]) == 1
    assert f"hq-server -d --etc {etc}" in capsys.readouterr().err


def test_the_admins_key_is_made_once_and_private(etc: Path) -> None:
    config = admin.read_client_config(str(etc))
    first = admin.admin_keys(config)
    assert admin.admin_keys(config) == first
    secret = etc.parent / "home" / "x-00000000" / "keys" / "admin.secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.chmod(0o644)
    assert admin.main(["status"]) == 1


def test_both_sides_agree_on_how_an_unknown_key_is_named() -> None:
    assert admin.UNKNOWN_KEY == UNKNOWN_KEY


ANSWER = {"type": "admin.answer", "text": "two hosts", "columns": ["host", "slots"], "rows": [["one", 4], ["two\x1b[2J", None]], "is_done": False}


def test_an_answer_as_table_json_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert admin.show(ANSWER, {}) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "two hosts" and "\x1b" not in out and "\\x1b" in out
    admin.show(ANSWER, {"json": True})
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "hq.admin.1" and found["rows"][0] == {"host": "one", "slots": 4} and found["is_done"] is False
    admin.show({**ANSWER, "jobs": [{"id": 7, "user": "alice"}], "is_cut": True}, {"json": True})
    assert json.loads(capsys.readouterr().out) == {"schema": "hq.rows.1", "rows": [{"id": 7, "user": "alice"}], "is_cut": True}
    admin.show({"text": "done"}, {"quiet": True})
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (("activatehost:localhost",), ["activatehost", "localhost"]),
        (("activatehost", "localhost"), ["activatehost", "localhost"]),
        (("setloopinterval:probe:5",), ["setloopinterval", "probe", "5"]),
        (("drain:node1", "new", "disk"), ["drain", "node1", "new", "disk"]),
        (("addhost", "n:4:local"), ["addhost", "n:4:local"]),
        (("cancel:12",), ["cancel", "12"]),
        ((), []),
    ],
)
def test_colons_separate_as_blanks_do(words: tuple[str, ...], split: list[str]) -> None:
    assert split_words(words) == split


def test_every_command_of_the_list_is_there_and_explains_itself() -> None:
    asked = (
        "help info status ping lscluster activatehost deactivatehost drain activate activatecluster deactivate deactivatecluster addhost "
        "removehost reload lsusers adduser enableuser disableuser lskeys revokekey lsjobs cancel requeue lslogger activatelogger deactivatelogger "
        "lsloops setloopinterval updateslots audit shutdown"
    )
    assert set(asked.split()) <= set(admin_commands.COMMANDS)
    for command in admin_commands.COMMANDS.values():
        assert command.help.endswith(".") and command.at_least <= command.at_most
