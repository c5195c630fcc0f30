"""Keepalive and completion: with the system's programs in the shape that a test gives them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hq.client import commands, completion
from hq.client.verbs import VERBS
from tests.support.fakeuserserver import Stage, stage

CRONTAB = '#!/bin/sh\ncase "$1" in -l) cat {file} 2>/dev/null || exit 1;; -) cat > {file};; esac\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    root = tmp_path / "odd % name"
    root.mkdir()
    with stage(root) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "hq-user-server").write_text("")
        monkeypatch.setattr(sys, "argv", [str(folder / "hq-client")])
        monkeypatch.setenv("PATH", f"{folder}:/nonexistent")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        yield made


def program(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / "bin" / name
    path.write_text(text.replace("cat", "/bin/cat"))
    path.chmod(0o755)


def test_where_neither_is_allowed(here: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["keepalive"]) == 1
    err = capsys.readouterr().err
    assert "this site allows neither systemd with linger nor cron" in err
    assert "systemctl is not installed" in err and "crontab is not installed" in err
    assert commands.main(["keepalive", "status"]) == 0
    assert "stay logged in" in capsys.readouterr().out


def test_by_cron(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tab = tmp_path / "tab"
    tab.write_text("0 0 * * * mine\n")
    program(tmp_path, "crontab", CRONTAB.format(file=tab))
    assert commands.main(["keepalive:status"]) == 0
    assert "would do it by cron" in capsys.readouterr().out
    for _ in range(2):
        assert commands.main(["keepalive", "on"]) == 0
        assert "in your crontab" in capsys.readouterr().out
    first, second = tab.read_text().splitlines()
    assert first == "0 0 * * * mine"
    assert second.startswith("*/5 * * * * env ") and second.endswith(f"# hq keepalive {here.instance}")
    assert "odd \\% name" in second and "odd % name" not in second
    assert commands.main(["keepalive", "off"]) == 0
    assert tab.read_text() == "0 0 * * * mine\n"
    assert commands.main(["keepalive", "off"]) == 0
    assert "was not kept up" in capsys.readouterr().out


def test_by_systemd(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tmp_path / "said"
    program(tmp_path, "systemctl", f'#!/bin/sh\necho "$*" >> {said}\necho active\n')
    program(tmp_path, "loginctl", "#!/bin/sh\necho Linger=yes\n")
    assert commands.main(["keepalive"]) == 0
    assert "kept up by systemd" in capsys.readouterr().out
    unit = tmp_path / "config" / "systemd" / "user" / f"hq-user-server-{here.instance}.service"
    assert "odd %% name" in unit.read_text() and "odd % name" not in unit.read_text()
    assert f"--user enable --now {unit.name}" in said.read_text()
    assert commands.main(["keepalive", "off"]) == 0
    assert not unit.exists()


def test_lingering_is_not_allowed(here: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program(tmp_path, "systemctl", "#!/bin/sh\nexit 0\n")
    program(tmp_path, "loginctl", '#!/bin/sh\n[ "$1" = show-user ] && echo Linger=no && exit 0\necho "Access denied" >&2\nexit 1\n')
    assert commands.main(["keepalive"]) == 1
    assert "lingering is not allowed: Access denied" in capsys.readouterr().err


def test_bash_completes_verbs_and_options(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(completion.bash())
    line = (
        f". {script}; COMP_WORDS=(hq-client can); COMP_CWORD=1; _hq_client; echo ${{COMPREPLY[@]}}; "
        "COMP_WORDS=(hq-client jobs --s); COMP_CWORD=2; _hq_client; echo ${COMPREPLY[@]}; "
        "COMP_WORDS=(hq-submit --sl); COMP_CWORD=1; _hq_submit; echo ${COMPREPLY[@]}"
    )
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["cancel", "--state --since", "--slots"], done.stderr


def test_all_scripts_name_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert commands.main(["completion", shell]) == 0
        text = capsys.readouterr().out
        assert all(verb.name in text for verb in VERBS)
        assert text.startswith("#")
