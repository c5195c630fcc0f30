"""Keepalive, which the user-server's own command does, and completion scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.client import commands
from hq.client.verbs import VERBS
from tests.support.fakeuserserver import Stage, stage


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with stage(tmp_path) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        (tmp_path / "bin").mkdir()
        monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "hq-client")])
        yield made


@pytest.mark.parametrize(
    "argv, order",
    [
        (["keepalive"], "--install-keepalive"),
        (["keepalive", "on"], "--install-keepalive"),
        (["keepalive:off"], "--remove-keepalive"),
        (["keepalive", "status"], "--keepalive-status"),
    ],
)
def test_the_user_servers_own_command_is_asked(
    here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], order: str
) -> None:
    (tmp_path / "bin" / "hq-user-server").write_text("import sys; print(*sys.argv[1:])")
    assert commands.main(argv) == 0
    assert capsys.readouterr().out == f"--etc {here.etc} {order}\n"


def test_its_refusal_is_passed_on(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bin" / "hq-user-server").write_text("import sys; sys.exit('this machine allows neither')")
    assert commands.main(["keepalive"]) == 1
    assert capsys.readouterr() == ("", "hq-client: this machine allows neither\n")


def test_all_scripts_name_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert commands.main(["completion", shell]) == 0
        text = capsys.readouterr().out
        assert all(verb.name in text for verb in VERBS)
        assert text.startswith("#")
