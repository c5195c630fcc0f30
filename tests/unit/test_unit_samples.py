"""The sample systemd units start commands that exist, with options that they know, and nobody needs root for them."""

from __future__ import annotations

import os
from configparser import ConfigParser
from pathlib import Path

import pytest

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
