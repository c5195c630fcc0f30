"""What listings look like."""

from __future__ import annotations

import json

import msgspec
import pytest

from hq.client.output import LONGEST_COMMAND, print_rows
from tests.support.fakeuserserver import row


def test_a_command_of_a_megabyte_floods_no_table_and_is_whole_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [msgspec.to_builtins(row(command="x" * 1_000_000))]
    print_rows(rows, {}, 0.0)
    listed = capsys.readouterr().out
    assert len(listed) < LONGEST_COMMAND + 400 and "…" in listed
    print_rows(rows, {"json": True}, 0.0)
    assert json.loads(capsys.readouterr().out)["rows"][0]["command"] == "x" * 1_000_000


def test_an_index_set_of_thousands_of_ranges_floods_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [msgspec.to_builtins(row(array=",".join(map(str, range(1, 9000, 3)))))]
    print_rows(rows, {}, 0.0)
    listed = capsys.readouterr().out
    assert "[1,4,7," in listed and "…]" in listed and len(listed) < 600
