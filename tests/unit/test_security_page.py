"""docs/security.rst names for each attack the test that plays it: such a test must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.rst").read_text()
NAMED = sorted(set(re.findall(r"``((?:e2e|daemons|unit|exec|property|db)/\S+?)``", PAGE)))


def test_the_page_names_a_test_for_each_attack() -> None:
    (table,) = re.findall(r"^attack .*?\n=+ +=+\n(.*?)\n=+ +=+\n", PAGE, re.MULTILINE | re.DOTALL)
    attacks = [line for line in table.splitlines() if not line.startswith(" ")]
    assert len(attacks) > 20 and table.count("::test_") >= len(attacks)


@pytest.mark.parametrize("named", NAMED)
def test_what_the_page_names_is_there(named: str) -> None:
    path, _, test = named.partition("::")
    assert re.search(rf"^def {test}\(", (TESTS / path).read_text(), re.MULTILINE), named
