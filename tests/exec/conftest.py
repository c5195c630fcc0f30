"""What most tests of the exec-server's processes need: one of its own. Those that need more slots than it has make theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.execserver import ExecSite


@pytest.fixture
def site(tmp_path: Path) -> Iterator[ExecSite]:
    """An exec-server of its own for each test."""
    made = ExecSite(tmp_path)
    try:
        yield made.up()
    finally:
        made.close()
