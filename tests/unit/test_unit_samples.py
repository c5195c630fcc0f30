"""systemd units, the samples and the one of keepalive: they start commands that exist, nobody needs root for them, systemd finds no fault."""

from __future__ import annotations

import os
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from hq.userserver.keepalive import Keepalive

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "etc" / "systemd").glob("*.service"))


def test_there_is_one_for_the_system_and_one_for_a_user() -> None:
    assert {unit.name for unit in UNITS} == {"hq-server.service", "hq-server.user.service"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_exists(unit: Path) -> None:
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read_string(unit.read_text())
    service = parser["Service"]
    command, *options = service["ExecStart"].split()
    assert os.access(ROOT / "bin" / os.path.basename(command), os.X_OK)
    assert not options, "it stays in the foreground, which is what systemd expects"
    assert service["Environment"].startswith("HQ_ETC=")
    assert service.get("User", "") != "root" and (("User" in service) == (parser["Install"]["WantedBy"] == "multi-user.target"))


def faults(unit: Path, *options: str) -> str:
    """What systemd has to say about a unit. Its command is one that is installed here."""
    runtime = unit.parent / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *options, str(unit)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)})
    return done.stdout + done.stderr + ("" if done.returncode == 0 else f"exit code {done.returncode}")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    for unit in UNITS:
        line = next(line for line in unit.read_text().splitlines() if line.startswith("ExecStart="))
        copy = tmp_path / unit.name.replace(".user", "-user")
        copy.write_text(unit.read_text().replace(line, f"ExecStart={ROOT}/bin/hq-server"))
        assert faults(copy, *(["--user"] if ".user" in unit.name else [])) == "", unit.name
    keepalive = Keepalive("site-0", "alice", ["/bin/sh", "-c", 'odd "words" $here 100%'], str(tmp_path / "note"))
    copy = tmp_path / keepalive.unit
    copy.write_text(keepalive.unit_text())
    assert faults(copy, "--user") == ""
    copy.write_text(keepalive.unit_text().replace("Restart=always", "Restart=sometimes"))
    assert "sometimes" in faults(copy, "--user")
