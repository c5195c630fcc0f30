"""Settings of all tests. Fixtures live in tests/support."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# `make test` asks much the same questions each time, so that it fails for what was changed; `make explore` asks new ones. How fast the machine is does not count.
settings.register_profile("hq", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, derandomize=True)
settings.register_profile("explore", settings.get_profile("hq"), derandomize=False)
settings.load_profile(os.environ.get("HQ_TEST_PROFILE", "hq"))


@pytest.fixture(autouse=True)
def _no_instance_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may touch the instance or the keys of whoever runs it."""
    for name in ("HQ_ETC", "HQ_HOME", "HQPATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[None]:
    """As root every test can run, so that a skip is a failure: nothing goes untested unseen."""
    report: Any = yield
    if report.skipped and os.geteuid() == 0 and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped as root: {report.longrepr}"
    return report
