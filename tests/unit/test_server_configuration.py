"""Edits of cluster.tab, users and client.yaml: atomic, with comments kept, checked before they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from hq.errors import InputError
from hq.model.user import UserRecord
from hq.server import configuration

TABS = "# ours\nfull_name\tshort_name\ttotal_number_slots\tmax_number_occupied_slots\tadditional_info\n# big\none.example\tone\t4\t4\tin the cellar\n"
BLANKS = "short_name total_number_slots max_number_occupied_slots\none 4 2\n"


@pytest.mark.parametrize("text", [TABS, BLANKS, "# empty\n"])
def test_a_host_is_added_and_removed_and_the_rest_stays(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.tab"
    path.write_text(text)
    path.chmod(0o640)
    if text.startswith("# empty"):
        path.write_text(text + TABS.splitlines()[1] + "\n")
    before = path.read_text()
    hosts = {spec.name for spec in configuration.read_hosts(str(tmp_path))}
    spec = configuration.add_host(str(tmp_path), "two", {"total_number_slots": "8", "max_number_occupied_slots": "8", "transport": "local"})
    assert (spec.name, spec.slots, spec.transport, spec.address) == ("two", 8, "local", spec.address)
    assert {spec.name for spec in configuration.read_hosts(str(tmp_path))} == hosts | {"two"}
    assert configuration.remove_host(str(tmp_path), "two") and not configuration.remove_host(str(tmp_path), "two")
    assert {spec.name for spec in configuration.read_hosts(str(tmp_path))} == hosts
    assert [line for line in path.read_text().splitlines() if line.startswith("#")] == [line for line in before.splitlines() if line.startswith("#")]
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_bad_host_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cluster.tab"
    path.write_text(TABS)
    for name, columns in (("-oProxyCommand=x", {}), ("two", {"memory": "lots"}), ("one", {})):
        with pytest.raises(InputError):
            configuration.add_host(str(tmp_path), name, {"total_number_slots": "1", "max_number_occupied_slots": "1", **columns})
    assert path.read_text() == TABS and [each.name for each in tmp_path.iterdir()] == ["cluster.tab"]


def test_a_user_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# people\nalice\tuser\nalice2 user\n")
    configuration.put_user(str(tmp_path), UserRecord(name="alice", roles=frozenset({"admin", "user"})))
    assert path.read_text() == "# people\nalice2 user\nalice\tadmin,user\n"


def test_the_address_is_rewritten_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "client.yaml"
    path.write_text("# for all\ninstance: x\nserver: tcp://h:1\n")
    assert not configuration.write_server_address(str(tmp_path), "tcp://h:1")
    assert configuration.write_server_address(str(tmp_path), "tcp://h:2")
    assert path.read_text() == "# for all\ninstance: x\nserver: tcp://h:2\n"
